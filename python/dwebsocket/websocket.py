"""`request.websocket`: what a view holds of its connection."""

from __future__ import annotations

import json
import math
import struct
import weakref
from asyncio import _get_running_loop
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.serializers.json import DjangoJSONEncoder

from dwebsocket import _core, clock, database, hub
from dwebsocket.decision import Acceptance, NeverOpened, Rejection
from dwebsocket.exceptions import ConnectionClosed, ReceiveTimeout, UsageError
from dwebsocket.protocol import WebSocketProtocol13
from dwebsocket.waiting import THREAD, no_room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping

    from django.http import HttpRequest

    from dwebsocket.conf import Options
    from dwebsocket.connection import By, Connection
    from dwebsocket.decision import Decision
    from dwebsocket.waiting import Waiter

    Headers = Mapping[str, str] | Iterable[tuple[str, str]]

    Message = str | bytes
    # What goes out, and whether as binary; None leaves that to its type and contents.
    Frame = tuple[Message, bool | None]

#: The connection whose view runs here. Tasks and `sync_to_async` threads of the view inherit it.
own_websocket: ContextVar[WebSocket | None] = ContextVar("own_websocket", default=None)

# A view that sleeps longer gives its database connections back.
_IDLE_AFTER_S = 3.0
# How long a view may go on asking a connection whose end it was told.
_PATIENCE_S = 1.0

# How often a view that has accepted looks whether anybody is left to open its connection.
_LOOK_S = 0.5

_TEXT, _BINARY, _CLOSE = 0x1, 0x2, 0x8


class WebSocket:
    """
    One WebSocket connection, as ``request.websocket``.

    Every method may be called from any thread, at any time; messages of one sender keep their
    order. ``wait``, ``read``, ``send`` and iteration behave as in the original dwebsocket: text
    is ``bytes`` unless ``WEBSOCKET_TEXT_TYPE`` says ``"str"``, and a closed connection shows in
    return values. ``receive…`` and ``send_text/bytes/json`` are exact, and raise.
    """

    # Made when it is asked for, or by whoever makes a WebSocket as in the original.
    _protocol: WebSocketProtocol13 | None = None
    # The request that a factory has made it of, until it is open.
    _request: Callable[[], HttpRequest | None] | None = None
    _headers: Mapping[str, Any] = MappingProxyType({})
    _open_inline: ClassVar[Callable[[WebSocket, HttpRequest], None]]

    def __init__(self, protocol: WebSocketProtocol13 | None = None) -> None:
        """
        Begins unopened; a factory's ``create_websocket()`` is where to call it.

        Args:
            protocol: One that such a factory has made, as in the original.
        """
        self._connection: Connection | None = None
        self._decision: Decision[Any] | None = None
        self._on_finish: Callable[[], object] | None = None
        self._is_deliberate = False
        self._last_word: tuple[int, str] | None = None
        self._waiter: Waiter = THREAD
        self._options: Options | None = None
        self._text_as_bytes = True
        self._send_patience = math.inf
        self._subprotocol: str | None = None
        self._end_reported_at: float | None = None
        self._send_refused = False
        # Others have run since it last sent; only for views on green threads.
        self._is_rested = False
        if protocol is not None:
            self.protocol = protocol

    def __repr__(self) -> str:
        connection = self._connection
        if connection is None:
            return f"<{type(self).__name__} not open yet>"
        end = connection.end()
        state = "open" if end is None else f"closed with {end[0]}"
        return f"<{type(self).__name__} {connection.id} {state}>"

    # -- the seam to the engine ---------------------------------------------------------------

    def _attach(
        self,
        connection: Connection,
        options: Options,
        subprotocol: str | None,
        waiter: Waiter = THREAD,
    ) -> None:
        self._waiter = waiter
        self._options = options
        self._text_as_bytes = options.text_type is bytes
        patience = options.send_timeout
        self._send_patience = math.inf if patience is None else patience
        self._subprotocol = subprotocol
        self._connection = connection
        if self._last_word is not None:
            connection.close(*self._last_word)

    def _finish(self, code: int, reason: str) -> None:
        """What remains to be done when the view has ended."""
        if self._close_soon(code, reason):
            self._is_deliberate = True
        self._leave()

    def _unwanted_end(self) -> tuple[int, tuple[int, str, By]] | None:
        """The connection's number, and how it ended if its view has not closed it."""
        connection = self._connection
        end = None if connection is None or not connection.id else connection.end()
        if connection is None or end is None or self._is_deliberate:
            return None
        return connection.id, end

    def _close_soon(self, code: int, reason: str) -> bool:
        """Closes, also a connection that is yet to be opened; true if this was the first word."""
        if self._connection is None:
            # First: whoever opens it looks for this afterwards.
            self._last_word = (code, reason)
        return self._connection is not None and self._connection.close(code, reason)

    def _leave(self) -> None:
        """Counts no more among those who are present."""
        leave, self._on_finish = self._on_finish, None
        if leave is not None:
            leave()

    def _never_open(self) -> None:
        """From now on this behaves as a connection whose client has vanished."""
        self._connection = NeverOpened()

    @property
    def _is_undecided(self) -> bool:
        """Whether its view has yet to accept or to refuse."""
        return self._decision is not None and self._decision.is_open_question

    @property
    def _is_over(self) -> bool:
        """Whether this connection has ended, as far as anybody knows."""
        return self.closed or self._send_refused

    @property
    def _engine(self) -> Connection:
        if self._connection is None:
            if self._decision is not None:
                raise UsageError("this WebSocket is not open yet: accept() it first")
            raise UsageError("this WebSocket is not open yet: use it inside its view")
        return self._connection

    # -- opening, in middleware of a project's own ----------------------------------------------

    def _made_of(self, request: HttpRequest) -> None:
        """Notes of which handshake it is made; for factories."""
        # The request will hold it: a reference that counted would leave both to the collector.
        self._request = weakref.ref(request)
        self._headers = request.META

    def _forget_handshake(self, headers: Mapping[str, Any]) -> None:
        """Lets go of all but the headers; to be called when it opens."""
        self._request = None
        self._headers = headers
        if self._protocol is not None:
            self._protocol.headers = headers

    def accept_connection(self) -> None:
        """
        Opens the connection now, for middleware of a project's own.

        The handshake is judged, and the client gets its 101, without what later middleware adds to
        the response. The view then runs where it was called, in the server's worker, and the
        connection is closed when its response is. Does nothing where the connection is open, as it
        is in decorated views.

        Raises:
            PermissionDenied: The page's Origin may not connect. Django answers with 403.
            BadRequest: The handshake is refused for any other reason. Django answers with 400.
            UsageError: No factory has made this WebSocket, or it is about to be opened.
        """
        if self._connection is not None:
            return
        if self._decision is not None:
            self.accept()
            return
        request = None if self._request is None else self._request()
        if request is None:
            raise UsageError(
                "accept_connection() opens what a factory's create_websocket() has made of a "
                "handshake, once; in a decorated view the connection is open"
            )
        self._open_inline(request)

    # -- deciding, in views with `accept=False` --------------------------------------------------

    @property
    def offered_subprotocols(self) -> tuple[str, ...]:
        """
        The subprotocols that the client offers, its favourite first.

        Raises:
            UsageError: The view is not one that decides (``accept=False``).
        """
        return self._question("offered_subprotocols").offered

    def accept(self, subprotocol: str | None = None, headers: Headers = ()) -> None:
        """
        Opens the connection. For views with ``accept=False``; the others find it open.

        Waits until the response has passed all middleware and the client has its 101. That has the
        response's headers and cookies, and ``headers`` besides.

        Args:
            subprotocol: One that the client offers. None chooses by ``WEBSOCKET_SUBPROTOCOLS``.
            headers: More headers, as a mapping or as pairs.

        Raises:
            UsageError: The view is not one that decides, has decided before, or is async.
            ValueError: A subprotocol that the client does not offer, or a header that cannot be.
            ConnectionClosed: The client has gone, some middleware answered something else, or the
                process ends. A view that lets it through ends quietly.
        """
        decision = self._question("accept()")
        if decision.is_async:
            raise UsageError("this would block the event loop: use `await websocket.aaccept()`")
        self._accept(decision, subprotocol, headers)
        while not (decision.settled.wait(_LOOK_S) or self._is_dropped(decision)):
            pass
        self._raise_if_never_opened()

    async def aaccept(self, subprotocol: str | None = None, headers: Headers = ()) -> None:
        """As :meth:`accept`, for async views."""
        decision = self._question("aaccept()")
        if not decision.is_async:
            raise UsageError("aaccept() is for async views: use accept()")
        self._accept(decision, subprotocol, headers)
        while not (await decision.settled.wait(_LOOK_S) or self._is_dropped(decision)):
            pass
        self._raise_if_never_opened()

    def reject(self, status: int = 403) -> None:
        """
        Refuses the connection with a plain HTTP response. For views with ``accept=False``.

        Never waits. From then on everything here behaves as after a close. To answer anything
        else, return a response: a redirect, a page, one with headers of your own.

        Args:
            status: 400 to 599.

        Raises:
            UsageError: The view is not one that decides, or has decided before.
            ValueError: Any other status.
        """
        decision = self._question("reject()")
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(
                f"a WebSocket is rejected with a status from 400 to 599, not {status!r}: "
                "return an HttpResponse to answer anything else"
            )
        decision.insist(Rejection(status))
        self._never_open()
        decision.decided.set()

    async def areject(self, status: int = 403) -> None:
        """As :meth:`reject`, which never waits either; for code that awaits everything."""
        self.reject(status)

    def _question(self, what: str) -> Decision[Any]:
        if self._decision is None:
            raise UsageError(
                f"{what} is for views that decide themselves: decorate this one with "
                "@accept_websocket(accept=False)"
            )
        return self._decision

    def _accept(self, decision: Decision[Any], subprotocol: str | None, headers: Headers) -> None:
        if subprotocol is not None and subprotocol not in decision.offered:
            offers = ", ".join(decision.offered) or "none"
            raise ValueError(f"the client does not offer subprotocol {subprotocol!r}, but {offers}")
        pairs = list(headers.items() if hasattr(headers, "items") else headers)
        # Here, where the view sees it, rather than when the response is written.
        _core.response_head("", subprotocol, pairs)
        decision.insist(Acceptance(subprotocol, pairs))
        decision.decided.set()

    def _is_dropped(self, decision: Decision[Any]) -> bool:
        dropped = decision.is_dropped()
        if dropped and self._connection is None:
            self._never_open()
        return dropped

    def _raise_if_never_opened(self) -> None:
        if isinstance(self._connection, NeverOpened):
            self._raise_if_ended()

    # -- receiving, as ever ---------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> Any:
        """
        Returns the next message, waiting for it if need be.

        Other threads run meanwhile. Messages that came before the close are given first.

        Args:
            timeout: Seconds. None or a negative number waits while the connection lives, 0 takes
                what is here.

        Returns:
            The message; None when the time is up or the connection is closed (``is_closed()``
            tells which).

        Raises:
            ConnectionClosed: In the connection's own view, when the end was reported more than a
                second ago.
        """
        if timeout is not None and timeout < 0:
            timeout = None
        self._send_refused = False
        if self._end_reported_at is not None:
            self._raise_if_told_before(self._end_reported_at)
        # As `_has_handler`, but each message comes here.
        if getattr(self.handle, "__func__", None) is not _NO_HANDLER:
            message = self._handled(timeout)
        elif timeout is None:
            message = self._take_next()
        else:
            message = self._take(timeout, self._text_as_bytes)
        if message is None:
            self._note_end()
        return message

    def read(self, fallback: Any = None) -> Any:
        """
        Returns one message if there is one, and never waits.

        Returns:
            The message, ``fallback`` when there is none, None at the end of the connection.

        Raises:
            ConnectionClosed: As :meth:`wait`.
        """
        self._begin_receiving()
        message = self._handled(0) if self._has_handler() else self._take(0, self._text_as_bytes)
        if message is None:
            return None if self._note_end() else fallback
        return message

    def has_messages(self) -> bool:
        """
        Whether :meth:`read` has something to give; the end of the connection counts once.

        Raises:
            ConnectionClosed: As :meth:`wait`.
        """
        return self.count_messages() > 0

    def count_messages(self) -> int:
        """
        The number of whole messages that wait, and one more for an end not yet read.

        Raises:
            ConnectionClosed: As :meth:`wait`.
        """
        self._begin_receiving()
        messages, ended = self._engine.waiting()
        count = messages + (ended and self._end_reported_at is None)
        if not count:
            self._waiter.let_others_run()
        return count

    def __iter__(self) -> Iterator[Any]:
        """Yields each message until the connection is closed."""
        while (message := self.wait()) is not None:
            yield message
            # It may be large, and the next one far away.
            del message

    def handle(self, opcode: int, data: Message) -> None:
        """
        Is called for each data message and for the close, from :meth:`wait` and :meth:`read`.

        Does nothing; made to be overridden.

        Args:
            opcode: 1 for text, 2 for binary, 8 for the close (RFC 6455 section 5.2).
            data: The message as it will be returned; for the close its code and reason as they
                stand in the frame.
        """

    # -- receiving, exactly ---------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> Message:
        """
        Returns the next message, waiting for it if need be.

        Text is ``str``, binary is ``bytes``, whatever ``WEBSOCKET_TEXT_TYPE`` says. Messages that
        came before the close are given first; only then does this raise.

        Args:
            timeout: Seconds. None waits while the connection lives, 0 takes what is here.

        Raises:
            ReceiveTimeout: Nothing came in time. The connection stays usable.
            ConnectionClosed: Nothing is left and nothing more can come.
        """
        _check_timeout(timeout)
        self._send_refused = False
        message: Message | None = self._take(timeout, text_as_bytes=False)
        if message is None:
            self._raise_if_nothing_comes()
            raise ReceiveTimeout(f"no message came within {timeout} s")
        return message

    def receive_json(self, timeout: float | None = None, **kwargs: Any) -> Any:
        """
        Returns the next message, parsed as JSON.

        Args:
            timeout: As for :meth:`receive`.
            **kwargs: Passed on to :func:`json.loads`.

        Raises:
            json.JSONDecodeError: The message is no JSON. It is consumed.
            ReceiveTimeout, ConnectionClosed: As :meth:`receive`.
        """
        return json.loads(self.receive(timeout), **kwargs)

    async def areceive(self, timeout: float | None = None) -> Message:
        """
        As :meth:`receive`, for async views. Cancelling it loses no message.

        Several tasks may wait on one connection; each message goes to one of them.
        """
        self._send_refused = False
        connection = self._connection or self._engine
        if timeout is None:
            try:
                return await connection.next(hub.ear)
            except StopAsyncIteration:
                self._raise_if_ended()
                raise ConnectionClosed from None
        _check_timeout(timeout)
        deadline = clock.now() + timeout
        while (message := connection.pop(False)) is None:
            self._raise_if_nothing_comes()
            left = deadline - clock.now()
            if left <= 0:
                raise ReceiveTimeout(f"no message came within {timeout} s")
            # Only the wake-up is awaited, so giving up here takes no message away.
            await hub.current().wait(connection, connection.watch_inbox, left)
        return message

    async def areceive_json(self, timeout: float | None = None, **kwargs: Any) -> Any:
        """As :meth:`receive_json`, for async views."""
        return json.loads(await self.areceive(timeout), **kwargs)

    def __aiter__(self) -> AsyncIterator[Message]:
        """Yields each message, text as ``str`` and binary as ``bytes``, until the close."""
        return _Messages(self)

    # -- sending --------------------------------------------------------------------------------

    def send(self, message: Any, *, strict: bool = False) -> bool:
        """
        Sends a message.

        ``str`` goes out as text. ``bytes`` go out as binary when the connection's text type is
        ``str``; in the compatible mode they are text when they are valid UTF-8, else binary.

        While the client reads too slowly and ``WEBSOCKET_SEND_BUFFER`` is full, this waits in the
        connection's own view. Anywhere else it never waits: the client is closed with 1013.

        Args:
            message: ``str``, ``bytes``, ``bytearray`` or ``memoryview``.
            strict: Raise when the connection is closed, instead of returning False.

        Returns:
            True when the message was handed over (not: received), False when the connection is
            closed.

        Raises:
            ConnectionClosed: With ``strict``; or in the connection's own view, when it has been
                closed for over a second, an earlier ``send`` has returned False and nobody asked
                for messages since. A view that lets it through ends quietly.
            SendTimeout: In the own view, no room within ``WEBSOCKET_SEND_TIMEOUT``.
            TypeError: Any other type of message.
        """
        if self._post(message):
            return True
        return self._send(*self._as_sent(message), strict)

    def send_text(self, message: Any, *, strict: bool = False) -> bool:
        """
        Sends a text message: ``str``, or bytes that are valid UTF-8.

        Raises:
            ValueError: Bytes that are not UTF-8.
            TypeError, ConnectionClosed, SendTimeout: As :meth:`send`.
        """
        return self._send(*_as_text(message), strict)

    def send_bytes(self, message: Any, *, strict: bool = False) -> bool:
        """
        Sends a binary message: ``bytes``, ``bytearray`` or ``memoryview``.

        Raises:
            TypeError: Anything else, ``str`` too.
            ConnectionClosed, SendTimeout: As :meth:`send`.
        """
        return self._send(*_as_binary(message), strict)

    def send_json(self, data: Any, *, strict: bool = False, **kwargs: Any) -> bool:
        """
        Sends ``data`` as a text message of JSON.

        Dates, decimals and UUIDs are written as Django writes them.

        Args:
            data: What :func:`json.dumps` takes.
            strict: As for :meth:`send`.
            **kwargs: Passed on to :func:`json.dumps`.

        Raises:
            TypeError: Something that JSON cannot say.
            ConnectionClosed, SendTimeout: As :meth:`send`.
        """
        return self._send(*_as_json(data, kwargs), strict)

    async def asend(self, message: Any, *, strict: bool = False) -> bool:
        """As :meth:`send`, for async views: waits without blocking the loop."""
        if self._post(message):
            return True
        return await self._asend(*self._as_sent(message), strict)

    async def asend_text(self, message: Any, *, strict: bool = False) -> bool:
        """As :meth:`send_text`, for async views."""
        return await self._asend(*_as_text(message), strict)

    async def asend_bytes(self, message: Any, *, strict: bool = False) -> bool:
        """As :meth:`send_bytes`, for async views."""
        return await self._asend(*_as_binary(message), strict)

    async def asend_json(self, data: Any, *, strict: bool = False, **kwargs: Any) -> bool:
        """As :meth:`send_json`, for async views."""
        return await self._asend(*_as_json(data, kwargs), strict)

    # -- closing --------------------------------------------------------------------------------

    def close(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """
        Closes the connection. What was sent before still goes out; ``wait`` returns everywhere.

        Never waits. Closing a closed connection does nothing.

        Args:
            code: The close code; 1000 by default.
            reason: Up to 123 bytes of UTF-8.

        Raises:
            ValueError: A code that RFC 6455 forbids to send, or a reason that does not fit.
        """
        if self._connection is None and self._decision is None:
            # Middleware of a project's own closes each, also what is yet to be opened.
            return
        if code is None:
            code = 1000
        if isinstance(code, bool) or not isinstance(code, int):
            raise TypeError(f"a close code must be an int, not {type(code).__name__}")
        if not 0 <= code <= 0xFFFF:
            raise ValueError(f"close code {code} must not be sent: use 1000 or 3000-4999")
        if reason is None:
            reason = ""
        elif not isinstance(reason, str):
            reason = _as_bytes(reason).decode("utf-8")
        if self._engine.close(code, reason):
            self._is_deliberate = True

    async def aclose(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """As :meth:`close`, which never waits either; for code that awaits everything."""
        self.close(code, reason)

    @property
    def closed(self) -> bool:
        """Whether either side has begun to close, or the client has vanished."""
        return self._engine.end() is not None

    def is_closed(self) -> bool:
        """Whether either side has begun to close, or the client has vanished."""
        return self.closed

    is_close = is_closed

    @property
    def close_code(self) -> int | None:
        """
        The close code, None while the connection is open.

        1005 stands for a close frame without a code, 1006 for a client that vanished.
        """
        end = self._engine.end()
        return None if end is None else end[0]

    @property
    def close_reason(self) -> str:
        """The reason beside the close code; empty while the connection is open."""
        end = self._engine.end()
        return "" if end is None else end[1]

    # -- about the connection -------------------------------------------------------------------

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that both sides agreed on."""
        return self._subprotocol

    @property
    def protocol(self) -> WebSocketProtocol13:
        """The original's lower layer, always the same object: binary messages, ``sock``, codes."""
        if self._protocol is None:
            protocol = WebSocketProtocol13(None, self._headers)
            protocol._belong_to(self)
            # The first of two threads counts.
            self.__dict__.setdefault("_protocol", protocol)
            assert self._protocol is not None
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: WebSocketProtocol13) -> None:
        request = getattr(protocol.sock, "request", None)
        if request is not None:
            self._request = weakref.ref(request)
        self._protocol = protocol
        protocol._belong_to(self)

    # -- what the calls above share -------------------------------------------------------------

    def _begin_receiving(self) -> None:
        self._send_refused = False
        if self._end_reported_at is not None:
            self._raise_if_told_before(self._end_reported_at)

    def _raise_if_told_before(self, reported_at: float) -> None:
        if clock.now() - reported_at > _PATIENCE_S and own_websocket.get() is self:
            self._raise_if_ended()

    def _raise_if_ended(self) -> None:
        end = self._engine.end()
        if end is not None:
            raise ConnectionClosed(*end)

    def _raise_if_nothing_comes(self) -> None:
        if self._engine.waiting() == (0, True):
            self._raise_if_ended()

    def _note_end(self) -> bool:
        """Notes that a caller learns of the end, if there is nothing else to learn."""
        ended = self._engine.waiting() == (0, True)
        if ended and self._end_reported_at is None:
            self._end_reported_at = clock.now()
            if self._has_handler():
                self.handle(_CLOSE, self._close_payload())
        return ended

    def _close_payload(self) -> bytes:
        end = self._engine.end()
        if end is None or end[0] in (1005, 1006):
            return b""
        return struct.pack("!H", end[0]) + end[1].encode()

    def _has_handler(self) -> bool:
        # A look into `__dict__` would make one: attributes are kept without until then.
        return getattr(self.handle, "__func__", None) is not _NO_HANDLER

    def _handled(self, timeout: float | None) -> Any:
        message = self._take(timeout, text_as_bytes=False)
        if message is None:
            return None
        opcode = _TEXT if isinstance(message, str) else _BINARY
        if self._text_as_bytes and isinstance(message, str):
            message = message.encode()
        self.handle(opcode, message)
        return message

    def _take(self, timeout: float | None, text_as_bytes: bool) -> Any:
        if timeout != 0 and _get_running_loop() is not None:
            raise UsageError(
                "this would block the event loop and all its views: "
                "use `await websocket.areceive()` or `async for`"
            )
        connection = self._connection or self._engine
        message = connection.pop(text_as_bytes)
        if message is not None:
            return message
        take = self._waiter.take
        if (timeout is not None and timeout <= _IDLE_AFTER_S) or own_websocket.get() is not self:
            return take(connection, timeout, text_as_bytes)
        deadline = None if timeout is None else clock.now() + timeout
        message = self._waiter.nap(connection, _IDLE_AFTER_S, text_as_bytes)
        return self._rest(deadline, text_as_bytes) if message is None else message

    def _take_next(self) -> Any:
        """As :meth:`_take` for a view's main loop, which goes through here for each message."""
        if own_websocket.get() is not self or _get_running_loop() is not None:
            return self._take(None, self._text_as_bytes)
        connection = self._connection or self._engine
        if self._waiter is THREAD:
            message = connection.nap(_IDLE_AFTER_S, self._text_as_bytes)
        else:
            message = connection.pop(self._text_as_bytes)
            if message is None:
                self._is_rested = True
                message = self._waiter.nap(connection, _IDLE_AFTER_S, self._text_as_bytes)
        return self._rest(None, self._text_as_bytes) if message is None else message

    def _rest(self, deadline: float | None, text_as_bytes: bool) -> Any:
        """Waits on, without database connections."""
        connection = self._engine
        # Not `closed`: what came just before the close still has to be taken.
        if connection.waiting() == (0, True):
            return None
        database.release_idle()
        left = None if deadline is None else max(0.0, deadline - clock.now())
        return self._waiter.take(connection, left, text_as_bytes)

    def _as_sent(self, message: Any) -> Frame:
        if isinstance(message, str):
            return message, None
        return _as_bytes(message), None if self._text_as_bytes else True

    def _post(self, message: Any) -> bool:
        """Hands a message over if that takes no waiting and no questions."""
        sender = own_websocket.get()
        connection = self._connection or self._engine
        if sender is None:
            return connection.post(message, self._text_as_bytes, None)
        if not connection.post(message, self._text_as_bytes, sender._connection):
            return False
        if sender is self and self._waiter is not THREAD:
            if self._is_rested:
                self._is_rested = False
            else:
                self._waiter.rest_after_sending()
        return True

    def _send(self, message: Message, binary: bool | None, strict: bool) -> bool:
        connection = self._connection or self._engine
        own = own_websocket.get() is self
        # Whoever must not wait here, an event loop above all, has no patience.
        patience = self._send_patience if own and _get_running_loop() is None else None
        if self._waiter.send(connection, message, binary=binary, patience=patience):
            return True
        return self._refuse_to_send(own=own, strict=strict)

    async def _asend(self, message: Message, binary: bool | None, strict: bool) -> bool:
        connection = self._connection or self._engine
        own = own_websocket.get() is self
        if not own:
            return self._send(message, binary, strict)
        deadline: float | None = None
        while (sent := connection.try_send(message, binary=binary)) is None:
            if deadline is None:
                deadline = clock.now() + self._send_patience
            left = deadline - clock.now()
            if left <= 0:
                raise no_room(self._send_patience)
            patience = None if left == math.inf else left
            await hub.current().wait(connection, connection.watch_outbox, patience)
        return sent or self._refuse_to_send(own=own, strict=strict)

    def _refuse_to_send(self, *, own: bool, strict: bool) -> bool:
        """What a sender learns of a connection that is closed."""
        refused_before, self._send_refused = self._send_refused, True
        gone_for = self._engine.ended_for() or 0.0
        if strict or (own and refused_before and gone_for > _PATIENCE_S):
            self._raise_if_ended()
            # The socket is gone, though the engine has not yet read how.
            raise ConnectionClosed
        return False


_NO_HANDLER = WebSocket.handle


class _Messages:
    """What ``async for`` goes through."""

    __slots__ = ("_next", "_websocket")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._next = websocket._engine.next(hub.ear)

    def __aiter__(self) -> _Messages:
        return self

    def __anext__(self) -> Awaitable[Message]:
        # No coroutine: whoever awaits this is the view.
        self._websocket._send_refused = False
        return self._next


def _as_bytes(message: Any) -> bytes:
    if isinstance(message, bytes):
        return message
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    name = type(message).__name__
    raise TypeError(f"a message must be str, bytes, bytearray or memoryview, not {name}")


def _as_text(message: Any) -> Frame:
    return message if isinstance(message, str) else _as_bytes(message), False


def _as_binary(message: Any) -> Frame:
    if isinstance(message, str):
        raise TypeError("this takes bytes, not str: encode it, or use send_text()")
    return _as_bytes(message), True


def _as_json(data: Any, kwargs: dict[str, Any]) -> Frame:
    return json.dumps(data, **{"cls": DjangoJSONEncoder, **kwargs}), False


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None, 0 or a number of seconds, not {timeout!r}")
