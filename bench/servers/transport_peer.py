"""
The other end of a transport without groups: ``python -m transport_peer PORT``.

Takes each message that comes by the transport BENCH_RAW names, and answers with one byte on the TCP
connection that was opened to PORT: the least that a backend of groups and a WebSocket do.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from urllib.parse import urlsplit

KIND = os.environ["BENCH_RAW"]
PLACE = os.environ.get("BENCH_RAW_PLACE", "")


def publisher():
    """Return a function that sends one message."""
    if KIND == "local":
        sender = socket.socket(socket.AF_UNIX)
        sender.connect(PLACE)
        return sender.sendall
    if KIND == "redis":
        return _redis_publisher()
    connection = _postgres()
    return lambda message: connection.execute("SELECT pg_notify('raw', %s)", [message.decode()])


def _redis_publisher():
    server = _redis()

    def publish(message: bytes) -> None:
        server.sendall(
            b"*3\r\n$7\r\nPUBLISH\r\n$3\r\nraw\r\n$%d\r\n%s\r\n" % (len(message), message)
        )
        server.recv(100)

    return publish


def _redis() -> socket.socket:
    where = urlsplit(PLACE)
    server = socket.create_connection((where.hostname, where.port))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server


def _postgres():
    import psycopg

    settings = json.loads(os.environ["BENCH_DATABASE"])
    return psycopg.connect(
        host=settings["HOST"], user=settings["USER"], dbname=settings["NAME"], autocommit=True
    )


def main() -> None:
    """Take and answer until the connection ends."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        messages = _messages()
        # The next one comes when this has answered.
        print("ready", flush=True)
        answers, _ = listener.accept()
        answers.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in messages:
        answers.send(b"!")


def _messages():
    if KIND == "local":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(PLACE)
        listener.listen()
        return _reads(lambda: listener.accept()[0])
    if KIND == "redis":
        server = _redis()
        server.sendall(b"SUBSCRIBE raw\r\n")
        server.recv(100)
        return _reads(lambda: server)
    connection = _postgres()
    connection.execute("LISTEN raw")
    return connection.notifies()


def _reads(connect):
    connection = connect()
    while connection.recv(4096):
        yield


if __name__ == "__main__":
    main()
