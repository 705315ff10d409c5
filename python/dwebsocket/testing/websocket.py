"""
A test's end of a WebSocket, for sync and for async tests.

Each call is written once, as a coroutine of :class:`BaseWebSocket` that waits by `_wait` and
`_wait_for_view` only. In a sync test these block, so that a coroutine never suspends and one step
runs all of it; in an async test they await, and the call returns the coroutine itself.
"""

# mypy: disable-error-code="no-any-return"
# `_run` returns a value in the sync class and a coroutine in the async one: no type expresses that.

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import selectors
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from concurrent import futures
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpResponse

from dwebsocket.api.arguments import check_timeout
from dwebsocket.api.waiting.loop_hub import settle, settle_later
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import ConnectionClosed, ReceiveTimeout, UsageError, WebSocketError
from dwebsocket.testing import wire
from dwebsocket.testing.databases import about_commits, is_sharing, shared_databases

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from dwebsocket.testing.watch import ViewWatch

Message = str | bytes
T = TypeVar("T")
# The results of calls: values in sync tests, coroutines of them in async ones.
NoneT = TypeVar("NoneT")
MessageT = TypeVar("MessageT")
JsonT = TypeVar("JsonT")
CodeT = TypeVar("CodeT")
_Later = Coroutine[Any, Any, T]

_CHUNK_BYTES = 256 * 1024
_NORMAL = 1000
# Close codes have 16 bits.
_CODES = 2**16
_NO_MESSAGE = "no message came"
# Seconds between two looks of a task, while others may wait for the same WebSocket.
_LOOK_S = 0.05


class WebSocketRefused(WebSocketError):
    """
    The site has refused the WebSocket that the test wants to use.

    Attributes:
        response: The refusal.
    """

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        shown = _content_of(self.response)[:200].decode(errors="replace").strip()
        return f"the WebSocket was refused with {_status_of(self.response)}: {shown}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Parallel test runs pickle it. A test client's response refers to the whole request.
        given = self.response
        plain = HttpResponse(_content_of(given), status=given.status_code, headers=given.headers)
        return type(self), (plain,)


def _content_of(response: HttpResponse) -> bytes:
    """Returns the body of a response; nothing of one that streams."""
    return b"" if response.streaming else response.content


def _status_of(response: HttpResponse) -> str:
    """Returns the status, and where a redirect leads."""
    where = response.headers.get("Location")
    return f"{response.status_code}" if where is None else f"{response.status_code} to {where}"


# Without a descriptor of its own, where the system has that.
_Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


def _wait_for_socket(sock: socket.socket, seconds: float, *, writes: bool) -> None:
    with _Selector() as selector:
        selector.register(sock, selectors.EVENT_READ | (writes and selectors.EVENT_WRITE))
        selector.select(seconds)


class BaseWebSocket(ABC, Generic[NoneT, MessageT, JsonT, CodeT]):
    """
    The common part for sync and async tests.

    In sync tests every call returns its result. In async tests it must be awaited, and raises only
    then. The properties and :meth:`vanish` are the same in both.
    """

    def __init__(
        self,
        opener: Callable[[Any], _Later[None]],
        *,
        timeout: float,
        raises: bool,
        answer_pings: bool,
        offer: str,
    ) -> None:
        check_timeout(timeout, is_optional=False)
        self._opener = opener
        #: Seconds that its calls wait by default.
        self.timeout = timeout
        self._raises = raises
        self._wire = wire.Wire(answer_pings=answer_pings, offer=offer)
        self._watch: ViewWatch | None = None
        self._sock: socket.socket | None = None
        self._response: HttpResponse | None = None
        self._sharing = contextlib.ExitStack()

    def __repr__(self) -> str:
        if self._response is None:
            state = "not open yet"
        elif self.refused:
            state = f"refused with {_status_of(self._response)}"
        else:
            state = "open" if self._wire.close is None else f"closed with {self._wire.close[0]}"
        return f"<{type(self).__name__} {state}>"

    @property
    def response(self) -> HttpResponse:
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
        self._exchange()
        return self._wire.is_over

    @property
    def close_code(self) -> int | None:
        """
        The server's close code, None while the connection is open as far as the test has seen.

        1005 stands for a close frame without a code, 1006 for no close frame at all.
        """
        self._exchange()
        return None if self._wire.close is None else self._wire.close[0]

    @property
    def close_reason(self) -> str:
        """The reason beside the close code, often empty."""
        self._exchange()
        return "" if self._wire.close is None else self._wire.close[1]

    @property
    def pings_received(self) -> int:
        """How many pings of the server have come."""
        self._exchange()
        return self._wire.pings

    @property
    def is_settled(self) -> bool:
        """Whether the view has read all from its client and waits for it, or has ended."""
        found = self._wire
        has_gone = found.is_over or found.close_sent
        return self._watch is None or self._watch.is_waiting(found.sent, has_gone=has_gone)

    @property
    def is_ticking(self) -> bool:
        """Whether a tick of its handler is due or under way."""
        return self._watch is not None and self._watch.is_ticking

    # -- what never waits -----------------------------------------------------------------------

    def _exchange(self) -> None:
        """Sends and receives what is possible without waiting."""
        sock = self._sock
        if sock is None or self._wire.is_over:
            return
        self._push(sock)
        try:
            while not self._wire.is_over:
                self._wire.feed(sock.recv(_CHUNK_BYTES))
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self._wire.feed(b"")
        # Mostly answers to frames that have just come, such as pongs.
        self._push(sock)

    def _push(self, sock: socket.socket) -> None:
        outgoing = self._wire.outgoing
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while outgoing:
                del outgoing[: sock.send(outgoing)]

    def _raise_failure(self) -> None:
        """Raises the exception that the view let through, as Django's client does."""
        if self._raises and self._watch is not None and (error := self._watch.take_error()):
            raise error

    def _check_usable(self) -> None:
        if self.refused:
            raise WebSocketRefused(self.response)

    def _check_open(self) -> None:
        self._check_usable()
        self._exchange()
        self._raise_failure()
        if self._sock is None or self._wire.is_over or self._wire.close_sent:
            raise self._ending()

    def _ending(self) -> ConnectionClosed:
        by = "local" if self._wire.close_sent and self._wire.close is None else "peer"
        code, reason = self._wire.close or (_NORMAL, "")
        return ConnectionClosed(code, reason, "lost" if code == 1006 else by)

    # -- how the sync and the async class wait --------------------------------------------------

    @abstractmethod
    def _run(self, call: _Later[Any]) -> Any:
        """Returns the result of a call: runs the coroutine, or returns it to be awaited."""

    @abstractmethod
    async def _wait(self, sock: socket.socket, seconds: float) -> None:
        """Returns when the socket is ready, or the time is up."""

    @abstractmethod
    async def _wait_for_view(self, over: futures.Future[None], seconds: float) -> None:
        """Returns when the view is over, or the time is up."""

    @abstractmethod
    async def _share(self) -> None:
        """Shares the database connections of the test."""

    # -- what waits -----------------------------------------------------------------------------

    async def _until(
        self, condition: Callable[[], object], timeout: float | None, what: str
    ) -> None:
        timeout = self.timeout if timeout is None else timeout
        check_timeout(timeout, is_optional=False)
        deadline = monotonic() + timeout
        while True:
            self._exchange()
            if condition():
                return
            left = deadline - monotonic()
            if left <= 0:
                self._raise_failure()
                where = "" if self._watch is None else f" {self._watch.whereabouts()}"
                hint = about_commits() if what == _NO_MESSAGE else ""
                raise ReceiveTimeout(f"{what} within {timeout:g} s.{hint}{where}")
            assert self._sock is not None
            await self._wait(self._sock, left)

    async def _enter(self) -> None:
        if self._response is not None:
            raise UsageError("this WebSocket was open before: ask the client for another one")
        await self._share()
        try:
            await self._opener(self)
        except BaseException:
            self._hang_up()
            self._unshare()
            raise

    async def _exit(self, *, failed: bool) -> None:
        try:
            await self._end(_NORMAL, "")
        except (ReceiveTimeout, wire.WireError):
            if not failed:
                raise
        finally:
            self._hang_up()
            try:
                await self._join(quietly=failed)
            finally:
                self._unshare()

    async def _open(self, sock: socket.socket, watch: ViewWatch | None) -> None:
        """Waits for the 101 on the client's end of a connection."""
        sock.settimeout(0)
        self._sock, self._watch = sock, watch
        open_websockets.add(self)
        found = self._wire
        await self._until(lambda: found.headers is not None or found.is_over, None, "no 101 came")
        if found.headers is None:
            raise wire.WireError("the connection was lost before its 101 came")

    async def _receive(self, timeout: float | None) -> Message:
        messages = self._wire.messages
        await self._until_received(lambda: messages, timeout)
        return messages.popleft()

    async def _until_received(self, is_there: Callable[[], object], timeout: float | None) -> None:
        """Returns when a message is there; raises ConnectionClosed when none can come any more."""
        self._check_usable()
        await self._until(lambda: is_there() or self._wire.is_over, timeout, _NO_MESSAGE)
        if not is_there():
            self._raise_failure()
            raise self._ending()

    async def _receive_json(self, timeout: float | None) -> Any:
        return json.loads(await self._receive(timeout))

    async def _receive_or_end(self) -> Message | None:
        with contextlib.suppress(ConnectionClosed):
            return await self._receive(None)
        return None

    async def _send(self, message: Message) -> None:
        self._check_open()
        self._wire.send(message)
        await self._flush()

    async def _send_frame(self, opcode: int, payload: bytes, *, is_final: bool) -> None:
        self._check_open()
        self._wire.send_frame(opcode, bytes(payload), is_final=is_final)
        await self._flush()

    async def _flush(self) -> None:
        found = self._wire
        await self._until(
            lambda: not found.outgoing or found.is_over, None, "the site did not take a message"
        )

    async def _ping(self, payload: bytes, timeout: float | None) -> None:
        self._check_open()
        found = self._wire
        found.send_frame(wire.PING, payload)
        await self._until(lambda: payload in found.pongs or found.is_over, timeout, "no pong came")
        if payload not in found.pongs:
            self._raise_failure()
            raise self._ending()
        found.pongs.remove(payload)

    async def _wait_closed(self, timeout: float | None) -> int:
        self._check_usable()
        await self._until(
            lambda: self._wire.is_over, timeout, "the site did not close the WebSocket"
        )
        self._raise_failure()
        assert self._wire.close is not None
        return self._wire.close[0]

    async def _close(self, code: int | None, reason: str) -> None:
        self._check_usable()
        await self._end(code, reason)

    async def _end(self, code: int | None, reason: str) -> None:
        if self._send_close(code, reason):
            await self._until(lambda: self._wire.is_over, None, "the site did not answer the close")

    async def _join(self, *, quietly: bool) -> None:
        watch = self._watch
        if watch is None:
            return
        await self._wait_for_view(watch.over, self.timeout)
        if is_late := not watch.over.done():
            watch.give_up()
        if not quietly:
            if is_late:
                raise watch.still_runs(self.timeout)
            self._raise_failure()

    # -- the end --------------------------------------------------------------------------------

    def _send_close(self, code: int | None, reason: str) -> bool:
        """Sends a close frame; False if the connection is over, or never was."""
        if self._sock is None or self.refused:
            return False
        self._exchange()
        if self._wire.is_over:
            return False
        self._wire.send_close(code, reason)
        self._exchange()
        return True

    def _hang_up(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _begin_sharing(self) -> None:
        self._sharing.enter_context(shared_databases())

    def _unshare(self) -> None:
        # Not before: a client that has vanished still has a view.
        open_websockets.discard(self)
        self._sharing.close()

    def give_up(self, timeout: float) -> None:
        """
        Closes what a test has left open, and waits for its view.

        Raises:
            ViewStillRuns: It did not end.
        """
        # Called from the last to the first, each also when one before it has failed.
        with contextlib.ExitStack() as steps:
            steps.callback(self._unshare)
            if self._watch is not None:
                steps.callback(self._watch.join, timeout)
            steps.callback(self._hang_up)
            # Does not wait for the answer: the test has ended.
            self._send_close(_NORMAL, "")

    # -- what tests call ------------------------------------------------------------------------

    def send(self, message: Message) -> NoneT:
        """
        Sends ``str`` as text, ``bytes`` as binary.

        Raises:
            ConnectionClosed: It is closed.
            ReceiveTimeout: The site did not take it in time.
            TypeError: The message is neither.
            WebSocketRefused: The site has refused the WebSocket.
        """
        return self._run(self._send(message))

    def send_bytes(self, message: bytes) -> NoneT:
        """
        Sends a binary message; anything that ``bytes`` takes.

        Raises:
            ConnectionClosed, ReceiveTimeout, WebSocketRefused: As :meth:`send`.
        """
        return self._run(self._send(bytes(message)))

    def send_json(self, data: Any) -> NoneT:
        """
        Sends ``data`` as text: JSON, with dates, decimals and UUIDs as Django writes them.

        Raises:
            TypeError: A part of it cannot be represented in JSON.
            ConnectionClosed, ReceiveTimeout, WebSocketRefused: As :meth:`send`.
        """
        return self._run(self._send(json.dumps(data, cls=DjangoJSONEncoder)))

    def send_frame(self, opcode: int, payload: bytes = b"", *, is_final: bool = True) -> NoneT:
        """
        Sends one frame as it is: a fragment, or a frame that violates the protocol.

        Raises:
            ConnectionClosed, ReceiveTimeout, WebSocketRefused: As :meth:`send`.
        """
        return self._run(self._send_frame(opcode, payload, is_final=is_final))

    def receive(self, timeout: float | None = None) -> MessageT:
        """
        Returns the next message: text as ``str``, binary as ``bytes``.

        Raises:
            ReceiveTimeout: None came in time. It says where the view is.
            ConnectionClosed: None can come any more.
            WebSocketRefused: The site has refused the WebSocket.
        """
        return self._run(self._receive(timeout))

    def receive_json(self, timeout: float | None = None) -> JsonT:
        """
        Returns the next message, parsed as JSON.

        Raises:
            ValueError: It is no JSON.
            ReceiveTimeout, ConnectionClosed, WebSocketRefused: As :meth:`receive`.
        """
        return self._run(self._receive_json(timeout))

    def ping(self, payload: bytes = b"ping", timeout: float | None = None) -> NoneT:
        """
        Sends a ping and waits for its pong; messages that come meanwhile are kept.

        Raises:
            ReceiveTimeout: It did not come in time.
            ConnectionClosed: It cannot come any more.
            WebSocketRefused: The site has refused the WebSocket.
        """
        return self._run(self._ping(payload, timeout))

    def wait_closed(self, timeout: float | None = None) -> CodeT:
        """
        Waits until the site has closed the WebSocket, and returns the close code.

        Raises:
            ReceiveTimeout: It did not in time.
            WebSocketRefused: The site has refused the WebSocket.
        """
        return self._run(self._wait_closed(timeout))

    def close(self, code: int | None = _NORMAL, reason: str = "") -> NoneT:
        """
        Closes the WebSocket and waits for the site's answer.

        Args:
            code: ``None`` sends no code.
            reason: Text beside the code.

        Raises:
            TypeError, ValueError: A code that no close frame can have.
            ReceiveTimeout: The site did not answer in time.
            WebSocketRefused: The site has refused the WebSocket.
        """
        if code is not None and (isinstance(code, bool) or not isinstance(code, int)):
            raise TypeError(f"a close code must be an int or None, not {code!r}")
        if code is not None and not 0 <= code < _CODES:
            raise ValueError(f"a close code has 16 bits: {code}")
        return self._run(self._close(code, reason))

    def vanish(self) -> None:
        """
        Ends the connection without a close frame, as a client that loses its network.

        Never waits, and is not awaited.

        Raises:
            WebSocketRefused: The site has refused the WebSocket.
        """
        self._check_usable()
        self._wire.feed(b"")
        self._hang_up()


#: The WebSockets that are open now, of all tests of this process.
open_websockets: set[BaseWebSocket[Any, Any, Any, Any]] = set()


class ClientWebSocket(BaseWebSocket[None, Message, Any, int]):
    """
    One WebSocket of a sync test. Belongs to one thread.

    ``with client.websocket(path) as ws`` opens it, and closes it at the end of the block, when its
    view has ended too. Times are seconds; ``timeout=None`` is the client's ``websocket_timeout``.
    An exception that the view lets through is raised by the next call, after the messages that came
    before it.
    """

    def __enter__(self) -> ClientWebSocket:  # noqa: PYI034
        self._run(self._enter())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._run(self._exit(failed=kind is not None))

    def __iter__(self) -> Iterator[Message]:
        """Yields each message until the site closes the WebSocket; raises as :meth:`receive`."""
        while (message := self._run(self._receive_or_end())) is not None:
            yield message

    def _run(self, call: _Later[T]) -> T:
        try:
            call.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("a sync test's WebSocket has awaited something")

    async def _wait(self, sock: socket.socket, seconds: float) -> None:
        _wait_for_socket(sock, seconds, writes=bool(self._wire.outgoing))

    async def _wait_for_view(self, over: futures.Future[None], seconds: float) -> None:
        futures.wait([over], seconds)

    async def _share(self) -> None:
        self._begin_sharing()


class AsyncClientWebSocket(BaseWebSocket[_Later[None], _Later[Message], _Later[Any], _Later[int]]):
    """
    One WebSocket of an async test: ``async with client.websocket(path) as ws``.

    Belongs to one event loop, and lets it run while a call waits. Its calls are awaited, and it is
    iterated by ``async for``; for the rest it is as :class:`ClientWebSocket`.
    """

    # Where it is open, and what that loop closes before itself.
    _loop: asyncio.AbstractEventLoop | None = None
    _end_of_loop: AsyncGenerator[None, None]

    async def __aenter__(self) -> AsyncClientWebSocket:  # noqa: PYI034
        await self._enter()
        self._end_of_loop = self._until_end_of_loop()
        await anext(self._end_of_loop)
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self._exit(failed=kind is not None)
        finally:
            await self._end_of_loop.aclose()

    async def _until_end_of_loop(self) -> AsyncGenerator[None, None]:
        # A loop closes its generators before itself: a view or a handler in it can still end then.
        try:
            yield
        finally:
            if self in open_websockets and self._watch is not None:
                self._send_close(_NORMAL, "")
                self._hang_up()
                await self._wait_for_view(self._watch.over, self.timeout)

    def give_up(self, timeout: float) -> None:
        """As its base class, and also where the view's loop stays for other tests."""
        loop = self._loop
        if loop and not (loop.is_closed() or loop.is_running() or running_loop()):
            loop.run_until_complete(self._end_of_loop.aclose())
        super().give_up(timeout)

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Yields each message until the site closes the WebSocket; raises as :meth:`receive`."""
        while (message := await self._receive_or_end()) is not None:
            yield message

    def _run(self, call: _Later[T]) -> _Later[T]:
        return call

    async def _wait(self, sock: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        # Another task may take what comes, or the place of this one's watch.
        seconds = min(seconds, _LOOK_S)
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(sock, settle, ready)
        except NotImplementedError:
            # The loop that Python uses on Windows watches no descriptors.
            writes = bool(self._wire.outgoing)
            wait = functools.partial(_wait_for_socket, sock, seconds, writes=writes)
            await loop.run_in_executor(None, wait)
            return
        cancel = settle_later(ready, seconds)
        if self._wire.outgoing:
            loop.add_writer(sock, settle, ready)
        try:
            await ready
        finally:
            cancel()
            loop.remove_reader(sock)
            loop.remove_writer(sock)

    async def _wait_for_view(self, over: futures.Future[None], seconds: float) -> None:
        # Not `wait_for`, which would cancel it.
        time_is_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        cancel = settle_later(time_is_up, seconds)
        try:
            either = {asyncio.wrap_future(over), time_is_up}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancel()

    async def _share(self) -> None:
        if is_sharing():
            self._begin_sharing()
        else:
            # On the thread of the test's database connections, which is not the event loop's.
            await sync_to_async(self._begin_sharing)()
