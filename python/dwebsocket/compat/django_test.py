"""
Undocumented parts of Django's test clients and of its connections, versions 4.2 to 6.1.

``dwebsocket.testing`` puts its own in the place of ``ClientHandler.get_response`` and of
``AsyncClientHandler.get_response_async``, since 3.1. Importing this where one is missing raises an
error that names the version.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.test.client import AsyncClientHandler as AsyncClientHandler
from django.test.client import ClientHandler as ClientHandler

from dwebsocket.compat.missing import MissingPart, need

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

need("Django", ClientHandler, "get_response")
need("Django", AsyncClientHandler, "get_response_async")

# The storage of its connections for each thread has no public name.
_handler: Any = connections


def connection_store() -> Any:
    """
    Returns the object that has each thread's connections as attributes, by their aliases.

    ``django.db.connections._connections``, since 3.2.

    Raises:
        MissingPart: It is missing; views could not see the data of a test's transaction.
    """
    if not hasattr(_handler, "_connections"):
        raise MissingPart("Django", "django.db.connections._connections")
    return _handler._connections


def set_connection_store(store: Any) -> None:
    """Replaces the object that :func:`connection_store` returns, for all threads."""
    connection_store()
    _handler._connections = store


def is_the_tests_own(connection: BaseDatabaseWrapper) -> bool:
    """
    Whether another connection would not see what this one sees.

    ``in_atomic_block``, since 1.6, ``is_in_memory_db()`` of SQLite's, since 1.7, and the
    replacement of ``connect`` by a test case that may use no database, since 4.2. Where
    ``is_in_memory_db`` is missing a test's database is assumed to be in memory, as it usually is.
    """
    if connection.in_atomic_block:
        return True
    if connection.vendor == "sqlite":
        is_in_memory = getattr(connection, "is_in_memory_db", lambda: True)
        if is_in_memory():
            return True
    return not inspect.ismethod(connection.connect)
