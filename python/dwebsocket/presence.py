"""
Who is connected to this process: WebSockets by client address, by user and by session.

It is where connections are counted for one client, and where they are found again when their user
logs out, changes the password, is deactivated or deleted. The user is looked up once, when the
handshake is judged: later nobody could tell whose connection it was. Requests without a session
cost no query for that.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwebsocket import _core, conf, native
from dwebsocket.compat.django import is_looked_up_in_session

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.websocket import WebSocket

    # What is counted, such as ("user", "7").
    Key = tuple[str, str]

_log = logging.getLogger("dwebsocket")

_SIGNED_OUT = 4401
_MAX_REASON_BYTES = 123


@dataclass(slots=True)
class Who:
    """
    Who asks for a WebSocket. Never changed.

    Attributes:
        address: The client's as Django sees it, for IPv6 its /64; empty when there is none.
        user: The user's primary key, empty for anonymous ones.
        session: The session's key, empty without one.
        auth_hash: What changes with the user's password.
    """

    address: str = ""
    user: str = ""
    session: str = ""
    auth_hash: str = ""

    @classmethod
    def of(cls, request: HttpRequest) -> Who:
        """
        Gives whose request it is. May ask the database, as ``request.user`` does.

        Raises:
            Exception: The backend of sessions or users fails.
        """
        address = _network(request.META.get("REMOTE_ADDR") or "")
        session = getattr(getattr(request, "session", None), "session_key", None) or ""
        user = getattr(request, "user", None)
        # Without a session that finds nobody, and costs more than everything else here.
        if user is not None and not session and is_looked_up_in_session(user):
            return cls(address)
        if user is None or not user.is_authenticated or (pk := getattr(user, "pk", None)) is None:
            return cls(address, session=session)
        return cls(address, str(pk), session, _auth_hash(user))

    def keys(self) -> list[Key]:
        """Gives what this counts for."""
        named = (("address", self.address), ("user", self.user), ("session", self.session))
        return [key for key in named if key[1]]


def _network(address: str) -> str:
    """Gives what one client has: an IPv4 address, or the /64 that an IPv6 one is of."""
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
    # The same one, if it is: each connection holds it.
    return address if str(parsed) == address else str(parsed)


def _auth_hash(user: Any) -> str:
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""


class Visitor:
    """One WebSocket among the present ones."""

    __slots__ = ("_opening", "_websocket", "keys", "who")

    def __init__(self, who: Who, keys: list[Key], websocket: WebSocket) -> None:
        self.who = who
        #: Where the register has it.
        self.keys = keys
        self._websocket = websocket
        self._opening: _Opening | None = None

    def leave_with(self, response: object) -> None:
        """Leaves when ``response``, which is to open the WebSocket, is gone and has not done so."""
        self._opening = _Opening(response, _register.vanished.append)
        self._opening.visitor = self

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket was opened, if it is open still or not."""
        return self._websocket._connection is not None

    def leave(self) -> None:
        """Is present no more. May be repeated, and be called within a garbage collection."""
        # The two hold each other.
        self._opening = None
        _register.leaving.append(self)
        _register.sweep()

    def close(self, code: int, reason: str) -> None:
        """Closes the WebSocket, also when it is yet to be opened."""
        self._websocket._close_soon(code, reason)


class _Opening(weakref.ref[object]):
    """
    A response that may vanish at any time: some middleware has answered something else.

    What is called then is written in C. Python code would be interrupted now and then by Ctrl-C,
    whose exception nobody hears there.
    """

    __slots__ = ("visitor",)

    visitor: Visitor


class _Register:
    """All visitors, by what they count for; in order of their arrival."""

    def __init__(self) -> None:
        self.lock = native.lock()
        self.visitors: dict[Key, dict[Visitor, None]] = {}
        # Who leaves must not wait for the lock, which its own thread may hold.
        self.leaving: deque[Visitor] = deque()
        # Responses that are gone: most have opened their WebSocket.
        self.vanished: deque[_Opening] = deque()

    def sweep(self) -> None:
        """Forgets who has left. Whoever holds the lock has to call this afterwards."""
        gone = []
        while (self.leaving or self.vanished) and self.lock.acquire(blocking=False):
            try:
                gone += self.forget()
            finally:
                self.lock.release()

    def forget(self) -> list[object]:
        """As :meth:`sweep`, under the lock. Gives what must not be released under it."""
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


def enter(who: Who, websocket: WebSocket, admission: conf.Admission) -> Visitor | str | None:
    """
    Lets a WebSocket in, if neither its address nor its user has too many already.

    Returns:
        The visitor, who has to :meth:`~Visitor.leave`, or None when it is one who counts for
        nothing; or why it may not come in.
    """
    # Addresses are for their limit only.
    counts_address = who.address and admission.max_connections_per_address is not None
    if not (who.user or who.session or counts_address):
        return None
    limits = {
        "address": admission.max_connections_per_address,
        "user": admission.max_connections_per_user,
    }
    if who.user:
        _listen()
    keys = [key for key in who.keys() if key[0] != "address" or counts_address]
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
    gone.clear()
    _register.sweep()
    return visitor if full is None else full


def _present(kind: str, name: object) -> list[Visitor]:
    with _register.lock:
        present = list(_register.visitors.get((kind, str(name)), ()))
    _register.sweep()
    return present


def close_user(user: Any, *, code: int = _SIGNED_OUT, reason: str = "signed out") -> int:
    """
    Closes all WebSockets of a user in this process.

    Never waits; any thread and any task may call it. It is done by itself when the user changes the
    password, is deactivated or deleted through the model, and for those of the session when the
    user logs out. Call it for anything else, such as ``QuerySet.update()`` or a withdrawn right,
    and in each process that may have some.

    Args:
        user: A user, or the primary key of one.
        code: The close code.
        reason: Up to 123 bytes of UTF-8.

    Returns:
        How many were closed.

    Raises:
        ValueError: A code that must not be sent, or a reason that does not fit.
    """
    if not _core.may_send_close_code(code):
        raise ValueError(f"close code {code} must not be sent: use 1000 or 3000-4999")
    if len(reason.encode()) > _MAX_REASON_BYTES:
        raise ValueError(f"close reason {reason!r} has more than {_MAX_REASON_BYTES} bytes")
    visitors = _present("user", getattr(user, "pk", user))
    for visitor in visitors:
        visitor.close(code, reason)
    return len(visitors)


# -- signals of Django ------------------------------------------------------------------------


@functools.cache
def _listen() -> None:
    """Hears of users from now on: once the first is here, when all models are."""
    from django.apps import apps
    from django.db.models.signals import post_delete, post_save

    if not apps.is_installed("django.contrib.auth"):
        return
    from django.contrib.auth import get_user_model
    from django.contrib.auth.signals import user_logged_out

    user_logged_out.connect(_on_logged_out, dispatch_uid="dwebsocket")
    # A proxy sends its own signals. Those of all models would cost each of them its fast deletes.
    for model in apps.get_models():
        if issubclass(model, get_user_model()):
            post_save.connect(_on_saved, sender=model, dispatch_uid="dwebsocket")
            post_delete.connect(_on_deleted, sender=model, dispatch_uid="dwebsocket")


def _on_logged_out(request: HttpRequest | None, user: Any, **_: Any) -> None:
    session = getattr(request, "session", None)
    key = getattr(session, "session_key", None)
    gone = {key}
    visitors = _present("session", key) if key else []
    if user is not None:
        for visitor in _present("user", user.pk):
            its_key = visitor.who.session
            # The key may have changed since (a second login does that), and this be the same
            # browser all the same.
            if its_key and its_key not in gone and _has_ended(session, its_key):
                gone.add(its_key)
            if its_key in gone:
                visitors.append(visitor)
    for visitor in dict.fromkeys(visitors):
        visitor.close(_SIGNED_OUT, "signed out")


def _has_ended(session: Any, key: str) -> bool:
    try:
        return not session.exists(key)
    except Exception:
        _log.exception("Sessions cannot be looked up: the user's WebSockets are closed")
        return True


def _on_saved(instance: Any, update_fields: Any = None, **_: Any) -> None:
    visitors = _present("user", instance.pk)
    if not visitors:
        return
    if not getattr(instance, "is_active", True):
        close_user(instance, reason="deactivated")
    elif "password" not in instance.get_deferred_fields():
        auth_hash = _auth_hash(instance)
        for visitor in visitors:
            if visitor.who.auth_hash != auth_hash:
                visitor.close(_SIGNED_OUT, "password changed")


def _on_deleted(instance: Any, **_: Any) -> None:
    close_user(instance, reason="deleted")


def _forget_parents_visitors() -> None:
    global _register
    _register = _Register()


os.register_at_fork(after_in_child=_forget_parents_visitors)
