"""
The life of a handler: calls of its methods, one at a time, and nothing between them.

A handler is *at home* where its messages are waited for: in an event loop if its ``receive`` is a
coroutine function, else on the threads of :mod:`~dwebsocket.runners.handler_threads` or on green
ones. The engine announces its token there when there is news, and the handler has a *turn*: one
call, after which it waits for the next announcement. Methods of the other kind than its home are
called from there and waited for, without a thread that sleeps meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import itertools
import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, final

from asgiref.sync import iscoroutinefunction, sync_to_async

from dwebsocket.api import callbacks
from dwebsocket.api.base import GOING_AWAY, own_websocket, set_own_websocket
from dwebsocket.api.waiting.steps import Call, arun, run
from dwebsocket.compat import unpatched
from dwebsocket.compat.asgiref import leave_request
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.request import context, database, http_request
from dwebsocket.runners import handler_context, handler_threads, loop, moving
from dwebsocket.runners import view as life
from dwebsocket.runners.async_view_threads import SharedContext
from dwebsocket.runners.handler_loop import LoopHome
from dwebsocket.runners.outcome import tells_end
from dwebsocket.telemetry import clock, durations, tracing
from dwebsocket.telemetry.records import printable, report_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Future

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http.response import HttpResponseBase

    from dwebsocket._core import Connection, Seat
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.request.worlds import World
    from dwebsocket.runners.handler_context import HandlerContext
    from dwebsocket.runners.handler_threads import TurnExecutor
    from dwebsocket.typing import WebSocketRequest
    from dwebsocket.websocket import WebSocket

_log = logging.getLogger("dwebsocket")

_NORMAL, _INTERNAL_ERROR = 1000, 1011
_TRY_AGAIN_LATER = (1013, "no descriptor for another handler")
# The token of a handler that does not live yet.
_NONE = -1
# Messages that a handler gets before others have a turn, and on threads the seconds after which it
# gets no further one.
_MESSAGES_A_TURN = 32
_LONGEST_TURN_S = 0.0005
_lock = unpatched.lock()
# 0 is for those of no class.
_lanes = itertools.count(1)
_open = 0
# The future of :func:`ended`, once it was asked for.
_ended: Future[None] | None = None


@final
class HandlerFacts:
    """
    The facts about a class of handlers that each of its connections needs.

    Attributes:
        name: Module and qualified name.
        lane: Its number, for turns with other classes.
        has_waited: Whether the last turn in an event loop has waited for something.
        every: Seconds between two calls of ``tick``; None without.
        has_async_view: Its view is async, because one of the methods is, or what answers requests.
        methods: The names of its own methods.
        is_async: Of these, those that are coroutine functions.
        in_loop: Its connections are at home in an event loop.
        is_mixed: They are, and have sync methods besides, which run on threads.
        survives: They move to another process when theirs ends.
    """

    def __init__(self, cls: type[Handled], every: float | None, *, answers_async: bool) -> None:
        """
        Reads a class.

        Args:
            answers_async: Whether its ``dispatch`` is async, or a method for plain requests.
        """
        self.name = f"{cls.__module__}.{cls.__qualname__}"
        self.lane = next(_lanes)
        self.has_waited = False
        self.every = every
        self.survives: bool = cls.survives
        methods = [name for name in _METHODS if getattr(cls, name) is not getattr(Handled, name)]
        self.methods = frozenset(methods)
        self.has_connect = "connect" in methods
        self.is_async = frozenset(
            name for name in methods if iscoroutinefunction(getattr(cls, name))
        )
        self.has_async_view = bool(self.is_async) or answers_async
        first = [name for name in _METHODS if name in methods and name != "connect"]
        self.in_loop = bool(first) and first[0] in self.is_async
        self.is_mixed = self.in_loop and not self.is_async.issuperset(first)


class Handled:
    """One connection and the state of its handler: see :class:`dwebsocket.WebSocketHandler`."""

    __slots__ = (
        "_again",
        "_cancel_tick",
        "_context",
        "_databases",
        "_due",
        "_has_left",
        "_home",
        "_is_at_work",
        "_is_new",
        "_is_over",
        "_is_resuming",
        "_loop",
        "_move",
        "_tick_is_due",
        "_token",
        "args",
        "kwargs",
        "request",
        "websocket",
    )

    _plan: ClassVar[HandlerFacts]
    survives: ClassVar[bool]
    version: ClassVar[Any]

    request: WebSocketRequest
    websocket: WebSocket
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @functools.cached_property
    def state(self) -> dict[str, Any]:
        """The dict that moves with the connection to another process. Empty at first."""
        return {}

    # -- to be overridden ------------------------------------------------------------------------

    def connect(self) -> HttpResponseBase | Awaitable[HttpResponseBase | None] | None:
        """
        Is called before the handshake is answered, as a view with ``accept=False``.

        May refuse: by an exception, such as ``PermissionDenied``, or by a response. Does nothing
        here, which accepts.

        Example::

            def connect(self):
                if not self.request.user.is_authenticated:
                    raise PermissionDenied
        """

    def receive(self, message: Any) -> Awaitable[None] | None:
        """
        Is called for each message, one at a time and in order. Does nothing here.

        Example::

            def receive(self, message):
                self.websocket.send(f"You said {message}")

        Args:
            message: Text as ``str``, binary as ``bytes``. A handler whose clients send one of them
                may annotate it so.
        """

    def disconnect(self, code: int, reason: str) -> Awaitable[None] | None:
        """
        Is called when the connection has ended, however it did, unless ``connect`` refused it.

        Does nothing here.

        Example::

            def disconnect(self, code, reason):
                group("lobby").send(f"{self.user} has left")

        Args:
            code: The close code; 1006 for an end without a close frame, 1005 for one without code.
            reason: The reason beside it, often empty.
        """

    def tick(self) -> Awaitable[None] | None:
        """Is called every :attr:`every` seconds while the connection is open. Does nothing here."""

    def resumed(self) -> Awaitable[None] | None:
        """
        Is called in place of :meth:`connect` in a process that goes on with the connection.

        Only for a handler that :attr:`survives`; :attr:`state` is what it was. Does nothing here.

        Example::

            def resumed(self):
                self.game = Game.objects.get(pk=self.state["game"])
        """

    # -- the beginning ---------------------------------------------------------------------------

    def _set_up(
        self,
        websocket: WebSocket,
        own_context: contextvars.Context,
        databases: dict[str, BaseDatabaseWrapper],
    ) -> None:
        """Fills in what its request did not bring, before its first method is called."""
        # Django's, also where a decorator above has wrapped it.
        self.request = http_request(self.request)
        self.websocket = websocket
        # Until its first turn that of the handshake, then one that only copies run in.
        self._context: contextvars.Context | HandlerContext = own_context
        self._databases = databases or None
        self._is_new = True
        self._has_left = False
        self._is_over = self._is_at_work = self._again = self._tick_is_due = False
        # Whether it came from another process, and is yet to be told; how it goes to another one.
        self._is_resuming = False
        self._move: moving.Move | None = None
        self._cancel_tick: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._home: Any = None
        # Of its home, once it lives there.
        self._token = _NONE

    def _live_on_threads(self) -> None:
        """
        Begins its life behind an open connection, at home on threads or green ones.

        Raises:
            RuntimeError: The system gives no thread.
        """
        home: TurnExecutor = self._home
        self._share_context()
        self._token = home.enter(self, self._plan.lane)
        _count(1)
        if self._plan.survives:
            # First: its last turn may come at any time after this.
            moving.enter(self)
        if not self._is_resuming:
            self._go_on()

    def _go_on(self) -> None:
        """Has its first turn come, if it lives on threads. Any thread may call it."""
        # One whose connection could not be opened has none.
        token = getattr(self, "_token", _NONE)
        if token != _NONE and not self._plan.in_loop:
            self._home.announce(token)

    def _live_in_loop(self) -> None:
        """Begins its life behind an open connection, at home in an event loop."""
        _count(1)
        if self._plan.survives:
            moving.enter(self)
        threads = handler_threads.home() if self._plan.is_mixed else None
        if threads is not None:
            threads.hold()
        try:
            self._in_loop(self._enter_loop, contextvars.Context())
        except BaseException:
            moving.leave(self)
            if threads is not None:
                threads.release()
            _count(-1)
            raise

    def _in_loop(
        self,
        start: Callable[[], Coroutine[Any, Any, None]],
        its_context: contextvars.Context | None = None,
    ) -> None:
        """Runs a coroutine in the server's loop, or in that of the process. Any thread may."""
        if its_context is None:
            its_context, start = self._context.copy(), self._with_own_thread(start)
        server = self._loop
        if server is None:
            loop.run(self._plan.name, start, its_context)
        else:
            run = loop.SERVER_TASKS.run
            server.call_soon_threadsafe(run, self._plan.name, start, its_context)

    def _prepare(self) -> None:
        """Begins its life in the context in which its methods run. To be called in that context."""
        leave_request()
        self.websocket._view_request = self.request
        life._called_to_witness(self._plan.name, self.websocket, self)

    def _share_context(self) -> None:
        assert isinstance(self._context, contextvars.Context)
        self._context = handler_context.shared(self._context)

    def _leave_task(self) -> None:
        """Has its methods run in the context it began with, after a ``connect`` in a task."""
        # A copy: a loop's task factory may still be about to leave the context.
        own = self._context = self._context.copy()
        own.run(self._enter_thread, life.witness.get())

    def _enter_thread(self, told: life.Witness | None) -> None:
        context.enter_thread()
        leave_request()
        if told is not None:
            life.witness.set(told)

    def _set_tick(self) -> None:
        """Sets the timer of the next tick."""
        every = self._plan.every
        if every is None or self._is_over:
            return
        now = clock.now()
        if self._cancel_tick is None:
            if not self._is_resuming:
                self._due = now + every
        else:
            # All times are whole multiples apart; those that passed during a long call are skipped.
            self._due += every * (max(0.0, (now - self._due) // every) + 1)
        self._cancel_tick = callbacks.call_later(max(0.0, self._due - now), self._on_tick)

    @property
    def has_due_tick(self) -> bool:
        """Whether its next ``tick`` is due or under way."""
        has_timer = self._cancel_tick is not None and not self._is_over
        return has_timer and self._due <= clock.now()

    @property
    def coroutines(self) -> list[Any]:
        """The coroutines that wait, of other views too, one of which may run a method of it."""
        home: object = self._home
        turns = home.turns if isinstance(home, LoopHome) else ()
        return [*(task.get_coro() for task in loop.tasks()), *turns]

    def _on_tick(self) -> None:
        self._tick_is_due = True
        self._home.announce(self._token)

    def _is_time_to_tick(self, connection: Connection) -> bool:
        """Whether a tick comes before the next message: some client always has one more."""
        return self._tick_is_due and connection.end() is None

    # -- turns on threads ------------------------------------------------------------------------

    def _run_turn(self) -> None:
        """Has a turn on this (green) thread. Raises the exits of its home only."""
        if self._plan.every is None:
            self._context.run(self._turn)
        elif self._claim():
            if self._tick_is_due:
                # It may still listen: what has come for a message has ended that.
                self._home.unlisten(self.websocket._connection, self._token)
            self._context.run(self._turn)

    def _claim(self) -> bool:
        """Whether no other turn is under way. If one is, another one follows it."""
        with _lock:
            # A local variable: after the lock another thread may note its turn in `_again`.
            is_under_way = self._again = self._is_at_work
            self._is_at_work = True
        return not is_under_way

    def _turn(self) -> None:
        """Has a turn in a context of its own. Raises exits only."""
        if self._has_left:
            return
        try:
            self._call_what_is_due()
        except BaseException as error:
            # Of what is beside its methods, or an exit. The next turn is the last one.
            self._failed(error)
            if not self._has_left:
                self._wait()
            if isinstance(error, self._exits):
                raise

    def _call_what_is_due(self) -> None:
        set_own_websocket(self.websocket)
        if self._is_new:
            self._is_new = False
            self._call(run, self._begin())
        if self._move is not None and not run(self._goes_on()):
            return
        websocket = self.websocket
        connection = websocket._connection
        assert connection is not None
        is_resuming, self._is_resuming = self._is_resuming, False
        waits = self._is_over or is_resuming or self._is_time_to_tick(connection)
        message = None if waits else self._pop(connection)
        goes_on = True
        if is_resuming:
            goes_on = self._call_here("resumed", self.resumed)
        elif message is not None:
            goes_on = self._receive_some(message)
        elif self._is_over or connection.waiting() == (0, True):
            self._end_here()
            return
        elif self._tick_is_due:
            self._tick_is_due = False
            goes_on = self._call_here("tick", self.tick)
            self._set_tick()
        # Drop the message now, not only when the next one comes.
        del message
        if goes_on:
            self._wait()

    def _receive_some(self, message: str | bytes) -> bool:
        """
        Calls ``receive`` for a message, and for those that have come by then.

        Returns:
            False if it is a coroutine function, whose task does what follows.
        """
        connection = self.websocket._connection
        assert connection is not None
        ends_at = time.perf_counter() + _LONGEST_TURN_S
        found: str | bytes | None = message
        for _ in range(_MESSAGES_A_TURN - 1):
            if not self._call_here("receive", self.receive, found):
                return False
            if self._is_over or self._tick_is_due or time.perf_counter() > ends_at:
                return True
            if self._move is not None or (found := self._pop(connection)) is None:
                return True
        return self._call_here("receive", self.receive, found)

    def _pop(self, connection: Connection) -> str | bytes | None:
        """Returns a message that waits, after its signal; None without one, or when that fails."""
        try:
            return connection.pop(False)
        except BaseException as error:
            # Exceptions of receivers are logged; others end the connection, as one of a view's.
            self._failed(error)
            if isinstance(error, self._exits):
                raise
            return None

    def _wait(self) -> None:
        """Has the next turn come when there is news, which may be now."""
        if self._is_over:
            self._home.announce(self._token)
        else:
            assert self.websocket._connection is not None
            self._home.listen(self.websocket._connection, self._token)
            if self._move is not None:
                self._home.rouse(self.websocket._connection, self._token)
        if self._plan.every is not None:
            with _lock:
                self._is_at_work = False
                again, self._again = self._again, False
            if again:
                self._home.announce(self._token)

    def _begin(self) -> Steps[None]:
        if self._is_resuming:
            self.websocket._announce_end_later(self.request)
        elif self.websocket._decision is None:
            yield from self.websocket._announce_opening(self.request)
        self._set_tick()

    def _call_here(self, name: str, method: Callable[..., Any], *args: Any) -> bool:
        """Calls a method; false if it is a coroutine function, whose task does what follows."""
        if name in self._plan.is_async:
            self._in_loop(lambda: self._acall_and_wait(name, method, *args))
            return False
        self._call_method(name, method, *args)
        return True

    def _call_method(self, name: str, method: Callable[..., Any], *args: Any) -> None:
        """Calls a sync method of the project's, within its span where the project traces."""
        if self.websocket._trace is not None and name in self._plan.methods:
            with tracing.calling(self.websocket, self._plan.name, name):
                self._call(method, *args)
        else:
            self._call(method, *args)

    async def _acall_method(self, name: str, method: Callable[..., Any], *args: Any) -> None:
        """Calls a coroutine method of the project's, within its span where the project traces."""
        is_traced = self.websocket._trace is not None and name in self._plan.methods
        span = tracing.calling(self.websocket, self._plan.name, name) if is_traced else None
        with span or nullcontext():
            await self._acall(method, *args)

    def _call(self, method: Callable[..., Any], *args: Any) -> None:
        """Calls a sync method, with Django's steps around a request. Raises exits only."""
        shared, websocket = self._databases, self.websocket
        database.close_old_connections()
        began_at = time.perf_counter()
        try:
            if shared is not None:
                database.borrow(shared)
            # In a copy of the context: values that the method sets are not for the next call.
            if (world := websocket._world) is None:
                result = contextvars.copy_context().run(method, *args)
            else:
                result = contextvars.copy_context().run(self._call_within, world, method, args)
            if result is not None and inspect.iscoroutine(result):
                life.refuse_coroutine(result, repr(method))
            if world is None:
                life.save_session(self.request)
        except BaseException as error:
            self._failed(error)
            if isinstance(error, self._exits):
                raise
        finally:
            durations.of_handlers.add(time.perf_counter() - began_at)
            if shared is not None:
                database.forget(shared)
            database.close_after_call()
            # Connections that are still open stay the thread's, for the next call of any handler.
            if websocket._held is not None:
                websocket.__dict__.pop("_held", None)
        if websocket._is_deliberate:
            self._is_over = True

    def _call_within(self, world: World, method: Callable[..., Any], args: Any) -> Any:
        """Calls a method and saves the session, within what the project enters."""
        with world.entered():
            result = method(*args)
            if not inspect.iscoroutine(result):
                life.save_session(self.request)
            return result

    @property
    def _exits(self) -> tuple[type[BaseException], ...]:
        return () if self._home is None else self._home.exits

    def _failed(self, error: BaseException) -> None:
        """Closes the connection because a method let ``error`` through, which it reports."""
        self._is_over = True
        websocket = self.websocket
        if tells_end(error) and websocket._is_over:
            return
        code, reason = _INTERNAL_ERROR, ""
        try:
            if isinstance(error, self._exits):
                code, reason = GOING_AWAY
            else:
                code, reason = life.verdict(error, self.request, websocket)
        except Exception:
            # A signal receiver or a log filter failed: the connection must be closed all the same.
            path = printable(self.request.path)
            _log.exception("An error of a WebSocket handler could not be reported: %s", path)
        finally:
            websocket._close_wanted(code, reason)

    # -- moves to another process ----------------------------------------------------------------

    def _resume(self, state: dict[str, Any], tick_in: float | None) -> None:
        """Makes it one that goes on with a connection of another process. Before its first turn."""
        self._is_resuming = True
        if (every := self._plan.every) is not None:
            self._due = clock.now() + (every if tick_in is None else tick_in)
        if state:
            # To ask for an empty one would make a dict of all its attributes, for each connection.
            self.state.update(state)

    # A handler with rooms overrides these: see `dwebsocket.rooms.view`.

    def _seats_to_move(self) -> dict[str, moving.MovingSeat]:
        """Returns its seats in rooms, by the rooms' names."""
        return {}

    def _pack_rooms(self) -> dict[str, Any] | None:
        """Returns what it keeps of its rooms, as JSON can represent it."""
        return None

    def _obstacle_in(self, packed: dict[str, Any] | None) -> str | None:
        """Returns the reason why it cannot go on with rooms of another process; None if it can."""
        return None if packed is None else "its URL has no rooms now"

    def _seat_rooms(
        self, packed: dict[str, Any] | None, connection: Connection, key: bytes, user: str | None
    ) -> dict[str, Seat | None]:
        """Returns held seats in these rooms. Called before :meth:`_unpack_rooms`."""
        return {}

    def _unpack_rooms(self, packed: dict[str, Any] | None) -> None:
        """Goes on with rooms of another process. Before its first turn."""

    def _begin_move(self, move: moving.Move) -> None:
        """Has it park as soon as its present turn is over. Any thread may call it."""
        connection = self.websocket._connection
        assert connection is not None
        self._move = move
        if not moving.is_survivor(self):
            # It has ended before.
            move.park()
            return
        # Only if it waits for a message: another turn looks at the move at its end, and its first
        # turn at the beginning.
        if (home := self._home) is None:
            return
        is_idle_here = self._plan.every is None and not isinstance(home, LoopHome)
        if is_idle_here and home.unlisten(connection, self._token):
            # No turn is under way, nor comes before it is told.
            move.park()
        else:
            home.rouse(connection, self._token)

    def _end_move(self, *, has_parted: bool) -> None:
        """Has a parked handler let go of all, or go on. Any thread may call it."""
        move = self._move
        if move is None:
            return
        if has_parted:
            move.has_parted = True
        elif move.cancel():
            # Its turn, which is under way, goes on.
            return
        else:
            self._move = None
        self._home.announce(self._token)

    def _goes_on(self) -> Steps[bool]:
        """Whether this turn goes on while a move is under way."""
        move = self._move
        if move is None or (self._is_over and not move.has_parted):
            return True
        if move.has_parted:
            yield from self._let_go(self._finish_moved)
            return False
        # On threads the turn of a coroutine method has done so already.
        yield Call(bool, SharedContext.after_turn, self.websocket)
        with _lock:
            self._is_at_work = self._again = False
        if move.park():
            return False
        # It was too late for the move.
        self._move = None
        return self._claim()

    def _finish_moved(self) -> None:
        """Releases what is here of a connection that another process goes on with."""
        self._is_over = True
        if self._cancel_tick is not None:
            self._cancel_tick()
        self.websocket._finish_moved()
        own_websocket.set(None)

    # -- the end ----------------------------------------------------------------------------------

    def _end_here(self) -> None:
        if "disconnect" not in self._plan.is_async:
            run(self._let_go(self._disconnect))
            return
        try:
            self._in_loop(lambda: arun(self._let_go(self._disconnect)))
        except Exception as error:
            # There is no loop for it.
            self._failed(error)
            run(self._let_go(self._finish))

    def _disconnect(self) -> Steps[None]:
        call, acall = self._call_method, self._acall_one
        try:
            yield Call(call, acall, "disconnect", self.disconnect, *self._close())
        finally:
            self._finish()

    def _let_go(self, finish: Callable[[], Steps[None] | None]) -> Steps[None]:
        """Takes the last steps of its life, each of them whatever becomes of those before it."""
        websocket = self.websocket
        exit_of_process = None

        def end_worker() -> Steps[None]:
            yield Call(SharedContext.end_worker, SharedContext.leave_worker, websocket)

        try:
            for begin in (finish, lambda: life.end_beside(websocket), end_worker):
                try:
                    if (step := begin()) is not None:
                        yield from step
                except GeneratorExit:
                    # The loop was closed: nothing can be awaited any more.
                    websocket._release_permit()
                    raise
                except BaseException as error:
                    self._failed(error)
                    if isinstance(error, self._exits):
                        exit_of_process = error
            if exit_of_process is not None:
                raise exit_of_process
        finally:
            self._leave()

    def _close(self) -> tuple[int, str]:
        """Closes the connection if it is open, and returns its close code and reason."""
        self._is_over = True
        self.websocket._close_wanted(_NORMAL, "")
        end = self.websocket._end()
        return (_NORMAL, "") if end is None else (end[0], end[1])

    def _finish(self) -> None:
        """Releases the connection, and reports its end."""
        if self._cancel_tick is not None:
            self._cancel_tick()
        websocket = self.websocket
        websocket._finish(_NORMAL, "")
        if (unwanted := websocket._unwanted_end()) is not None:
            report_end(self.request, *unwanted, is_expelled=websocket._was_expelled())
        own_websocket.set(None)

    def _leave(self) -> None:
        """The last step: it has no turns any more."""
        self._has_left = True
        told = life.witness.get()
        if self._plan.survives:
            moving.leave(self)
            if self._move is not None:
                # It has ended before it could move.
                self._move.park()
        if self._home is not None:
            self._home.leave(self._token)
        if self._plan.is_mixed:
            handler_threads.home().release()
        _count(-1)
        if told is not None:
            told.ended()

    # -- in an event loop ------------------------------------------------------------------------

    async def _enter_loop(self) -> None:
        """Begins its life in the running loop, at home there."""
        try:
            home = LoopHome.current(is_background=self._loop is None)
        except Exception as error:
            # It is the loop's first one, and the system gives no descriptor.
            self.websocket._close_wanted(*_TRY_AGAIN_LATER)
            self._failed(error)
            await arun(self._let_go(self._finish))
            return
        self._home = home
        self._token = home.enter(self)
        # A copy: the thread of `connect` may still be about to leave the context.
        own = self._context = self._context.copy()
        own.run(self._prepare_in_loop)
        self._share_context()
        self._wake()

    def _prepare_in_loop(self) -> None:
        context.enter_thread()
        if self.websocket._view_request is None:
            # Without `connect` nothing has run for it so far.
            self._prepare()
        SharedContext.enter()

    def _wake(self) -> None:
        """Called in the loop when there is news."""
        if self._is_at_work:
            self._again = True
        else:
            self._is_at_work = True
            self._home.have_turn(self)

    async def _aturn(self) -> None:
        """Calls its methods as long as there is something to call."""
        websocket = self.websocket
        set_own_websocket(websocket)
        connection = websocket._connection
        assert connection is not None
        plan = self._plan
        is_plain = "receive" in plan.is_async and websocket._trace is None
        before = contextvars.copy_context()
        try:
            if self._is_new:
                self._is_new = False
                await self._acall(arun, self._begin())
            calls = 0
            while True:
                self._again = False
                if self._move is not None and not await arun(self._goes_on()):
                    return
                is_resuming, self._is_resuming = self._is_resuming, False
                waits = self._is_over or is_resuming or self._is_time_to_tick(connection)
                message = None if waits else await connection.next_now()
                if is_resuming:
                    await self._acall_one("resumed", self.resumed)
                    await SharedContext.after_turn(websocket)
                elif message is not None:
                    if is_plain:
                        await self._acall(self.receive, message)
                    else:
                        await self._acall_one("receive", self.receive, message)
                    del message
                    # A transaction that it has left open is not for the next message.
                    if websocket._handler_worker is not None:
                        await SharedContext.after_turn(websocket)
                    # Most often nothing else has come: no need to look first.
                    is_quiet = plan.every is None and not self._is_over
                    if is_quiet and connection.listen(self._home.core, self._token):
                        break
                elif self._is_over or connection.waiting() == (0, True):
                    await arun(self._let_go(self._disconnect))
                    return
                elif self._tick_is_due:
                    self._tick_is_due = False
                    await self._acall_one("tick", self.tick)
                    await SharedContext.after_turn(websocket)
                    self._set_tick()
                elif not self._again:
                    if self._listens(connection):
                        break
                if not handler_context.is_unchanged(before):
                    # Another turn has a context of its own: values that a call sets in its context
                    # are not for the next call.
                    is_due = self._is_over or self._tick_is_due
                    if is_due or not self._listens(connection):
                        self._again = True
                    break
                calls += 1
                if calls % _MESSAGES_A_TURN == 0:
                    await asyncio.sleep(0)
            if websocket._handler_worker is not None:
                await SharedContext.after_turn(websocket)
            self._is_at_work = False
            if self._move is not None:
                connection.rouse(self._home.core, self._token)
            if self._again:
                self._wake()
        except GeneratorExit:
            # The loop was closed: nothing can be awaited any more.
            if not self._has_left:
                websocket._abandon(*GOING_AWAY)
                self._leave()
            raise
        except BaseException as error:
            # Of the signal about a message, as in `_pop`, or of what is beside its methods. The
            # next turn is the last one.
            self._failed(error)
            if not self._has_left:
                self._is_at_work = False
                self._wake()

    def _listens(self, connection: Connection) -> bool:
        """Whether it waits in its loop from now on; false when there is something to take now."""
        if self._plan.every is not None:
            # It may listen already.
            connection.unwatch(self._home.core, self._token)
        return connection.listen(self._home.core, self._token)

    def _acall_one(
        self, name: str, method: Callable[..., Any], *args: Any
    ) -> Coroutine[Any, Any, None]:
        """Calls a method of either kind, which the caller awaits."""
        is_async = name in self._plan.is_async
        return (self._acall_method if is_async else self._acall_elsewhere)(name, method, *args)

    async def _acall_elsewhere(self, name: str, method: Callable[..., Any], *args: Any) -> None:
        """Calls a sync method on a thread, unless nobody has written it."""
        if getattr(method, "__func__", None) is getattr(Handled, name):
            return
        own = contextvars.copy_context()

        def call() -> None:
            own.run(self._call_elsewhere, name, method, *args)

        await asyncio.wrap_future(handler_threads.home().call(call, self._plan.lane))

    def _call_elsewhere(self, name: str, method: Callable[..., Any], *args: Any) -> None:
        context.enter_thread()
        self._call_method(name, method, *args)

    async def _acall(self, method: Callable[..., Any], *args: Any) -> None:
        """Awaits a coroutine method."""
        began_at = time.perf_counter()
        try:
            if (world := self.websocket._world) is None:
                await method(*args)
            else:
                await world.arun(functools.partial(method, *args))
            if life.is_session_changed(self.request):
                await sync_to_async(life.save_session)(self.request)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._failed(error)
        finally:
            durations.of_handlers.add(time.perf_counter() - began_at)
        if self.websocket._is_deliberate:
            self._is_over = True

    async def _acall_and_wait(self, name: str, method: Callable[..., Any], *args: Any) -> None:
        """Awaits a coroutine method of a handler that is at home on threads."""
        try:
            await self._acall_method(name, method, *args)
            await SharedContext.after_turn(self.websocket)
        except GeneratorExit:
            raise
        except BaseException as error:
            self._failed(error)
        finally:
            self._wait()

    def _with_own_thread(
        self, start: Callable[[], Coroutine[Any, Any, None]]
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            context.enter_thread()
            own_websocket.set(self.websocket)
            SharedContext.enter()
            await start()

        return run


_METHODS = ("receive", "disconnect", "tick", "resumed", "connect")


def _count(change: int) -> None:
    global _open, _ended
    done = None
    with _lock:
        _open += change
        if not _open:
            done, _ended = _ended, None
    if done is not None:
        done.set_result(None)


def ended() -> Future[None]:
    """Returns a future that is done when no handler's connection is open."""
    global _ended
    future: Future[None] = unpatched.future()
    with _lock:
        if _open:
            _ended = _ended or future
            return _ended
    future.set_result(None)
    return future


def is_busy() -> bool:
    """Whether a handler's connection is open, or its end is under way."""
    return _open > 0


renew_at_fork(globals(), _lock=unpatched.lock, _open=int, _ended=lambda: None)
