"""Handlers' sync methods on green threads of gevent and eventlet: a few at a time for each hub."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from dwebsocket import conf
from dwebsocket.api import sending
from dwebsocket.request import database
from dwebsocket.runners.handler_threads import TurnExecutor

if TYPE_CHECKING:
    from dwebsocket.api.waiting.green import HubWaiter, HubWatcher
    from dwebsocket.api.waiting.waiter import Event
    from dwebsocket.runners.contract import Runner
    from dwebsocket.runners.handler_threads import Job

_NAME = "dwebsocket-handler"


class GreenHandlers(TurnExecutor):
    """The handlers of one hub."""

    def __init__(self, runner: Runner, watcher: HubWatcher[Any]) -> None:
        self.exits = runner.exits
        self.watcher = watcher
        self._hub = watcher.core
        self._runner = runner
        # In the order of their last turns.
        self._lanes: OrderedDict[int, deque[Job]] = OrderedDict()
        self._at_work = 0
        self._users = 0
        # The green threads that have an open database connection and nothing to do.
        self._resting: list[Event] = []

    def enter(self, job: Job, lane: int = 0) -> int:
        """Adds a job, whose turns are on green threads of this hub."""
        self._users += 1
        return self.watcher.call_on(lambda: self._run_soon(job, lane))

    def leave(self, token: int) -> None:
        """Ends a job's turns. Green threads that rest without users end."""
        self.watcher.forget(token)
        self._users -= 1
        while self._resting and not self._users:
            self._resting.pop().set()

    def _run_soon(self, job: Job, lane: int) -> None:
        jobs = self._lanes.get(lane)
        if jobs is None:
            jobs = self._lanes[lane] = deque()
            self._lanes.move_to_end(lane, last=False)
        jobs.append(job)
        if self._resting:
            self._resting.pop().set()
        elif self._at_work < conf.get("HANDLER_THREADS"):
            self._at_work += 1
            self._runner.run(_NAME, self._work)

    def _work(self) -> None:
        sending.note_turns()
        try:
            while (job := self._next()) is not None or self._rest():
                if job is not None:
                    job._run_turn()
        finally:
            self._at_work -= 1

    def _next(self) -> Job | None:
        """Takes a job of the lane that has had no turn for longest."""
        for lane, jobs in self._lanes.items():
            if jobs:
                self._lanes.move_to_end(lane)
                return jobs.popleft()
        return None

    def _rest(self) -> bool:
        """Sleeps for a job as long as there are database connections; false when this ends."""
        left = database.give_back_idle()
        if left is None or not self._users:
            return False
        news = self._runner.waiter.new_event()
        self._resting.append(news)
        try:
            news.wait(left)
        finally:
            if news in self._resting:
                self._resting.remove(news)
        return True


def home(runner: Runner, waiter: HubWaiter) -> GreenHandlers:
    """Returns the handlers of the hub of this thread."""
    # After a fork there is another watcher.
    watcher = waiter.watcher()
    found: GreenHandlers = watcher.handlers or GreenHandlers(runner, watcher)
    watcher.handlers = found
    return found
