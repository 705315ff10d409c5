"""The contract of a backend that keeps the history of groups, beside :mod:`.backend`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dwebsocket.api.waiting.engine_calls import await_call, wait
from dwebsocket.api.waiting.steps import Call
from dwebsocket.compat import unpatched
from dwebsocket.compat.work_queue import WorkQueue
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups.backends.contract import Backend
from dwebsocket.groups.history import Page
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.groups.history import Log, Position

_log = logging.getLogger("dwebsocket")

# All that is kept.
_ALL = (2**53, 1e9)
# Seconds between two attempts to read from a server that is away.
_RETRY_S = 0.2


class HistoryBackend(Backend):
    """
    The base class of backends that keep the history of groups.

    The backend has a log for each group: it gives each message the next offset of its group, keeps
    it, and passes it on with its position. The log is the truth. A process that gets a message
    which is not the next one reads the log. A member that comes back reads it, too.

    Beside what :class:`~dwebsocket.groups.Backend` asks for, a subclass implements :meth:`append`,
    :meth:`aappend`, :meth:`read_log` and :meth:`aread_log`. Instead of :meth:`deliver` it calls
    :meth:`deliver_at` for what came by ``append``, and :meth:`catch_up_soon` when something may
    have been missed, such as after an outage.

    An epoch is a number below 2**64 that no numbering of the group has had: the backend takes
    another one at random when it has lost messages. Offsets begin with 1 and have no gaps.
    """

    keeps_history = True

    def __init__(self, alias: str, own: BackendSettings) -> None:
        super().__init__(alias, own)
        self._catching_up = WorkQueue("dwebsocket-catch-up")
        # The groups whose log cannot be read, by another failure than that the server is away.
        self._failed: set[str] = set()

    # -- what a backend implements ---------------------------------------------------------------

    def append(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        """
        Publishes a message of a group with a history, which numbers and keeps it.

        The order of offsets is the order in which processes get the messages, apart from failures.

        Args:
            name: The group's name.
            envelope: The message.
            limits: The number of messages that the group keeps, and their age in seconds.

        Raises:
            GroupUnavailable: As :meth:`publish`.
        """
        raise NotImplementedError

    async def aappend(self, name: str, envelope: bytes, limits: tuple[int, float]) -> None:
        """Appends as :meth:`append`, and raises the same, without blocking the event loop."""
        raise NotImplementedError

    def read_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Log:
        """
        Returns the newest position of a group, and what is kept after ``after``, oldest first.

        Reading the log of a new group gives it an epoch; its newest offset is 0. The log may give
        a part of a long answer, at least one message of it: the rest is asked for later.

        Args:
            name: The group's name.
            after: Epoch and offset. None, another epoch, or an offset beyond the newest one, for
                all that is kept.
            limits: How many of the newest messages of the group are wanted at most, and their age
                in seconds.

        Raises:
            GroupUnavailable: The backend cannot be reached within ``settings.timeout``.
        """
        raise NotImplementedError

    async def aread_log(self, name: str, after: Position | None, limits: tuple[int, float]) -> Log:
        """Reads as :meth:`read_log`, and raises the same, without blocking the event loop."""
        raise NotImplementedError

    # -- what a backend calls --------------------------------------------------------------------

    def deliver_at(self, name: str, at: Position, envelope: bytes) -> bool:
        """
        Hands an envelope that has a position to the members in this process. Never waits.

        When messages before it are missing here, they are read soon, on another thread, and it
        with them. One that members have got is ignored.

        Returns:
            False for bytes that are no envelope; they are ignored.
        """
        if not self.groups.count(name):
            self.unsubscribe_if_unused(name)
        offered = self.groups.offer(name, at, envelope)
        if offered is None:
            self.groups.note("unreadable")
        elif offered == "behind":
            self.catch_up_soon(name)
        return offered is not None

    def catch_up_soon(self, *names: str) -> None:
        """
        Reads what the members in this process have missed, on another thread. Never waits.

        While the backend is away it tries again and again.

        Args:
            *names: The groups; without one, all that have members here.
        """
        found = names or self.groups.recorded_names()
        self._catching_up.add(*((self._catch_up_now, name) for name in found))

    def _catch_up_now(self, name: str) -> None:
        try:
            self.catch_up(name)
            self._failed.discard(name)
        except Exception as error:
            if not isinstance(error, GroupUnavailable) and name not in self._failed:
                self._failed.add(name)
                _log.exception("Members of %r may miss messages; they are read again", name)
            # After the others.
            self.catch_up_soon(name)
            # A server that is away tells nobody that it is back.
            unpatched.pause(_RETRY_S)

    # -- for the rest of the package -------------------------------------------------------------

    def _catch_up(self, name: str) -> Steps[None]:
        while (at := self.groups.position_of(name)) is not None:
            log: Log = yield Call(self.read_log, self.aread_log, name, at, _ALL)
            deadline = clock.now() + self.settings.timeout
            while (room := self.groups.take_page(name, log.head, log.rows)) is not None:
                yield Call(wait, await_call, room, self._time_left(deadline))
            if log.reached == log.head:
                return

    def _pass_on(self, name: str, envelope: bytes) -> None:
        if (kept := self.settings.kept(name)) is None:
            self.publish(name, envelope)
        else:
            self.append(name, envelope, kept.limits)

    async def _apass_on(self, name: str, envelope: bytes) -> None:
        if (kept := self.settings.kept(name)) is None:
            await self.apublish(name, envelope)
        else:
            await self.aappend(name, envelope, kept.limits)

    def _read_history(
        self, name: str, after: Position | None, limits: tuple[int, float]
    ) -> Steps[Page]:
        log: Log = yield Call(self.read_log, self.aread_log, name, after, limits)
        return Page(log.head, self.groups.read_rows(name, log.rows), log.reached)
