"""
Where handlers with an async ``receive`` are at home: an event loop, and the tasks of their turns.

Most turns wait for nothing: they take a message and answer it. A task for each would cost more than
the turn, so all turns that are due at one moment have one task. A turn that does wait keeps that
task until it is over, and those after it have another one; while the turns of a class wait, each
of them has its own from the beginning. Whichever task it has, a turn has a context of its own.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from dwebsocket.api.waiting import loop_hub
from dwebsocket.compat.asyncio import cancellation_of
from dwebsocket.runners import loop

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from dwebsocket._core import Connection
    from dwebsocket.runners.handler_context import HandlerContext

    Turn = Coroutine[Any, Any, None]

_NAME = "dwebsocket-handlers"


class Facts(Protocol):
    """The facts about a class of handlers that its turns need."""

    name: str
    has_waited: bool


class Handler(Protocol):
    """Something that has turns in an event loop."""

    # Only before its first turn one that nobody shares.
    _context: Context | HandlerContext

    @property
    def _plan(self) -> Facts:
        """Its class."""

    def _wake(self) -> None:
        """Is called in the loop when there is news."""

    async def _aturn(self) -> None:
        """Has a turn."""


class LoopHome:
    """The handlers of one event loop. For its loop's thread."""

    exits: tuple[type[BaseException], ...] = ()

    def __init__(self, hub: loop_hub.LoopHub, background: loop.BackgroundLoop | None) -> None:
        self._hub = hub
        self._background = background
        self.core = hub.core
        # Those that have their turns in the task that begins next, if there is one.
        self._due: deque[Handler] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: The turns that wait for something.
        self.turns: set[Turn] = set()

    @classmethod
    def current(cls, *, is_background: bool) -> LoopHome:
        """Returns the home of the running loop."""
        hub = loop_hub.current()
        # The hub lives as long as its loop.
        home: LoopHome | None = hub.handlers
        if home is None:
            home = hub.handlers = cls(hub, loop.background() if is_background else None)
        return home

    def enter(self, handler: Handler) -> int:
        """Returns a token for a handler."""
        if self._background is not None:
            self._background.hold()
        return self._hub.call_on(handler._wake)

    def announce(self, token: int) -> None:
        """Has a handler look for news. Any thread may call it."""
        self.core.announce(token)

    def rouse(self, connection: Connection, token: int) -> None:
        """Has a handler that waits for a message look for news. Any thread may call it."""
        connection.rouse(self.core, token)

    def leave(self, token: int) -> None:
        """Ends a handler's turns."""
        self._hub.forget(token)
        if self._background is not None:
            self._background.release()

    def have_turn(self, handler: Handler) -> None:
        """Has a handler have a turn soon, and not yet: connections call this with a lock."""
        if handler._plan.has_waited:
            self._start(deque((handler,)), handler._plan.name)
        elif self._due is None:
            self._due = deque((handler,))
            self._start(self._due, _NAME)
        else:
            self._due.append(handler)

    def _start(self, due: deque[Handler], name: str) -> None:
        # Not by `create_task`: a loop's factory may start tasks at once. In an empty context: the
        # task outlives the turn in which another handler's is announced.
        make = functools.partial(asyncio.Task[None], loop=asyncio.get_running_loop(), name=name)
        task = Context().run(make, self._have_turns(due))
        # Event loops refer to tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._done, due), context=Context())

    def _done(self, due: deque[Handler], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if due is self._due:
            # It was cancelled before it began.
            self._due = None
        while due:
            self.have_turn(due.popleft())

    async def _have_turns(self, due: deque[Handler]) -> None:
        """Has handlers have their turns, until one waits: then it ends with that turn."""
        if due is self._due:
            self._due = None
        task = asyncio.current_task()
        assert task is not None
        is_cancelled, known = cancellation_of(task), sys.getrefcount(task)
        while due:
            handler = due.popleft()
            own: Context = handler._context.fresh()  # type: ignore[union-attr]
            turn = handler._aturn()
            try:
                awaited = own.run(turn.send, None)
            except StopIteration:
                handler._plan.has_waited = False
                if is_cancelled() or sys.getrefcount(task) != known:
                    # By the turn that is over, or by what it has left, such as a timer, at any time
                    # from now on. It would reach another one.
                    return
            else:
                handler._plan.has_waited = True
                while due:
                    self.have_turn(due.popleft())
                task.set_name(handler._plan.name)
                self.turns.add(turn)
                try:
                    await _Rest(own, turn, awaited)
                finally:
                    self.turns.discard(turn)


class _Rest:
    """The rest of a coroutine that has begun, in a context of its own, and waits for something."""

    __slots__ = ("_awaited", "_context", "_coroutine")

    def __init__(self, context: Context, coroutine: Turn, awaited: Any) -> None:
        self._context = context
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        run, coroutine, awaited = self._context.run, self._coroutine, self._awaited
        while True:
            resume: Any
            try:
                given = yield awaited
            except GeneratorExit:
                run(coroutine.close)
                raise
            except BaseException as error:
                resume, given = coroutine.throw, error
            else:
                resume = coroutine.send
            try:
                awaited = run(resume, given)
            except StopIteration:
                return
            finally:
                # An exception refers to this frame.
                del given
