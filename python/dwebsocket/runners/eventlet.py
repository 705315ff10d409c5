"""Views on eventlet's green threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import eventlet
import eventlet.event

from dwebsocket.api.waiting.green import HubWatcher
from dwebsocket.compat.eventlet import hub_getter
from dwebsocket.runners.green import GreenRunner

if TYPE_CHECKING:
    from dwebsocket.api.waiting.waiter import Call
    from dwebsocket.runners.contract import Job

Switch = Callable[[], object]


class EventletWatcher(HubWatcher[Switch]):
    """One listener of the hub, for all connections."""

    def __init__(self, hub: Any) -> None:
        super().__init__(hub)
        nothing = lambda *_: None  # noqa: E731
        self._listener = hub.add(hub.READ, self.core.fileno(), self.on_wake, nothing, nothing)

    def _sleep(self, token: int, timeout: float | None) -> None:
        self._sleepers[token] = eventlet.getcurrent().switch
        timer = None
        if timeout is not None:
            timer = self.hub.schedule_call_global(timeout, self._switch_to, token)
        try:
            self.hub.switch()
        finally:
            self._sleepers.pop(token, None)
            if timer is not None:
                timer.cancel()

    def call_later(self, delay: float, call: Call) -> Call:
        """Makes a call later, by a timer of the hub."""
        cancel: Call = self.hub.schedule_call_global(delay, call).cancel
        return cancel

    def _wake(self, token: int) -> None:
        # Do not switch here: an exception that ends the woken green thread would be raised here,
        # and the hub would take it for an error of the listener.
        self.hub.schedule_call_global(0, self._switch_to, token)

    def _switch_to(self, token: int) -> None:
        # Switch only once: after that, the green thread may already wait for something else.
        if (switch := self._sleepers.pop(token, None)) is not None:
            switch()

    def close(self) -> None:
        """Removes the listener from the hub."""
        self.hub.remove(self._listener)


class EventletEvent:
    """See :class:`dwebsocket.api.waiting.waiter.Event`."""

    def __init__(self) -> None:
        self._event = eventlet.event.Event()

    def set(self) -> None:
        """Marks that it has happened. May be repeated."""
        if not self._event.ready():
            self._event.send()

    def wait(self, timeout: float | None = None) -> object:
        """Yields to the hub until it has happened."""
        self._event.wait(timeout)
        return self._event.ready()


class EventletRunner(GreenRunner):
    """Each view on a green thread, whose attribute ``name`` is the view's."""

    kind = "eventlet"

    # Called for each message, so it is the library's own function, without a wrapper.
    _current_hub = staticmethod(hub_getter())

    def _current(self) -> Any:
        return eventlet.getcurrent()

    def _spawn(self, name: str, live: Job) -> Any:
        view = eventlet.spawn(live)
        view.name = name
        return view

    def _join(self, views: list[Any], timeout: float) -> None:
        with eventlet.Timeout(timeout, False):  # noqa: FBT003
            for view in views:
                view.wait()


RUNNER = EventletRunner(EventletWatcher, eventlet.sleep, EventletEvent)
