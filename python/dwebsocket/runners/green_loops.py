"""
Event loops that Django runs on green threads, for requests to async views.

Python keeps one running loop for each thread of the system, which all its green threads share. So
while such a loop runs on one green thread, code on the others looks like async code: Django refuses
it the database (``SynchronousOnlyOperation``), asyncio refuses it a loop of its own. Here the
running loop is switched together with the green thread.
"""

from __future__ import annotations

import os
import selectors
import sys
from typing import TYPE_CHECKING, Any

from django.core.signals import request_started

from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop, set_running_loop, swap_current_task
from dwebsocket.compat.gevent import exit_of_greenlets, wait_for_reading
from dwebsocket.compat.system import monotonic

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

GreenThread = Any
Trace = Any

_UID = "dwebsocket.green_loops"
# Seconds that a loop may have for itself.
_TURN_S = 0.001


def _on_request(**_: Any) -> None:
    request_started.disconnect(dispatch_uid=_UID)
    if unpatched.patched_by() is not None:
        care_for_green_loops()


# Not now: gunicorn's workers may patch the standard library long after the project's modules were
# imported.
request_started.connect(_on_request, dispatch_uid=_UID)


def watched_selector() -> selectors.BaseSelector:
    """
    Returns a selector for a loop on a greenlet; switches of this thread are watched from now on.

    Within the first request, too: its modules may be those that have imported this one. The
    selector is the system's, which takes a fraction of the time of gevent's; only where nothing is
    ready it has the hub wait.
    """
    if request_started.disconnect(dispatch_uid=_UID):
        care_for_green_loops()
    marker: Any = selectors.DefaultSelector()
    marker.watch()
    system: Any = unpatched.original("selectors", "DefaultSelector")

    class Selector(system):  # type: ignore[misc]
        """Waits in the hub. Ends a loop that a fork has copied, whose descriptors are shared."""

        _process = os.getpid()
        _turn_ends = 0.0

        def select(self, timeout: float | None = None) -> Any:
            found = super().select(0)
            if not found and (timeout is None or timeout > 0):
                wait_for_reading(self.fileno(), timeout)
            elif monotonic() < self._turn_ends:
                return found
            else:
                # A loop that always has something to do lets the others run now and then.
                wait_for_reading(self.fileno(), 0)
            if os.getpid() != self._process:
                raise exit_of_greenlets()
            self._turn_ends = monotonic() + _TURN_S
            return found or super().select(0)

        def close(self) -> None:
            marker.close()
            super().close()

    return Selector()


def care_for_green_loops() -> Callable[[], None]:
    """
    Keeps the loops of green threads apart, from now on, for all threads of the process.

    Switches between green threads are traced only while there is such a loop.

    Returns:
        A function that takes this back.
    """
    # Looked up, not imported: where threads are green it is imported already.
    greenlet: Any = sys.modules["greenlet"]
    # One object for each thread of the system, because each has one running loop.
    own: Any = unpatched.original("_thread", "_local")()
    # The library's replacement of the class, which asyncio looks up for each new loop.
    patched: Any = selectors.DefaultSelector

    class DefaultSelector(patched):  # type: ignore[misc]
        """A loop's selector, which is called before the loop's first task begins."""

        def select(self, timeout: float | None = None) -> Any:
            if running_loop() is not None:
                self.watch()
            return super().select(timeout)

        def watch(self) -> None:
            if not hasattr(own, "switches"):
                own.switches = _Switches(greenlet)
            own.switches.watch_for(self)

        def close(self) -> None:
            if hasattr(own, "switches"):
                own.switches.forget(self)
            super().close()

    def undo() -> None:
        setattr(selectors, "DefaultSelector", patched)  # noqa: B010

    setattr(selectors, "DefaultSelector", DefaultSelector)  # noqa: B010
    return undo


class _Switches:
    """Sets the running loop at switches between the green threads of one thread of the system."""

    def __init__(self, greenlet: Any) -> None:
        self._greenlet = greenlet
        self._selectors: set[object] = set()
        # The loops of green threads that do not run now, each with its current task.
        self._loops: dict[GreenThread, tuple[asyncio.AbstractEventLoop, Any]] = {}
        # Keep one object: each access to a bound method makes a new one.
        self._trace = self._on_switch
        self._next: Trace = None

    def watch_for(self, selector: object) -> None:
        """Watches while the loop of ``selector`` is there."""
        if selector not in self._selectors:
            self._selectors.add(selector)
            if self._greenlet.gettrace() is not self._trace:
                self._next = self._greenlet.settrace(self._trace)

    def forget(self, selector: object) -> None:
        """Watches no more if that was the last loop."""
        self._selectors.discard(selector)
        if not self._selectors and self._greenlet.gettrace() is self._trace:
            self._greenlet.settrace(self._next)
            self._next = None

    def _on_switch(self, event: str, switch: tuple[GreenThread, GreenThread]) -> None:
        """Called by greenlet when it has switched, on the green thread that goes on."""
        origin, target = switch
        loop = running_loop()
        if loop is not None:
            self._loops[origin] = (loop, swap_current_task(loop, None))
            set_running_loop(None)
        if self._loops and (found := self._loops.pop(target, None)) is not None:
            loop, task = found
            set_running_loop(loop)
            swap_current_task(loop, task)
        if self._next is not None:
            self._next(event, switch)
