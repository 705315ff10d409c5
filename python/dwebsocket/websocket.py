"""`request.websocket`: the connection as its view uses it."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import math
import struct
import time
import weakref
from contextvars import ContextVar
from datetime import datetime, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet, ref

from asgiref.sync import iscoroutinefunction
from django.core.serializers.json import DjangoJSONEncoder

from dwebsocket import _core, clock, database, hub, pings, unpatched
from dwebsocket.caller import Caller, Callers
from dwebsocket.closing import CloseCallbacks
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.decision import Acceptance, NeverOpened, Rejection
from dwebsocket.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    ReceiveTimeout,
    SendTimeout,
    UsageError,
)
from dwebsocket.helpers import told_by_exception
from dwebsocket.long_calls import Turns, call_elsewhere
from dwebsocket.protocol import WebSocketProtocol13
from dwebsocket.source import Source, whole_characters
from dwebsocket.waiting import THREAD, no_room

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
        Mapping,
    )

    from django.http import HttpRequest

    from dwebsocket.closing import Spawn
    from dwebsocket.conf import Options
    from dwebsocket.connection import By, Connection
    from dwebsocket.decision import Decision
    from dwebsocket.helpers import Helper, Ticker, View
    from dwebsocket.waiting import Waiter

    Headers = Mapping[str, str] | Iterable[tuple[str, str]]

    Message = str | bytes
    # What goes out, and whether as binary; None leaves that to its type and contents.
    Frame = tuple[Message, bool | None]

#: The connection whose view runs here. Tasks and `sync_to_async` threads of the view inherit it.
own_websocket: ContextVar[WebSocket | None] = ContextVar("own_websocket", default=None)

# A view that sleeps longer gives its database connections back.
_IDLE_AFTER_S = 3.0
# How long a caller may go on asking a connection after it has received the end.
_PATIENCE_S = 1.0
# Calls that find nothing and come so soon after one another are a busy loop: each of them sleeps
# for as long, or until a message comes.
_SPIN_S = 0.001

# A client that is there answers a ping within that time, as for `WEBSOCKET_PING_TIMEOUT`.
_PING_TIMEOUT_S = 20.0

# How often a view that has accepted checks that the response still exists which opens it.
_LOOK_S = 0.5

_TEXT, _BINARY, _CLOSE = 0x1, 0x2, 0x8
_TRY_AGAIN_LATER = (1013, "too slow")

# For names of WebSockets that were asked for one before they had a connection.
_early_names = itertools.count(1)


class _Many:
    """Stands for more than one connection, and so for one that never ends."""

    closed = False


_many = _Many()
# The only connection to which a plain thread has sent so far, or `_many` when they were more.
_sends_to: ContextVar[ref[WebSocket] | ref[_Many] | None] = ContextVar("sends_to", default=None)


class WebSocket:
    """
    One WebSocket connection, as ``request.websocket``.

    Every method may be called from any thread, at any time; messages of one sender keep their
    order. ``wait``, ``read``, ``send`` and iteration behave as in the original dwebsocket: text
    is ``bytes`` unless ``WEBSOCKET_TEXT_TYPE`` says ``"str"``, and a closed connection shows in
    return values. ``receive…`` and ``send_text/bytes/json`` are exact, and raise.
    """

    # Attributes that few connections need. They are set on first use, so the others hold nothing.
    _name: str | None = None
    _callers: Callers | None = None
    _selecting: WeakSet[object] | None = None
    _close_callbacks: CloseCallbacks | None = None
    # The database connections of its view, once it has any.
    _held: database.Held | None = None
    # The turns of tasks to send, once a task has sent a large message.
    _long_sends: Turns | None = None
    _view: View | None = None
    # The request of the view that runs now.
    _view_request: HttpRequest | None = None
    _new_view: ClassVar[Callable[[WebSocket, HttpRequest], View]]
    _polled_at = 0.0
    _was_refused = False
    _is_close_handled = False
    _is_finished = False
    # Made on first use, or by a factory that makes a WebSocket as in the original.
    _protocol: WebSocketProtocol13 | None = None
    # The request that a factory has made it of, until it is open.
    _request: Callable[[], HttpRequest | None] | None = None
    _headers: Mapping[str, Any] = MappingProxyType({})
    _open_inline: ClassVar[Callable[[WebSocket, HttpRequest], None]]

    def __init__(self, protocol: WebSocketProtocol13 | None = None) -> None:
        """
        Makes an unopened one; to be called in a factory's ``create_websocket()``.

        Args:
            protocol: One that such a factory has made, as in the original.
        """
        self._connection: Connection | None = None
        self._decision: Decision[Any] | None = None
        self._on_finish: Callable[[], object] | None = None
        # Its view's hold on a place among the process's connections.
        self._place: _core.Permit | None = None
        self._is_deliberate = False
        self._last_word: tuple[int, str] | None = None
        self._waiter: Waiter = THREAD
        self._options: Options | None = None
        self._text_as_bytes = True
        self._send_patience = math.inf
        self._subprotocol: str | None = None
        # On the wall clock.
        self._opened_at: float | None = None
        self._spawn: Spawn = unpatched.start_thread
        # Others have run since it last sent; only for views on green threads.
        self._is_rested = False
        if protocol is not None:
            self.protocol = protocol

    def __repr__(self) -> str:
        # The same for all its life: projects use it as a key.
        if self._name is None:
            connection = self._connection
            number = 0 if connection is None else connection.id
            self._name = str(number) if number else f"early-{next(_early_names)}"
        return f"<{type(self).__name__} {self._name}>"

    # -- the seam to the engine ---------------------------------------------------------------

    def _attach(
        self,
        connection: Connection,
        options: Options,
        subprotocol: str | None,
        waiter: Waiter = THREAD,
        spawn: Spawn = unpatched.start_thread,
    ) -> None:
        self._waiter = waiter
        self._spawn = spawn
        self._options = options
        self._text_as_bytes = options.text_type is bytes
        patience = options.send_timeout
        self._send_patience = math.inf if patience is None else patience
        self._subprotocol = subprotocol
        self._opened_at = time.time()
        self._connection = connection
        if self._last_word is not None:
            connection.close(*self._last_word)
        if self._close_callbacks is not None:
            self._close_callbacks.attach(connection, waiter, spawn)

    def _finish(self, code: int, reason: str) -> None:
        """Does what remains to be done when the view has ended."""
        if self._close_soon(code, reason):
            self._is_deliberate = True
        self._leave()
        self._vacate()
        self._is_finished = True
        if self._selecting is not None:
            self._engine.close_descriptor()

    def _unwanted_end(self) -> tuple[int, tuple[int, str, By]] | None:
        """The connection's number, and how it ended if its view has not closed it."""
        connection = self._connection
        end = None if connection is None or not connection.id else connection.end()
        if connection is None or end is None or self._is_deliberate:
            return None
        return connection.id, end

    def _close_soon(self, code: int, reason: str) -> bool:
        """Closes, also before the connection is open; true if this began to close an open one."""
        if self._connection is None:
            # First: `_attach()` sets the connection, and looks for this afterwards.
            self._last_word = (code, reason)
        return self._connection is not None and self._connection.close(code, reason)

    def _leave(self) -> None:
        """Leaves the register of present WebSockets."""
        leave, self._on_finish = self._on_finish, None
        if leave is not None:
            leave()

    def _vacate(self) -> None:
        """Gives the view's hold on a place up: no view runs behind this any more."""
        place, self._place = self._place, None
        if place is not None:
            place.release()

    def _never_open(self) -> None:
        """From now on this behaves as a connection whose client has vanished."""
        self._connection = NeverOpened()
        if self._close_callbacks is not None:
            self._close_callbacks.attach(self._connection, self._waiter, self._spawn)

    @property
    def _is_undecided(self) -> bool:
        """Whether its view has yet to accept or to refuse."""
        return self._decision is not None and self._decision.is_open_question

    @property
    def _is_over(self) -> bool:
        """Whether this connection has ended, or has refused a message."""
        return self.closed or self._was_refused

    @property
    def _is_told_here(self) -> bool:
        """Whether the thread (green thread, task) that asks has received the end."""
        caller = self._known_caller()
        return caller is not None and caller.told_at is not None

    @property
    def _engine(self) -> Connection:
        if self._connection is None:
            if self._decision is not None:
                raise UsageError("this WebSocket is not open yet: accept() it first")
            raise UsageError("this WebSocket is not open yet: use it inside its view")
        return self._connection

    # -- opening, in middleware of a project's own ----------------------------------------------

    def _made_of(self, request: HttpRequest) -> None:
        """Notes the handshake that it is made of; for factories."""
        # The request will refer to this: with a strong reference back, only the garbage collector
        # would free both.
        self._request = weakref.ref(request)
        self._headers = request.META

    def _forget_handshake(self, headers: Mapping[str, Any]) -> None:
        """Drops all of the handshake but its headers; to be called when it opens."""
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
        # Raises here, where the view sees it, rather than when the response is written.
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
            ConnectionClosed: This thread received the end more than a second ago, from this call
                or from another; or it is one of :meth:`start`. Each thread, green thread and task
                receives the end for itself.
        """
        if timeout is not None and timeout < 0:
            timeout = None
        if self._callers is not None:
            self._receive_again()
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

        Other threads get their turn when there is none.

        Returns:
            The message, ``fallback`` when there is none, None at the end of the connection.

        Raises:
            ConnectionClosed: As :meth:`wait`.
        """
        if self._callers is not None:
            self._receive_again()
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
        if self._callers is not None:
            self._receive_again()
        if self._held is not None:
            self._held.give_back_idle()
        messages, ended = self._engine.waiting()
        count = messages + (ended and not self._is_told_here)
        if not count:
            self._let_others_run()
        return count

    def __iter__(self) -> Iterator[Any]:
        """
        Yields each message until the connection has ended.

        In the compatible mode (``WEBSOCKET_TEXT_TYPE = "bytes"``) a final None follows, once.
        """
        while (message := self.wait()) is not None:
            yield message
            # It may be large, and the next one may come much later.
            del message
        if self._text_as_bytes:
            yield None

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
        if self._callers is not None:
            self._receive_again()
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
            InvalidMessage: The message is no JSON. It is consumed. A view may let this through: the
                client is closed with 1007.
            ReceiveTimeout, ConnectionClosed: As :meth:`receive`.
        """
        return _parsed(self.receive(timeout), kwargs)

    async def areceive(self, timeout: float | None = None) -> Message:
        """
        As :meth:`receive`, for async views. Cancelling it loses no message.

        Several tasks may wait on one connection; each message goes to one of them.
        """
        if self._callers is not None:
            self._note_receiving()
            # Each of its calls may be a task of its own, as by `asyncio.wait_for`.
            await self._pause_loop()
        connection = self._connection or self._engine
        if timeout is None:
            try:
                return await connection.next(hub.hub_and_loop)
            except StopAsyncIteration:
                self._tell_loop()
                self._raise_if_ended()
                raise ConnectionClosed from None
        _check_timeout(timeout)
        deadline = clock.now() + timeout
        while (message := await connection.next_now()) is None:
            if connection.waiting() == (0, True):
                self._tell_loop()
                self._raise_if_ended()
            left = deadline - clock.now()
            if left <= 0:
                raise ReceiveTimeout(f"no message came within {timeout} s")
            # Only the wake-up is awaited, so giving up here takes no message away.
            await hub.current().wait(connection, connection.watch_inbox, left)
        return message

    async def areceive_json(self, timeout: float | None = None, **kwargs: Any) -> Any:
        """As :meth:`receive_json`, for async views."""
        return _parsed(await self.areceive(timeout), kwargs)

    def __aiter__(self) -> AsyncIterator[Message]:
        """Yields each message, text as ``str`` and binary as ``bytes``, until the close."""
        if self._engine.waiting() == (0, True):
            return self._no_messages()
        return _Messages(self)

    def messages(self) -> Messages:
        """
        Gives the messages until the close, for ``for`` and ``async for`` alike.

        Text is ``str``, binary is ``bytes``, whatever ``WEBSOCKET_TEXT_TYPE`` says, and no None
        follows. ``async for message in websocket`` is the same as over this.
        """
        return Messages(self)

    async def _no_messages(self) -> AsyncIterator[Message]:
        # Code that iterates over an ended connection again and again would block the event loop.
        await self._pause_loop()
        self._tell_loop()
        nothing: tuple[Message, ...] = ()
        for message in nothing:
            yield message

    # -- sending --------------------------------------------------------------------------------

    def send(self, message: Any, *, strict: bool = False) -> bool:
        """
        Sends a message.

        ``str`` goes out as text. ``bytes`` go out as binary when the connection's text type is
        ``str``; in the compatible mode they are text when they are valid UTF-8, else binary.

        While the client reads too slowly and ``WEBSOCKET_SEND_BUFFER`` is full, this waits in the
        connection's own view and its helpers, and in a plain thread that has sent to this
        connection before and to no other. Anywhere else it never waits: the client is closed with
        1013.

        Args:
            message: ``str``, ``bytes``, ``bytearray`` or ``memoryview``. None, which is what the
                end looks like, may be passed to a connection that has ended.
            strict: Raise when the connection has ended, instead of returning False.

        Returns:
            True when the message was handed over (not: received), False when the connection has
            ended.

        Raises:
            ConnectionClosed: With ``strict``; or in the connection's own view, when it ended over a
                second ago, an earlier ``send`` of this thread has returned False and this thread
                has not asked for messages since. A view that lets it through ends quietly.
            SendTimeout: In the own view, no room within ``WEBSOCKET_SEND_TIMEOUT``. A plain thread
                gets False then, and the client is closed with 1013.
            TypeError: Any other type of message.
        """
        if self._post(message):
            return True
        if message is None and self.closed:
            return self._refuse_to_send(strict)
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
        if not self._is_sending_long() and self._post(message):
            return True
        if message is None and self.closed:
            return await self._arefuse_to_send(strict)
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

        Never waits. Closing a closed connection does nothing, nor does closing one that was never
        opened.

        Args:
            code: The close code; 1000 by default.
            reason: Up to 123 bytes of UTF-8.

        Raises:
            TypeError: A code that is no ``int``.
            ValueError: A code that RFC 6455 forbids to send, or a reason that does not fit.
        """
        if self._connection is None and self._decision is None:
            # A project's own middleware closes each WebSocket, also one that is not open yet.
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
        self._caller().has_closed = True

    async def aclose(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """As :meth:`close`, which never waits either; for code that awaits everything."""
        self.close(code, reason)

    @property
    def closed(self) -> bool:
        """
        Whether the connection has ended: either side began to close, or the client vanished.

        Before it is open it has not, unless it was closed already.
        """
        return self._end() is not None

    def is_closed(self) -> bool:
        """
        Whether a loop around this call is over.

        For a thread that receives on this connection that is so when the connection has ended and
        all of it was read, the end included; or when this thread has closed it; or when a ``send``
        of it was refused and no message waits. So
        ``while not websocket.is_closed(): message = websocket.wait()`` misses no message. For any
        other caller it is the end of the connection. :attr:`closed` is exact.
        """
        connection = self._engine
        caller = self._caller()
        if caller.has_closed or caller.told_at is not None:
            return True
        # Read the end first: once it is there, so are all messages before it.
        ended_for = connection.ended_for()
        has_messages = connection.waiting()[0] > 0
        if caller.is_refused and not (caller.receives and has_messages):
            return True
        if ended_for is None:
            return False
        if not caller.receives:
            # It may be about to begin receiving. Later after the end, messages that are left are
            # for other callers, unless this is the view.
            is_view = own_websocket.get() is self
            if not has_messages or (ended_for > _PATIENCE_S and not is_view):
                return True
        if caller.asked_at is None:
            caller.asked_at = clock.now()
        # It calls this again and again, and takes no messages.
        return clock.now() - caller.asked_at > _PATIENCE_S

    is_close = is_closed

    @property
    def close_code(self) -> int | None:
        """
        The close code, None while the connection is open and before.

        1005 stands for a close frame without a code, 1006 for a client that vanished.
        """
        end = self._end()
        return None if end is None else end[0]

    @property
    def close_reason(self) -> str:
        """The reason beside the close code; empty while the connection is open and before."""
        end = self._end()
        return "" if end is None else end[1]

    def wait_closed(self, timeout: float | None = None) -> bool:
        """
        Waits until the connection has ended, and takes no message meanwhile.

        When messages that are not taken fill ``WEBSOCKET_RECEIVE_BUFFER``, the engine stops
        reading, and the client waits. A close behind them is seen when they are taken.

        Args:
            timeout: Seconds. None waits while the connection lives, 0 only looks.

        Returns:
            Whether it has ended.

        Raises:
            UsageError: The connection is not open yet; or called in an event loop (use
                ``await websocket.await_closed()``).
        """
        _check_timeout(timeout)
        connection = self._connection or self._engine
        if timeout == 0:
            return self.closed
        if running_loop() is not None:
            raise UsageError(
                "this would block the event loop and all its views: "
                "use `await websocket.await_closed()`"
            )
        if own_websocket.get() is self and (timeout is None or timeout > _IDLE_AFTER_S):
            if pings.wait_closed(connection, self._waiter, _IDLE_AFTER_S):
                return True
            database.release_idle()
            timeout = None if timeout is None else timeout - _IDLE_AFTER_S
        return pings.wait_closed(connection, self._waiter, timeout)

    async def await_closed(self, timeout: float | None = None) -> bool:
        """As :meth:`wait_closed`, for async views."""
        _check_timeout(timeout)
        return await pings.await_closed(self._connection or self._engine, timeout)

    # -- about the connection -------------------------------------------------------------------

    @property
    def remote_address(self) -> str | None:
        """
        The client's address as Django sees it (``REMOTE_ADDR``), which may be a proxy's.

        None where the server gives none, as over Unix sockets.
        """
        return self._headers.get("REMOTE_ADDR") or None

    @property
    def opened_at(self) -> datetime | None:
        """When the connection was opened, an aware datetime in UTC; None before."""
        opened_at = self._opened_at
        return None if opened_at is None else datetime.fromtimestamp(opened_at, tz=timezone.utc)

    @property
    def latency(self) -> float | None:
        """
        The seconds between the last answered ping and its pong, None before the first.

        Pings are those of :meth:`ping` and of ``WEBSOCKET_PING_INTERVAL``. Always None behind ASGI
        servers that keep the connection: they pass no pongs on to applications.
        """
        return None if self._connection is None else self._connection.latency

    def ping(self, timeout: float | None = _PING_TIMEOUT_S) -> float:
        """
        Sends a ping and waits for the client's pong, behind the messages that wait to be sent.

        Any thread may call it, also several at once. Browsers answer by themselves. While messages
        that are not taken fill ``WEBSOCKET_RECEIVE_BUFFER``, no pong is read.

        Args:
            timeout: Seconds. None waits while the connection lives.

        Returns:
            The seconds that it took.

        Raises:
            PingTimeout: No answer came in time. It is a ``TimeoutError``; the connection stays
                usable.
            ConnectionClosed: The connection has ended.
            UnsupportedServer: An ASGI server keeps the connection; it has no pings of applications.
            UsageError: Called in an event loop (use ``await websocket.aping()``), or the connection
                is not open yet.
        """
        _check_timeout(timeout)
        if running_loop() is not None:
            raise UsageError(
                "this would block the event loop and all its views: use `await websocket.aping()`"
            )
        return pings.ping(self._connection or self._engine, self._waiter, timeout)

    async def aping(self, timeout: float | None = _PING_TIMEOUT_S) -> float:
        """As :meth:`ping`, for async views. Cancelling it gives up on the answer."""
        _check_timeout(timeout)
        return await pings.aping(self._connection or self._engine, timeout)

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
            # Of two threads that do this at once, the first one's object is kept.
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

    def fileno(self) -> int:
        """
        Gives a descriptor that is readable while a message or the unread end waits.

        For ``select``, ``poll``, ``loop.add_reader`` and the hubs of green threads. It is made on
        first use and closed when the view has ended; then this gives -1. Read messages with
        :meth:`read`, never from the descriptor.

        Raises:
            OSError: The process has no descriptor left.
            UsageError: The connection is not open yet.
        """
        connection = self._engine
        if self._is_finished or (descriptor := connection.descriptor()) is None:
            return -1
        if self._selecting is None:
            self._selecting = WeakSet()
        if not self._is_told_here:
            self._selecting.add(self._waiter.thread())
        return descriptor

    # -- beside the view ------------------------------------------------------------------------

    def on_close(self, callback: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        """
        Has ``callback(*args)`` called once when this connection ends, whichever way it does.

        That is: the client closes or vanishes, a limit or :meth:`close` ends it, the view returns
        or fails, or the process ends. Callbacks run in the order of their registration, one after
        the other, on a thread (green thread) of their own, beside the view if it is still at work.
        The ORM, the language and the time zone work there as in the view. An exception is logged,
        and the next callback runs. One that is registered after the end runs at once.

        Args:
            callback: A function; or a coroutine function, which runs in the event loop in which it
                was registered, else in one of the process.
            *args: What it is called with.

        Returns:
            ``callback``, so that this may be used as a decorator.

        Raises:
            TypeError: ``callback`` cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"on_close() takes a function, not {type(callback).__name__}")
        callbacks = self._close_callbacks
        if callbacks is None:
            callbacks = self._close_callbacks = CloseCallbacks(str(self))
            if self._connection is not None:
                callbacks.attach(self._connection, self._waiter, self._spawn)
        callbacks.add(callback, args)
        return callback

    def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Helper:
        """
        Runs ``function(*args, **kwargs)`` beside the view, on a thread (green thread) of its own.

        It belongs to the connection: it has the view's language, time zone and care for database
        connections, and its calls behave as the view's. When the connection has ended its receiving
        calls raise ``ConnectionClosed``, which it may let through, and its ``send`` gives False
        and then raises. The end of the view closes the connection and waits up to a second for it.
        An exception of it is the view's: it is reported in the same way and closes the connection
        with the same code.

        Returns:
            A helper that tells whether it still runs (``is_running``) and waits for it (``join``).

        Raises:
            TypeError: A coroutine function (use :meth:`astart`), or nothing that can be called.
            UsageError: The view does not run: it has not begun, or has ended.
            RuntimeError: The system gives no more threads.
        """
        if iscoroutinefunction(function):
            raise TypeError("start() takes a plain function: use `await websocket.astart(…)`")
        _check_callable("start()", function)
        view = self._running_view("start()")
        return view.helpers.start(view, self._waiter, self._spawn, function, args, kwargs)

    async def astart(
        self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> asyncio.Task[None]:
        """
        Runs a coroutine function beside an async view, as a task. As :meth:`start`.

        A task that has not ended a second after the view is cancelled.

        Returns:
            The task.

        Raises:
            TypeError: No coroutine function (use :meth:`start`).
            UsageError: The view does not run.
        """
        if not iscoroutinefunction(function):
            raise TypeError("astart() takes a coroutine function: use start() for others")
        view = self._running_view("astart()")
        return view.helpers.start_task(view, function, args, kwargs)

    def every(self, seconds: float, function: Callable[..., Any], *args: Any) -> Ticker:
        """
        Calls ``function(*args)`` every so many seconds until the connection or its view ends.

        The first call comes after ``seconds``. Calls never overlap and do not drift; calls that are
        due while a longer one still runs are left out. No thread waits for them:
        each takes one of the threads (green threads) of views for as long as it runs, beside the
        view. In an async view a coroutine function is awaited in its loop. Exceptions are the
        view's, as for :meth:`start`.

        Returns:
            A ticker whose ``stop`` ends the calls before that.

        Raises:
            TypeError: ``function`` cannot be called.
            ValueError: ``seconds`` is not above 0.
            UsageError: The view does not run.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
            raise ValueError(f"every() takes a number of seconds above 0, not {seconds!r}")
        _check_callable("every()", function)
        view = self._running_view("every()")
        call = functools.partial(function, *args)
        if not iscoroutinefunction(function):
            return view.helpers.tick(view, self._waiter, self._spawn, seconds, call)
        if running_loop() is None:
            raise UsageError("every() takes a coroutine function in async views only")
        return view.helpers.tick_in_loop(view, seconds, call)

    def pump(self, source: Any, *, kill: bool = True) -> bool:
        """
        Sends all that ``source`` gives, as it comes, until it or the connection ends.

        Sends at the client's pace: while the client does not read, the source is not read either.
        Bytes of a stream go out as they come, cut between characters in the compatible mode, so
        that UTF-8 arrives as text. Text streams are sent by lines, iterables by items.

        Args:
            source: A ``subprocess.Popen`` with ``stdout=PIPE``, a file, a socket, a descriptor, or
                an iterable of messages.
            kill: When the client goes, or sending fails: kill the process, close another source.
                Without it the source stays as it is. A bare descriptor is never closed.

        Returns:
            True when the source came to its end, False when the connection did. A client that
            takes nothing within ``WEBSOCKET_SEND_TIMEOUT`` is closed with 1013.

        Raises:
            TypeError, ValueError: No such source, or an item that is no message.
            UsageError: Called in an event loop: use ``await asyncio.to_thread(websocket.pump, …)``.
        """
        if running_loop() is not None:
            raise UsageError(
                "pump() would block the event loop: "
                "use `await asyncio.to_thread(websocket.pump, source)`"
            )
        connection = self._connection or self._engine
        if self._held is not None:
            # The source may give nothing for hours.
            self._held.give_back_idle(0)
        pumped = Source(source)
        is_whole = False
        try:
            self._waiter.at_end(connection, functools.partial(pumped.interrupt, kill=kill))
            items = pumped.items()
            cut = pumped.is_stream and self._text_as_bytes
            for item in whole_characters(items) if cut else items:
                if not self.send(item):
                    break
            else:
                is_whole = not pumped.is_interrupted
        except SendTimeout:
            connection.close(*_TRY_AGAIN_LATER)
        except ConnectionClosed:
            if not self._is_over:
                raise
        finally:
            pumped.finish(kill=kill and not is_whole)
        return is_whole

    # -- what the calls above share -------------------------------------------------------------

    def _end(self) -> tuple[int, str, By] | None:
        """How the connection has ended, also one that was closed before it was opened."""
        if self._connection is not None:
            return self._connection.end()
        return None if self._last_word is None else (*self._last_word, "local")

    def _ping(self, payload: bytes) -> bool:
        """Sends a ping, for the protocol of the original. False when it cannot be queued."""
        return self._engine.ping(payload)

    def _pong(self, payload: bytes) -> bool:
        """Sends an unsolicited pong. As :meth:`_ping`."""
        return self._engine.pong(payload)

    def _running_view(self, what: str) -> View:
        request = self._view_request
        if request is None:
            raise UsageError(f"{what} is for the view of an open WebSocket, while it runs")
        if self._view is None:
            # Of two threads that do this at once, the first one's object is kept.
            self.__dict__.setdefault("_view", type(self)._new_view(self, request))
        assert self._view is not None
        return self._view

    def _known_caller(self) -> Caller | None:
        return None if self._callers is None else self._callers.get(self._waiter.caller())

    def _caller(self, key: object | None = None) -> Caller:
        """Gives the record of this thread (green thread, task), or of the one that ``key`` is."""
        callers = self._callers
        if callers is None:
            callers = self._callers = Callers()
        if key is None:
            key = self._waiter.caller()
        caller = callers.get(key)
        if caller is None:
            caller = callers[key] = Caller()
        return caller

    def _note_receiving(self) -> Caller:
        """Notes that this caller asks for messages."""
        caller = self._caller()
        caller.receives = True
        caller.is_refused = False
        caller.asked_at = None
        return caller

    def _receive_again(self) -> None:
        """To be called before messages are asked for, when a caller is known."""
        caller = self._note_receiving()
        if caller.told_at is None:
            return
        # In an event loop nothing may sleep.
        if running_loop() is None and (pause := caller.pause(clock.now())):
            self._waiter.sleep(pause)
        if clock.now() - caller.told_at > _PATIENCE_S:
            self._raise_if_ended()

    def _tell_loop(self) -> None:
        """Notes that the tasks of the running loop have received the end."""
        self._tell(self._caller(self._waiter.thread()))

    async def _pause_loop(self) -> None:
        """Sleeps as long as a task has to that has received the end."""
        caller = self._caller(self._waiter.thread())
        if caller.told_at is not None and (pause := caller.pause(clock.now())):
            await asyncio.sleep(pause)

    def _let_others_run(self) -> None:
        """To be called when a call that never waits has found nothing."""
        if running_loop() is None:
            is_spinning = time.monotonic() - self._polled_at < _SPIN_S
            self._waiter.let_others_run(self._engine, _SPIN_S if is_spinning else 0.0)
            self._polled_at = time.monotonic()

    def _raise_if_ended(self) -> None:
        end = self._engine.end()
        if end is not None:
            raise ConnectionClosed(*end)

    def _raise_if_nothing_comes(self) -> None:
        if self._engine.waiting() == (0, True):
            self._tell(self._caller())
            self._raise_if_ended()

    def _note_end(self) -> bool:
        """Notes that the caller receives the end, if no message is left before it. Whether so."""
        ended = self._engine.waiting() == (0, True)
        if ended:
            self._tell(self._caller())
            if self._has_handler() and not self._is_close_handled:
                self._is_close_handled = True
                self.handle(_CLOSE, self._close_payload())
            if told_by_exception.get():
                self._raise_if_ended()
        return ended

    def _tell(self, caller: Caller) -> None:
        if caller.told_at is None:
            caller.told_at = clock.now()
        if self._selecting is not None:
            self._selecting.discard(self._waiter.thread())
            if not self._selecting:
                self._engine.mark_end_read()

    def _close_payload(self) -> bytes:
        end = self._engine.end()
        if end is None or end[0] in (1005, 1006):
            return b""
        return struct.pack("!H", end[0]) + end[1].encode()

    def _has_handler(self) -> bool:
        # Reading `__dict__` would create the dict: attributes are stored without one until then.
        handle = self.handle
        return handle is not None and getattr(handle, "__func__", None) is not _NO_HANDLER

    def _handled(self, timeout: float | None) -> Any:
        message = self._take(timeout, text_as_bytes=False)
        if message is None:
            return None
        opcode = _TEXT if isinstance(message, str) else _BINARY
        if self._text_as_bytes and isinstance(message, str):
            message = message.encode()
        if self._has_handler():
            self.handle(opcode, message)
        return message

    def _take(self, timeout: float | None, text_as_bytes: bool) -> Any:
        if timeout != 0 and running_loop() is not None:
            raise UsageError(
                "this would block the event loop and all its views: "
                "use `await websocket.areceive()` or `async for`"
            )
        if self._held is not None:
            self._held.give_back_idle()
        connection = self._connection or self._engine
        if self._waiter is not THREAD and connection.owes_a_pause():
            self._waiter.let_others_run(connection, 0)
        message = connection.pop(text_as_bytes)
        if message is not None:
            return message
        own = own_websocket.get() is self
        if not own:
            self._caller().receives = True
        if timeout == 0:
            self._let_others_run()
        elif own and (timeout is None or timeout > _IDLE_AFTER_S):
            return self._take_idly(connection, timeout, text_as_bytes)
        return self._waiter.take(connection, timeout, text_as_bytes)

    def _take_idly(self, connection: Connection, timeout: float | None, text_as_bytes: bool) -> Any:
        """As :meth:`_take` for the own view, which may wait for long."""
        deadline = None if timeout is None else clock.now() + timeout
        message = self._waiter.take_coarse(connection, _IDLE_AFTER_S, text_as_bytes)
        return self._rest(deadline, text_as_bytes) if message is None else message

    def _take_next(self) -> Any:
        """As :meth:`_take` for a view's main loop, which goes through here for each message."""
        if own_websocket.get() is not self or running_loop() is not None:
            return self._take(None, self._text_as_bytes)
        if self._held is not None:
            self._held.give_back_idle()
        connection = self._connection or self._engine
        if self._waiter is THREAD:
            message = connection.take_coarse(_IDLE_AFTER_S, self._text_as_bytes)
        else:
            if connection.owes_a_pause():
                self._waiter.let_others_run(connection, 0)
            message = connection.pop(self._text_as_bytes)
            if message is None:
                self._is_rested = True
                message = self._waiter.take_coarse(connection, _IDLE_AFTER_S, self._text_as_bytes)
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
        """Hands a message over if that takes no waiting and no further checks."""
        if self._held is not None:
            self._held.give_back_idle()
        sender = own_websocket.get()
        connection = self._connection or self._engine
        if sender is None:
            posted = connection.post(message, self._text_as_bytes, None)
            if posted:
                self._note_plain_sending()
            return posted
        if not connection.post(message, self._text_as_bytes, sender._connection):
            return False
        if sender is self and self._waiter is not THREAD:
            if self._is_rested:
                self._is_rested = False
            else:
                self._waiter.rest_after_sending()
        return True

    def _note_plain_sending(self) -> None:
        """Notes whether this plain thread sends to one connection or to many."""
        known, this = _sends_to.get(), ref(self)
        if known is not this:
            other = None if known is None else known()
            _sends_to.set(this if other is None or other.closed else ref(_many))

    def _is_sole_target(self) -> bool:
        """Whether this plain thread has sent to this connection before, and to no other."""
        return own_websocket.get() is None and _sends_to.get() is ref(self)

    def _send(self, message: Message, binary: bool | None, strict: bool) -> bool:
        if self._held is not None:
            self._held.give_back_idle()
        connection = self._connection or self._engine
        own = own_websocket.get() is self
        # An event loop must not block here. Nor may a sender to several clients: the others would
        # wait, too.
        waits = running_loop() is None and (own or self._is_sole_target())
        patience = self._send_patience if waits else None
        try:
            sent = self._waiter.send(connection, message, binary=binary, patience=patience)
        except SendTimeout:
            if own:
                raise
            connection.close(*_TRY_AGAIN_LATER)
            sent = False
        if not sent:
            return self._refuse_to_send(strict)
        if own_websocket.get() is None:
            self._note_plain_sending()
        return True

    async def _asend(self, message: Message, binary: bool | None, strict: bool) -> bool:
        connection = self._connection or self._engine
        is_slow = connection.is_slow_to_send(message)
        if not is_slow and not self._is_sending_long():
            return await self._asend_now(connection, message, binary, strict)
        # Of two threads that do this at once, the first one's object is kept.
        turns = self.__dict__.setdefault("_long_sends", Turns())
        async with turns:
            return await self._asend_now(connection, message, binary, strict, is_slow=is_slow)

    async def _asend_now(
        self,
        connection: Connection,
        message: Message,
        binary: bool | None,
        strict: bool,
        *,
        is_slow: bool = False,
    ) -> bool:
        if own_websocket.get() is not self:
            if not is_slow:
                return self._send(message, binary, strict)
            send = functools.partial(connection.send, message, binary=binary)
            return await call_elsewhere(send) or await self._arefuse_to_send(strict)
        try_send = functools.partial(connection.try_send, message, binary=binary)
        deadline: float | None = None
        while (sent := await call_elsewhere(try_send) if is_slow else try_send()) is None:
            if deadline is None:
                deadline = clock.now() + self._send_patience
            left = deadline - clock.now()
            if left <= 0:
                raise no_room(self._send_patience)
            patience = None if left == math.inf else left
            await hub.current().wait(connection, connection.watch_outbox, patience)
        return sent or await self._arefuse_to_send(strict)

    def _is_sending_long(self) -> bool:
        """Whether a large message of a task is on its way, which later ones must not overtake."""
        return self._long_sends is not None and self._long_sends.are_taken

    def _refuse_to_send(self, strict: bool) -> bool:
        """Refuses a send because the connection has ended: gives False, or raises."""
        pause, raises = self._note_refusal(strict)
        if pause is not None and running_loop() is None:
            self._waiter.sleep(pause)
        return self._refused(raises)

    async def _arefuse_to_send(self, strict: bool) -> bool:
        pause, raises = self._note_refusal(strict)
        if pause is not None:
            await asyncio.sleep(pause)
        return self._refused(raises)

    def _note_refusal(self, strict: bool) -> tuple[float | None, bool]:
        """
        Notes that this caller cannot send any more.

        Gives the seconds that it has to sleep, if at all, and whether to raise an exception.
        """
        caller = self._caller()
        own = own_websocket.get() is self
        # A view may send each of its messages in a task of its own, as `asyncio.wait_for` does.
        in_task = own and running_loop() is not None
        refused_before = self._was_refused if in_task else caller.is_refused
        caller.is_refused = self._was_refused = True
        gone_for = self._engine.ended_for() or 0.0
        raises = strict or (own and refused_before and gone_for > _PATIENCE_S)
        # A sender with other connections to serve is not held up.
        is_alone = own or self._is_sole_target()
        sleeps = is_alone and refused_before
        return caller.pause_of_send(clock.now()) if sleeps else None, raises

    def _refused(self, raises: bool) -> bool:
        if raises:
            self._raise_if_ended()
            # The socket is gone, though the engine has not yet read how.
            raise ConnectionClosed
        return False


_NO_HANDLER = WebSocket.handle


class _Messages:
    """The iterator of ``async for``."""

    __slots__ = ("_next", "_websocket")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._next = websocket._engine.next(hub.hub_and_loop)

    def __aiter__(self) -> _Messages:
        return self

    def __anext__(self) -> Awaitable[Message]:
        # Not a coroutine function: the view itself awaits what this returns.
        if self._websocket._callers is not None:
            self._websocket._note_receiving()
        return self._next


class Messages:
    """The messages of a connection until its close: see :meth:`WebSocket.messages`."""

    __slots__ = ("_websocket",)

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    def __iter__(self) -> Iterator[Message]:
        """Yields each message; waits without the GIL. Not in an event loop."""
        while True:
            try:
                message = self._websocket.receive()
            except ConnectionClosed:
                return
            yield message
            # It may be large, and the next one may come much later.
            del message

    def __aiter__(self) -> AsyncIterator[Message]:
        """Yields each message, as ``async for message in websocket``."""
        return self._websocket.__aiter__()


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


def _parsed(message: Message, kwargs: dict[str, Any]) -> Any:
    try:
        return json.loads(message, **kwargs)
    except RecursionError:
        raise InvalidMessage("the message is no JSON: it is nested too deeply") from None
    except ValueError as error:
        # A number that is too long raises a bare ValueError. Subclasses of a project's own come
        # from its hooks.
        if type(error) not in (json.JSONDecodeError, UnicodeDecodeError, ValueError):
            raise
        raise InvalidMessage(f"the message is no JSON: {error}") from error


def _check_callable(what: str, function: object) -> None:
    if not callable(function):
        raise TypeError(f"{what} takes a function, not {type(function).__name__}")


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None, 0 or a number of seconds, not {timeout!r}")
