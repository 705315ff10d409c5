"""Groups of this process only, for tests and for sites with one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dwebsocket import _core, conf
from dwebsocket.api.waiting import engine_calls
from dwebsocket.api.waiting.steps import Call
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends
from dwebsocket.groups.backends import contract
from dwebsocket.groups.history import Page
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.groups.backends.contract import Arrival, Entered, Exclude, Member, Message
    from dwebsocket.groups.history import Position

T = TypeVar("T")
#: Returns how long an attempt may wait for another process; None for ``TIMEOUT``.
Patience = Callable[[], float | None]
#: Something that may have to be repeated: it returns a wait for room then.
Attempt = Callable[[Patience], T | _core.Wait]

# Seconds between two looks whether another process has let the history go.
_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.02
# Seconds for which a sync call in an event loop waits for another process that holds the history:
# long enough for one that writes, not for one that was stopped.
_IN_LOOP_S = 0.02


class Backend(contract.Backend):
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
        super().__init__(alias, own)
        self._history: _core.History | None = None
        self._history_lock = unpatched.lock()

    def hold(self, name: str) -> None:
        if self._unsubscribes:
            # A subclass of a project's.
            super().hold(name)
            return
        # Without steps: there is nothing to wait for, and each join of a room comes here.
        self._start_reports()
        self.subscribe(name)

    def send(self, name: str, message: Message, exclude: Exclude) -> None:
        """
        Hands a message to the engine.

        Raises:
            GroupUnavailable: More is published than can be delivered.
        """
        try:
            self._insist(lambda patience: self._publish(name, message, exclude, patience))
        except GroupUnavailable:
            self._note_failure(name)
            raise

    async def asend(self, name: str, message: Message, exclude: Exclude) -> None:
        try:
            await self._ainsist(lambda patience: self._publish(name, message, exclude, patience))
        except GroupUnavailable:
            self._note_failure(name)
            raise

    def close(self, name: str, code: int, reason: str) -> None:
        self._insist(lambda _: self._close(name, code, reason))

    async def aclose(self, name: str, code: int, reason: str) -> None:
        await self._ainsist(lambda _: self._close(name, code, reason))

    def publish(self, name: str, envelope: bytes) -> None:
        """Delivers an envelope that is no message, in this process."""
        self.groups.deliver(name, envelope)

    async def apublish(self, name: str, envelope: bytes) -> None:
        self.groups.deliver(name, envelope)

    @property
    def event_publisher(self) -> _core.Groups | _core.LocalNode | None:
        return self.groups

    def count(self, name: str) -> int:
        """Returns the exact number of members."""
        return self.groups.count(name)

    async def acount(self, name: str) -> int:
        return self.count(name)

    def _publish(
        self, name: str, message: Message, exclude: Exclude, patience: Patience
    ) -> _core.Wait | None:
        """
        Publishes if there is room; else returns a wait for it.

        Raises:
            TimeoutError: As :meth:`_reported`.
        """
        if (kept := self.settings.kept(name)) is None:
            return self.groups.publish(name, message, exclude)
        return self._reported(self._record, name, message, exclude, kept.limits, patience())

    def _record(
        self,
        name: str,
        message: Message,
        exclude: Exclude,
        limits: tuple[int, float],
        patience: float | None,
    ) -> _core.Wait | None:
        return self.history.record(self.groups, name, message, exclude, limits)

    # -- history ---------------------------------------------------------------------------------

    @property
    def history(self) -> _core.History:
        """
        The kept messages of groups, made on first use.

        Raises:
            GroupUnavailable: It cannot be.
        """
        if self._history is None:
            with self._history_lock:
                if self._history is None:
                    kept = [own.backend for own in conf.get("GROUPS").values() if own.history]
                    # These backends share the limit, each the same part of it.
                    sharing = sum(issubclass(backends.class_of(path), Backend) for path in kept)
                    most = conf.get("MAX_HISTORY") // max(1, sharing)
                    self._history = self._reported(self._new_history, most)
        return self._history

    @property
    def history_usage(self) -> tuple[int, int] | None:
        history = self._history
        return None if history is None else (history.bytes(), history.evicted())

    def _new_history(self, most: int) -> _core.History:
        return _core.History.in_memory(most)

    def _reported(self, call: Callable[..., T], *args: Any) -> T:
        """
        Makes a call, and turns what the system refuses into an exception of groups.

        Raises:
            TimeoutError: Another process holds the history. Later it may not.
            GroupUnavailable: Any other reason.
        """
        try:
            return call(*args)
        except OSError as error:
            if isinstance(error, (GroupUnavailable, TimeoutError)):
                raise
            raise self.unavailable(error.strerror or str(error)) from error

    def _read_history(
        self, name: str, after: Position | None, limits: tuple[int, float]
    ) -> Steps[Page]:
        def read(patience: Patience) -> Any:
            read = self.history.read
            return self._reported(read, self.groups, name, after, limits, patience())

        return Page(*(yield Call(self._insist, self._ainsist, read)))

    def _catch_up(self, name: str) -> Steps[None]:
        def catch_up(patience: Patience) -> None:
            self._reported(self.history.catch_up, self.groups, name, patience())

        yield Call(self._insist, self._ainsist, catch_up)

    # -- presence ----------------------------------------------------------------------------------

    def entering(self, name: str, member: Member, visit: Arrival) -> Steps[Entered]:
        yield from ()
        self._start_reports()
        return self.presence.enter(name, member, *visit)

    def gathering(self, name: str) -> Steps[list[_core.Member]]:
        yield from ()
        return self.presence.members(name)

    def _close(self, name: str, code: int, reason: str) -> _core.Wait | None:
        self.groups.close(name, code, reason)
        return None

    def _note_failure(self, name: str) -> None:
        # The engine has counted only those that it took.
        self.groups.note("published", name)
        self.groups.note("failed", name)

    def _patience(self) -> float | None:
        """Returns how long a call may wait for another process; None for ``TIMEOUT``."""
        return None if running_loop() is None else _IN_LOOP_S

    def _insist(self, attempt: Attempt[T]) -> T:
        """Repeats an attempt while it returns a wait for room."""
        deadline: float | None = None
        while True:
            try:
                found = attempt(self._patience)
            except TimeoutError as error:
                raise self.unavailable(str(error)) from error
            if not isinstance(found, _core.Wait):
                return found
            if deadline is None:
                patience = 0 if running_loop() is not None else self.settings.timeout
                deadline = clock.now() + patience
            engine_calls.wait(found, self._time_left(deadline))

    async def _ainsist(self, attempt: Attempt[T]) -> T:
        """Insists in an event loop, also while another process does not allow it yet."""
        deadline, pause = clock.now() + self.settings.timeout, _PAUSE_S
        while True:
            try:
                # Attempts must not block the event loop.
                found = attempt(lambda: 0.0)
            except TimeoutError as error:
                if clock.now() >= deadline:
                    raise self.unavailable(str(error)) from error
                # A process that lets the history go tells nobody.
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                continue
            if not isinstance(found, _core.Wait):
                return found
            await engine_calls.await_call(found, self._time_left(deadline))
