"""Servers with the consumers of `project.soak_consumers`, and what is left of these."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from typing import TYPE_CHECKING

from support.raw_peer import RawPeer
from support.server import GUNICORN_GTHREAD, UVICORN, Kind, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS: dict[str, object] = {
    "ROOT_URLCONF": "project.soak_urls",
    "CHANNEL_LAYERS": {"default": {"BACKEND": "dwebsocket.channels.ChannelLayer"}},
}
SYNC, ASYNC = "/sync/", "/async/"
PATHS = (SYNC, ASYNC)

_GUNICORN = (
    "{python} -m gunicorn --bind 127.0.0.1:{port} --log-level warning --workers 1 --worker-class"
)
PROTOCOL = Kind(
    "uvicorn-protocol",
    "asgi",
    (
        *"{python} -m uvicorn --port {port} --log-level warning --ws".split(),
        *"dwebsocket.uvicorn:WebSocketProtocol {module}.soak_asgi:application".split(),
    ),
    alone=True,
)
# The engine takes over from uvicorn; is uvicorn's protocol; has the sockets of a WSGI server.
KINDS = (UVICORN, PROTOCOL, GUNICORN_GTHREAD)

GUNICORN_NATIVE = Kind(
    "gunicorn-uvicorn-native",
    "asgi",
    (*_GUNICORN.split(), "uvicorn_worker.UvicornWorker", "{module}.asgi:application"),
)
GUNICORN_PROTOCOL = Kind(
    "gunicorn-uvicorn-protocol",
    "asgi",
    (*_GUNICORN.split(), "{module}.soak_worker.Worker", "{module}.soak_asgi:application"),
)
# The same three ways, where an arbiter replaces workers.
RELOADED = (GUNICORN_NATIVE, GUNICORN_PROTOCOL, GUNICORN_GTHREAD)

_numbers = itertools.count(1)


def new_id() -> str:
    """Give a name for a connection that no other has."""
    return f"{os.getpid()}-{next(_numbers)}"


def ends(server: Server, name: str) -> list[int]:
    """Give the codes with which `disconnect` was called for a connection."""
    return ends_of_all(server).get(name, [])


def ends_of_all(server: Server) -> dict[str, list[int]]:
    """Give the codes with which `disconnect` was called, by connection."""
    found: dict[str, list[int]] = {}
    for line in _lines(server, "ends"):
        name, code = line.split()
        found.setdefault(name, []).append(int(code))
    return found


def kept(server: Server) -> Counter[str]:
    """Count how often each message was kept."""
    return Counter(_lines(server, "kept"))


def _lines(server: Server, name: str) -> list[str]:
    file = server.folder / name
    return file.read_text().splitlines() if file.exists() else []


def held(server: Server, query: str = "") -> dict[str, int]:
    """Count what the server's process holds."""
    counts: dict[str, int] = server.get(f"/held/{query}", timeout=60).json()
    return counts


def warm_up(server: Server) -> None:
    """Have the server start what it keeps for both kinds of consumers."""
    for path in PATHS:
        with RawPeer.open(server, path) as peer:
            peer.send_text("warm")
            assert peer.read_message() == b"warm"
            peer.send_close()
            peer.read_to_eof()


@contextlib.contextmanager
def nothing_left(server: Server, within: float = 15) -> Iterator[None]:
    """
    Assert that of the consumers within the block nothing is left in the server's process.

    Args:
        within: Seconds until descriptors and threads have to be back.
    """
    warm_up(server)
    eventually(lambda: held(server)["consumers"] == 0, what="no consumer before")
    before = held(server, "?later")
    with server.nothing_left(within):
        yield

    def is_as_before() -> bool:
        now.append(held(server))
        return all(now[-1][it] <= before[it] for it in before.keys() - {"channels"})

    now: list[dict[str, int]] = []
    try:
        eventually(is_as_before, what="nothing is left of the consumers")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{before} before, {now[-1]} now") from error
    # Channels in no group are forgotten when messages in them would have expired.
    assert held(server, "?later")["channels"] <= before["channels"]


def converses(server: Server, path: str, *, turns: int = 1) -> None:
    """See that another client is served."""
    with RawPeer.open(server, f"{path}?id={new_id()}") as peer:
        for turn in range(turns):
            peer.send_text(f"turn {turn}")
            assert peer.read_message() == b"turn %d" % turn
