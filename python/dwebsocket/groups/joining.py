"""The calls of ``request.websocket`` for groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwebsocket.api.base import Base
from dwebsocket.exceptions import UsageError
from dwebsocket.group_settings import DEFAULT
from dwebsocket.groups import backends, holding, names
from dwebsocket.groups.api import Group, group
from dwebsocket.groups.members import member_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class Joining(Base):
    """Membership of a connection in groups."""

    @property
    def groups(self) -> frozenset[str]:
        """The names of its groups in the default backend, without that of its user."""
        if self._connection is None or (member := member_of(self)) is None:
            return frozenset()
        found = backends.backend(DEFAULT).groups.names_of(member)
        return frozenset(name for name in found if not name.startswith(names.OWN))

    def join(self, *groups: str | Group) -> bool | None:
        """
        Makes this connection a member of groups, given by name or as ``group(…)``.

        Returns:
            None; False when the connection is over.

        Raises:
            GroupUnavailable, UsageError: As :meth:`dwebsocket.groups.Group.add`. The connection
                is then in none of the groups that it was not in before.
            TypeError, ValueError: As :func:`dwebsocket.group`.
        """
        wanted = _groups(groups)
        for alias in {each.using for each in wanted}:
            backends.backend_for_sync(alias, "websocket.ajoin")
        if (member := member_of(self)) is None:
            return False
        before = self._memberships(wanted)
        held = holding.hold(wanted)
        try:
            is_open = all(each._add_held(self, member) for each in wanted)
        except BaseException:
            self._leave_all(wanted, before)
            raise
        finally:
            holding.release(held)
        return None if is_open else False

    async def ajoin(self, *groups: str | Group) -> bool | None:
        """
        As :meth:`join`, without blocking the event loop.

        Raises:
            GroupUnavailable, UsageError, TypeError, ValueError: As :meth:`join`.
        """
        wanted = _groups(groups)
        if (member := member_of(self)) is None:
            return False
        before = self._memberships(wanted)
        held = await holding.ahold(wanted)
        try:
            is_open = all([await each._aadd_held(self, member) for each in wanted])
        except BaseException:
            self._leave_all(wanted, before)
            raise
        finally:
            holding.release(held)
        return None if is_open else False

    def leave(self, *groups: str | Group) -> None:
        """
        Ends memberships. Never waits; groups that this connection is not in are ignored.

        Raises:
            UsageError: The connection is not open yet.
            TypeError, ValueError: As :func:`dwebsocket.group`.
        """
        for each in _groups(groups):
            each.discard(self)

    async def aleave(self, *groups: str | Group) -> None:
        """
        As :meth:`leave`.

        Raises:
            UsageError, TypeError, ValueError: As :meth:`leave`.
        """
        self.leave(*groups)

    def _memberships(self, wanted: list[Group]) -> set[Group]:
        """Gives those of ``wanted`` that this connection is in already."""
        if (member := member_of(self)) is None:
            return set()
        aliases = {each.using for each in wanted}
        found = {alias: set(backends.backend(alias).groups.names_of(member)) for alias in aliases}
        return {each for each in wanted if each.name in found[each.using]}

    def _leave_all(self, groups: Iterable[Group], without: set[Group]) -> None:
        for each in groups:
            if each not in without:
                each.discard(self)


def _groups(groups: tuple[Any, ...]) -> list[Group]:
    found = [each if isinstance(each, Group) else group(each) for each in groups]
    if not found:
        raise UsageError("join() and leave() take the names of groups: none was given")
    return found
