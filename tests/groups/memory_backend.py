"""A backend as other authors write one: what it needs of the contract, and no more."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dwebsocket.groups import PresenceBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.conf.group_settings import BackendSettings


class Switchboard:
    """Stands for the server. It is in this process, so each call can be observed."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.subscribers: dict[str, set[MemoryBackend]] = {}
        self.calls: list[tuple[str, str]] = []
        #: Names of groups with which nothing works.
        self.broken: set[str] = set()
        #: Called by each `subscribe`, between two steps of its work.
        self.on_subscribe: Callable[[str], object] = lambda name: None

    def make(self, alias: str, own: BackendSettings) -> MemoryBackend:
        """Make the backend of one process."""
        return MemoryBackend(alias, own, self)

    def names(self, kind: str) -> list[str]:
        """Give the groups of the calls of one kind."""
        return [name for call, name in self.calls if call == kind]


class MemoryBackend(PresenceBackend):
    """Passes envelopes on to all backends of its switchboard that have subscribed."""

    def __init__(self, alias: str, own: BackendSettings, board: Switchboard | None = None) -> None:
        super().__init__(alias, own)
        self.board = board or Switchboard()

    def _note(self, call: str, name: str) -> None:
        with self.board.lock:
            self.board.calls.append((call, name))
        if name in self.board.broken:
            raise self.unavailable("the switchboard is on fire")

    def publish(self, name: str, envelope: bytes) -> None:
        self._note("publish", name)
        with self.board.lock:
            subscribers = list(self.board.subscribers.get(name, ()))
            for each in subscribers:
                each.deliver(name, envelope)

    async def apublish(self, name: str, envelope: bytes) -> None:
        self.publish(name, envelope)

    def subscribe(self, name: str) -> None:
        self._note("subscribe", name)
        with self.board.lock:
            self.board.subscribers.setdefault(name, set()).add(self)
        self.board.on_subscribe(name)

    async def asubscribe(self, name: str) -> None:
        self.subscribe(name)

    def unsubscribe(self, name: str) -> None:
        self._note("unsubscribe", name)
        with self.board.lock:
            self.board.subscribers.get(name, set()).discard(self)

    def count(self, name: str) -> int:
        self._note("count", name)
        with self.board.lock:
            return sum(each.groups.count(name) for each in self.board.subscribers.get(name, ()))

    async def acount(self, name: str) -> int:
        return self.count(name)
