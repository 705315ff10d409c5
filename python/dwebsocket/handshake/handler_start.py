"""The start of a handler's life: ``connect`` before the handshake is answered, and what follows."""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from django.http.response import HttpResponseBase

from dwebsocket.api import callbacks
from dwebsocket.api.base import own_websocket
from dwebsocket.api.decision import Answer, Failure, accepted
from dwebsocket.api.waiting.green import HubWaiter
from dwebsocket.api.waiting.steps import arun, run
from dwebsocket.exceptions import ConnectionClosed, UsageError
from dwebsocket.handshake.start import Start
from dwebsocket.request import context, database, worlds
from dwebsocket.runners import handler_threads, loop, moving
from dwebsocket.runners import thread as threads
from dwebsocket.runners import view as life
from dwebsocket.runners.async_view_threads import OwnThread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

    from dwebsocket.api.close_callbacks import Spawn
    from dwebsocket.handshake.upgrade_request import UpgradeRequest
    from dwebsocket.runners.handler import Handled
    from dwebsocket.runners.handler_threads import TurnExecutor
    from dwebsocket.websocket import WebSocket

_NORMAL = 1000
_TRY_AGAIN_LATER = (1013, "no thread for another handler")
# Seconds of a timer that is cancelled before.
_LONG_S = 3600.0


class HandlerStart(Start):
    """Starts a handler in place of a view."""

    __slots__ = ("_has_loop", "_home", "_moved", "handler")

    def __init__(self, handler: Handled, asked: UpgradeRequest) -> None:
        super().__init__(asked)
        self.handler = handler
        self._has_loop = asked.handshake.has_loop
        self._moved = asked.handshake.moved
        self.moves = handler._plan.survives
        if self.moves and self._moved is None:
            moving.expect(handler)
        # Now, on a thread of the server: the hub of green threads is that thread's. A coroutine
        # that asks `connect` may be on another one.
        self._home = None if handler._plan.in_loop else self._find_home()

    @property
    def spawn(self) -> Spawn:
        """Starts functions that run beside the handler: on threads where it lives in a loop."""
        return threads.spawn if self.handler._plan.in_loop else self.runner.spawn

    def __call__(self, request: HttpRequest, websocket: WebSocket) -> None:
        handler = self.handler
        plan = handler._plan
        handler._set_up(websocket, self._context, self.databases)
        # The server's loop is for a class with coroutine functions, which is an async view.
        if self._moved is not None:
            websocket._opened_at = self._moved.opened_at
            websocket._messages_before = self._moved.messages
            handler._resume(self._moved.state, self._moved.tick_in)
            handler._unpack_rooms(self._moved.rooms)
            handler._loop = self._moved.loop if plan.is_async else None
        elif self._has_loop and plan.is_async:
            handler._loop = asyncio.get_running_loop()
        handler._home = self._home
        if websocket._decision is None:
            if not plan.in_loop:
                self._context.run(handler._prepare)
            self._go_on(handler)
        elif "connect" in plan.is_async:
            start = functools.partial(self._aconnect, handler)
            run_task = loop.SERVER_TASKS.run if self._has_loop else loop.run
            run_task(plan.name, start, self._context)
        else:
            connect = functools.partial(self._context.run, self._connect, handler)
            self.runner.run(plan.name, connect)

    @contextmanager
    def holding_home(self) -> Iterator[None]:
        """
        Has what a handler of another process needs for its first turn run before that comes.

        Raises:
            OSError, RuntimeError: The system gives no descriptor or thread.
        """
        handler, plan = self.handler, self.handler._plan
        homes = [] if self._home is None else [self._home]
        if plan.is_mixed:
            homes.append(handler_threads.home())
        with ExitStack() as held:
            for home in homes:
                held.callback(home.leave, home.enter(handler, plan.lane))
            if plan.in_loop and self._moved is not None and self._moved.loop is None:
                loop.background().start()
            # For ticks, and for later looks at its user.
            held.callback(callbacks.call_later(_LONG_S, bool))
            yield

    def _go_on(self, handler: Handled) -> None:
        """Has the handler live behind its open connection."""
        if handler._plan.in_loop:
            handler._live_in_loop()
        else:
            handler._live_on_threads()

    def _find_home(self) -> TurnExecutor:
        waiter = self.runner.waiter
        if isinstance(waiter, HubWaiter):
            from dwebsocket.runners import handler_green

            return handler_green.home(self.runner, waiter)
        return handler_threads.home()

    # -- before the handshake is answered --------------------------------------------------------

    def _connect(self, handler: Handled) -> None:
        """Calls ``connect`` on a thread for that call, as that of a view with ``accept=False``."""
        context.enter_thread()
        own_websocket.set(handler.websocket)
        handler._prepare()
        is_open = False
        try:
            with database.in_use(self.databases), worlds.entered(handler.websocket._world):
                result = handler.connect()
                if inspect.iscoroutine(result):
                    result.close()
                    raise UsageError(
                        f"{handler._plan.name}.connect gave a coroutine but is no coroutine "
                        "function: mark it with asgiref.sync.markcoroutinefunction"
                    )
            if _accepts(handler.websocket, result):
                handler.websocket.accept()
            is_open = handler.websocket._was_opened
        except BaseException as error:
            is_open = _note_failure(handler, error)
            if isinstance(error, self.runner.exits):
                raise
        finally:
            if handler.websocket._held is not None:
                handler.websocket._held.end()
            if not is_open:
                _end(handler)
                run(life.end_beside(handler.websocket))
                _tell(handler)
        if is_open:
            own_websocket.set(None)
            self._go_on_or_close(handler)

    async def _aconnect(self, handler: Handled) -> None:
        """Awaits ``connect``, where that is a coroutine function: see :meth:`_connect`."""
        context.enter_thread()
        own_websocket.set(handler.websocket)
        handler._prepare()
        own_thread = OwnThread.enter()
        is_open = False
        try:
            connect: Any = handler.connect
            world = handler.websocket._world
            result = await (connect() if world is None else world.arun(connect))
            if _accepts(handler.websocket, result):
                await handler.websocket.aaccept()
            is_open = handler.websocket._was_opened
        except BaseException as error:
            is_open = _note_failure(handler, error)
        finally:
            if not is_open:
                _end(handler)
                await arun(life.end_beside(handler.websocket))
            await own_thread.leave()
            if not is_open:
                _tell(handler)
        if is_open:
            handler._leave_task()
            self._go_on_or_close(handler)

    def _go_on_or_close(self, handler: Handled) -> None:
        handler.websocket._decision = accepted(is_async="connect" in handler._plan.is_async)
        try:
            self._go_on(handler)
        except (OSError, RuntimeError):
            # The system gives no thread or descriptor.
            handler.websocket._abandon(*_TRY_AGAIN_LATER)
            raise


def _accepts(websocket: WebSocket, result: object) -> bool:
    """Whether ``connect`` has left it at that, and refuses by no response."""
    if not websocket._is_undecided:
        return False
    if isinstance(result, HttpResponseBase):
        decision = websocket._decision
        if decision is not None:
            decision.tell_handler(Answer(result))
        return False
    return True


def _note_failure(handler: Handled, error: BaseException) -> bool:
    """Passes an exception of ``connect`` on. Whether the connection is open all the same."""
    decision = handler.websocket._decision
    if decision is not None and decision.tell_handler(Failure(error)):
        # Django answers the handshake, as it does for a view's exception.
        return False
    is_open = handler.websocket._was_opened
    if is_open or not isinstance(error, ConnectionClosed):
        handler._failed(error)
    return is_open


def _end(handler: Handled) -> None:
    handler.websocket._finish(_NORMAL, "")
    own_websocket.set(None)


def _tell(handler: Handled) -> None:
    if (told := life.witness.get()) is not None:
        told.ended()
