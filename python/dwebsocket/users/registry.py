"""
The register of this process's WebSockets: by client address, by user and by session.

It counts the connections of one client, and finds them again when their user logs out, changes the
password, is deactivated or deleted (:mod:`dwebsocket.users.sign_out`), or when it is time to check
the user again (:mod:`dwebsocket.users.recheck`). The user of a connection is that of the
handshake's request; requests without a session cost no query for it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps

from dwebsocket import conf
from dwebsocket.compat import unpatched
from dwebsocket.compat.django import is_looked_up_in_session
from dwebsocket.compat.django_auth import loaded, same_user
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.request import worlds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest

    from dwebsocket.websocket import WebSocket

    # A key under which connections are counted, such as ("user", "7").
    Key = tuple[str, str]

SIGNED_OUT = 4401
# Users are checked again one bucket after another, so that the queries are spread over time.
BUCKETS = 16


@dataclass(slots=True)
class Who:
    """
    The client, user and session that ask for a WebSocket. Not changed after :meth:`of`.

    Attributes:
        address: The client's as Django sees it, for IPv6 its /64; empty when there is none.
        user: The user's primary key, empty for anonymous ones.
        session: The session's key, empty without one.
        auth_hash: A hash that changes with the user's password.
        login: The user's key as the session has it; empty when the user comes from elsewhere.
        store: The class of a session that has it.
        backend: The dotted path of the authentication backend that the session names.
        is_stored: Whether the user is a row of the project's user model.
        realm: The world that the user belongs to; empty without ``WEBSOCKET_REALM``.
        is_djangos: Whether Django's own middleware has found the user, in the session.
    """

    address: str = ""
    user: str = ""
    session: str = ""
    auth_hash: str = ""
    login: str = ""
    store: type[SessionBase] | None = None
    backend: str = ""
    is_stored: bool = False
    realm: str = ""
    is_djangos: bool = False

    @classmethod
    def of(
        cls, request: HttpRequest, now: conf.Snapshot | None = None, realm: str | None = None
    ) -> Who:
        """
        Returns the client, user and session of a request.

        May query the database, as ``request.user`` does.

        Args:
            now: The result of :func:`dwebsocket.conf.present`, if the caller has it.
            realm: The user's, if the caller knows it: the project's function may query, too.

        Raises:
            ImproperlyConfigured: ``WEBSOCKET_REALM`` names no realm.
            Exception: The backend of sessions or users fails.
        """
        realm = worlds.realm_of(request, now) if realm is None else realm
        address = _network(request.META.get("REMOTE_ADDR") or "")
        session = getattr(request, "session", None)
        user = getattr(request, "user", None)
        # Without a session the lookup finds no user, and costs more than everything else here.
        is_djangos = user is not None and is_looked_up_in_session(user)
        if is_djangos and not _key(session):
            return cls(address, realm=realm)
        user = same_user(request, user)
        is_signed_in = user is not None and user.is_authenticated
        # Read the key after that: looking the user up may end a session, or give it a new key.
        key = _key(session)
        if not is_signed_in or (pk := getattr(user, "pk", None)) is None:
            return cls(address, session=key, realm=realm)
        is_stored = apps.is_installed("django.contrib.auth") and _is_row(user)
        who = cls(address, str(pk), key, auth_hash(user), is_stored=is_stored, realm=realm)
        who.is_djangos = is_djangos
        # Not by the session's methods: these would load the session if it is not loaded yet.
        if key and (stored := loaded(session)):
            # The keys of `django.contrib.auth`; the app itself need not be installed.
            who.login = str(stored.get("_auth_user_id") or "")
            who.backend = str(stored.get("_auth_user_backend") or "")
            if who.login:
                who.store = type(session)  # type: ignore[assignment]
        return who

    @property
    def user_key(self) -> str:
        """The user's name among those of all realms; empty for anonymous ones."""
        return worlds.user_key(self.user, self.realm) if self.user else ""

    def keys(self) -> list[Key]:
        """Returns the keys under which this is counted."""
        session = digest(self.session) if self.session else ""
        named = [("address", self.address), ("user", self.user_key), ("session", session)]
        if self.realm:
            named.append(("user of any realm", self.user))
        return [key for key in named if key[1]]


def digest(session_key: str) -> str:
    """Returns what names a session to other processes: whoever reads its key could sign in."""
    return hashlib.sha256(session_key.encode()).hexdigest()[:32]


def _key(session: Any) -> str:
    return getattr(session, "session_key", None) or ""


def _is_row(user: Any) -> bool:
    from django.contrib.auth import get_user_model  # an app that may be absent

    return isinstance(user, get_user_model())


def _network(address: str) -> str:
    """Returns the addresses of one client: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(parsed), 64), strict=False))
        parsed = parsed.ipv4_mapped
    # Where the text is equal, keep the given object: each connection holds one.
    return address if str(parsed) == address else str(parsed)


def auth_hash(user: Any) -> str:
    """Returns a hash that changes with a user's password, empty for users without one."""
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""


@dataclass(eq=False, repr=False, slots=True)
class Visitor:
    """One WebSocket in the register."""

    who: Who
    #: Its keys in the register.
    keys: list[Key]
    _websocket: WebSocket
    #: The latest sign-out when its request began, as :mod:`dwebsocket.users.recheck` names it.
    seen: object = None
    _opening: _Opening | None = None

    def leave_with(self, response: object) -> None:
        """Leaves when ``response`` is freed without having opened the WebSocket."""
        self._opening = _Opening(response, _register.vanished.append)
        self._opening.visitor = self

    @property
    def world(self) -> worlds.World | None:
        """The world in which its user is looked up."""
        return self._websocket._world

    @property
    def realm(self) -> str:
        """The realm of its user."""
        return self.who.realm

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket was opened; it may be closed again."""
        return self._websocket._connection is not None

    def was_open(self, at: float) -> bool:
        """Whether the WebSocket was open at a time, in seconds of the epoch."""
        opened_at = self._websocket._opened_at
        return opened_at is not None and opened_at <= at

    def leave(self) -> None:
        """Removes it from the register. May be repeated, and may run in the garbage collector."""
        # The visitor and its opening refer to each other: break the cycle.
        self._opening = None
        _register.leaving.append(self)
        _register.sweep()

    def close(self, code: int, reason: str) -> None:
        """Closes the WebSocket, also when it is yet to be opened."""
        self._websocket._is_expelled = True
        self._websocket._close_soon(code, reason)

    def refuse(self, code: int, reason: str) -> None:
        """Closes as :meth:`close`, without a log record: the reason was logged already."""
        self._websocket._is_deliberate = True
        self.close(code, reason)


class _Opening(weakref.ref[object]):
    """
    A weak reference to a response: some middleware may answer something else and drop it.

    The callback is a function in C. Ctrl-C could interrupt a callback in Python, and its exception
    would be lost there.
    """

    __slots__ = ("visitor",)

    visitor: Visitor


class _Register:
    """All visitors by the keys under which they are counted, in order of their arrival."""

    def __init__(self) -> None:
        self.lock = unpatched.lock()
        self.visitors: dict[Key, dict[Visitor, None]] = {}
        # `leave()` may run in the garbage collector while this thread holds the lock: it only
        # appends here, and never waits for the lock.
        self.leaving: deque[Visitor] = deque()
        # The openings of freed responses. Most of these have opened their WebSocket.
        self.vanished: deque[_Opening] = deque()

    def sweep(self) -> None:
        """Removes visitors that have left. To be called each time after the lock was held."""
        gone: list[object] = []
        while (self.leaving or self.vanished) and self.lock.acquire(blocking=False):
            try:
                gone += self.forget()
            finally:
                self.lock.release()
        if gone:
            _on_leave()

    def forget(self) -> list[object]:
        """
        Does the work of :meth:`sweep`, under the lock.

        Returns the removed objects, for the caller to drop after it has released the lock.
        """
        gone: list[object] = []
        while self.vanished:
            opening = self.vanished.popleft()
            gone.append(opening)
            opening.visitor._opening = None
            if not opening.visitor.is_open:
                self.leaving.append(opening.visitor)
        while self.leaving:
            visitor = self.leaving.popleft()
            gone.append(visitor)
            for key in visitor.keys:
                visitors = self.visitors.get(key)
                if visitors is not None:
                    visitors.pop(visitor, None)
                    if not visitors:
                        del self.visitors[key]
        return gone


_register = _Register()
_on_leave: Callable[[], object] = bool
_arrivals = itertools.count()


def enter(who: Who, websocket: WebSocket, admission: conf.Admission) -> Visitor | str | None:
    """
    Registers a WebSocket, if neither its address nor its user has too many already.

    Returns:
        The visitor, which has to :meth:`~Visitor.leave`; None when there is no key to count it
        under; or the reason why it is refused.
    """
    # Addresses are counted only for their limit.
    counts_address = who.address and admission.max_connections_per_address is not None
    if not (who.user or who.session or counts_address):
        return None
    limits = {
        "address": admission.max_connections_per_address,
        "user": admission.max_connections_per_user,
    }
    keys = [key for key in who.keys() if key[0] != "address" or counts_address]
    if who.user:
        keys.append(("bucket", str(next(_arrivals) % BUCKETS)))
    visitor = Visitor(who, keys, websocket)
    full = None
    with _register.lock:
        gone = _register.forget()
        for kind, name in keys:
            limit = limits.get(kind)
            if limit is not None and len(_register.visitors.get((kind, name), ())) >= limit:
                full = (
                    f"All {limit} connections of {conf.PREFIX}MAX_CONNECTIONS_PER_{kind.upper()} "
                    f"are taken by {kind} {name}."
                )
        if full is None:
            for key in keys:
                _register.visitors.setdefault(key, {})[visitor] = None
    if gone:
        gone.clear()
        _on_leave()
    _register.sweep()
    return visitor if full is None else full


def present(kind: str, name: object) -> list[Visitor]:
    """
    Returns the visitors under one key, such as the user 7, in order of their arrival.

    Args:
        kind: ``address``, ``user``, ``user of any realm``, ``session`` or ``bucket``.
        name: The address, the name that :func:`dwebsocket.request.worlds.user_key` gives the
            user, the user's primary key, the :func:`digest` of the session's key, or the number of
            the bucket.
    """
    with _register.lock:
        present = list(_register.visitors.get((kind, str(name)), ()))
    _register.sweep()
    return present


def has_users() -> bool:
    """Whether a user has a WebSocket in this process. Never waits."""
    return any(("bucket", str(bucket)) in _register.visitors for bucket in range(BUCKETS))


def tell_of_leaving(call: Callable[[], object]) -> None:
    """Calls ``call`` whenever visitors have left, on any thread. It must not sleep."""
    global _on_leave
    _on_leave = call


def connections_of(user: str) -> Iterator[WebSocket]:
    """Returns the open connections of a user in this process."""
    for visitor in present("user", user):
        if visitor.is_open:
            yield visitor._websocket


def close_here(user: Any, code: int, reason: str, *, before: float | None = None) -> int:
    """
    Closes all WebSockets of a user in this process, and counts them. Never waits.

    Args:
        before: Leaves those alone that were not open at this time, in seconds of the epoch.
    """
    visitors = present("user", user)
    if before is not None:
        visitors = [each for each in visitors if each.was_open(before)]
    for visitor in visitors:
        visitor.close(code, reason)
    return len(visitors)


renew_at_fork(globals(), _register=_Register)
