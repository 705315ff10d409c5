"""The names of groups."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Iterable
from typing import Any

from django.db.models import Model

from dwebsocket.compat.system import renew_at_fork
from dwebsocket.request.worlds import user_key

#: Names that begin so are those of this package.
OWN = "dwebsocket."
_OF_USERS = f"{OWN}user:"
# The number of this process in names that other processes get, and the character before it. The
# names of users do not begin with that.
_here = secrets.token_hex(8)
_OF_PLAIN = "\0"
#: The most characters of a name.
LONGEST = 200


def checked(name: object) -> str:
    """
    Returns a name that a project may use.

    Raises:
        TypeError: It is no ``str``.
        ValueError: It is empty, too long, has control characters, or begins with ``dwebsocket.``.
    """
    if not isinstance(name, str):
        raise TypeError(f"a group's name must be a str, not {type(name).__name__}")
    if not 1 <= len(name) <= LONGEST:
        raise ValueError(f"a group's name must have 1 to {LONGEST} characters, not {len(name)}")
    if name.startswith(OWN):
        raise ValueError(f"the group name {name!r} begins with {OWN!r}, which is reserved")
    # Most names are printable, which says so much and takes a fraction of the time.
    if not name.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cs") for character in name
    ):
        raise ValueError(f"the group name {name!r} has control characters")
    return str(name)


def of_user(user: Any, realm: str = "") -> str:
    """
    Returns the name of the group of a user's WebSockets.

    Args:
        user: A user, or the primary key of one.
        realm: The world that the user belongs to.

    Raises:
        TypeError: It is neither.
        ValueError: The user is anonymous, or not saved.
    """
    return of_user_key(user_name(user, realm))


def user_name(user: Any, realm: str = "") -> str:
    """
    Returns a user's name among those of all realms. Arguments as for :func:`of_user`.

    Raises:
        TypeError, ValueError: As :func:`of_user`.
    """
    if isinstance(user, Model) and not hasattr(user, "is_authenticated"):
        # Its key would be that of a stranger. Its text may need the database.
        raise TypeError(f"a user, or a primary key of one, is needed, not a {type(user).__name__}")
    if hasattr(user, "pk"):
        key = user.pk
    elif _may_be_key(user):
        key = user
    else:
        raise TypeError(f"a user, or a primary key of one, is needed, not {user!r}")
    if key is None or getattr(user, "is_authenticated", True) is False or key == "":
        raise ValueError("an anonymous user has no group, and no key: give one that is signed in")
    return user_key(key, realm)


def _may_be_key(value: Any) -> bool:
    """Whether a value may be a primary key: no list, no bool or float, no object without a text."""
    is_several = isinstance(value, Iterable) and not isinstance(value, str)
    text: Any = type(value).__repr__
    return not (is_several or isinstance(value, (bool, float)) or text is object.__repr__)


def of_user_key(key: str) -> str:
    """
    Returns the name of a user's group, by the user's :func:`dwebsocket.request.worlds.user_key`.
    """
    return f"{_OF_USERS}{key}"


def of_plain(user: str, *, is_for_all: bool) -> str:
    """
    Returns the name by which the connections of a user that are in no room are evicted.

    Args:
        user: The user's name, as :func:`user_name` returns it.
        is_for_all: Whether this process has to evict its own ones, too, when that name comes.
    """
    return f"{_OF_PLAIN}{'' if is_for_all else _here}{_OF_PLAIN}{user}"


def user_of_plain(name: str) -> str | None:
    """
    Returns the user whose connections here are evicted by a name.

    None for a name that :func:`of_plain` has not made, or that this process has made for others.
    """
    if not name.startswith(_OF_PLAIN):
        return None
    origin, _, user = name[len(_OF_PLAIN) :].partition(_OF_PLAIN)
    return None if origin == _here else user


renew_at_fork(globals(), _here=lambda: secrets.token_hex(8))
