"""
Listens to the changes by which a user may be signed out.

They are those of users, by Django's signals, and the deletion of a session, as by a logout and by
the login of another user. When a change is committed, :func:`dwebsocket.users.recheck.ask` has this
process and all others ask the database. A handshake that is validated later sees the change. One
that was validated earlier is found, because each handshake first enters the register and then
checks its user. Asking before the commit would be too early: a client that reconnects would be let
in, and a view that saves its session at its end would wait for the transaction's lock.
"""

from __future__ import annotations

import functools
import logging
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from itertools import repeat
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.signals import request_started
from django.db import connections, router

from dwebsocket.compat.django_auth import around_clearing, is_in_test_case, on_deletion
from dwebsocket.compat.django_commits import after_commit
from dwebsocket.request import worlds
from dwebsocket.users import authentication
from dwebsocket.users.registry import SIGNED_OUT, auth_hash, close_here, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.models import Model
    from django.http import HttpRequest

    from dwebsocket.users.announcements import Hint
    from dwebsocket.users.registry import Who

    Act = Callable[[], object]
    Values = dict[str, Any]

_log = logging.getLogger("dwebsocket")

# Where a user object keeps its values: in `_state`, which Django copies and pickles with it.
_NOTED = "dwebsocket_noted"
# The fields that count where others are not known.
_ALWAYS = frozenset({"password", "is_active"})
_is_clearing: ContextVar[bool] = ContextVar("is_clearing_sessions", default=False)


def listen_soon() -> None:
    """Connects all receivers with the first request: by then models are loaded."""
    request_started.connect(_on_first_request, dispatch_uid="dwebsocket.users.sign_out")


def _on_first_request(**_: Any) -> None:
    request_started.disconnect(_on_first_request, dispatch_uid="dwebsocket.users.sign_out")
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


def listen_for(who: Who) -> None:
    """Connects the receivers for a user whose WebSocket is about to open."""
    listen()
    if who.store is not None:
        listen_to(who.store)


@functools.cache
def listen() -> None:
    """Connects the receivers for users. Called when models are loaded."""
    if not apps.is_installed("django.contrib.auth"):
        return
    from django.contrib.auth import get_user_model
    from django.contrib.auth.signals import user_logged_out
    from django.db.models.signals import post_delete, post_init, post_save, pre_save

    user_logged_out.connect(_before_logout, dispatch_uid="dwebsocket")
    # A proxy model sends its own signals. A receiver for all models would disable Django's fast
    # deletes for each of them.
    user: Any = get_user_model()._meta.concrete_model
    rows = set(_with_its_key(user))
    for model in apps.get_models():
        concrete: Any = model._meta.concrete_model
        is_user = issubclass(concrete, user)
        if is_user or concrete in rows:
            post_init.connect(_on_made, sender=model, dispatch_uid="dwebsocket")
            pre_save.connect(_before_save, sender=model, dispatch_uid="dwebsocket")
            post_save.connect(_on_saved, sender=model, dispatch_uid="dwebsocket")
        if is_user:
            # Also sent when the row of a parent is deleted.
            post_delete.connect(_on_deleted, sender=model, dispatch_uid="dwebsocket")


def _with_its_key(model: type[Model]) -> Iterator[type[Model]]:
    """
    Returns a model and those of its parents whose rows have the key of the model's row.

    To find the user of another parent's row would need a query, so its changes are found in time.
    """
    yield model
    link = model._meta.pk.remote_field
    if link is not None and getattr(link, "parent_link", False):
        yield from _with_its_key(link.model._meta.concrete_model)


@functools.cache
def listen_to(store: type[Any]) -> None:
    """Listens to the ends of a class's sessions: deleted rows, and its own deletions elsewhere."""
    if (model := authentication.model_of_sessions(store)) is None:
        on_deletion(store, _on_session_deleted)
        around_clearing(store, _clearing)
        return
    from django.db.models.signals import post_delete

    receiver = functools.partial(_on_row_deleted, store)

    def connect() -> None:
        post_delete.connect(receiver, sender=model, weak=False, dispatch_uid="dwebsocket")

    @contextmanager
    def unheard() -> Iterator[None]:
        """Does not listen up to the first query: Django then deletes without reading the rows."""
        connection = connections[router.db_for_write(model)]
        # No other thread is unheard for as long as that takes.
        connection.ensure_connection()

        def listen_and(execute: Callable[..., Any], *query: Any) -> Any:
            connect()
            return execute(*query)

        post_delete.disconnect(sender=model, dispatch_uid="dwebsocket")
        try:
            with connection.execute_wrapper(listen_and):
                yield
        finally:
            connect()

    connect()
    around_clearing(store, unheard)


@contextmanager
def _clearing() -> Iterator[None]:
    """Announces no session that is deleted within: it has expired."""
    token = _is_clearing.set(True)
    try:
        yield
    finally:
        _is_clearing.reset(token)


def _holds(question: Callable[..., bool], *args: Any) -> bool:
    """
    Whether something holds, by code of the project; false, so that the database is asked, when that
    code fails: it must not stop the change.
    """
    try:
        return question(*args)
    except Exception:
        _log_failure(question)
        return False


@functools.cache
def _log_failure(question: Callable[..., bool]) -> None:
    """Logs the present exception, once for a question: each login may ask it."""
    _log.warning(
        "Code of the project fails, so it is not known whether a change of a user or a session "
        "signs somebody out: the database is asked each time",
        exc_info=True,
    )


def _after_commit(act: Act, using: str) -> None:
    """Calls ``act`` when the present transaction is committed; at once when there is none."""
    if is_in_test_case(connections[using]):
        # A test case never commits, so act at once.
        act()
    else:
        after_commit(act, using, robust=True)


def _ask(hint: Hint) -> None:
    """Asks for a user or session: see :func:`dwebsocket.users.recheck.ask`."""
    # Here: most commands of a project sign nobody out, and need no group.
    from dwebsocket.users import recheck

    recheck.ask(hint)


def close_user(
    user: object, *, code: int = SIGNED_OUT, reason: str = "signed out", realm: str | None = None
) -> int:
    """
    Closes all WebSockets of a user, in every process.

    Never waits; any thread and any task may call it. dwebsocket closes them by itself when the user
    changes the password, is deactivated or deleted through the model, and those of a session when
    the user logs out; ``WEBSOCKET_AUTH_RECHECK`` finds other sign-outs in time.
    Call it in all other cases, such as a withdrawn right. In a transaction, call it after the
    commit (``transaction.on_commit``): before the commit, a client that reconnects is let in.

    Args:
        user: A user, or the primary key of one. A text is taken as it is, as devices have names:
            it must be what ``str(user.pk)`` gives, for a UUID in lower case and with dashes.
        code: The close code.
        reason: Up to 123 bytes of UTF-8.
        realm: The world that the user belongs to, as for :func:`dwebsocket.user`.

    Returns:
        The number of WebSockets that were closed in this process. Other processes close theirs
        at the same time. Where the groups' backend cannot be reached the log has a warning, and
        they do so when it is back, for ten minutes.

    Raises:
        ValueError: A code that must not be sent, or a reason that does not fit.
        TypeError, ValueError, UsageError, ImproperlyConfigured: The user or the realm, as for
            :func:`dwebsocket.user`.
    """
    from dwebsocket.api.arguments import check_close
    from dwebsocket.groups import names
    from dwebsocket.users import announcements, recheck

    check_close(code, reason)
    key = names.user_name(user, worlds.chosen_realm(realm, "close_user()"))
    closed = close_here(key, code, reason)
    announcements.close_user(key, code, reason)
    recheck.hear_others()
    return closed


# -- sessions -----------------------------------------------------------------------------------


def _before_logout(request: HttpRequest | None, **_: Any) -> None:
    """For ``user_logged_out``, which comes before the flush: a project may have several classes."""
    session: Any = getattr(request, "session", None)
    if session is not None:
        listen_to(session.__class__)


def _on_row_deleted(store: type[Any], instance: Any, using: str, **_: Any) -> None:
    # Each login deletes an anonymous session, and tasks of a project those that are over.
    if not _holds(authentication.signs_nobody_in, store, instance):
        _after_commit(functools.partial(_on_session_deleted, instance.session_key), using)


def _on_session_deleted(key: str) -> None:
    if not _is_clearing.get():
        _ask(("sessions", digest(key)))


# -- users --------------------------------------------------------------------------------------


def _hint_of(instance: Model) -> Hint:
    """
    Returns a hint about a user of the present realm; of all if that is not known.

    Args:
        instance: A user, or the row of a parent, which has the same key.
    """
    from django.contrib.auth import get_user_model

    # A model that is a kind of user may have a key of its own.
    pk = getattr(instance, get_user_model()._meta.pk.attname, instance.pk)
    try:
        realm = worlds.present_realm()
    except Exception:
        # It only asks, and must not stop a user from being saved.
        _log.exception("The realm of a user who has changed is not known: all realms are asked")
        realm = None
    return ("anywhere", str(pk)) if realm is None else ("users", worlds.user_key(pk, realm))


def _on_deleted(instance: Any, using: str, **_: Any) -> None:
    # Read the key now: by the commit the deleted object has none.
    _after_commit(functools.partial(_ask, _hint_of(instance)), using)


# -- whether saving a user signs it out ---------------------------------------------------------

# It may when the hash that sessions have of the user, or `is_active`, has changed. Each user object
# keeps the values that it was read with, and they are compared when it is saved, without a query.


def _on_made(instance: Model, **_: Any) -> None:
    """For ``post_init``: notes the values, which are those of a row if one is read."""
    _note(instance, vars(instance))


def _before_save(instance: Model, using: str, **_: Any) -> None:
    """For ``pre_save``: forgets values that are not known to be those of the row."""
    if instance._state.adding or not _holds(_is_read_from, using, instance):
        vars(instance._state).pop(_NOTED, None)


def _is_read_from(using: str, instance: Model) -> bool:
    """Whether an object was read from a database, or from the replica of it."""
    # A router may read from a replica what it writes elsewhere.
    return instance._state.db in (using, router.db_for_read(type(instance)))


def _on_saved(
    instance: Any, using: str, *, created: bool, update_fields: Any = None, **_: Any
) -> None:
    before, values = _noted(instance), _values(instance)
    if created:
        # The user is new: no session of it can end.
        _note(instance, values)
        return
    now: Values | None = values
    if update_fields is not None:
        if before is None and _ALWAYS.isdisjoint(update_fields):
            return
        written = {
            field.attname: values[field.attname]
            for field in instance._meta.concrete_fields
            if field.name in update_fields and field.attname in values
        }
        # The row's values of the other fields are not known.
        now = None if before is None else before | written
    if before is not None and now is not None and _holds(_stands, instance, before, now):
        # As at each login, which notes its time.
        return
    hint = _hint_of(instance)

    def act() -> None:
        if now is not None:
            _note(instance, now)
        _ask(hint)

    _after_commit(act, using)


def _note(instance: Model, values: Values) -> None:
    """Notes the values of all fields, ``...`` for one that is not loaded: a dict takes more."""
    noted = tuple(map(values.get, _names(type(instance)), repeat(...)))
    setattr(instance._state, _NOTED, noted)


def _noted(instance: Model) -> Values | None:
    names, noted = _names(type(instance)), getattr(instance._state, _NOTED, ())
    if len(noted) != len(names):
        # An object that was pickled before a migration may have others.
        return None
    return {name: value for name, value in zip(names, noted, strict=True) if value is not ...}


def _values(instance: Model) -> Values:
    """Returns the values of all fields that are loaded."""
    own = vars(instance)
    return {name: own[name] for name in _names(type(instance)) if name in own}


@functools.cache
def _names(model: type[Model]) -> tuple[str, ...]:
    return tuple(field.attname for field in model._meta.concrete_fields)


def _stands(instance: Model, before: Values, now: Values) -> bool:
    """Whether who was signed in by the values of before is so now."""
    from django.contrib.auth import get_user_model

    # By identity: some types of fields cannot be compared, or not by `==` alone.
    if before.keys() == now.keys() and all(now[name] is before[name] for name in now):
        return True
    if not isinstance(instance, get_user_model()):
        # The row of a parent has not all that counts, and its class may not have the user's hash.
        return False
    if len(now) < len(instance._meta.concrete_fields):
        # A method that needs another field would query it.
        return all(before.get(name) == now.get(name) for name in _ALWAYS)
    return _standing(instance, before) == _standing(instance, now)


def _standing(instance: Model, values: Values) -> tuple[str, bool]:
    # As Django makes an object of a row, without its signals.
    user: Any = type(instance).__new__(type(instance))
    user._state = type(instance._state)()
    vars(user).update(values)
    return auth_hash(user), getattr(user, "is_active", True)
