"""Presence: the users behind the members of a group."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from dwebsocket import signals
from dwebsocket.api.arguments import as_json
from dwebsocket.api.waiting.engine_calls import await_call, wait
from dwebsocket.api.waiting.steps import Call
from dwebsocket.exceptions import UsageError
from dwebsocket.groups import backends
from dwebsocket.groups.members import key_of
from dwebsocket.request.worlds import user_key

if TYPE_CHECKING:
    from dwebsocket.api.base import Base
    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.conf.group_settings import BackendSettings, PresenceLimits
    from dwebsocket.groups.backends.contract import Arrival, Backend, Joining, Member
    from dwebsocket.groups.membership_signals import Named

#: The most bytes of JSON that a connection may say about its user.
LARGEST_INFO = 4096
# Digits of the key of a user that has no primary key.
_KEY_LENGTH = 20


@dataclass(frozen=True)
class JoinOptions:
    """
    The wishes of a connection that joins a group with presence.

    Attributes:
        info: What others may see of its user, as JSON; None for nothing.
        watches: Whether it is told which users join and leave.
        is_present: Whether its user is present by it.
    """

    info: str | None = None
    watches: bool = False
    is_present: bool = True

    @classmethod
    def of(cls, info: Any, presence: object) -> JoinOptions:
        """
        Returns the wish for the arguments of ``join``.

        Raises:
            TypeError: ``presence`` is no bool and not "watch", or JSON cannot represent ``info``.
            ValueError: ``info`` is too large, or comes with ``"watch"``.
        """
        if not (isinstance(presence, bool) or presence == "watch"):
            given = type(presence).__name__
            raise TypeError(f'presence must be True or False, not {given}; or it is "watch"')
        watches, is_present = bool(presence), presence != "watch"
        if info is None:
            return cls(None, watches, is_present)
        if not is_present:
            raise ValueError('with presence="watch" others see nothing of it: info has no use')
        text = as_json(info, {"allow_nan": False, "separators": (",", ":")})[0]
        if len(text) > LARGEST_INFO:
            raise ValueError(
                f"info has {len(text)} bytes as JSON, more than {LARGEST_INFO}: every member "
                "gets it, so tell what others see of a user, such as a name"
            )
        return cls(str(text), watches)

    @property
    def what(self) -> str:
        """The argument that needs a group with presence; empty for none."""
        if self.watches:
            return "join(presence=True)"
        return "" if self.info is None else "join(info=…)"


#: The wishes of a connection which says and asks nothing.
NOTHING = JoinOptions()


def needs(settings: BackendSettings, name: str, what: str) -> PresenceLimits:
    """
    Returns how a group knows its users.

    Raises:
        UsageError: It does not.
    """
    if (present := settings.present(name)) is None:
        raise UsageError(
            f"{what} needs presence, and the group {name!r} has none: "
            "name it in PRESENCE of WEBSOCKET_GROUPS"
        )
    return present


def is_known(group: Named) -> bool:
    """Whether the settings say that a group knows its users."""
    return backends.backend(group.using).settings.present(group.name) is not None


def enter(
    group: Named,
    websocket: Base,
    member: Member,
    wish: JoinOptions = NOTHING,
    present: PresenceLimits | None = None,
) -> Steps[bool]:
    """
    Makes the user of a connection present in a group that has presence; false when it is over.

    ``present`` is how it is present where the group has no entry in the settings.

    Raises:
        GroupUnavailable: The backend cannot be reached.
    """
    backend = backends.backend(group.using)
    tells = bool(signals.member_joined.receivers)
    if wish.is_present and backend.keeps_presence:
        wish = _end_watch(backend, group, member, wish)
    if (visit := _visit(backend, group, websocket, wish, present, tells=tells)) is None:
        return True
    entered = yield from backend.entering(group.name, member, visit)
    if entered is None:
        return False
    if entered:
        yield Call(_tell, _atell, backend, group, websocket, entered)
    return True


def _end_watch(backend: Backend, group: Named, member: Member, wish: JoinOptions) -> JoinOptions:
    """Ends the place of one that only watches. Returns its wish, which is to watch as before."""
    standing = backend.presence.standing(group.name, member)
    if standing is None or standing[0] is not None:
        return wish
    # It is told first what has happened until now, whether or not other processes know that.
    waits = False
    backend.presence.end_watch(group.name, member, waits)
    backend.presence.leave(group.name, member)
    return replace(wish, watches=wish.watches or standing[2])


def _tell(backend: Backend, group: Named, websocket: Base, joining: Joining) -> None:
    """Sends ``member_joined``, unless another process does. In an event loop a thread waits."""
    joined, telling = joining
    request, facts = websocket._view_request, {"group": group, "member": joined}
    if telling is None:
        signals.send(signals.member_joined, websocket, request, **facts)
        return

    def tell() -> None:
        wait(telling, backend.telling_timeout)
        if backend.presence.tells(group.name, joined.key):
            signals.send(signals.member_joined, websocket, request, **facts)

    signals.make(tell)


async def _atell(backend: Backend, group: Named, websocket: Base, joining: Joining) -> None:
    joined, telling = joining
    if telling is not None:
        try:
            await await_call(telling, backend.telling_timeout)
        except BaseException:
            # The task ends here, but its user has joined.
            _tell(backend, group, websocket, joining)
            raise
        if not backend.presence.tells(group.name, joined.key):
            return
    request, facts = websocket._view_request, {"group": group, "member": joined}
    await signals.asend(signals.member_joined, websocket, request, **facts)


def update(
    group: Named,
    websocket: Base,
    member: Member,
    wish: JoinOptions,
    present: PresenceLimits | None = None,
) -> Steps[None]:
    """
    Changes what a present connection says about its user. Arguments as for :func:`enter`.

    Raises:
        GroupUnavailable: As :func:`enter`.
    """
    backend = backends.backend(group.using)
    if (visit := _visit(backend, group, websocket, wish, present)) is None:
        return
    yield from backend.entering(group.name, member, visit)
    if signals.member_updated.receivers:
        for each in (yield from backend.gathering(group.name)):
            if each.key == visit[1]:
                about = signals.member_updated, websocket, websocket._view_request
                yield Call(signals.send, signals.asend, *about, group=group, member=each)


def leave(group: Named, member: Member) -> None:
    """Ends the presence of a connection. Never waits."""
    if is_known(group):
        backends.backend(group.using).presence.leave(group.name, member)


def _visit(
    backend: Backend,
    group: Named,
    websocket: Base,
    wish: JoinOptions,
    present: PresenceLimits | None,
    *,
    tells: bool = False,
) -> Arrival | None:
    """Returns what a connection tells of its user; None in a group without presence."""
    if (present := backend.settings.present(group.name) or present) is None:
        return None
    user = websocket._visitor_names[0]
    key = key_of_user(backend, websocket)
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    own = key_of(websocket.id), key, user or None, now, wish.info, wish.watches, present.grace
    return (*own, websocket.id, wish.is_present, tells, None)


def key_of_user(backend: Backend, websocket: Base) -> str:
    """Returns what tells the user of a connection apart from others."""
    user, session = websocket._visitor_names
    if user:
        return f"user:{user_key(user, websocket._realm)}"
    if session:
        return f"session:{_hidden(backend, session)}"
    return f"connection:{_hidden(backend, websocket.id)}"


def _hidden(backend: Backend, secret: str) -> str:
    """Returns a name that is always the same for ``secret`` and does not reveal it."""
    key = backend.project_key("presence")
    return hmac.digest(key, secret.encode(), "sha256").hex()[:_KEY_LENGTH]
