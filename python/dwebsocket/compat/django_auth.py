"""Undocumented parts of Django's users, sessions and transactions, versions 4.2 to 6.0."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.utils.functional import LazyObject

from dwebsocket.compat.django import is_looked_up_in_session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http import HttpRequest


def same_user(request: HttpRequest, user: Any) -> Any:
    """
    Returns the user that decorators see, sync ones (``request.user``) and async ones (``auser()``).

    Each of the two caches its user in an attribute of its own, and a sign-out may come between two
    lookups: ``request._cached_user``, in every version so far, and ``_acached_user``, since 5.0.
    Where they are missing the user is looked up once more.

    Args:
        request: The request of the user.
        user: ``request.user``, which need not be Django's.
    """
    if not is_looked_up_in_session(user):
        return user
    found = vars(request)
    if (asked := found.get("_acached_user")) is not None and asked.is_authenticated:
        found["_cached_user"] = asked
        return asked
    if user.is_authenticated and (looked_up := found.get("_cached_user")) is not None:
        found["_acached_user"] = looked_up
    return user


def renew_user(request: HttpRequest) -> None:
    """
    Has a request have its user as the database has it now.

    The backend that the session names is asked, and for a user that comes from elsewhere, such as a
    token, Django's own, if it is one of the user model: others are not known here. Where that knows
    the user no more, it is anonymous. The permissions are asked for anew, too: backends keep them
    in the object. Attributes that middleware has added to the user stay, and the object may be one
    that middleware has put around Django's, or another user. By the same parts as in
    :func:`same_user`, and ``LazyObject._wrapped``.

    Raises:
        Exception: The backend fails.
    """
    user: Any = getattr(request, "user", None)
    if not (apps.is_installed("django.contrib.auth") and getattr(user, "is_authenticated", False)):
        return
    from django.contrib import auth  # an app that may be absent
    from django.contrib.auth.backends import ModelBackend
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

    session, pk = loaded(getattr(request, "session", None)), getattr(user, "pk", None)
    is_sessions = session.get(auth.SESSION_KEY) == str(pk)
    path = session.get(auth.BACKEND_SESSION_KEY) if is_sessions else None
    if not isinstance(user, auth.get_user_model() if path is None else AbstractBaseUser):
        return
    backend: Any = ModelBackend() if path is None else auth.load_backend(path)
    # Another object: code of the project may still use the one from before.
    found: Any = backend.get_user(pk)
    if found is None:
        found = AnonymousUser()
    else:
        _add_attributes(user, found)
    cached = vars(request)
    # That of the session may be another one.
    if getattr(cached.get("_cached_user"), "pk", None) == pk:
        cached.update(_cached_user=found, _acached_user=found)
    request.user = found


def _add_attributes(user: Any, found: Any) -> None:
    """Adds the attributes that others have given to an object of the same user from before."""
    while issubclass(type(user), LazyObject):
        user = object.__getattribute__(user, "__dict__")["_wrapped"]
    for name, value in vars(user).items():
        if not name.startswith("_") and not hasattr(type(user), name):
            setattr(found, name, value)


def loaded(session: object) -> Mapping[str, Any]:
    """
    Returns the data of a session that was read before; empty if it was not.

    ``SessionBase._session_cache``, in every version so far. Where it is missing the result is
    empty, and later checks cover the user only, not the session.
    """
    found: Mapping[str, Any] = getattr(session, "_session_cache", None) or {}
    return found


def data_of(session: object) -> dict[str, Any] | None:
    """
    Returns a session's current data; None when nothing was loaded, or where it is not accessible.

    ``SessionBase._session_cache``, in every version so far. Where it is missing nothing of the
    session is merged: the last save counts.
    """
    return vars(session).get("_session_cache")


def replace_data(session: Any, data: dict[str, Any]) -> None:
    """Replaces a session's data by ``data``, in the attribute that :func:`data_of` reads."""
    session._session_cache = data


def are_rows_as_djangos(store: Any) -> bool:
    """
    Whether a subclass of Django's database ``SessionStore`` reads sessions as its base class does.

    ``_get_session_from_db`` of ``sessions.backends.db``, since 1.11 or so. Where it is missing: no,
    and each session is read by a query of its own.
    """
    from django.contrib.sessions.backends import cached_db, db  # an app that may be absent

    finds = getattr(db.SessionStore, "_get_session_from_db", None)
    return (
        store.load in (db.SessionStore.load, cached_db.SessionStore.load)
        and finds is not None
        and store._get_session_from_db is finds
    )


def on_deletion(store: type[Any], tell: Callable[[str], object]) -> None:
    """
    Has a class of sessions call ``tell`` with the key of each that one of its objects has deleted.

    ``SessionBase.delete``, in every version so far, and ``adelete``, since 5.1, which ``flush()``
    and ``cycle_key()`` call. An ``adelete`` that calls ``delete`` tells it twice. Where both are
    missing later checks find the end.
    """
    delete, adelete = getattr(store, "delete", None), getattr(store, "adelete", None)
    if delete is not None:

        @functools.wraps(delete)
        def deletes(self: Any, session_key: str | None = None) -> None:
            # Read before: signed cookies forget it.
            key = session_key or self.session_key
            delete(self, session_key)
            if key:
                tell(key)

        store.delete = deletes
    if adelete is not None:

        @functools.wraps(adelete)
        async def adeletes(self: Any, session_key: str | None = None) -> None:
            key = session_key or self.session_key
            await adelete(self, session_key)
            if key:
                await sync_to_async(tell)(key)

        store.adelete = adeletes


def around_clearing(store: type[Any], quiet: Callable[[], AbstractContextManager[None]]) -> None:
    """
    Has a class of sessions delete the expired ones within ``quiet()``.

    ``SessionBase.clear_expired``, since 1.5, and ``aclear_expired``, since 5.1, which calls it on a
    thread; that of Django's database store does the same here. Where they are missing each expired
    session is read and told.
    """
    from django.contrib.sessions.backends import base, db  # an app that may be absent

    clear = inspect.getattr_static(store, "clear_expired", None)
    if clear is None:
        return

    def clears(cls: Any, *args: Any, **kwargs: Any) -> Any:
        with quiet():
            return clear.__get__(None, cls)(*args, **kwargs)

    store.clear_expired = classmethod(clears)
    aclear = inspect.getattr_static(db.SessionStore, "aclear_expired", None)
    if aclear is not None and inspect.getattr_static(store, "aclear_expired", None) is aclear:
        store.aclear_expired = vars(base.SessionBase)["aclear_expired"]


def is_in_test_case(connection: BaseDatabaseWrapper) -> bool:
    """
    Whether a test case holds a connection in a transaction that is never committed.

    ``connection.atomic_blocks``, since 4.0, and ``Atomic._from_testcase``, since 3.2. Where either
    is missing: no, and a test sees what happens after commits by ``captureOnCommitCallbacks``.
    """
    return any(map(is_around_a_test, getattr(connection, "atomic_blocks", ())))


def is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """
    Whether a connection is in a transaction, that of :func:`is_in_test_case` not counted.

    By the same parts. Where ``atomic_blocks`` is missing: whether it is in any.
    """
    blocks = getattr(connection, "atomic_blocks", None)
    if blocks is None:
        return connection.in_atomic_block
    return not all(map(is_around_a_test, blocks))


def is_around_a_test(block: object) -> bool:
    """Whether a transaction is one that a test case begins around its test: see above."""
    return bool(getattr(block, "_from_testcase", False))
