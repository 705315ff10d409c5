"""Workers of servers that share nothing but a PostgreSQL server, as on several machines."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from postgres_nodes import folder, nodes  # noqa: F401

from support import postgres
from support.raw_peer import RawPeer, handshake_request
from support.selection import later
from support.server import (
    EVENTLET_PATCHED,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    UVICORN,
    Kind,
    Server,
    is_running,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from postgres_nodes import Nodes

Own = Callable[..., Server]

pytestmark = pytest.mark.needs("postgresql")

SECRET = "for tests only"
PUBLISHERS, EACH = 3, 500
# How long members of a process that is gone may be counted.
GHOSTS_S = 5


def settings(folder: Path) -> dict[str, Any]:
    """Give the settings of a site."""
    return {
        "DATABASES": {"default": postgres.entry(folder)},
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
        "ROOT_URLCONF": "project.room_urls",
        "WEBSOCKET_GROUPS": {"default": {"BACKEND": "dwebsocket.groups.postgres", "TIMEOUT": 20.0}},
    }


def in_room(server: Server, stack: contextlib.ExitStack, each: int) -> dict[int, list[RawPeer]]:
    """Open members until each worker has so many; give them by the worker's process."""
    peers: dict[int, list[RawPeer]] = {pid: [] for pid in server.workers()}
    while any(len(found) < each for found in peers.values()):
        peer = stack.enter_context(RawPeer.open(server, "/rooms/room/"))
        peers[int(peer.read_message())].append(peer)
    return peers


@pytest.mark.every("as on Redis, with more members")
def test_many_members_of_many_workers(own_server: Own, folder: Path, nodes: Nodes) -> None:
    """
    Everybody gets everything, once, in each publisher's order.

    Meanwhile one worker is killed and one is replaced: their members end, and count no more.
    """
    servers = [
        own_server(GUNICORN_GTHREAD, options=("--workers", "2"), settings=settings(folder))
        for _ in range(2)
    ]
    with contextlib.ExitStack() as stack:
        peers: dict[int, list[RawPeer]] = {}
        for server in servers:
            peers |= in_room(server, stack, 10)
        census, *publishers = [nodes(secret=SECRET) for _ in range(1 + PUBLISHERS)]
        assert census("count", "room") == sum(map(len, peers.values()))
        for number, publisher in enumerate(publishers):
            publisher.begin("send_numbers", "room", number * 100_000, number * 100_000 + EACH)
        killed, replaced = servers[0].workers()[0], servers[1].workers()[0]
        os.kill(killed, signal.SIGKILL)
        os.kill(replaced, signal.SIGTERM)
        staying = [peer for pid in peers if pid not in (killed, replaced) for peer in peers[pid]]
        eventually(lambda: not any(map(is_running, (killed, replaced))))
        # The server forgets a process with its connection.
        eventually(lambda: census("count", "room") == len(staying), within=GHOSTS_S)
        assert [publisher.answer() for publisher in publishers] == [0] * PUBLISHERS
        for peer in staying:
            found = [int(peer.read_message()) for _ in range(PUBLISHERS * EACH)]
            for number in range(PUBLISHERS):
                start = number * 100_000
                of_one = [each for each in found if start <= each < start + EACH]
                assert of_one == list(range(start, start + EACH))
        # The replacements of both take part.
        for server in servers:
            eventually(lambda server=server: len(server.workers()) == 2)
            peer = stack.enter_context(RawPeer.open(server, "/rooms/room/"))
            peer.read_message()
            peer.send_text("hi")
            assert peer.read_message() == b"hi"
            assert [each.read_message() for each in staying] == [b"hi"] * len(staying)


@pytest.mark.parametrize(
    "kind",
    [
        GUNICORN_GTHREAD,
        GUNICORN_GEVENT,
        UVICORN,
        pytest.param(GUNICORN_SYNC, marks=pytest.mark.every("much like gthread")),
        EVENTLET_PATCHED,
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "path", ["/rooms/room/", *later("/rooms/room/async/")], ids=["sync", "async"]
)
def test_on_each_server(own_server: Own, folder: Path, nodes: Nodes, kind: Kind, path: str) -> None:
    """Members get what others publish, and publish themselves."""
    server = own_server(kind, settings=settings(folder))
    node = nodes(secret=SECRET)
    node("join", "room")
    with RawPeer.open(server, path) as one, RawPeer.open(server, path) as two:
        one.read_message()
        two.read_message()
        node("send", "room", "from outside")
        node("send_large", "room", 20_000)
        one.send_text("from one")
        for peer in (one, two):
            assert peer.read_message() == b"from outside"
            assert peer.read_message() == b"x" * 20_000
            assert peer.read_message() == b"from one"
        assert node("take", 3) == ["from outside", "bytes 20000", "from one"]
        assert server.get("/rooms/room/count/").body == b"3"


def test_handshake_while_the_database_is_away(own_server: Own, folder: Path) -> None:
    """The decorator's groups cannot be joined: 503, and in bounded time."""
    away = settings(folder)
    away["DATABASES"] = {"default": postgres.entry(folder, HOST="/nowhere")}
    server = own_server(GUNICORN_GTHREAD, settings=away)
    with RawPeer(server.address) as peer:
        from support.raw_peer import handshake_request

        peer.send(handshake_request("/rooms/room/", server.host))
        assert peer.read_response().status == 503


def test_threads_of_the_system_run_no_code_of_others(
    own_server: Own, folder: Path, database: Path, tmp_path: Path
) -> None:
    """Neither Django's nor Channels' nor the project's, whatever the package has threads for."""
    strays = tmp_path / "strays"
    strays.touch()
    own = shutil.copy(database, tmp_path)
    groups = {"HISTORY": {"kept": {"size": 10}}, "PRESENCE": {"present": {}}, "DATABASE": "groups"}
    settings = {
        "ROOT_URLCONF": "project.hub_urls",
        "CHANNEL_LAYERS": {"default": {"BACKEND": "dwebsocket.channels.ChannelLayer"}},
        "DATABASES": {
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(own)},
            "groups": postgres.entry(folder),
        },
        "STRAYS": str(strays),
        "WEBSOCKET_GROUPS": {"default": {"BACKEND": "dwebsocket.groups.postgres", **groups}},
        "WEBSOCKET_OPERATIONS": True,
    }
    server = own_server(GUNICORN_GEVENT, settings=settings)
    cookies = server.get("/log-in/anna/").cookies()
    headers = {
        "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "Origin": f"http://{server.host}",
    }
    with contextlib.ExitStack() as stack:

        def come(path: str) -> RawPeer:
            return stack.enter_context(RawPeer.open(server, path, headers=headers))

        inbox, present = come("/inbox/"), come("/present/")
        inbox.read_message()
        rooms = [come(path) for path in ("/ws/room/a/", "/ws/async-room/a/")]
        for peer in rooms:
            peer.send_text('{"message": "hello"}')
            assert [each.read_message() for each in rooms] == [b'{"message": "hello"}'] * 2
        present.send_text("hello")
        while present.read_message() != b"hello":
            pass
        with RawPeer(server.address) as refused:
            refused.send(handshake_request("/Denying/", server.host))
            assert refused.read_response().status == 403
        assert server.get("/everything/", headers=headers).body == b"0"
        assert inbox.read_message() == b"for you"
        server.get("/ban/", headers=headers)
        assert inbox.read_frame().code == 4403
    server.at_rest()
    server.send_signal(signal.SIGTERM)
    server.wait(60)
    assert strays.read_text() == ""
    assert "Traceback" not in server.stderr()
