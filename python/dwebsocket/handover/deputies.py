"""The places of a connection that is expected here: see :mod:`.places`."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.compat.system import monotonic
from dwebsocket.groups import history
from dwebsocket.groups.backends import local, process
from dwebsocket.groups.members import key_of
from dwebsocket.handover import markers
from dwebsocket.handover.places import Place, await_handed_out, kind_of, wait_until
from dwebsocket.request.worlds import user_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.backends.contract import Arrival, Member
    from dwebsocket.handover.places import Known, Reached
    from dwebsocket.websocket import WebSocket

    #: The seats of rooms, by the rooms' names; None for one that has ended meanwhile.
    Seats = dict[str, _core.Seat | None]

# A group that goes on all the time is read so often at most.
_MOST_ROUNDS = 1000
# Seconds until this process knows of the users of which the other one knows.
_SOON_S = 1.5


class Unlike(Exception):
    """A place is not the same in this process. The message says why."""


class Deputies:
    """The deputies of one connection, from :meth:`begin` to :meth:`leave`."""

    def __init__(self, places: list[Place], websocket: WebSocket) -> None:
        """Begins without any. ``websocket`` is the one that is expected."""
        self._places = places
        self.key = key_of(websocket.id)
        self._websocket_id = websocket.id
        user = websocket._visitor_names[0]
        self.user = user_key(user, websocket._realm) if user else None
        self._deputies: list[_core.Deputy] = []
        # By the names of rooms whose messages a server carries: no history has their events.
        self._beginnings: dict[str | None, markers.Beginning] = {}

    def begin(self) -> None:
        """
        Has deputies take the places.

        Raises:
            Unlike: A group has another backend, or the like, in this process.
            GroupUnavailable: This process cannot take part in a group.
        """
        for place in self._places:
            backend = place.backend
            has_history = backend.settings.kept(place.name) is not None
            if kind_of(backend) != place.kind:
                raise Unlike(f"the group {place.name!r} has another backend now")
            if place.has_history and not has_history:
                raise Unlike(f"the group {place.name!r} has no history now")
            seat = None if place.room is None else (self.key, self.user)
            deputy = _core.Deputy(seat)
            self._deputies.append(deputy)
            if place.room is not None and markers.has_markers(backend):
                before = _core.Deputy()
                self._join(place, before)
                where = place.using, place.name, place.room
                begins = markers.Beginning(where, self.key, deputy, before)
                self._beginnings[place.room] = begins
            elif place.moves:
                self._join(place, deputy)
            if place.standing is not None:
                # Its user is known here, once the other process has told of it: else it would join.
                if (who := place.standing[0]) is not None and isinstance(backend, local.Backend):
                    backend.hold(place.name)
                    wait_until(functools.partial(backend.presence.knows, place.name, who[0]))
                    backend.release(place.name)
                if backend.enter(place.name, deputy, self._visit(place)) != ():
                    raise Unlike(f"the other process does not tell of the users of {place.name!r}")

    def _join(self, place: Place, deputy: _core.Deputy) -> None:
        backend, name = place.backend, place.name
        backend.hold(name)
        try:
            if not place.has_history:
                backend.join(name, deputy, self.key)
                return
            for _ in range(_MOST_ROUNDS):
                head = backend.read_history(name, None, (0, 0.0)).head
                if backend.join_at(name, deputy, self.key, head, numbered=False) != "behind":
                    return
            raise Unlike(f"the history of {name!r} does not come to a rest")
        finally:
            backend.release(name)

    def _visit(self, place: Place) -> Arrival:
        """Returns what a place tells of the user: what the other process has told."""
        assert place.standing is not None
        who, said, _, grace = place.standing
        key, user, since = who or ("", None, "")
        info, said_at = said or (None, None)
        own = (self.key, key, user, since, info, False, grace, self._websocket_id)
        return (*own, who is not None, False, said_at)

    @property
    def marks(self) -> list[markers.Mark]:
        """The markers that are to be published."""
        return [each.mark for each in self._beginnings.values()]

    def enter(
        self, connection: _core.Connection, seats: Seats, reached: list[Reached | None]
    ) -> bytes | None:
        """
        Puts the connection, which sends nothing yet, into its places.

        Args:
            connection: The connection.
            seats: Its seats in rooms. Those that have ended are replaced by None.
            reached: For each place how far it has got.

        Returns:
            What it has to send first; None when it cannot be told all.
        """
        frames: list[bytes] = []
        with ExitStack() as at_end:
            at_end.callback(self.leave)
            for place, deputy, gone in zip(self._places, self._deputies, reached, strict=True):
                seat = None if place.room is None else seats[place.room]
                if place.room is not None and seat is None:
                    # The connection is over.
                    continue
                begins = self._beginnings.get(place.room)
                entering = _Entering(place, deputy, begins, seat or connection, self.key)
                if gone is not None:
                    if entering.go_on(connection, gone, self._visit, frames):
                        continue
                    if not entering.has_ended:
                        return None
                if place.room is not None and seat is not None:
                    seat.leave()
                    seats[place.room] = None
        return b"".join(frames)

    def leave(self) -> None:
        """Ends all deputies."""
        self._beginnings.clear()
        while self._deputies:
            self._deputies.pop().leave()


@dataclass(eq=False, repr=False)
class _Entering:
    """One place that a connection, or its seat in a room, is about to take."""

    _place: Place
    _deputy: _core.Deputy
    _begins: markers.Beginning | None
    _member: Member
    _key: bytes
    #: Whether it was evicted meanwhile.
    has_ended: bool = False

    def go_on(
        self,
        connection: _core.Connection,
        reached: Reached,
        visit: Callable[[Place], Arrival],
        frames: list[bytes],
    ) -> bool:
        """Takes the place. False if that is not possible, or has no point: see ``has_ended``."""
        place, member = self._place, self._member
        numbers, at, known = reached
        got = [(publisher, number) for publisher, number in numbers]
        at = self._begin_at(at)
        if place.moves and not self._succeed(connection, got, at, frames):
            return False
        if place.standing is not None and not self._be_present(visit(place), known):
            return False
        if isinstance(member, _core.Seat):
            member.open(None if at is None else at[:2])
        return True

    def _begin_at(self, at: tuple[int, int, bool] | None) -> tuple[int, int, bool] | None:
        """Returns the position from which it goes on here."""
        if at is None:
            return None
        backend = self._place.backend
        if type(backend) is process.Backend:
            # Another group of the same name. Messages that are published in it come from now on.
            here = backend.groups.position_of(self._place.name)
            return None if here is None else (*here, at[2])
        return (at[0], at[1], at[2])

    def _succeed(
        self,
        connection: _core.Connection,
        got: list[tuple[int, int]],
        at: tuple[int, int, bool] | None,
        frames: list[bytes],
    ) -> bool:
        place, deputy, member = self._place, self._deputy, self._member
        groups, name, begins = place.backend.groups, place.name, self._begins
        if begins is not None and not wait_until(begins.has_come):
            return False
        until: int | str | None = "behind"
        for _ in range(_MOST_ROUNDS):
            until = deputy.succeed(groups, name, member, self._key, got, at)
            if not isinstance(until, str) or at is None:
                break
            if until == "early":
                place.backend.catch_up(name)
            if (found := self._read(at)) is None:
                return False
            rows, at = found
            frames.append(_core.frames_for(connection, rows))
        if until is None:
            self._end(connection, frames)
            return False
        if not isinstance(until, int):
            return False
        if not await_handed_out(groups, name, until):
            return False
        if deputy.evicted is not None:
            self._end(connection, frames)
            return False
        if begins is not None and not begins.is_whole:
            return False
        if (kept := deputy.take_kept(member, got)) is None:
            return False
        frames.append(kept)
        return True

    def _end(self, connection: _core.Connection, frames: list[bytes]) -> None:
        """It was evicted: notes what its client is told."""
        self.has_ended = True
        if self._place.room is not None:
            reason = self._deputy.evicted or ""
            text = _core.ended(self._place.room, "evicted", reason)
            frames.append(_core.frames_for(connection, [text]))

    def _read(
        self, at: tuple[int, int, bool]
    ) -> tuple[list[str | bytes], tuple[int, int, bool]] | None:
        """Returns the messages that come after a position, and where they end; None with a gap."""
        place, backend, (epoch, offset, is_numbered) = self._place, self._place.backend, at
        kept = backend.settings.kept(place.name)
        assert kept is not None
        page = backend.read_history(place.name, (epoch, offset), kept.limits)
        if not history.is_whole(page, (epoch, offset)):
            return None
        rows: list[str | bytes] = []
        for number, _, message, exclude in page.rows:
            if self._key in exclude:
                continue
            if place.room is not None:
                rows.append(_core.in_room(place.room, (epoch, number), message))
            elif is_numbered:
                rows.append(_core.numbered(place.name, (epoch, number), message))
            else:
                rows.append(message)
        return rows, (*page.reached, is_numbered)

    def _be_present(self, visit: Arrival, known: Known | None) -> bool:
        place, backend, member = self._place, self._place.backend, self._member
        assert place.standing is not None
        if backend.enter(place.name, member, visit) is None:
            return False
        if not place.standing[2]:
            return True
        if known is None:
            return False
        digest, before, then = known

        def has_resumed() -> bool:
            ago = max(0.0, monotonic() - then)
            return backend.presence.resume_watch(place.name, member, (digest, before), ago)

        return wait_until(has_resumed, _SOON_S)
