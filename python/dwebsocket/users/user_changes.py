"""
Whether saving a user object may sign the user out.

It may when the hash that sessions have of the user, or ``is_active``, has changed. Each user object
keeps the values that it was read with, and they are compared when it is saved, without a query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import router

from dwebsocket.users.registry import auth_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from django.db.models import Model

    Values = dict[str, Any]

# In `_state`, which Django copies and pickles together with the object.
_NOTED = "dwebsocket_values"
# What counts where other fields are not known.
_ALWAYS = frozenset({"password", "is_active"})


def on_made(instance: Model, **_: Any) -> None:
    """For ``post_init``: notes the values, which are those of a row if one is read."""
    _note(instance, _values(instance))


def before_save(instance: Model, using: str, **_: Any) -> None:
    """For ``pre_save``: forgets values that are not known to be those of the row."""
    # A router may read from a replica what it writes elsewhere.
    is_read = instance._state.db in (using, router.db_for_read(type(instance)))
    if instance._state.adding or not is_read:
        vars(instance._state).pop(_NOTED, None)


def after_save(
    instance: Model, *, created: bool, update_fields: Collection[str] | None
) -> Callable[[], None] | None:
    """
    For ``post_save``: returns None when nobody is signed out by it.

    Returns:
        To be called when the save is committed: notes the new values.
    """
    before, now = vars(instance._state).get(_NOTED), _values(instance)
    if created:
        # Nobody was signed in as this user before.
        _note(instance, now)
        return None
    if before is None:
        if update_fields is not None:
            return None if _ALWAYS.isdisjoint(update_fields) else lambda: None
    elif update_fields is not None:
        now = before | {name: now[name] for name in _written(instance, update_fields)}
    if before is not None and _stands(instance, before, now):
        return None
    return lambda: _note(instance, now)


def _note(instance: Model, values: Values) -> None:
    vars(instance._state)[_NOTED] = values


def _values(instance: Model) -> Values:
    """Returns the values of all fields that are loaded."""
    found = vars(instance)
    names = [field.attname for field in instance._meta.concrete_fields]
    return {name: found[name] for name in names if name in found}


def _written(instance: Model, update_fields: Collection[str]) -> list[str]:
    return [
        field.attname
        for field in instance._meta.concrete_fields
        if field.name in update_fields and field.attname in vars(instance)
    ]


def _stands(instance: Model, before: Values, now: Values) -> bool:
    """Whether who was signed in by the values of before is so now."""
    # By identity: some types of fields cannot be compared, or not by `==` alone.
    if before.keys() == now.keys() and all(now[name] is before[name] for name in now):
        return True
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
