"""Groups of this process only, for tests and for sites with one process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dwebsocket import _core, clock, conf, unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backend, backends
from dwebsocket.groups.history import Page
from dwebsocket.waiting import engine_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.group_settings import BackendSettings
    from dwebsocket.groups.backend import Entered, Exclude, Joined, Member, Message, Visit
    from dwebsocket.groups.history import Position


class Backend(backend.Backend):
    """
    Hands messages straight to the engine, which needs no waiting.

    Only a publisher that is faster than the engine waits, up to ``TIMEOUT``; in an event loop it
    gets the exception at once, or awaits.
    """

    waits = False
    is_sealed = False
    keeps_history = True
    keeps_presence = True

    def __init__(self, alias: str, own: BackendSettings) -> None:
        """As :class:`dwebsocket.groups.backend.Backend`."""
        super().__init__(alias, own)
        self._history: _core.History | None = None
        self._history_lock = unpatched.lock()

    def send(self, name: str, message: Message, exclude: Exclude) -> None:
        """
        As :meth:`dwebsocket.groups.backend.Backend.send`.

        Raises:
            GroupUnavailable: More is published than can be delivered.
        """
        try:
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
            await self._ainsist(lambda: self._publish(name, message, exclude))
        except GroupUnavailable:
            self._note_failure()
            raise

    def close(self, name: str, code: int, reason: str) -> None:
        """As :meth:`dwebsocket.groups.backend.Backend.close`."""
        self._insist(lambda: self._close(name, code, reason))

    async def aclose(self, name: str, code: int, reason: str) -> None:
        """As :meth:`close`."""
        await self._ainsist(lambda: self._close(name, code, reason))

    def count(self, name: str) -> int:
        """As :meth:`dwebsocket.groups.backend.Backend.count`, exact."""
        return self.groups.count(name)

    async def acount(self, name: str) -> int:
        """As :meth:`count`."""
        return self.count(name)

    def _publish(self, name: str, message: Message, exclude: Exclude) -> _core.Wait | None:
        """Publishes if there is room; else gives a wait for it."""
        if (kept := self.settings.kept(name)) is None:
            return self.groups.publish(name, message, exclude)
        with self._reporting():
            return self._record(name, message, exclude, kept.limits)

    def _record(
        self, name: str, message: Message, exclude: Exclude, limits: tuple[int, float]
    ) -> _core.Wait | None:
        return self.history.record(self.groups, name, message, exclude, limits)

    # -- history ---------------------------------------------------------------------------------

    @property
    def history(self) -> _core.History:
        """
        What is kept of groups, made on first use.

        Raises:
            GroupUnavailable: It cannot be.
        """
        if self._history is None:
            with self._history_lock:
                if self._history is None:
                    with self._reporting():
                        self._history = self._new_history(conf.get("MAX_HISTORY") // _sharing())
        return self._history

    @property
    def history_usage(self) -> tuple[int, int] | None:
        """As :meth:`dwebsocket.groups.backend.Backend.history_usage`."""
        history = self._history
        return None if history is None else (history.bytes(), history.evicted())

    def _new_history(self, most: int) -> _core.History:
        return _core.History.in_memory(most)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, GroupUnavailable):
                raise
            raise self.unavailable(error.strerror or str(error)) from error

    def read_history(self, name: str, after: Position | None, limits: tuple[int, float]) -> Page:
        """As :meth:`dwebsocket.groups.backend.Backend.read_history`."""
        history = self.history
        with self._reporting():
            head, rows = history.read(self.groups, name, after, limits)
            return Page(head, rows, head)

    async def aread_history(
        self, name: str, after: Position | None, limits: tuple[int, float]
    ) -> Page:
        """As :meth:`read_history`."""
        return self.read_history(name, after, limits)

    def join_at(
        self, name: str, member: Member, key: bytes, at: Position, *, numbered: bool
    ) -> Joined:
        """As :meth:`dwebsocket.groups.backend.Backend.join_at`."""
        history = self.history
        with self._reporting():
            return history.join(self.groups, name, member, key, at, is_numbered=numbered)

    async def ajoin_at(
        self, name: str, member: Member, key: bytes, at: Position, *, numbered: bool
    ) -> Joined:
        """As :meth:`join_at`."""
        return self.join_at(name, member, key, at, numbered=numbered)

    # -- presence ----------------------------------------------------------------------------------

    def enter(self, name: str, member: Member, visit: Visit) -> Entered:
        """As :meth:`dwebsocket.groups.backend.Backend.enter`."""
        self._start_reports()
        return self.presence.enter(name, member, *visit)

    async def aenter(self, name: str, member: Member, visit: Visit) -> Entered:
        """As :meth:`enter`."""
        return self.enter(name, member, visit)

    def members(self, name: str) -> list[_core.Member]:
        """As :meth:`dwebsocket.groups.backend.Backend.members`."""
        return self.presence.members(name)

    async def amembers(self, name: str) -> list[_core.Member]:
        """As :meth:`members`."""
        return self.members(name)

    def _close(self, name: str, code: int, reason: str) -> _core.Wait | None:
        self.groups.close(name, code, reason)
        return None

    def _note_failure(self) -> None:
        # The engine has counted only those that it took.
        self.groups.note("published")
        self.groups.note("failed")

    def _insist(self, attempt: Callable[[], _core.Wait | None]) -> None:
        if (room := attempt()) is None:
            return
        deadline = clock.now() + (0 if running_loop() is not None else self.settings.timeout)
        while room is not None:
            engine_calls.wait(room, self._time_left(deadline))
            room = attempt()

    async def _ainsist(self, attempt: Callable[[], _core.Wait | None]) -> None:
        if (room := attempt()) is None:
            return
        deadline = clock.now() + self.settings.timeout
        while room is not None:
            await engine_calls.await_call(room, self._time_left(deadline))
            room = attempt()


def _sharing() -> int:
    """Gives the number of backends that share the limit, one at least, each the same part of it."""
    kept = [own.backend for own in conf.get("GROUPS").values() if own.history]
    return max(1, sum(issubclass(backends.class_of(path), Backend) for path in kept))
