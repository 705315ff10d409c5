"""Groups of this process only, for tests and for sites with one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket.groups import backend

if TYPE_CHECKING:
    from dwebsocket.groups.backend import Exclude, Message


class Backend(backend.Backend):
    """Hands messages straight to the engine. Nothing here waits."""

    waits = False
    is_sealed = False

    def send(self, name: str, message: Message, exclude: Exclude) -> None:
        """
        As :meth:`dwebsocket.groups.backend.Backend.send`.

        Raises:
            GroupUnavailable: More is published than the engine can deliver.
        """
        if not self.groups.publish(name, message, exclude):
            raise self.unavailable("more is published than members can be sent")

    async def asend(self, name: str, message: Message, exclude: Exclude) -> None:
        """As :meth:`send`."""
        self.send(name, message, exclude)

    def close(self, name: str, code: int, reason: str) -> None:
        """As :meth:`dwebsocket.groups.backend.Backend.close`."""
        self.groups.close(name, code, reason)

    async def aclose(self, name: str, code: int, reason: str) -> None:
        """As :meth:`close`."""
        self.close(name, code, reason)

    def count(self, name: str) -> int:
        """As :meth:`dwebsocket.groups.backend.Backend.count`, exact."""
        return self.groups.count(name)

    async def acount(self, name: str) -> int:
        """As :meth:`count`."""
        return self.count(name)
