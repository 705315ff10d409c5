"""Notes which database connections belong to the views that run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.backends.signals import connection_created

from dwebsocket.api.base import own_websocket
from dwebsocket.request.database import OpenConnections

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


def _on_connection(connection: BaseDatabaseWrapper, **_: Any) -> None:
    websocket = own_websocket.get()
    if websocket is None:
        return
    if websocket._held is None:
        # If two threads race, the first one's object stays.
        websocket.__dict__.setdefault("_held", OpenConnections())
        assert websocket._held is not None
    websocket._held.note(connection)


def watch_connections() -> None:
    """Notes each connection that a thread of a view opens, from now on."""
    connection_created.connect(_on_connection, dispatch_uid="dwebsocket.held")
