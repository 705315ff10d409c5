"""
Checks whether the users of WebSockets are still signed in, by the stored sessions and users.

Many are looked up at once: one query for their sessions and one for their users, where they are
rows of a database. Other session stores, and authentication backends with a lookup of their own,
are queried for each user. Queries go to the database that is written to: a replica may lag behind.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.db import router
from django.utils import timezone

from dwebsocket.compat.django_auth import are_rows_as_djangos, loaded
from dwebsocket.users.registry import auth_hash

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.contrib.sessions.backends.base import SessionBase
    from django.db.models import Model
    from django.http import HttpRequest

    from dwebsocket.users.registry import Visitor, Who

# The reasons, for close frames and for the log.
_SIGNED_OUT, _DELETED, _INACTIVE = "signed out", "deleted", "deactivated"
_OTHER_HASH = "password changed"
# The key of the user's key in a session.
_LOGIN = "_auth_user_id"


def signed_out(visitors: Collection[Visitor]) -> dict[Visitor, str]:
    """
    Returns the visitors whose users are no longer signed in, each with the reason.

    Never to be called in an event loop.

    Raises:
        Exception: A database, a cache or a backend fails.
    """
    found = dict.fromkeys(without_session(visitors), _SIGNED_OUT)
    found.update(_without_right([visitor for visitor in visitors if visitor not in found]))
    return found


def has_just_looked(who: Who) -> bool:
    """Whether its request has read the very rows that :func:`signed_out` would read."""
    if not who.is_djangos or who.store is None or router.routers:
        # Each router may read from a replica, which may lag behind.
        return False
    if model_of_sessions(who.store) is None:
        return False
    from django.contrib.sessions.backends.db import SessionStore

    # They come from no cache.
    are_read = who.store.load is SessionStore.load and are_rows_as_djangos(who.store)
    return are_read and _asks_for_rows(_backend(who.backend), who)


def without_session(visitors: Iterable[Visitor]) -> list[Visitor]:
    """
    Returns the visitors whose session has ended or now has another user.

    Visitors that have not signed in by a session are not among them. Never to be called in an event
    loop.

    Raises:
        Exception: A database or a cache fails.
    """
    by_store: defaultdict[type[SessionBase], list[Visitor]] = defaultdict(list)
    for visitor in visitors:
        if visitor.who.store is not None:
            by_store[visitor.who.store].append(visitor)
    ended: list[Visitor] = []
    for store, its_visitors in by_store.items():
        logins = _logins(store, {visitor.who.session for visitor in its_visitors})
        ended += [each for each in its_visitors if logins.get(each.who.session) != each.who.login]
    return ended


def model_of_sessions(store: type[Any]) -> type[Model] | None:
    """Returns the model whose rows a class's sessions are, None for other stores."""
    if not apps.is_installed("django.contrib.sessions"):
        return None
    from django.contrib.sessions.backends.db import SessionStore

    if not issubclass(store, SessionStore):
        return None
    model: type[Model] = store.get_model_class()
    return model


def database_of_sessions(store: type[Any]) -> str | None:
    """Returns the alias of the database that holds a class's sessions, None for other stores."""
    model = model_of_sessions(store)
    return None if model is None else router.db_for_write(model)


def is_kept(store: type[Any]) -> bool:
    """Whether the server keeps the sessions of a class, and so knows of their end."""
    from django.contrib.sessions.backends import signed_cookies

    return not issubclass(store, signed_cookies.SessionStore)


def login_in(store: type[Any], key: str) -> str:
    """Returns the user's key in a stored session, empty where there is none."""
    session = store(key)
    # Where there is none some stores make a new one, whose key nobody has.
    session.create = lambda: None
    return str(session.load().get(_LOGIN) or "")


def login_of(request: HttpRequest) -> str:
    """Returns the user's key in the session that a request has loaded, empty without one."""
    return str(loaded(getattr(request, "session", None)).get(_LOGIN) or "")


def has_signed_out(request: HttpRequest, login: str) -> bool:
    """
    Whether a request's session no longer signs in the user with this key.

    False if the request has no session. Never to be called in an event loop.

    Raises:
        Exception: A database, a cache or a backend fails.
    """
    if (session := getattr(request, "session", None)) is None:
        return False
    if str(session.get(_LOGIN) or "") != login:
        return True
    if not apps.is_installed("django.contrib.auth"):
        return False
    from django.contrib.auth import get_user

    return not get_user(request).is_authenticated


def signs_nobody_in(store: type[Any], row: Any) -> bool:
    """Whether a row of a session, which may be deleted by now, is none of a signed-in user."""
    if not {"expire_date", "session_data"} <= vars(row).keys():
        # They are not loaded.
        return False
    return row.expire_date <= timezone.now() or _LOGIN not in store().decode(row.session_data)


def _logins(store: Any, keys: Collection[str]) -> dict[str, str]:
    """Returns the user's key in each session that there is."""
    # For `cached_db` the rows count: a session that was just deleted may come back into the cache.
    alias = database_of_sessions(store)
    if alias is None or not are_rows_as_djangos(store):
        # Not `exists()`: sessions in signed cookies exist nowhere.
        return {key: login_in(store, key) for key in keys}
    stored = store.get_model_class().objects.using(alias)
    rows = stored.filter(session_key__in=keys, expire_date__gt=timezone.now())
    decode = store(None).decode
    return {row.session_key: str(decode(row.session_data).get(_LOGIN) or "") for row in rows}


def _without_right(visitors: Collection[Visitor]) -> dict[Visitor, str]:
    """Returns the visitors whose user is gone, may not sign in, or has another password."""
    if not apps.is_installed("django.contrib.auth"):
        return {}
    from django.contrib.auth import get_user_model

    backends = {path: _backend(path) for path in {visitor.who.backend for visitor in visitors}}
    of_rows = [v for v in visitors if _asks_for_rows(backends[v.who.backend], v.who)]
    rows = _users({visitor.who.user for visitor in of_rows})
    found: dict[Visitor, str] = {}
    for visitor in visitors:
        backend, who = backends[visitor.who.backend], visitor.who
        if _asks_for_rows(backend, who):
            user = rows.get(who.user)
        elif backend is not None:
            user = backend.get_user(get_user_model()._meta.pk.to_python(who.user))
        else:
            # A project's own kind of user: its storage is not known here, so it is not checked.
            continue
        if (reason := _objection(who, user, backend)) is not None:
            found[visitor] = reason
    return found


def _backend(path: str) -> Any:
    """Returns an authentication backend, None when Django would not use it."""
    from django.contrib.auth import load_backend

    return load_backend(path) if path in settings.AUTHENTICATION_BACKENDS else None


def _asks_for_rows(backend: Any, who: Who) -> bool:
    """Whether the user is looked for as Django's own backend does."""
    if backend is None:
        return who.is_stored
    from django.contrib.auth.backends import ModelBackend

    return getattr(type(backend), "get_user", None) is ModelBackend.get_user


def _users(keys: Collection[str]) -> dict[str, Any]:
    if not keys:
        return {}
    from django.contrib.auth import get_user_model

    model = get_user_model()
    rows = model._default_manager.using(router.db_for_write(model)).filter(pk__in=keys)
    return {str(row.pk): row for row in rows}


def _objection(who: Who, user: Any, backend: Any) -> str | None:
    if user is None:
        return _DELETED
    asks = getattr(backend, "user_can_authenticate", None)
    if not (getattr(user, "is_active", True) if asks is None else asks(user)):
        return _INACTIVE
    return None if auth_hash(user) == who.auth_hash else _OTHER_HASH
