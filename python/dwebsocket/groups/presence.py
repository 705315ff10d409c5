"""Presence: the users behind the members of a group."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dwebsocket import signals
from dwebsocket.api.arguments import as_json
from dwebsocket.exceptions import UsageError
from dwebsocket.groups import backends
from dwebsocket.groups.members import key_of
from dwebsocket.worlds import user_key

if TYPE_CHECKING:
    from dwebsocket.api.base import Base
    from dwebsocket.group_settings import BackendSettings, Present
    from dwebsocket.groups.backend import Backend, Member, Visit
    from dwebsocket.groups.membership_signals import Named

#: The most bytes of JSON that a connection may say about its user.
LARGEST_INFO = 4096
# Digits of the key of a user that has no primary key.
_KEY_LENGTH = 20


@dataclass(frozen=True)
class Wish:
    """
    What a connection that joins wants of a group with presence.

    Attributes:
        info: What others may see of its user, as JSON; None for nothing.
        watches: Whether it is told which users join and leave.
    """

    info: str | None = None
    watches: bool = False

    @classmethod
    def of(cls, info: Any, presence: object) -> Wish:
        """
        Gives the wish for the arguments of ``join``.

        Raises:
            TypeError: ``presence`` is no bool, or JSON cannot represent ``info``.
            ValueError: ``info`` is too large.
        """
        if not isinstance(presence, bool):
            raise TypeError(f"presence must be True or False, not {type(presence).__name__}")
        if info is None:
            return cls(None, presence)
        text = as_json(info, {"allow_nan": False, "separators": (",", ":")})[0]
        if len(text) > LARGEST_INFO:
            raise ValueError(
                f"info has {len(text)} bytes as JSON, more than {LARGEST_INFO}: every member "
                "gets it, so tell what others see of a user, such as a name"
            )
        return cls(str(text), presence)

    @property
    def what(self) -> str:
        """The argument that needs a group with presence; empty for none."""
        if self.watches:
            return "join(presence=True)"
        return "" if self.info is None else "join(info=…)"


#: That of a connection which says and asks nothing.
NOTHING = Wish()


def needs(settings: BackendSettings, name: str, what: str) -> Present:
    """
    Gives how a group knows its users.

    Raises:
        UsageError: It does not.
    """
    if (present := settings.present(name)) is None:
        raise UsageError(
            f"{what} needs presence, and the group {name!r} has none: "
            "name it in PRESENCE of WEBSOCKET_GROUPS"
        )
    return present


def enter(group: Named, websocket: Base, member: Member, wish: Wish = NOTHING) -> bool:
    """
    Makes the user of a connection present in a group that has presence; false when it is over.

    Raises:
        GroupUnavailable: The backend cannot be reached.
    """
    backend = backends.backend(group.using)
    if (present := backend.settings.present(group.name)) is None:
        return True
    entered = backend.enter(group.name, member, _visit(backend, websocket, present, wish))
    if entered is None:
        return False
    if entered:
        request = websocket._view_request
        signals.send(signals.member_joined, websocket, request, group=group, member=entered[0])
    return True


async def aenter(group: Named, websocket: Base, member: Member, wish: Wish = NOTHING) -> bool:
    """
    As :func:`enter`, without blocking the event loop.

    Raises:
        GroupUnavailable: As :func:`enter`.
    """
    backend = backends.backend(group.using)
    if (present := backend.settings.present(group.name)) is None:
        return True
    entered = await backend.aenter(group.name, member, _visit(backend, websocket, present, wish))
    if entered is None:
        return False
    if entered:
        request = websocket._view_request
        facts = {"group": group, "member": entered[0]}
        await signals.asend(signals.member_joined, websocket, request, **facts)
    return True


def leave(group: Named, member: Member) -> None:
    """Ends the presence of a connection. Never waits."""
    backend = backends.backend(group.using)
    if backend.settings.present(group.name) is not None:
        backend.presence.leave(group.name, member)


def _visit(backend: Backend, websocket: Base, present: Present, wish: Wish) -> Visit:
    user, session = websocket._visitor_names
    if user:
        key = f"user:{user_key(user, websocket._realm)}"
    elif session:
        key = f"session:{_hidden(backend, session)}"
    else:
        key = f"connection:{_hidden(backend, websocket.id)}"
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    return (key_of(websocket.id), key, user or None, now, wish.info, wish.watches, present.grace)


def _hidden(backend: Backend, secret: str) -> str:
    """Gives a name that is always the same for ``secret`` and does not reveal it."""
    key = backend.project_key("presence")
    return hmac.digest(key, secret.encode(), "sha256").hex()[:_KEY_LENGTH]
