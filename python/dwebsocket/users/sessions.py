"""
Sessions of views that live for hours: a view saves only what it has changed.

Django saves a session as a whole. That of a WebSocket may be hours old by then, and would overwrite
values that pages have stored meanwhile. So the session of an open WebSocket is merged when it is
saved: the keys that were set, changed or deleted here since it was loaded are applied to the stored
session.
"""

from __future__ import annotations

import copy
import functools
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async

from dwebsocket.compat.django_auth import data_of, replace_data

# A hash of each key's value when the session was loaded, to see whether it has changed.
Digests = dict[str, object]

_DELETED = "The session was deleted while its WebSocket was open."


def keep(session: Any) -> None:
    """
    Turns a session that its middleware has saved into that of an open WebSocket.

    Only changes from now on are saved, at the view's end or by ``session.save()``. Objects that are
    no session of Django's stay as they are.
    """
    session.modified = False
    from django.contrib.sessions.backends.base import SessionBase  # an app that may be absent

    if isinstance(session, SessionBase) and not hasattr(session, "_digests"):
        loaded = data_of(session)
        # A project's own session class may not allow this.
        with suppress(TypeError):
            session.__class__ = _merging(type(session))
            session.__dict__["_digests"] = None if loaded is None else _digests(session, loaded)


@functools.cache
def _merging(store: type[Any]) -> type[Any]:
    """Returns a subclass of ``store``, a session class, that merges when it saves."""

    class Merging(store):  # type: ignore[misc]
        # A view may make one itself, by `type(request.session)()`.
        _digests: Digests | None = None

        def __reduce__(self) -> Any:
            # As that of a page: nobody else finds this class by its name.
            plain: Any = object.__new__(store)
            vars(plain).update(vars(self))
            vars(plain).pop("_digests", None)
            return copy.copy, (plain,)

        def load(self) -> Any:
            data = super().load()
            self._digests = _digests(self, data)
            return data

        def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
            if not must_create:
                _merge(self, store, super().load)
            super().save(must_create)
            self._digests = _digests(self, data_of(self) or {})

        if hasattr(store, "aload"):

            async def aload(self) -> Any:
                data = await super().aload()
                self._digests = _digests(self, data)
                return data

            async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
                await sync_to_async(self.save)(must_create)

    # Django's signature of the data includes the name of the class.
    Merging.__name__, Merging.__qualname__ = store.__name__, store.__qualname__
    Merging.__module__, Merging.__doc__ = store.__module__, store.__doc__
    return Merging


def _merge(session: Any, store: type[Any], load: Any) -> None:
    """
    Merges the changes of ``session`` into the session as it is stored now.

    Raises:
        UpdateError: The session is not stored any more. To save it would undo a logout.
    """
    from django.contrib.sessions.backends.base import UpdateError

    data, before = data_of(session), session._digests
    if data is None or before is None or session.session_key is None:
        # Nothing was loaded: the session is unused, new, or was cleared as a whole.
        return
    now = _digests(session, data)
    changed = {key: data[key] for key in data if now[key] != before.get(key)}
    # Without a transaction: on SQLite a transaction that first reads and then writes fails when
    # another one writes meanwhile.
    key, stored = session.session_key, load()
    if session.session_key is None:
        # The session was deleted, or the store cannot be read; both look the same. Saving raises
        # the error of the actual cause.
        lost = store(key)
        replace_data(lost, data)
        lost.save()
        raise UpdateError(_DELETED)
    if session.session_key != key:
        # The store has made a new session, whose key nobody has. The view keeps its values.
        session.flush()
        replace_data(session, data)
        raise UpdateError(_DELETED)
    for key in before.keys() - data.keys():
        stored.pop(key, None)
    stored.update(changed)
    replace_data(session, stored)


def _digests(session: Any, data: dict[str, Any]) -> Digests:
    serializer = session.serializer()
    found: Digests = {}
    for key, value in data.items():
        try:
            found[key] = hash(serializer.dumps({key: value}))
        except Exception:
            # Django raises when it saves a value that it cannot serialize. Until then the value
            # counts as changed.
            found[key] = object()
    return found
