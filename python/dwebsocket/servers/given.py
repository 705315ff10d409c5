"""
A client whose connection stands in the environ, put there by whoever made the request.

That is the test kit, which is server and client at once. No request can claim it: what clients
send stands under names of its own.
"""

from __future__ import annotations

from dwebsocket.servers.contract import Client, Environ

KEY = "dwebsocket.client"


def find(environ: Environ) -> Client | None:
    """Gives the client that stands there."""
    client = environ.get(KEY)
    return client if isinstance(client, Client) else None
