"""What the connection that listens publishes by itself, outside of the project's transactions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dwebsocket.compat import unpatched
from dwebsocket.groups.postgres import future

if TYPE_CHECKING:
    from concurrent.futures import Future


@dataclass
class Announcement:
    """
    Texts to publish, in order.

    Attributes:
        texts: What ``NOTIFY`` takes; none of them has a quote.
        future: Of the number of processes that listen.
    """

    texts: list[str]
    future: Future[int] = field(default_factory=future.new)


class Announcements:
    """The queue of them. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._waiting: list[Announcement] = []

    def add(self, texts: list[str]) -> Future[int]:
        """Adds texts; the listener has to look then. Gives the future of the listeners' number."""
        announcement = Announcement(texts)
        with self._lock:
            self._waiting.append(announcement)
        return announcement.future

    def take(self) -> list[Announcement]:
        """Takes what waits."""
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def fail(self, error: Exception) -> None:
        """Ends all that wait with an error."""
        for announcement in self.take():
            announcement.future.set_exception(error)
