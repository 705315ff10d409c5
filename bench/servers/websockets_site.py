"""Subject websockets: its asyncio server on the listening socket whose descriptor is given."""

from __future__ import annotations

import asyncio
import http
import socket
import sys

from websockets.asyncio.server import serve

members = []


async def talk(connection):
    """Serve a connection by its path."""
    await (chat if connection.request.path == "/chat" else echo)(connection)


async def echo(connection):
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


async def chat(connection):
    """Send every message to all members."""
    members.append(connection)
    try:
        async for message in connection:
            for member in list(members):
                await member.send(message)
    finally:
        members.remove(connection)


def ready(connection, request):
    """Answer the benchmark's question by plain HTTP."""
    return connection.respond(http.HTTPStatus.OK, "ready") if request.path == "/ready" else None


async def main(descriptor):
    """Serve until killed."""
    listener = socket.socket(fileno=descriptor)
    limits = {"max_size": 2**24, "compression": None, "ping_interval": None}
    async with serve(talk, sock=listener, process_request=ready, **limits) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
