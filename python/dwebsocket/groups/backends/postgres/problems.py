"""Problems of the settings and the servers: for system checks and the doctor."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from django import db
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from dwebsocket.compat.postgresql import Lost, QueryFailed
from dwebsocket.compat.system import monotonic
from dwebsocket.groups.backends.postgres import history, parameters, table
from dwebsocket.groups.backends.postgres.deadline import Deadline
from dwebsocket.groups.backends.postgres.link import Link
from dwebsocket.groups.backends.postgres.parameters import text_of

if TYPE_CHECKING:
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.groups.backends.postgres.place import Place

_NO_POSTGRESQL = (
    "DATABASE names {database!r}, which is no PostgreSQL: its ENGINE is {engine}. Name an alias of "
    "DATABASES with PostgreSQL, or use another BACKEND."
)
_NO_LOCATION = "LOCATION: {reason}. Write postgresql://user@host:port/database, or host=… port=…."
_POOLER = (
    "what is published on Django's connection does not reach a connection that listens at "
    "{address}: a pooler in between swallows LISTEN (pgbouncer with pool_mode = transaction does), "
    "or these are two databases. Set LOCATION to a connection string that leads to the same "
    "database past the pooler."
)
_NO_TABLE = (
    "the database {database!r} has no table for {what}. Put "
    '"dwebsocket.groups.postgres" into INSTALLED_APPS and run `manage.py migrate{option}`.'
)
_NO_APP = (
    'HISTORY needs tables: put "dwebsocket.groups.postgres" into INSTALLED_APPS and run '
    "`manage.py migrate`, or remove HISTORY."
)
_APPS = ("dwebsocket.groups.postgres", "dwebsocket")
# What needs tables, and the queries that find these.
_LONG_MESSAGES = ("messages of more than about 5,900 bytes", table.EXISTS)
_HISTORY = ("the history of groups", history.EXISTS)


def of_settings(own: BackendSettings) -> list[str]:
    """Returns what is wrong with the settings, as sentences. Connects with nothing."""
    try:
        connection = parameters.connection_of(own.database)
        if connection.vendor != "postgresql":
            engine = connection.settings_dict["ENGINE"]
            return [_NO_POSTGRESQL.format(database=own.database, engine=engine)]
        library = parameters.library(own.database)
        parameters.of_database(own.database)
    except (ImproperlyConfigured, ImportError) as error:
        return [f"{text_of(error).rstrip('.')}."]
    # The tables of installations from before are those of "dwebsocket".
    if own.history and not any(map(apps.is_installed, _APPS)):
        return [_NO_APP]
    for location in own.location:
        try:
            parameters.located(library, location)
        except ValueError as error:
            return [_NO_LOCATION.format(reason=error)]
    return []


def of_servers(place: Place, own: BackendSettings) -> list[str]:
    """Returns what is wrong with the servers, as sentences: listens on one, notifies on another."""
    channel = f"dwebsocket_test_{secrets.token_hex(8)}"
    needed = [_LONG_MESSAGES, _HISTORY] if own.history else [_LONG_MESSAGES]
    try:
        library, found, _ = place.connect_to(0)
        link = Link(library, found, place.timeout)
    except Lost as error:
        return [f"no connection that listens can be made at {place.address}: {text_of(error)}."]
    try:
        link.query(f"LISTEN {channel}")
        missing = _notify(own.database, channel, place.timeout, needed)
        has_come = _wait(link, channel, place.timeout)
    except (Lost, QueryFailed) as error:
        return [f"the connection that listens at {place.address} failed: {text_of(error)}."]
    except db.Error as error:
        return [f"the database {own.database!r} cannot be reached: {text_of(error)}."]
    finally:
        link.close()
    problems = [] if has_come else [_POOLER.format(address=place.address)]
    option = "" if own.database == "default" else f" --database {own.database}"
    return problems + [
        _NO_TABLE.format(database=own.database, what=what, option=option) for what in missing
    ]


def _notify(
    database: str, channel: str, timeout: float, needed: list[tuple[str, str]]
) -> list[str]:
    """Notifies on a connection of its own. Returns the features that have no table."""
    # Not on this thread's: it may be in a transaction.
    connection = connections.create_connection(database)
    deadline = Deadline(timeout)
    try:
        with deadline.on_connecting(connection):
            connection.ensure_connection()
        with deadline.on(connection), connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [channel])
            missing = []
            for what, exists in needed:
                cursor.execute(exists)
                row = cursor.fetchone()
                if not (row and row[0]):
                    missing.append(what)
            return missing
    finally:
        connection.close()


def _wait(link: Link, channel: str, timeout: float) -> bool:
    deadline = monotonic() + timeout
    while (left := deadline - monotonic()) > 0:
        link.wait(left)
        while (notification := link.take()) is not None:
            if notification[0] == channel:
                return True
    return False
