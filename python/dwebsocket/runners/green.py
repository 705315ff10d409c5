"""The common part of gevent and eventlet: each view runs on a green thread of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from dwebsocket.api.waiting.green import GreenHub, GreenThread, HubWaiter, HubWatcher
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import at_fork, monotonic
from dwebsocket.request import database
from dwebsocket.runners import thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.api.waiting.waiter import Event
    from dwebsocket.runners.contract import Job

# Seconds between two checks whether the views of another thread's hub have ended.
_CHECK_S = 0.01


class GreenRunner(ABC):
    """Runs each view on a green thread of its own, on the hub of the thread that starts it."""

    kind: str
    # Green threads run on the main thread, where signals raise these exceptions.
    exits: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit)

    def __init__(
        self,
        new_watcher: Callable[[GreenHub], HubWatcher[Any]],
        pause: Callable[..., object],
        new_event: Callable[[], Event],
    ) -> None:
        self.waiter = HubWaiter(self._current_hub, new_watcher, pause, self._current, new_event)
        # Each connection refers to it: one bound method for all, not a new one each time.
        self.spawn = self._spawn_anywhere
        # The views that run, and their hubs.
        self._views: dict[GreenThread, GreenHub] = {}
        at_fork(self._views.clear)

    def run(self, name: str, job: Job) -> None:
        """Runs ``job`` on a green thread of this hub."""
        view = self._spawn(name, lambda: self._live(name, job))
        # The view cannot have begun yet, because this green thread has not yielded since.
        self._views[view] = self._current_hub()

    def _spawn_anywhere(self, name: str, job: Job) -> None:
        """
        Runs ``job`` on a green thread of this hub; without one, on a thread of the system.

        Raises:
            RuntimeError: This thread has no hub, and the system gives no thread.
        """
        start = thread.spawn if self._current_hub() is None else self.run
        start(name, job)

    def join(self, timeout: float) -> bool:
        """
        Waits until no view runs, ``timeout`` seconds at most. False when the time was up.

        The hub of this thread runs meanwhile, and so do those of other threads.
        """
        deadline = monotonic() + timeout
        hub = self._current_hub()
        while self._views:
            left = max(0.0, deadline - monotonic())
            # List the views anew each time: a view may start further green threads as it ends.
            if here := [view for view, its_hub in list(self._views.items()) if its_hub is hub]:
                # Also when no time is left: this gives the other green threads a turn.
                self._join(here, left)
            if not left:
                break
            if not here:
                # The hub of another thread tells this one nothing.
                unpatched.sleep(_CHECK_S)
        return not self._views

    def _live(self, name: str, job: Job) -> None:
        if unpatched.patched_by() == self.kind:
            threading.current_thread().name = name
        try:
            job()
            # This green thread ends here, so its connections are of no more use.
            database.release_idle()
        finally:
            self._views.pop(self._current(), None)

    @abstractmethod
    def _current_hub(self) -> GreenHub | None:
        """Returns this thread's hub, if it has one. Makes none: it would outlive its thread."""

    @abstractmethod
    def _current(self) -> GreenThread: ...

    @abstractmethod
    def _spawn(self, name: str, live: Job) -> GreenThread:
        """Starts a green thread, which runs as soon as this one yields."""

    @abstractmethod
    def _join(self, views: list[GreenThread], timeout: float) -> None:
        """Yields to the hub until these views have ended, ``timeout`` seconds at most."""
