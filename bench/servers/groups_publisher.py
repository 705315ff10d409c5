"""
A process that publishes, as a management command does: ``python -m groups_publisher HOW PORT N``.

Groups are those of the environment (see ``django_site``). ``latency``: N messages, each of them
awaited at a WebSocket of the server at PORT; prints their latencies in µs as JSON. ``rate``: N
messages as fast as it goes, by so many tasks at once as BENCH_TASKS says; prints the seconds until
the last one was taken. ``raw``: as latency, without groups: through the peer at PORT (see
``transport_peer``) and the transport that BENCH_RAW names.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time

PAYLOAD = "x" * 32
FRAME_BYTES = 2 + len(PAYLOAD)
TASKS = int(os.environ.get("BENCH_TASKS", "64"))


def main() -> None:
    """Publish as the arguments say."""
    how, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps({"latency": latency, "rate": rate, "raw": raw}[how](port, count)))


def latency(port: int, count: int) -> list[float]:
    """Publish one message after the other, each when the last one has arrived."""
    publish = _group().send
    with _member(port) as member:
        return _times(lambda: publish(PAYLOAD), member, FRAME_BYTES, count)


def raw(port: int, count: int) -> list[float]:
    """The same through the transport alone."""
    import transport_peer

    publish = transport_peer.publisher()
    with socket.create_connection(("127.0.0.1", port)) as answers:
        answers.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _times(lambda: publish(PAYLOAD.encode()), answers, 1, count)


def rate(port: int, count: int) -> dict[str, float]:
    """Publish without waiting for arrivals."""
    group = _group()
    group.send("first")
    before, busy = time.monotonic(), time.process_time()
    if os.environ["BENCH_GROUPS"].find("local") > 0:
        for _ in range(count):
            group.send(PAYLOAD)
    else:
        asyncio.run(_all(group, count))
    return {"seconds": time.monotonic() - before, "cpu_s": time.process_time() - busy}


async def _all(group, count: int) -> None:
    async def some() -> None:
        for _ in range(count // TASKS):
            await group.asend(PAYLOAD)

    await asyncio.gather(*(some() for _ in range(TASKS)))


def _group():
    import django_site

    django_site.configure("django_site")
    from dwebsocket import group

    return group("members")


def _member(port: int) -> socket.socket:
    member = socket.create_connection(("127.0.0.1", port), timeout=30)
    member.sendall(
        b"GET /grouped HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += member.recv(4096)
    if b" 101 " not in answer:
        raise SystemExit(f"no WebSocket: {answer!r}")
    return member


def _times(publish, answers: socket.socket, size: int, count: int) -> list[float]:
    found = []
    for number in range(count + count // 10):
        begin = time.perf_counter()
        publish()
        missing = size
        while missing > 0:
            missing -= len(answers.recv(missing)) or sys.exit("the other end has gone")
        # The first ones open connections, and wake caches.
        if number >= count // 10:
            found.append((time.perf_counter() - begin) * 1e6)
    return found


if __name__ == "__main__":
    main()
