"""Whether what is published reaches a connection that listens: for ``websocket_doctor``."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from django import db
from django.db import connections

from dwebsocket.compat.postgresql import Lost, QueryFailed
from dwebsocket.groups.postgres import table
from dwebsocket.groups.postgres.limit import Limit
from dwebsocket.groups.postgres.link import Link

if TYPE_CHECKING:
    from dwebsocket.groups.postgres.listener import Host

_POOLER = (
    "what is published on Django's connection does not reach a connection that listens at "
    "{address}: a pooler in between swallows LISTEN (pgbouncer with pool_mode = transaction does), "
    "or these are two databases. Set LOCATION to a connection string that leads to the same "
    "database past the pooler"
)
_NO_TABLE = (
    'the database has no table for messages of more than about 5,900 bytes: put "dwebsocket" '
    "into INSTALLED_APPS and run manage.py migrate"
)


def find(host: Host, database: str) -> list[str]:
    """
    Listens on one connection and notifies on another.

    Args:
        host: Where to listen.
        database: The alias of the database that notifies.

    Returns:
        The problems, as sentences without a full stop. Takes a few times the timeout at most.
    """
    channel = f"dwebsocket_test_{secrets.token_hex(8)}"
    try:
        library, parameters, _ = host.connect_to(0)
        link = Link(library, parameters, host.timeout)
    except Lost as error:
        return [f"no connection that listens can be made at {host.address}: {_text(error)}"]
    try:
        link.query(f"LISTEN {channel}")
        has_table = _notify(database, channel, host.timeout)
        has_come = _wait(link, channel, host.timeout)
    except (Lost, QueryFailed) as error:
        return [f"the connection that listens at {host.address} failed: {_text(error)}"]
    except db.Error as error:
        return [f"the database {database!r} cannot be reached: {_text(error)}"]
    finally:
        link.close()
    problems = [] if has_come else [_POOLER.format(address=host.address)]
    return problems if has_table else [*problems, _NO_TABLE]


def _notify(database: str, channel: str, timeout: float) -> bool:
    """Notifies on a connection of its own. Whether there is the table."""
    # Not on this thread's: it may be in a transaction.
    connection = connections.create_connection(database)
    limit = Limit(timeout)
    try:
        with limit.on_connecting(connection):
            connection.ensure_connection()
        with limit.on(connection), connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [channel])
            cursor.execute(table.EXISTS)
            row = cursor.fetchone()
            return bool(row and row[0])
    finally:
        connection.close()


def _wait(link: Link, channel: str, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        link.wait(left)
        while (notification := link.take()) is not None:
            if notification[0] == channel:
                return True
    return False


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
