"""
Subject dwebsocket2-engine: the memory that the engine itself holds for a connection.

A loop accepts, answers the handshake and hands the socket to the engine; one thread echoes whatever
comes. No view, no request, no server: only the engine's part and its handle in Python are left.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading

import django_site

django_site.configure(__name__)

from dwebsocket import _core, conf  # noqa: E402

urlpatterns = []
hub = _core.Hub()
connections = {}


def accept(client):
    """Answer the benchmark's question, or open a WebSocket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(4096)
    if head.startswith(b"GET /ready "):
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return
    lines = (line.partition(": ") for line in head.decode().split("\r\n")[1:])
    fields = {name.lower(): value for name, _, value in lines}
    _, accept_key, _ = _core.validate_handshake(
        method="GET",
        http_version=(1, 1),
        host=fields["host"],
        content_length=None,
        transfer_encoding=None,
        upgrade=fields["upgrade"],
        connection=fields["connection"],
        version=fields["sec-websocket-version"],
        key=fields["sec-websocket-key"],
        protocols=None,
        extensions=fields.get("sec-websocket-extensions"),
    )
    response = _core.response_head(accept_key, None, [])
    permit = _core.Permit.claim(None)
    connection = _core.adopt(client.detach(), b"", response, permit, settings)
    connections[connection.id] = connection
    connection.watch_inbox(hub, connection.id)


def echo():
    """Send every message back."""
    while True:
        select.select([hub], [], [])
        for token in hub.drain():
            connection = connections[token]
            while (message := connection.take(0, text_as_bytes=True)) is not None:
                connection.send(message)
            if connection.waiting()[1]:
                del connections[token]
            else:
                connection.watch_inbox(hub, token)


threading.Thread(target=echo, daemon=True).start()
settings = conf.Options.current({}).for_engine
with socket.socket(fileno=int(sys.argv[1])) as listener:
    while True:
        client, _ = listener.accept()
        with contextlib.closing(client):
            accept(client)
