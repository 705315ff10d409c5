"""Views on gevent's greenlets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from gevent.hub import Waiter

from dwebsocket.api.waiting.green import HubWatcher
from dwebsocket.compat.gevent import hub_getter, note_home
from dwebsocket.runners.green import GreenRunner

if TYPE_CHECKING:
    from dwebsocket.api.waiting.waiter import Call
    from dwebsocket.runners.contract import Job


class GeventWatcher(HubWatcher[Any]):
    """One watcher on the hub's loop, for all connections."""

    def __init__(self, hub: Any) -> None:
        super().__init__(hub)
        self._watcher = hub.loop.io(self.core.fileno(), 1)
        self._watcher.start(self.on_wake)
        # It keeps the loop running only while a green thread sleeps.
        self._watcher.ref = False

    def _sleep(self, token: int, timeout: float | None) -> None:
        waiter = self._sleepers[token] = Waiter(self.hub)
        if len(self._sleepers) == 1:
            self._watcher.ref = True
        timer = None if timeout is None else self.hub.loop.timer(timeout)
        if timer is not None:
            timer.start(waiter.switch, None)
        try:
            waiter.get()
        finally:
            if timer is not None:
                timer.close()
            del self._sleepers[token]
            if not self._sleepers:
                self._watcher.ref = False

    def call_later(self, delay: float, call: Call) -> Call:
        """Makes a call later, by a timer of the hub's loop."""
        timer = self.hub.loop.timer(delay)
        timer.start(call)
        return timer.close  # type: ignore[no-any-return]

    def _wake(self, token: int) -> None:
        if (waiter := self._sleepers.get(token)) is not None:
            waiter.switch(None)

    def close(self) -> None:
        """Stops the watcher and removes it from the loop."""
        self._watcher.stop()
        self._watcher.close()


class GeventRunner(GreenRunner):
    """Each view on a greenlet of its name."""

    kind = "gevent"

    # Called for each message, so it is the library's own function, without a wrapper.
    _current_hub = staticmethod(hub_getter())

    def _current(self) -> Any:
        return gevent.getcurrent()

    def _spawn(self, name: str, live: Job) -> Any:
        view = gevent.Greenlet(live)
        note_home(self._current_hub())
        view.name = name
        view.start()
        return view

    def _join(self, views: list[Any], timeout: float) -> None:
        gevent.joinall(views, timeout)


RUNNER = GeventRunner(GeventWatcher, gevent.sleep, Event)
# The first handshake has imported this, on the server's thread.
note_home(hub_getter()())
