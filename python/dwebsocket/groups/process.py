"""Groups of this process only, for tests and for sites with one process."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dwebsocket import clock
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.backend import Exclude, Message

# Seconds between two attempts to publish while members are sent what was published before.
_PAUSE_S = 0.001


class Backend(backend.Backend):
    """
    Hands messages straight to the engine, which needs no waiting.

    Only a publisher that is faster than the engine waits, up to ``TIMEOUT``; in an event loop it
    gets the exception at once, or awaits.
    """

    waits = False
    is_sealed = False

    def send(self, name: str, message: Message, exclude: Exclude) -> None:
        """
        As :meth:`dwebsocket.groups.backend.Backend.send`.

        Raises:
            GroupUnavailable: More is published than can be delivered.
        """
        try:
            if not self._publish(name, message, exclude):
                self._insist(lambda: self._publish(name, message, exclude))
        except GroupUnavailable:
            self._note_failure()
            raise

    async def asend(self, name: str, message: Message, exclude: Exclude) -> None:
        """
        As :meth:`send`.

        Raises:
            GroupUnavailable: As :meth:`send`.
        """
        try:
            if not self._publish(name, message, exclude):
                await self._ainsist(lambda: self._publish(name, message, exclude))
        except GroupUnavailable:
            self._note_failure()
            raise

    def close(self, name: str, code: int, reason: str) -> None:
        """As :meth:`dwebsocket.groups.backend.Backend.close`."""
        if not self._close(name, code, reason):
            self._insist(lambda: self._close(name, code, reason))

    async def aclose(self, name: str, code: int, reason: str) -> None:
        """As :meth:`close`."""
        if not self._close(name, code, reason):
            await self._ainsist(lambda: self._close(name, code, reason))

    def count(self, name: str) -> int:
        """As :meth:`dwebsocket.groups.backend.Backend.count`, exact."""
        return self.groups.count(name)

    async def acount(self, name: str) -> int:
        """As :meth:`count`."""
        return self.count(name)

    def _publish(self, name: str, message: Message, exclude: Exclude) -> bool:
        """Publishes if there is room."""
        return self.groups.publish(name, message, exclude)

    def _close(self, name: str, code: int, reason: str) -> bool:
        self.groups.close(name, code, reason)
        return True

    def _note_failure(self) -> None:
        # The engine has counted only those that it took.
        self.groups.note("published")
        self.groups.note("failed")

    def _insist(self, attempt: Callable[[], bool]) -> None:
        deadline = clock.now() + (0 if running_loop() is not None else self.settings.timeout)
        while not attempt():
            if clock.now() >= deadline:
                raise self.unavailable("more is published than can be delivered")
            # Green threads let others run meanwhile.
            time.sleep(_PAUSE_S)

    async def _ainsist(self, attempt: Callable[[], bool]) -> None:
        deadline = clock.now() + self.settings.timeout
        while not attempt():
            if clock.now() >= deadline:
                raise self.unavailable("more is published than can be delivered")
            await asyncio.sleep(_PAUSE_S)
