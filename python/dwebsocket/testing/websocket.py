"""
A test's end of a WebSocket, for sync and for async tests.

What both have in common never waits by itself: it is a generator that says how long it would wait
for the socket, and the two faces do so in their own ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import time
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder

from dwebsocket.exceptions import ConnectionClosed, ReceiveTimeout, UsageError, WebSocketError
from dwebsocket.testing import wire
from dwebsocket.testing.databases import begin_sharing, end_sharing, is_sharing
from dwebsocket.testing.scope import open_websockets
from dwebsocket.testing.watch import ViewStillRuns, ViewWatch
from dwebsocket.waiting.loop_hub import settle

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from django.http import HttpResponse

    Message = str | bytes
    # Each step: wait for the socket, for that many seconds at most.
    Steps = Generator[float, None, None]

_CHUNK_BYTES = 256 * 1024
_NORMAL = 1000


class WebSocketRefused(WebSocketError):
    """
    The site has refused the WebSocket that the test wants to use.

    Attributes:
        response: The refusal.
    """

    def __init__(self, response: HttpResponse) -> None:
        shown = bytes(response.content[:200]).decode(errors="replace").strip()
        super().__init__(f"the WebSocket was refused with {response.status_code}: {shown}")
        self.response = response


class BaseWebSocket:
    """What sync and async tests have in common."""

    def __init__(self, *, timeout: float, raises: bool, answer_pings: bool, offer: str) -> None:
        #: Seconds that its calls wait when they are not told.
        self.timeout = timeout
        self._raises = raises
        self._wire = wire.Wire(answer_pings=answer_pings, offer=offer)
        self._watch: ViewWatch | None = None
        self._sock: socket.socket | None = None
        self._response: Any = None
        self._shares = False

    def __repr__(self) -> str:
        if self._response is None:
            state = "not open yet"
        elif self.refused:
            state = f"refused with {self._response.status_code}"
        else:
            state = "open" if self._wire.close is None else f"closed with {self._wire.close[0]}"
        return f"<{type(self).__name__} {state}>"

    @property
    def response(self) -> Any:
        """The site's answer to the handshake: a 101, or the response that refuses."""
        if self._response is None:
            raise UsageError("this WebSocket is not open yet: enter it by `with`")
        return self._response

    @property
    def refused(self) -> bool:
        """Whether the site has answered with anything but a WebSocket."""
        return bool(self.response.status_code != 101)

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that both sides agreed on."""
        return self.headers.get("sec-websocket-protocol")

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the 101 as they were on the wire, names in lower case."""
        return self._wire.headers or {}

    @property
    def closed(self) -> bool:
        """Whether the end of the connection has been seen."""
        self._look()
        return self._wire.is_over

    @property
    def close_code(self) -> int | None:
        """
        The server's close code, None while the connection is open as far as the test has seen.

        1005 stands for a close frame without a code, 1006 for no close frame at all.
        """
        self._look()
        return None if self._wire.close is None else self._wire.close[0]

    @property
    def close_reason(self) -> str:
        """The reason beside the close code, often empty."""
        self._look()
        return "" if self._wire.close is None else self._wire.close[1]

    @property
    def pings_received(self) -> int:
        """How many pings of the server have come."""
        self._look()
        return self._wire.pings

    @property
    def is_settled(self) -> bool:
        """Whether the view waits for its client, or has ended."""
        return self._watch is None or self._watch.is_waiting

    # -- what never waits -----------------------------------------------------------------------

    def _look(self) -> None:
        """Sends and takes what goes at once."""
        sock = self._sock
        if sock is None or self._wire.is_over:
            return
        outgoing = self._wire.outgoing
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while outgoing:
                del outgoing[: sock.send(outgoing)]
        try:
            while not self._wire.is_over:
                self._wire.feed(sock.recv(_CHUNK_BYTES))
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self._wire.feed(b"")
        if outgoing:
            # Answers to what has just come, mostly.
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                del outgoing[: sock.send(outgoing)]

    def _raise_failure(self) -> None:
        """Raises what the view let through, as Django's client does."""
        if self._raises and self._watch is not None and (error := self._watch.take_error()):
            raise error

    def _check_usable(self) -> None:
        if self.refused:
            raise WebSocketRefused(self.response)

    def _check_open(self) -> None:
        self._check_usable()
        self._look()
        self._raise_failure()
        if self._sock is None or self._wire.is_over or self._wire.said_goodbye:
            raise self._ending()

    def _ending(self) -> ConnectionClosed:
        by = "local" if self._wire.said_goodbye and self._wire.close is None else "peer"
        code, reason = self._wire.close or (_NORMAL, "")
        return ConnectionClosed(code, reason, "lost" if code == 1006 else by)

    # -- what waits -----------------------------------------------------------------------------

    def _until(self, condition: Callable[[], object], timeout: float | None, what: str) -> Steps:
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        while True:
            self._look()
            if condition():
                return
            left = deadline - time.monotonic()
            if left <= 0:
                self._raise_failure()
                where = "" if self._watch is None else f" {self._watch.whereabouts()}"
                raise ReceiveTimeout(f"{what} within {timeout:g} s.{where}")
            yield left

    def _opening(self) -> Steps:
        yield from self._until(
            lambda: self._wire.headers is not None or self._wire.is_over, None, "no 101 came"
        )
        if self._wire.headers is None:
            raise wire.WireError("the connection was lost before its 101 came")

    def _receiving(self, timeout: float | None) -> Steps:
        self._check_usable()
        found = self._wire
        yield from self._until(lambda: found.messages or found.is_over, timeout, "no message came")

    def _received(self) -> Message:
        if self._wire.messages:
            return self._wire.messages.popleft()
        self._raise_failure()
        raise self._ending()

    def _sending(self, opcode: int | None, message: Message, *, is_final: bool = True) -> Steps:
        self._check_open()
        if opcode is None:
            self._wire.send(message)
        else:
            payload = message.encode() if isinstance(message, str) else bytes(message)
            self._wire.send_frame(opcode, payload, is_final=is_final)
        found = self._wire
        yield from self._until(
            lambda: not found.outgoing or found.is_over, None, "the site did not take a message"
        )

    def _pinging(self, payload: bytes, timeout: float | None) -> Steps:
        self._check_open()
        found = self._wire
        found.send_frame(wire.PING, payload)
        yield from self._until(
            lambda: payload in found.pongs or found.is_over, timeout, "no pong came"
        )
        if payload not in found.pongs:
            self._raise_failure()
            raise self._ending()
        found.pongs.remove(payload)

    def _ended(self, timeout: float | None) -> Steps:
        self._check_usable()
        yield from self._until(
            lambda: self._wire.is_over, timeout, "the site did not close the WebSocket"
        )
        self._raise_failure()

    def _closing(self, code: int | None, reason: str) -> Steps:
        if self._sock is None or self.refused:
            return
        self._look()
        if not self._wire.is_over:
            self._wire.send_close(code, reason)
            yield from self._until(
                lambda: self._wire.is_over, None, "the site did not answer the close"
            )
        self._look()

    def _hang_up(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        open_websockets.discard(self)

    def _attach(self, sock: socket.socket, watch: ViewWatch | None) -> None:
        sock.settimeout(0)
        self._sock, self._watch = sock, watch
        open_websockets.add(self)

    def _share(self) -> None:
        begin_sharing()
        self._shares = True

    def _unshare(self) -> None:
        if self._shares:
            self._shares = False
            end_sharing()

    def give_up(self, timeout: float) -> None:
        """
        Closes what a test has left open, and waits for its view.

        Raises:
            ViewStillRuns: It did not end.
        """
        for _ in self._closing(_NORMAL, ""):
            # The close frame is sent, but its answer is not worth waiting for.
            break
        self._hang_up()
        try:
            if (watch := self._watch) is not None:
                watch.join(timeout)
        finally:
            self._unshare()


def as_json(data: Any) -> str:
    """Gives ``data`` as JSON, with dates, decimals and UUIDs as Django writes them."""
    return json.dumps(data, cls=DjangoJSONEncoder)


class ClientWebSocket(BaseWebSocket):
    """
    One WebSocket of a sync test. Belongs to one thread.

    ``with client.websocket(path) as ws`` opens it, and closes it at the end of the block, when its
    view has ended too. Times are seconds; ``timeout=None`` is the client's ``websocket_timeout``.
    What the view lets through is raised by the next call, behind the messages that came before.
    """

    def __init__(self, opener: Callable[[ClientWebSocket], None], **options: Any) -> None:
        super().__init__(**options)
        self._opener = opener

    def __enter__(self) -> ClientWebSocket:  # noqa: PYI034
        if self._response is not None:
            raise UsageError("this WebSocket was open before: ask the client for another one")
        self._share()
        try:
            self._opener(self)
        except BaseException:
            self._hang_up()
            self._unshare()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        try:
            self._run(self._closing(_NORMAL, ""))
        except (ReceiveTimeout, wire.WireError):
            if kind is None:
                raise
        finally:
            self._hang_up()
            try:
                self._join(quietly=kind is not None)
            finally:
                self._unshare()

    def _join(self, *, quietly: bool) -> None:
        watch = self._watch
        if watch is None:
            return
        with contextlib.suppress(ViewStillRuns) if quietly else contextlib.nullcontext():
            watch.join(self.timeout)
        if not quietly:
            self._raise_failure()

    def _run(self, steps: Steps) -> None:
        for left in steps:
            assert self._sock is not None
            poll = select.poll()
            writing = select.POLLOUT if self._wire.outgoing else 0
            poll.register(self._sock, select.POLLIN | writing)
            poll.poll(left * 1000)

    def send(self, message: Message) -> None:
        """
        Sends ``str`` as text, ``bytes`` as binary.

        Raises:
            ConnectionClosed: It is closed.
        """
        self._run(self._sending(None, message))

    def send_bytes(self, message: bytes) -> None:
        """Sends a binary message. As :meth:`send`."""
        self._run(self._sending(None, bytes(message)))

    def send_json(self, data: Any) -> None:
        """Sends ``data`` as text. As :meth:`send`."""
        self._run(self._sending(None, as_json(data)))

    def send_frame(self, opcode: int, payload: bytes = b"", *, is_final: bool = True) -> None:
        """Sends one frame as it is: fragments, and what breaks the rules. As :meth:`send`."""
        self._run(self._sending(opcode, payload, is_final=is_final))

    def receive(self, timeout: float | None = None) -> Message:
        """
        Gives the next message: text as ``str``, binary as ``bytes``.

        Raises:
            ReceiveTimeout: None came in time. It says where the view is.
            ConnectionClosed: None can come any more.
        """
        self._run(self._receiving(timeout))
        return self._received()

    def receive_json(self, timeout: float | None = None) -> Any:
        """Gives the next message, parsed as JSON. As :meth:`receive`."""
        return json.loads(self.receive(timeout))

    def __iter__(self) -> Iterator[Message]:
        """Yields each message until the site closes the WebSocket."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message

    def ping(self, payload: bytes = b"ping", timeout: float | None = None) -> None:
        """
        Sends a ping and waits for its pong; messages that come meanwhile are kept.

        Raises:
            ReceiveTimeout: It did not come in time.
            ConnectionClosed: It cannot come any more.
        """
        self._run(self._pinging(payload, timeout))

    def wait_closed(self, timeout: float | None = None) -> int:
        """
        Waits until the site has closed the WebSocket, and gives the close code.

        Raises:
            ReceiveTimeout: It did not in time.
        """
        self._run(self._ended(timeout))
        assert self._wire.close is not None
        return self._wire.close[0]

    def close(self, code: int | None = _NORMAL, reason: str = "") -> None:
        """Closes the WebSocket and waits for the site's answer. ``None`` sends no code."""
        self._check_usable()
        self._run(self._closing(code, reason))

    def vanish(self) -> None:
        """Goes away without a close frame, as a client whose network is gone for good."""
        self._check_usable()
        self._wire.feed(b"")
        self._hang_up()


class AsyncClientWebSocket(BaseWebSocket):
    """
    One WebSocket of an async test: ``async with client.websocket(path) as ws``.

    Belongs to one event loop. As :class:`ClientWebSocket`, with ``await`` and ``async for``.
    """

    def __init__(self, opener: Callable[[AsyncClientWebSocket], Any], **options: Any) -> None:
        super().__init__(**options)
        self._opener = opener

    async def __aenter__(self) -> AsyncClientWebSocket:  # noqa: PYI034
        if self._response is not None:
            raise UsageError("this WebSocket was open before: ask the client for another one")
        if is_sharing():
            self._share()
        else:
            # In the thread of the test's own database, which is not that of its event loop.
            await sync_to_async(self._share)()
        try:
            await self._opener(self)
        except BaseException:
            self._hang_up()
            self._unshare()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self._run(self._closing(_NORMAL, ""))
        except (ReceiveTimeout, wire.WireError):
            if kind is None:
                raise
        finally:
            self._hang_up()
            try:
                await self._join(quietly=kind is not None)
            finally:
                self._unshare()

    async def _join(self, *, quietly: bool) -> None:
        watch = self._watch
        if watch is None:
            return
        over = asyncio.wrap_future(watch.over)
        # Not `wait_for`, which would cancel it.
        _, pending = await asyncio.wait([over], timeout=self.timeout)
        if not quietly:
            if pending:
                raise watch.still_runs(self.timeout)
            self._raise_failure()

    async def _run(self, steps: Steps) -> None:
        loop = asyncio.get_running_loop()
        for left in steps:
            sock = self._sock
            assert sock is not None
            ready: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(left, settle, ready)
            loop.add_reader(sock, settle, ready)
            if self._wire.outgoing:
                loop.add_writer(sock, settle, ready)
            try:
                await ready
            finally:
                timer.cancel()
                loop.remove_reader(sock)
                loop.remove_writer(sock)

    async def send(self, message: Message) -> None:
        """As :meth:`ClientWebSocket.send`."""
        await self._run(self._sending(None, message))

    async def send_bytes(self, message: bytes) -> None:
        """As :meth:`ClientWebSocket.send_bytes`."""
        await self._run(self._sending(None, bytes(message)))

    async def send_json(self, data: Any) -> None:
        """As :meth:`ClientWebSocket.send_json`."""
        await self._run(self._sending(None, as_json(data)))

    async def send_frame(self, opcode: int, payload: bytes = b"", *, is_final: bool = True) -> None:
        """As :meth:`ClientWebSocket.send_frame`."""
        await self._run(self._sending(opcode, payload, is_final=is_final))

    async def receive(self, timeout: float | None = None) -> Message:
        """As :meth:`ClientWebSocket.receive`."""
        await self._run(self._receiving(timeout))
        return self._received()

    async def receive_json(self, timeout: float | None = None) -> Any:
        """As :meth:`ClientWebSocket.receive_json`."""
        return json.loads(await self.receive(timeout))

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Yields each message until the site closes the WebSocket."""
        while True:
            try:
                message = await self.receive()
            except ConnectionClosed:
                return
            yield message

    async def ping(self, payload: bytes = b"ping", timeout: float | None = None) -> None:
        """As :meth:`ClientWebSocket.ping`."""
        await self._run(self._pinging(payload, timeout))

    async def wait_closed(self, timeout: float | None = None) -> int:
        """As :meth:`ClientWebSocket.wait_closed`."""
        await self._run(self._ended(timeout))
        assert self._wire.close is not None
        return self._wire.close[0]

    async def close(self, code: int | None = _NORMAL, reason: str = "") -> None:
        """As :meth:`ClientWebSocket.close`."""
        self._check_usable()
        await self._run(self._closing(code, reason))

    def vanish(self) -> None:
        """As :meth:`ClientWebSocket.vanish`."""
        self._check_usable()
        self._wire.feed(b"")
        self._hang_up()
