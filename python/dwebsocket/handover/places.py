"""
The places of a connection: its memberships that are more than the messages of a plain group.

A *place* is in a group that has a history, or presence, or in the group of a room. The heir's
process begins first: a *deputy* is the member there, and is present (:mod:`.deputies`). Then the
giver's process ends the membership, and says how far the connection has got (:func:`depart`). The
heir reads from the history what comes after that, adds what the deputy has kept, and the connection
goes on in its place. Others see nothing: for a moment both processes tell of the connection by the
same name, and then the giver's says that it has moved.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, NamedTuple

from dwebsocket import _core, conf
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import monotonic
from dwebsocket.groups import backends
from dwebsocket.groups.backends import process
from dwebsocket.groups.backends.local import Backend as LocalBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.groups.backends.contract import Backend, Member
    from dwebsocket.handover.markers import Departed
    from dwebsocket.runners.handler import Handled
    from dwebsocket.websocket import WebSocket

    #: How a connection is present: its user with key, primary key and moment, None where it only
    #: watches; what it says and when; whether it watches; the grace.
    Standing = tuple[tuple[str, str | None, str] | None, tuple[str, int] | None, bool, float]
    #: For each process the last message that has come.
    Begun = list[tuple[int, int]]
    #: The users that a connection knows, as a number; the same before the last change; the moment.
    Known = tuple[int, int | None, float]
    #: How far the connection has got in a place: the messages of each process; the position, and
    #: whether it gets numbers; the users that it knows, if it is told. None where it is no member.
    Reached = tuple[Begun, tuple[int, int, bool] | None, Known | None]

# Seconds for which one process waits for what another one tells.
_PATIENCE_S = 5.0
_PAUSE_S = 0.001
# Seconds for which a moment is waited for in which no user has just come or gone.
_QUIET_S = 0.05


class Place(NamedTuple):
    """
    One place.

    Attributes:
        using: The alias of its group.
        name: The group's name.
        room: The room's name, as the client knows it; None outside rooms.
        kind: What :func:`kind_of` returns.
        has_history: Whether the member has a position.
        moves: Whether the membership moves here, too, and not only presence.
        standing: How it is present; None if it is not.
    """

    using: str
    name: str
    room: str | None
    kind: str | None
    has_history: bool
    moves: bool
    standing: Standing | None

    @property
    def backend(self) -> Backend:
        """The backend of its group."""
        return backends.backend(self.using)


def wait_until(is_so: Callable[[], bool], patience: float = _PATIENCE_S) -> bool:
    """Waits until it is so; false when that takes too long. Almost always it is so already."""
    deadline = monotonic() + patience
    while not is_so():
        if monotonic() >= deadline:
            return False
        unpatched.pause(_PAUSE_S)
    return True


def await_handed_out(groups: _core.Groups, name: str, until: int) -> bool:
    """Waits until the entries of a group before this one have reached their members."""
    return wait_until(functools.partial(_core.has_handed_out, groups, name, until))


def begun_of(aliases: set[str]) -> dict[str, Begun]:
    """Returns how far messages have come here, for each alias whose processes number theirs."""
    found = {alias: backends.backend(alias) for alias in aliases}
    return {
        alias: backend.node.begun()
        for alias, backend in found.items()
        if isinstance(backend, LocalBackend)
    }


def have_come(begun: dict[str, Begun], deadline: float) -> bool:
    """
    Waits until messages have come to this process as far as to the heir's.

    Args:
        begun: For each alias, how far they have come there.
        deadline: The moment until which they are awaited.

    Returns:
        False when some have not come in time.
    """
    for alias, numbers in begun.items():
        backend = backends.backend(alias)
        assert isinstance(backend, LocalBackend)
        # They may have come as JSON.
        pairs = [(process_id, number) for process_id, number in numbers]
        has_taken = functools.partial(backend.node.has_taken, pairs)
        if not wait_until(has_taken, deadline - monotonic()):
            return False
    return True


def kind_of(backend: Backend) -> str | None:
    """
    Returns the kind of a backend, and where its server is; None where memberships do not move.

    Two processes with the same ones get the same messages.
    """
    # Those of a project's own may do anything.
    module = type(backend).__module__
    return f"{module} {backend.address}" if module.startswith("dwebsocket.") else None


def is_special(backend: Backend, name: str) -> bool:
    """Whether a member of a group has a position there, which is the place's."""
    return backend.settings.kept(name) is not None


def obstacle(handler: Handled) -> str | None:
    """Returns the reason why a connection cannot move because of its places; None if it can."""
    for place in of(handler):
        backend = place.backend
        if place.kind is None:
            return f"it is in groups of {backend.settings.backend}"
        if place.standing is not None and type(backend) is process.Backend:
            return "others see it in a group whose users each process knows for itself"
        if place.room is not None and not place.has_history and is_special(backend, place.name):
            # Its messages have positions, and it has none.
            return f"the room {place.room!r} has no history, and its group has one"
    return None


def groups_of(websocket: WebSocket) -> Iterator[tuple[str, str, Backend]]:
    """Yields alias, name and backend of each group of a connection."""
    member = websocket._engine.as_member()
    now = conf.present()
    for alias in conf.get("GROUPS", now):
        if (backend := backends.made(alias, now)) is not None:
            for name in backend.groups.names_of(member):
                yield alias, name, backend


def of(handler: Handled) -> Iterator[Place]:
    """Yields the places of a handler's connection."""
    member = handler.websocket._engine.as_member()
    for alias, name, backend in groups_of(handler.websocket):
        has_history = is_special(backend, name)
        standing = _standing(backend, name, member)
        if has_history or standing is not None:
            kind = kind_of(backend)
            yield Place(alias, name, None, kind, has_history, has_history, standing)
    for room, (alias, name, has_history, seat) in handler._seats_to_move().items():
        backend = backends.backend(alias)
        standing = _standing(backend, name, seat)
        kind = kind_of(backend)
        yield Place(alias, name, room, kind, has_history, moves=True, standing=standing)


def _standing(backend: Backend, name: str, member: Member) -> Standing | None:
    return backend.presence.standing(name, member) if backend.keeps_presence else None


def depart(
    handler: Handled,
    places: list[Place],
    begun: dict[str, Begun],
    marked: dict[str, Departed | None],
    deadline: float,
) -> list[Reached | None] | None:
    """
    Ends the memberships of a connection that is about to be given away. It stays present.

    Args:
        handler: The connection's handler.
        places: Those of which the heir knows.
        begun: For each alias, how far messages have come in the heir's process.
        marked: The rooms in which the memberships have ended at markers already, and where.
        deadline: The moment until which messages and presence of other processes are awaited.

    Returns:
        For each place how far it has got, of the type ``Reached``, None where it is no member any
        more. None when something has not come here in time.
    """
    if not have_come(begun, deadline):
        return None
    seats = handler._seats_to_move()
    reached: list[Reached | None] = []
    for place in places:
        if place.room is None:
            member: Member = handler.websocket._engine.as_member()
        elif (found := seats.get(place.room)) is not None:
            member = found[-1]
        else:
            reached.append(None)
            continue
        leave = functools.partial(_core.depart, place.backend.groups, place.name, member)
        if place.room is not None and place.room in marked:
            leave = functools.partial(marked.get, place.room)
        if (gone := _depart(place, member, leave, deadline)) is False:
            return None
        has_ended = isinstance(member, _core.Seat) and member.is_over
        # Its client is told here why it is no member any more.
        reached.append(None if has_ended else gone)
    # The other process would not tell of it.
    return None if any(seat.owes_loss for *_, seat in seats.values()) else reached


def _depart(
    place: Place, member: Member, leave: Callable[[], Departed | None], deadline: float
) -> Reached | Literal[False] | None:
    """Ends one membership by ``leave``. False when something has not come here in time."""
    backend, name, known = place.backend, place.name, None
    if place.standing is not None:
        now = backend.presence.standing(name, member)
        if now is not None and now[1] != place.standing[1]:
            # Others know better than the heir what it says.
            return False
        if now is None and not place.moves:
            return None
        # Else others could see it leave before they see it come.
        is_elsewhere = functools.partial(backend.presence.is_elsewhere, name, member)
        if not wait_until(is_elsewhere, deadline - monotonic()):
            return False
        if place.standing[2] and (known := _end_watch(backend, name, member)) is None:
            return False
    if not place.moves:
        return [], None, known
    if (left := leave()) is None:
        return None
    got, until, at = left
    if not await_handed_out(backend.groups, name, until):
        return False
    return got, at, known


def _end_watch(backend: Backend, name: str, member: Member) -> Known | None:
    """Ends the telling of a member. Returns the users that it knows; None if it takes too long."""
    known: Known | None = None

    def has_ended(*, waits: bool) -> bool:
        nonlocal known
        users = backend.presence.end_watch(name, member, waits)
        known = None if users is None else (*users, monotonic())
        return known is not None

    if not wait_until(functools.partial(has_ended, waits=True), _QUIET_S):
        wait_until(functools.partial(has_ended, waits=False))
    return known
