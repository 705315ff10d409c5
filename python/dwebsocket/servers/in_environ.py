"""
A client whose connection is in the environ, put there by the code that made the request.

That code is the test kit, which is server and client at once. No client can forge the entry: a
client's headers are in the environ under other names.
"""

from __future__ import annotations

from dwebsocket.servers.contract import Client, Environ

KEY = "dwebsocket.client"


def find(environ: Environ) -> Client | None:
    """Returns the client in the environ."""
    client = environ.get(KEY)
    return client if isinstance(client, Client) else None
