"""
The settings of a process without Django, from the environment.

``DWEBSOCKET_PING_INTERVAL`` there is what ``WEBSOCKET_PING_INTERVAL`` is in a Django project.
"""

from __future__ import annotations

import ast
import functools
import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf

PREFIX = "DWEBSOCKET_"

# Settings with several values, which commas separate.
_LISTS = {"ALLOWED_ORIGINS", "SUBPROTOCOLS"}


def has_django() -> bool:
    """Whether the process has a Django project, whose settings count."""
    return settings.configured or bool(os.environ.get("DJANGO_SETTINGS_MODULE"))


def values() -> dict[str, object]:
    """
    Gives the settings that the environment has, by their names without prefix.

    Raises:
        ImproperlyConfigured: A variable that is no setting, or has an invalid value. The message
            names it.
    """
    found = {
        name.removeprefix(PREFIX): _value(name.removeprefix(PREFIX), text)
        for name, text in os.environ.items()
        if name.startswith(PREFIX)
    }
    for name, value in found.items():
        if name not in conf.SETTINGS:
            raise ImproperlyConfigured(f"There is no setting {PREFIX}{name}.")
        try:
            conf.read(name, value)
        except ValueError as error:
            raise ImproperlyConfigured(f"{PREFIX}{name} {error}.") from None
    return found


@functools.cache
def use() -> None:
    """Makes them the settings of this process, unless it has a Django project. Once."""
    if not has_django():
        conf.use_without_django(values())


def _value(name: str, text: str) -> object:
    """Gives a variable's value: a number, True, False, None, a list or dict of Python, or text."""
    if name in _LISTS:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()
