"""
Receivers of Django's signals that close a user's WebSockets in this process.

The signals are sent when a user logs out, logs in, is saved or deleted, and when a session is
deleted. A receiver acts when the change is committed, and on a logout when the session is flushed,
which comes after the signal. A handshake that is judged later sees the change
(:mod:`dwebsocket.recheck`). One that was judged earlier is found here, because each handshake first
enters the register and then checks its user. Acting before the commit would be too early: a client
that reconnects would be let in, and a view that saves its session at its end would wait for the
transaction's lock.
"""

from __future__ import annotations

import functools
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.db import connections, transaction

from dwebsocket import authentication
from dwebsocket.compat.django_auth import is_in_test_case
from dwebsocket.registry import SIGNED_OUT, auth_hash, close_user, present

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest

    Act = Callable[[], object]

_log = logging.getLogger("dwebsocket")

_REASON = "signed out"


@functools.cache
def listen() -> None:
    """Connects the receivers for users. Called for the first user: by then models are loaded."""
    if not apps.is_installed("django.contrib.auth"):
        return
    from django.contrib.auth import get_user_model
    from django.contrib.auth.signals import user_logged_in, user_logged_out
    from django.db.models.signals import post_delete, post_save

    user_logged_out.connect(_on_logged_out, dispatch_uid="dwebsocket")
    user_logged_in.connect(_on_logged_in, dispatch_uid="dwebsocket")
    # A proxy model sends its own signals. A receiver for all models would disable Django's fast
    # deletes for each of them.
    for model in apps.get_models():
        if issubclass(model, get_user_model()):
            post_save.connect(_on_saved, sender=model, dispatch_uid="dwebsocket")
            post_delete.connect(_on_deleted, sender=model, dispatch_uid="dwebsocket")


@functools.cache
def listen_to(store: type[Any]) -> None:
    """Connects the receiver for deleted sessions of a class that stores them as rows."""
    if authentication.database_of_sessions(store) is None:
        return
    from django.db.models.signals import post_delete

    model = store.get_model_class()
    post_delete.connect(_on_session_deleted, sender=model, dispatch_uid="dwebsocket")


def _after_commit(act: Act, using: str | None) -> None:
    """Calls ``act`` when the present transaction is committed; at once when there is none."""
    if using is None:
        act()
        return
    if is_in_test_case(connections[using]):
        # A test case never commits, so act at once.
        act()
    else:
        transaction.on_commit(act, using=using, robust=True)


# -- sessions -----------------------------------------------------------------------------------


def _on_logged_out(request: HttpRequest | None, user: Any, **_: Any) -> None:
    session = getattr(request, "session", None)
    key = getattr(session, "session_key", None) or ""
    act = functools.partial(_end_session, key, getattr(user, "pk", None))
    if key and hasattr(session, "flush"):
        _after_flush(session, act)
    else:
        act()


def _after_flush(session: Any, act: Act) -> None:
    """Calls ``act`` when ``session`` is flushed, which Django does next, and that is committed."""
    flush: Act = session.flush
    aflush: Callable[[], Awaitable[object]] | None = getattr(session, "aflush", None)
    using = authentication.database_of_sessions(type(session))

    def restore() -> None:
        with suppress(KeyError):
            del session.__dict__["flush"]
        with suppress(KeyError):
            del session.__dict__["aflush"]

    def flush_and_act() -> None:
        restore()
        flush()
        _after_commit(act, using)

    async def aflush_and_act(aflush: Callable[[], Awaitable[object]]) -> None:
        restore()
        await aflush()
        # In async code no transaction is open here, so act at once.
        await sync_to_async(act)()

    # Replaced on this one session only, and for one call.
    session.__dict__["flush"] = flush_and_act
    if aflush is not None:
        session.__dict__["aflush"] = functools.partial(aflush_and_act, aflush)


def _end_session(key: str, user: Any) -> None:
    """Closes the WebSockets that were opened with a session that has ended."""
    ended = dict.fromkeys(present("session", key) if key else [])
    # The session's key may have changed since a handshake: check whether the old key still exists.
    others = [] if user is None else present("user", user)
    others = [visitor for visitor in others if visitor not in ended]
    try:
        ended.update(dict.fromkeys(authentication.without_session(others)))
    except Exception:
        _log.exception("Sessions cannot be looked up: the user's WebSockets are closed")
        ended.update(dict.fromkeys(visitor for visitor in others if visitor.who.session))
    for visitor in ended:
        visitor.close(SIGNED_OUT, _REASON)


def _on_logged_in(request: HttpRequest | None, user: Any, **_: Any) -> None:
    # If another user was signed in before, `login()` flushes that session without a signal.
    session = getattr(request, "session", None)
    cookie = getattr(request, "COOKIES", {}).get(settings.SESSION_COOKIE_NAME)
    keys = {cookie, getattr(session, "session_key", None)} - {None, ""}

    def close_others() -> None:
        for visitor in [visitor for key in keys for visitor in present("session", key)]:
            if visitor.who.user and visitor.who.user != str(user.pk):
                visitor.close(SIGNED_OUT, _REASON)

    if keys:
        _after_commit(close_others, authentication.database_of_sessions(type(session)))


def _on_session_deleted(instance: Any, using: str, **_: Any) -> None:
    key = instance.session_key

    def close() -> None:
        for visitor in present("session", key):
            # A login changes the key of an anonymous session, which deletes the old row. Visitors
            # that were not signed in (no store) stay connected.
            if visitor.who.store is not None:
                visitor.close(SIGNED_OUT, _REASON)

    _after_commit(close, using)


# -- users --------------------------------------------------------------------------------------


def _on_saved(instance: Any, using: str, **_: Any) -> None:
    user = instance.pk
    if not getattr(instance, "is_active", True):
        _after_commit(functools.partial(close_user, user, reason="deactivated"), using)
    elif "password" not in instance.get_deferred_fields():
        # Compute the hash now: by the commit the object may have changed.
        _after_commit(functools.partial(_end_others, user, auth_hash(instance)), using)


def _end_others(user: Any, its_hash: str) -> None:
    """Closes the WebSockets that a user opened with another password."""
    for visitor in present("user", user):
        if visitor.who.auth_hash != its_hash:
            visitor.close(SIGNED_OUT, "password changed")


def _on_deleted(instance: Any, using: str, **_: Any) -> None:
    # Read the key now: by the commit the deleted object has none.
    _after_commit(functools.partial(close_user, instance.pk, reason="deleted"), using)
