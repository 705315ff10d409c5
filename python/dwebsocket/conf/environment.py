"""
The settings of a process without Django, from the environment.

``DWEBSOCKET_PING_INTERVAL`` there is what ``WEBSOCKET_PING_INTERVAL`` is in a Django project.
"""

from __future__ import annotations

import ast
import difflib
import functools
import logging
import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf

PREFIX = "DWEBSOCKET_"

_log = logging.getLogger("dwebsocket")

# Settings with several values, which commas separate.
_LISTS = {"ALLOWED_ORIGINS", "SUBPROTOCOLS"}


def values() -> dict[str, object]:
    """
    Returns the settings that the environment has, by their names without prefix.

    Variables that are no settings are ignored, with a warning in the log.

    Raises:
        ImproperlyConfigured: A setting has an invalid value. The message names it.
    """
    found: dict[str, object] = {}
    unknown = []
    for variable, text in os.environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable:
            continue
        if name not in conf.SETTINGS:
            unknown.append(name)
            continue
        found[name] = _value(name, text)
        try:
            conf.read(name, found[name])
        except ValueError as error:
            raise ImproperlyConfigured(f"{variable} {error}.") from None
    if unknown:
        _warn_of(*sorted(unknown))
    return found


@functools.cache
def _warn_of(*names: str) -> None:
    """
    Warns of variables that are no settings, once.

    Kubernetes sets some in each container beside a service named ``dwebsocket``, such as
    ``DWEBSOCKET_SERVICE_HOST``.
    """
    known = list(conf.SETTINGS)
    told = []
    for name in names:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        told += [PREFIX + name + (f" (did you mean {PREFIX}{close[0]}?)" if close else "")]
    _log.warning("Variables of the environment that are no settings: %s", ", ".join(told))


@functools.cache
def has_django() -> bool:
    """
    Whether the process has a Django project, whose settings count.

    Without one, the first call makes the variables the settings of this process.

    Raises:
        ImproperlyConfigured: As :func:`values`.
    """
    if settings.configured or os.environ.get("DJANGO_SETTINGS_MODULE"):
        return True
    conf.use_without_django(values())
    return False


def _value(name: str, text: str) -> object:
    """
    Returns a variable's value: a number, True, False, None, a list or dict of Python, or text.
    """
    if name in _LISTS:
        return [part.strip() for part in text.split(",") if part.strip()]
    text = text.strip()
    try:
        found: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    # A token may have digits only.
    is_text = isinstance(conf.SETTINGS[name].default, str) and not isinstance(found, str)
    return text if is_text else found
