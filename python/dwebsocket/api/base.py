"""The part that all calls of ``request.websocket`` share: state, connection, and callers."""

from __future__ import annotations

import functools
import itertools
import math
import secrets
import time
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from dwebsocket import _core
from dwebsocket.api.announcing import announced
from dwebsocket.api.waiting.caller import Caller, Callers
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.compat import unpatched
from dwebsocket.exceptions import ConnectionClosed, UsageError
from dwebsocket.telemetry import clock, tally, tracing

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping
    from weakref import WeakSet

    from django.http import HttpRequest

    from dwebsocket._core import Connection
    from dwebsocket.api.close_callbacks import CloseCallbacks, Spawn
    from dwebsocket.api.decision import Decision
    from dwebsocket.api.protocol import WebSocketProtocol13
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.api.waiting.waiter import Waiter
    from dwebsocket.conf import Options
    from dwebsocket.request import Transport, database
    from dwebsocket.request.worlds import World
    from dwebsocket.telemetry.records import By

T = TypeVar("T")

#: The connection whose view runs here. Tasks and `sync_to_async` threads of the view inherit it.
own_websocket: ContextVar[Base | None] = ContextVar("own_websocket", default=None)
#: Return and set it. Bound here, because each message needs them: since Python 3.11 a call of an
#: imported object's method makes a method object first.
current_websocket: Callable[[], Base | None] = own_websocket.get
set_own_websocket: Callable[[Base | None], object] = own_websocket.set

# A view that sleeps longer gives its database connections back.
IDLE_AFTER_S = 3.0
# The close code and reason for a client that takes nothing.
TRY_AGAIN_LATER = (1013, "too slow")
#: Those where the process ends: the site with it, or not.
GOING_AWAY = (1001, "going away")
RESTARTING = (1012, "restarting")

# Numbers for the names of WebSockets whose name is needed before they have a connection.
_early_names = itertools.count(1)
_new_id = functools.partial(secrets.token_urlsafe, 16)


def made_once(holder: Any, name: str, make: Callable[[], T]) -> T:
    """Returns an attribute, made on first use: if two threads race, the object of the first one."""
    found: T | None = getattr(holder, name, None)
    if found is None:
        found = holder.__dict__.setdefault(name, make())
    return found


class Base:
    """One WebSocket connection, without the calls of its view."""

    # Attributes that few connections need. They are set on first use, so the others hold nothing.
    _name: str | None = None
    _id: str | None = None
    _callers: Callers | None = None
    _selecting: WeakSet[object] | None = None
    _close_callbacks: CloseCallbacks | None = None
    # Its groups, while the signals about groups have receivers.
    _groups_noted: Counter[Any] | None = None
    # The steps that join groups that have a history, before the view's first line; set by
    # `dwebsocket.groups.view_groups`.
    _join_recorded: Callable[[], Steps[None]] | None = None
    # Its rooms by their names: the group of each, the seat, and how it is present there.
    _seats: dict[str, tuple[Any, Any, Any, Callable[[Any], object]]] | None = None
    # The context around all code that runs for it, and the realm of its user; while it lives.
    _world: World | None = None
    _realm: str = ""
    # The primary key of its user and the key of its session, each empty where there is none.
    _visitor_names: tuple[str, str] = ("", "")
    # Sends the signals about the groups that it has joined as it opened.
    _announce_groups: Callable[[], None] | None = None
    # The thread of its async handler, as long as there is one.
    _handler_worker: Any = None
    # The database connections of its view, once it has any.
    _held: database.OpenConnections | None = None
    # The request of the view that runs now.
    _view_request: HttpRequest | None = None
    # Its spans, while it is traced: see `dwebsocket.telemetry.tracing`.
    _trace: Any = None
    _was_refused = False
    # Whether its socket cannot go to another process: this one encrypts, or a server has it.
    _is_bound = False
    _is_finished = False
    # Whether its user was signed out, or an administrator closes it.
    _is_expelled = False
    # Whether its view has waited for it in vain.
    _was_too_slow = False
    # Whether it is given to another process. Sends of threads that are left here raise then.
    _is_given = False
    # The messages that were received and sent in other processes.
    _messages_before: tuple[int, int] = (0, 0)
    # Made on first use, or by a factory that makes a WebSocket as in the original.
    _protocol: WebSocketProtocol13 | None = None
    # The request from which a factory has made it, until it is open.
    _request: Callable[[], HttpRequest | None] | None = None
    _headers: Mapping[str, Any] = MappingProxyType({})
    _transport: Transport = "websocket"

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._decision: Decision[Any] | None = None
        self._on_finish: Callable[[], object] | None = None
        # The view's share of the permit, one of `WEBSOCKET_MAX_CONNECTIONS`.
        self._permit: _core.Permit | None = None
        self._is_deliberate = False
        self._early_close: tuple[int, str] | None = None
        self._waiter: Waiter = THREAD
        self._options: Options | None = None
        self._text_as_bytes = True
        self._send_timeout = math.inf
        self._subprotocol: str | None = None
        # On the wall clock.
        self._opened_at: float | None = None
        self._spawn: Spawn = unpatched.start_thread
        # Other green threads have run since its last send; only for views on green threads.
        self._has_yielded = False
        # Whether its view has asked for messages, by a call that tells it of the end.
        self._view_receives = False
        # Whether any receiving call has reported the end.
        self._is_end_told = False

    def __repr__(self) -> str:
        # It never changes: projects use it as a key.
        if self._name is None:
            connection = self._connection
            number = 0 if connection is None else connection.id
            # If two threads race, the first one's name stays.
            self.__dict__.setdefault("_name", str(number or f"early-{next(_early_names)}"))
        return f"<{type(self).__name__} {self._name}>"

    @property
    def id(self) -> str:
        """
        A name of this connection for other processes: unguessable, and stable while it lives.

        A page may send it with a POST, so that the view can ``exclude`` its connection from a
        group's message. Any thread may read it.
        """
        return self._id or made_once(self, "_id", _new_id)

    # -- the interface to the engine ----------------------------------------------------------

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
        timeout = options.send_timeout
        self._send_timeout = math.inf if timeout is None else timeout
        self._subprotocol = subprotocol
        self._opened_at = time.time()
        self._connection = announced(connection, self)
        if self._early_close is not None:
            connection.close(*self._early_close)
        if self._close_callbacks is not None:
            self._close_callbacks.attach(connection, waiter, spawn, self._world)

    def _finish(self, code: int, reason: str, *, is_half: bool = False) -> None:
        """
        Does what remains to be done when the view has ended.

        Its permit stays until the functions beside it have ended, too: the process waits for it.

        Args:
            code: The close code.
            reason: The reason beside it.
            is_half: Others may still send, until this is closed once more.
        """
        self._close_wanted(code, reason, is_half=is_half)
        self._let_go(tally.closed)

    def _finish_moved(self) -> None:
        """Does what remains to be done here when another process goes on with the connection."""
        self._let_go(tally.moved)

    def _let_go(self, note: Callable[[Base], object]) -> None:
        self._leave()
        self._is_finished = True
        note(self)
        tracing.closed(self)
        if self._selecting is not None:
            self._engine.close_descriptor()

    def _abandon(self, code: int, reason: str) -> None:
        """Finishes, and releases the permit at once: there is nothing to wait for."""
        self._finish(code, reason)
        self._release_permit()

    def _unwanted_end(self) -> tuple[int, tuple[int, str, By]] | None:
        """The connection's number, and how it ended if its view has not closed it."""
        connection = self._connection
        end = None if connection is None or not connection.id else connection.end()
        if connection is None or end is None or self._is_deliberate:
            return None
        return connection.id, end

    def _was_expelled(self) -> bool:
        """Whether the project has closed it elsewhere, with others of its user or of a group."""
        connection = self._connection
        by_group = connection is not None and connection.is_closed_by_group
        return self._is_expelled or by_group

    def _close_wanted(self, code: int, reason: str, *, is_half: bool = False) -> bool:
        """Closes for a reason that the view's code means: the end is not logged."""
        connection = self._connection
        if connection is not None and connection.end() is None:
            # First: the view may see the end, and be over, before this thread goes on.
            self._is_deliberate = True
        if connection is not None and is_half:
            return connection.half_close(code, reason)
        return self._close_soon(code, reason)

    def _close_soon(self, code: int, reason: str) -> bool:
        """Closes, also before the connection is open; true if this began to close an open one."""
        if self._connection is None:
            # Set before the connection is read: `_attach()` first sets the connection, then reads
            # this. The first close counts, as on an open connection.
            self._early_close = self._early_close or (code, reason)
        return self._connection is not None and self._connection.close(code, reason)

    def _leave(self) -> None:
        """Leaves the registry of open connections."""
        leave, self._on_finish = self._on_finish, None
        if leave is not None:
            leave()

    def _release_permit(self) -> None:
        """Releases the view's hold on its permit: no view runs after this any more."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.release()

    def _never_open(self) -> None:
        """Makes this behave as a connection whose client has vanished."""
        self._connection = _core.Connection.never_opened()
        if self._close_callbacks is not None:
            self._close_callbacks.attach(self._connection, self._waiter, self._spawn, self._world)

    @property
    def _was_opened(self) -> bool:
        """Whether its connection is open, or was."""
        return self._connection is not None and self._connection.id != 0

    @property
    def _is_undecided(self) -> bool:
        """Whether its view has yet to accept or to refuse."""
        return self._decision is not None and self._decision.is_open_question

    @property
    def _is_over(self) -> bool:
        """Whether this connection has ended, or has refused a message."""
        return self._end() is not None or self._was_refused

    @property
    def _is_told_here(self) -> bool:
        """Whether the calling thread (green thread, task) has received the end."""
        caller = None if self._callers is None else self._callers.get(self._waiter.caller())
        return caller is not None and caller.told_at is not None

    @property
    def _engine(self) -> Connection:
        if self._connection is None:
            if self._decision is not None:
                raise UsageError("this WebSocket is not open yet: accept() it first")
            raise UsageError("this WebSocket is not open yet: use it inside its view")
        return self._connection

    def _end(self) -> tuple[int, str, By] | None:
        """How the connection has ended, also one that was closed before it was opened."""
        if self._connection is not None:
            return self._connection.end()
        return None if self._early_close is None else (*self._early_close, "local")

    # -- its callers: threads, green threads, tasks ---------------------------------------------

    def _caller(self, key: object | None = None) -> Caller:
        """Returns the :class:`Caller` of this thread (green thread, task), or of ``key``."""
        callers = made_once(self, "_callers", Callers)
        if key is None:
            key = self._waiter.caller()
        caller = callers.get(key)
        if caller is None:
            caller = callers[key] = Caller()
        return caller

    def _tell(self, caller: Caller) -> None:
        """Notes that this caller receives the end."""
        self._is_end_told = True
        if caller.told_at is None:
            caller.told_at = clock.now()
        if self._selecting is not None:
            self._selecting.discard(self._waiter.thread())
            if not self._selecting:
                self._engine.mark_end_read()

    def _raise_if_ended(self) -> None:
        end = self._engine.end()
        if end is not None:
            raise ConnectionClosed(*end)
