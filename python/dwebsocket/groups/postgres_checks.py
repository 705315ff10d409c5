"""System checks of the postgres backend, where ``WEBSOCKET_GROUPS`` names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import db
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from dwebsocket import conf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.group_settings import BackendSettings

_PATHS = ("dwebsocket.groups.postgres", "dwebsocket.groups.postgres.Backend")


def register() -> None:
    """Registers the checks with Django. May be repeated; needs no settings."""
    checks.register(check)
    checks.register(check_deployed, deploy=True)


def check(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Checks the settings. Connects with nothing."""
    return [message for alias, own in _backends() for message in _settings(alias, own)]


def check_deployed(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Checks that the database can be reached, and has the table for long messages."""
    return [
        message
        for alias, own in _backends()
        if not any(_settings(alias, own))
        for message in _table(alias, own)
    ]


def _backends() -> list[tuple[str, BackendSettings]]:
    try:
        found = conf.get("GROUPS")
    except ImproperlyConfigured:
        # Another check tells of it.
        return []
    return [(alias, own) for alias, own in found.items() if own.backend in _PATHS]


def _settings(alias: str, own: BackendSettings) -> Iterator[checks.CheckMessage]:
    setting = f"WEBSOCKET_GROUPS[{alias!r}]"
    known = list(connections)
    if own.database not in known:
        yield checks.Error(
            f"{setting}['DATABASE'] = {own.database!r} is no alias of DATABASES.",
            hint=f"Known are {', '.join(known)}.",
            id="dwebsocket.E010",
        )
        return
    connection = connections[own.database]
    if connection.vendor != "postgresql":
        yield checks.Error(
            f"{setting}['DATABASE'] = {own.database!r} is no PostgreSQL: its engine is "
            f"{connection.settings_dict['ENGINE']}.",
            hint="Name an alias of DATABASES with PostgreSQL, or use another BACKEND.",
            id="dwebsocket.E011",
        )
        return
    from dwebsocket.groups.postgres import parameters

    for location in own.location:
        try:
            parameters.library(own.database).parse(location)
        except ValueError as error:
            yield checks.Error(
                f"{setting}['LOCATION']: {error}.",
                hint="Write postgresql://user@host:port/database, or host=… port=….",
                id="dwebsocket.E012",
            )


def _table(alias: str, own: BackendSettings) -> Iterator[checks.CheckMessage]:
    from dwebsocket.groups.postgres import table

    setting = f"WEBSOCKET_GROUPS[{alias!r}]"
    try:
        with connections[own.database].cursor() as cursor:
            cursor.execute(table.EXISTS)
            row = cursor.fetchone()
    except db.Error as error:
        reason = " ".join(str(error).split())
        yield checks.Error(
            f"{setting}: the database {own.database!r} cannot be reached: {reason}",
            id="dwebsocket.E013",
        )
        return
    if not row or not row[0]:
        option = "" if own.database == "default" else f" --database {own.database}"
        yield checks.Warning(
            f"{setting}: messages to groups of more than about 5,900 bytes cannot be sent: the "
            "database has no table for them.",
            hint=f'Put "dwebsocket" into INSTALLED_APPS and run `manage.py migrate{option}`.',
            id="dwebsocket.W010",
        )
