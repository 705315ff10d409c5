"""A session for a user, as a page that has signed in would have it."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.core.exceptions import ObjectDoesNotExist, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def session_of(user: Any) -> Iterator[str]:
    """Signs a user in, and gives the ``Cookie`` header; the session is deleted after it."""
    store: Any = import_module(settings.SESSION_ENGINE).SessionStore()
    store[SESSION_KEY] = user._meta.pk.value_to_string(user)
    store[BACKEND_SESSION_KEY] = _backend_of(user)
    store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    store.create()
    # `create` keeps what was set before it.
    store.save()
    try:
        yield f"{settings.SESSION_COOKIE_NAME}={store.session_key}"
    finally:
        store.delete()


def _backend_of(user: Any) -> str:
    """Returns the first authentication backend that knows a user: some only refuse logins."""
    paths: list[str] = settings.AUTHENTICATION_BACKENDS
    for path in paths:
        get_user = getattr(load_backend(path), "get_user", None)
        if get_user is not None and get_user(user.pk) is not None:
            return path
    return paths[0]


def user_of(name: str) -> Any:
    """Returns a user by name (``USERNAME_FIELD``), else by primary key; else ``LookupError``."""
    users = get_user_model()._default_manager
    try:
        return users.get_by_natural_key(name)
    except ObjectDoesNotExist:
        pass
    try:
        return users.get(pk=name)
    except (ObjectDoesNotExist, ValidationError, ValueError):
        raise LookupError(f"there is no user {name!r}") from None
