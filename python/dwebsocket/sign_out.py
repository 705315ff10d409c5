"""
Receivers of Django's signals that close a user's WebSockets, in this process and in all others.

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
import hashlib
import logging
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.core.signals import request_started
from django.db import connections, transaction

from dwebsocket import announcements, authentication
from dwebsocket.announcements import announce
from dwebsocket.api.arguments import check_close
from dwebsocket.compat.django_auth import is_in_test_case
from dwebsocket.registry import SIGNED_OUT, auth_hash, close_here, present

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest

    from dwebsocket.registry import Visitor

    Act = Callable[[], object]

_log = logging.getLogger("dwebsocket")

_REASON = "signed out"


def listen_soon() -> None:
    """Connects all receivers with the first request: by then models are loaded."""
    request_started.connect(_on_first_request, dispatch_uid="dwebsocket.sign_out")


def _on_first_request(**_: Any) -> None:
    request_started.disconnect(_on_first_request, dispatch_uid="dwebsocket.sign_out")
    listen_in_all()


def listen_in_all() -> None:
    """Connects the receivers in a process that may have no WebSocket: others have to know."""
    listen()
    if apps.is_installed("django.contrib.sessions"):
        try:
            store = import_module(settings.SESSION_ENGINE).SessionStore
        except (ImportError, AttributeError):
            # The session's middleware reports it.
            return
        listen_to(store)


@functools.cache
def listen() -> None:
    """Connects the receivers for users. Called when models are loaded."""
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


def close_user(user: object, *, code: int = SIGNED_OUT, reason: str = "signed out") -> int:
    """
    Closes all WebSockets of a user, in every process.

    Never waits; any thread and any task may call it. dwebsocket closes them by itself when the user
    changes the password, is deactivated or deleted through the model, and those of a session when
    the user logs out; ``WEBSOCKET_AUTH_RECHECK`` finds other sign-outs in time.
    Call it in all other cases, such as a withdrawn right. In a transaction, call it after the
    commit (``transaction.on_commit``): before the commit, a client that reconnects is let in.

    Args:
        user: A user, or the primary key of one.
        code: The close code.
        reason: Up to 123 bytes of UTF-8.

    Returns:
        The number of WebSockets that were closed in this process. Other processes close theirs
        at the same time; where the groups' backend cannot be reached the log has a warning.

    Raises:
        ValueError: A code that must not be sent, or a reason that does not fit.
    """
    check_close(code, reason)
    key = getattr(user, "pk", user)
    closed = close_here(key, code, reason)
    if key is not None:
        announcements.close_user(key, code, reason)
    return closed


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
    announce({"session": key, "user": "" if user is None else str(user)})


def _on_logged_in(request: HttpRequest | None, user: Any, **_: Any) -> None:
    # If another user was signed in before, `login()` flushes that session without a signal.
    session = getattr(request, "session", None)
    cookie = getattr(request, "COOKIES", {}).get(settings.SESSION_COOKIE_NAME)
    keys = {cookie, getattr(session, "session_key", None)} - {None, ""}

    def close_others() -> None:
        for visitor in [visitor for key in keys for visitor in present("session", key)]:
            if visitor.who.user and visitor.who.user != str(user.pk):
                visitor.close(SIGNED_OUT, _REASON)
        for key in keys:
            announce({"session": key, "not_user": str(user.pk)})

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
        announce({"session": key})

    _after_commit(close, using)


# -- users --------------------------------------------------------------------------------------


def _on_saved(instance: Any, using: str, update_fields: Any = None, **_: Any) -> None:
    user = instance.pk
    if update_fields is not None and not {"password", "is_active"} & set(update_fields):
        # As at each login, which notes its time.
        return
    if not getattr(instance, "is_active", True):
        _after_commit(functools.partial(close_user, user, reason="deactivated"), using)
    elif "password" not in instance.get_deferred_fields():
        # Compute the hash now: by the commit the object may have changed.
        _after_commit(functools.partial(_end_others, user, auth_hash(instance)), using)


def _end_others(user: Any, its_hash: str) -> None:
    """Closes the WebSockets that a user opened with another password."""
    _close_others(str(user), digest(its_hash))
    announce({"user": str(user), "hash": digest(its_hash)})


def _close_others(user: str, its_digest: str) -> None:
    for visitor in present("user", user):
        if digest(visitor.who.auth_hash) != its_digest:
            visitor.close(SIGNED_OUT, "password changed")


def digest(auth_hash: str) -> str:
    """Gives a digest of a user's hash, which other processes may see."""
    return hashlib.sha256(auth_hash.encode()).hexdigest()


# -- what other processes announce ----------------------------------------------------------------


def on_announced(change: dict[str, Any]) -> list[Visitor]:
    """
    Closes the WebSockets of this process that an announcement of another one is about.

    Never waits. Gives the visitors whose sessions have to be looked up.
    """
    user, session = str(change.get("user") or ""), str(change.get("session") or "")
    if "hash" in change:
        _close_others(user, str(change["hash"]))
        return []
    for visitor in present("session", session) if session else []:
        if "not_user" in change:
            is_meant = visitor.who.user not in ("", str(change["not_user"]))
        else:
            is_meant = visitor.who.store is not None
        if is_meant:
            visitor.close(SIGNED_OUT, _REASON)
    return present("user", user) if user else []


def _on_deleted(instance: Any, using: str, **_: Any) -> None:
    # Read the key now: by the commit the deleted object has none.
    _after_commit(functools.partial(close_user, instance.pk, reason="deleted"), using)
