"""The calls of ``request.websocket`` for groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwebsocket.api.base import Base
from dwebsocket.api.waiting.steps import arun, run
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.exceptions import GroupUnavailable, UsageError
from dwebsocket.groups import backends, history, holding, membership_signals, names
from dwebsocket.groups.api import Group, group
from dwebsocket.groups.history import Recovery, recovering
from dwebsocket.groups.members import joinable, key_of, member_of
from dwebsocket.groups.presence import JoinOptions, enter, needs, update

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.groups.backends.contract import Member


class Joining(Base):
    """Membership of a connection in groups."""

    @property
    def groups(self) -> frozenset[str]:
        """The names of its groups in the default backend, without that of its user."""
        if self._connection is None:
            return frozenset()
        found = backends.backend(DEFAULT).groups.names_of(member_of(self))
        return frozenset(name for name in found if not name.startswith(names.OWN))

    def join(
        self,
        *groups: str | Group,
        since: str | None = None,
        partial: bool = False,
        numbered: bool = False,
        former: str | None = None,
        info: Any = None,
        presence: bool | str = False,
    ) -> bool | Recovery | None:
        """
        Makes this connection a member of groups, given by name or as ``group(…)``.

        For groups with a history (``HISTORY`` of ``WEBSOCKET_GROUPS``):

        Example::

            request.websocket.join("news", "room-42")

        Args:
            *groups: Several, or one for ``since``.
            since: The client's position: what was published after it is sent first, then what
                comes, with no gap and nothing twice.
            partial: Send what is still kept also when that is not all of it.
            numbered: Send each message of the group as text of JSON, with its position.
            former: The ``id`` of the client's connection before this one: messages from which that
                was excluded are not sent.
            info: For groups with ``PRESENCE``: what other members may see of the user, such as a
                name. What JSON can represent, up to 4,096 bytes; that of the user's latest
                connection counts.
            presence: For groups with ``PRESENCE``: tell this connection which users join, leave and
                change what they say, as text of JSON. With ``"watch"`` its own user is not present
                by it.

        Returns:
            None, for one group with a history a :class:`~dwebsocket.groups.Recovery`; False when
            the connection is over.

        Raises:
            GroupUnavailable, UsageError: As :meth:`dwebsocket.groups.Group.add`. The connection
                is then in the groups that it was in before, and in none of the others; or it is
                closed with 1013, if it had left one to come back to it from ``since``. UsageError
                also for a group without a history, or without presence, where one is needed.
            TypeError, ValueError: As :func:`dwebsocket.group`; ``since`` with several groups; an
                ``info`` that JSON cannot represent, or that is too large; a ``partial``,
                ``numbered``, ``presence`` or ``former`` of another type.
        """
        wanted = _groups(groups)
        options = _options(partial=partial, numbered=numbered, former=former)
        wish = _wish(wanted, info, presence)
        for alias in {each.using for each in wanted}:
            backends.backend_for_sync(alias, "websocket.ajoin")
        return run(self._join(wanted, wish, since, **options))

    async def ajoin(
        self,
        *groups: str | Group,
        since: str | None = None,
        partial: bool = False,
        numbered: bool = False,
        former: str | None = None,
        info: Any = None,
        presence: bool | str = False,
    ) -> bool | Recovery | None:
        """
        Makes this connection a member of groups, as :meth:`join`, without blocking the event loop.

        Raises:
            GroupUnavailable, UsageError, TypeError, ValueError: As :meth:`join`.
        """
        wanted = _groups(groups)
        options = _options(partial=partial, numbered=numbered, former=former)
        return await arun(self._join(wanted, _wish(wanted, info, presence), since, **options))

    def _join(
        self, wanted: list[Group], wish: JoinOptions, since: str | None = None, **options: Any
    ) -> Steps[bool | Recovery | None]:
        """Joins groups: those that have a history recover, and users become present."""
        if since is not None and len(wanted) > 1:
            raise TypeError("join(since=…) takes one group: each has positions of its own")
        options = {"partial": False, "numbered": False, "former": None, **options}
        recorded, present = [], []
        for each in wanted:
            own = backends.backend(each.using).settings
            if since is not None or options["numbered"]:
                what = "join(numbered=True)" if options["numbered"] else "join(since=…)"
                history.needs(own, each.name, what)
            if own.kept(each.name) is not None:
                recorded.append(each)
            if own.present(each.name) is not None:
                present.append(each)
        if (member := joinable(self)) is None:
            return False
        before = self._memberships(wanted)
        try:
            found = []
            for each in recorded:
                coming = recovering.Recovering(each, since=since, **options)
                found.append((yield from recovering.join(self, each, member, coming)))
            plain = [each for each in wanted if each not in recorded] if recorded else wanted
            is_open = None not in found and (yield from self._join_plain(plain, member))
            for each in present:
                is_open = is_open and (yield from enter(each, self, member, wish))
        except BaseException as error:
            for each in wanted:
                if each not in before:
                    each.discard(self)
            if isinstance(error, GroupUnavailable) and self._is_over:
                return False
            raise
        if not is_open:
            return False
        return found[0] if found and len(wanted) == 1 else None

    def update(self, group: str | Group, *, info: Any) -> None:
        """
        Changes what other members see of this connection, and tells those that watch.

        Args:
            group: A group with presence that it has joined, or the name of a room.
            info: As for :meth:`join`, in place of what it was.

        Raises:
            UsageError: It is not in the group, or the group has no presence.
            GroupUnavailable, TypeError, ValueError: As :meth:`join`.
        """
        for wanted, member, present, note in self._present_in(group):
            run(update(wanted, self, member, _said(info), present))
            note(info)

    async def aupdate(self, group: str | Group, *, info: Any) -> None:
        """
        Changes what other members see, as :meth:`update`, without blocking the event loop.

        Raises:
            UsageError, GroupUnavailable, TypeError, ValueError: As :meth:`update`.
        """
        for wanted, member, present, note in self._present_in(group):
            await arun(update(wanted, self, member, _said(info), present))
            note(info)

    def _present_in(
        self, group: str | Group
    ) -> list[tuple[Group, Member, Any, Callable[[Any], object]]]:
        """
        Returns the memberships by which this connection is present in a group.

        The last value is a function to be called with the new info.
        """
        seats = self._seats or {}
        if isinstance(group, str) and group in seats:
            return [seats[group]]
        wanted = _groups((group,))[0]
        if found := [seat for seat in seats.values() if seat[0] == wanted]:
            return found
        needs(backends.backend(wanted.using).settings, wanted.name, "update(info=…)")
        member = joinable(self)
        if member is None:
            return []
        if not self._memberships([wanted]):
            raise UsageError(f"this connection is not in {wanted!r}: join it first")
        return [(wanted, member, None, _forget)]

    def leave(self, *groups: str | Group) -> None:
        """
        Ends memberships. Never waits; groups that this connection is not in are ignored.

        Example::

            request.websocket.leave("room-42")

        Raises:
            UsageError: The connection is not open yet.
            TypeError, ValueError: As :func:`dwebsocket.group`.
        """
        for each in _groups(groups):
            each.discard(self)

    async def aleave(self, *groups: str | Group) -> None:
        """
        Ends memberships. The same as :meth:`leave`, for code that awaits everything.

        Raises:
            UsageError, TypeError, ValueError: As :meth:`leave`.
        """
        self.leave(*groups)

    def _join_plain(self, groups: list[Group], member: Member) -> Steps[bool]:
        """Joins groups without a history; false when the connection is over."""
        held, key = (yield from holding.hold(groups)), key_of(self.id)
        try:
            for each in groups:
                is_new = membership_signals.is_new(each, member)
                if not backends.backend(each.using).join(each.name, member, key):
                    return False
                if is_new:
                    yield from membership_signals.note_joined(each, self)
            return True
        finally:
            holding.release(held)

    def _memberships(self, wanted: list[Group]) -> set[Group]:
        """Returns those of ``wanted`` that this connection is in already."""
        member = member_of(self)
        return {
            each
            for each in wanted
            if backends.backend(each.using).groups.is_member(each.name, member)
        }


def _options(*, partial: object, numbered: object, former: object) -> dict[str, Any]:
    """
    Returns the arguments of ``join`` for groups with a history.

    Raises:
        TypeError: One is of another type.
    """
    options = {"partial": partial, "numbered": numbered, "former": former}
    for name in ("partial", "numbered"):
        if not isinstance(options[name], bool):
            given = type(options[name]).__name__
            raise TypeError(f"join({name}=…) takes True or False, not {given}")
    if not (former is None or isinstance(former, str)):
        given = type(former).__name__
        raise TypeError(f"join(former=…) takes the id of a WebSocket, not {given}")
    return options


def _forget(_: Any) -> None:
    """Does nothing: the engine knows what a connection says."""


def _said(info: Any) -> JoinOptions:
    """Returns what a connection says anew, which may be nothing."""
    return JoinOptions("null") if info is None else JoinOptions.of(info, presence=False)


def _wish(wanted: list[Group], info: Any, presence: object) -> JoinOptions:
    """
    Returns what this connection wants of groups with presence.

    Raises:
        UsageError: It wants something of a group without presence.
        TypeError, ValueError: As :meth:`JoinOptions.of`.
    """
    wish = JoinOptions.of(info, presence)
    if wish.what:
        for each in wanted:
            needs(backends.backend(each.using).settings, each.name, wish.what)
    return wish


def _groups(groups: tuple[Any, ...]) -> list[Group]:
    found = [each if isinstance(each, Group) else group(each) for each in groups]
    if not found:
        raise UsageError("join() and leave() take the names of groups: none was given")
    return found
