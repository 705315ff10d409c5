"""Groups under real servers: several workers, other processes, users."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import CLOSE, RawPeer
from support.selection import later
from support.server import (
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    UVICORN,
    Server,
)
from support.users import sign_in
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.server import Kind

WORKERS = {"gunicorn": ("--workers", "2"), "asgi": ("--workers", "2"), "runserver": ()}
SIGNED_OUT, BANNED = 4401, 4403

each_server = pytest.mark.parametrize(
    "kind",
    [GUNICORN_GTHREAD, GUNICORN_SYNC, UVICORN, RUNSERVER, GUNICORN_GEVENT, GUNICORN_EVENTLET],
    ids=str,
)
with_workers = pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN], ids=str)


@pytest.fixture(scope="module")
def _servers(database: Path) -> Iterator[Callable[[Kind], Server]]:
    with contextlib.ExitStack() as stack:

        @functools.cache
        def running(kind: Kind) -> Server:
            server = Server(kind, options=WORKERS[kind.family], database=database)
            return stack.enter_context(server)

        yield running


@pytest.fixture
def server(kind: Kind, _servers: Callable[[Kind], Server]) -> Server:
    """A server that tests share, with two workers where it can have them."""
    return _servers(kind)


@pytest.fixture
def own_users(kind: Kind, database: Path) -> Iterator[Server]:
    """A server for a test that changes its users."""
    with Server(kind, options=WORKERS[kind.family], database=database) as running:
        yield running


@contextlib.contextmanager
def opened(
    server: Server,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    process: Callable[[RawPeer], object] = RawPeer.read_message,
) -> Iterator[list[RawPeer]]:
    """
    Open connections to a view until each worker has two.

    Others are closed at once: one worker may get dozens before the other one gets its second.
    """
    workers = 1 if server.kind.family == "runserver" else 2
    with contextlib.ExitStack() as stack:
        peers: dict[object, list[RawPeer]] = {}
        while len(peers) < workers or any(len(ours) < 2 for ours in peers.values()):
            peer = stack.enter_context(RawPeer.open(server, path, headers=headers or {}))
            ours = peers.setdefault(process(peer), [])
            if len(ours) < 2:
                ours.append(peer)
            else:
                peer.send_close(1000)
                assert peer.read_frame().code == 1000
        yield [peer for ours in peers.values() for peer in ours]


def outside(server: Server, code: str) -> None:
    """Run Python in another process of the same project."""
    subprocess.run(
        [sys.executable, "-c", f"import django; django.setup()\n{code}"],
        env=server.env,
        cwd=server.cwd,
        check=True,
        timeout=60,
    )


@each_server
@pytest.mark.parametrize("view", ["room", *later("async-room")])
def test_a_message_reaches_all_members_of_all_workers(server: Server, view: str) -> None:
    """From a view, from a page, and from a process that is no server."""
    with (
        opened(server, f"/groups/{view}/one/") as peers,
        opened(server, f"/groups/{view}/two/") as others,
    ):
        peers[0].send_text("from a view")
        assert {peer.read_message() for peer in peers} == {b"from a view"}
        assert server.get("/groups/publish/one/?message=from+a+page").status == 200
        assert {peer.read_message() for peer in peers} == {b"from a page"}
        outside(server, "from dwebsocket import group; group('room-one').send('from outside')")
        assert {peer.read_message() for peer in peers} == {b"from outside"}
        others[0].send_text("elsewhere")
        assert {peer.read_message() for peer in others} == {b"elsewhere"}


@each_server
def test_members_are_counted_and_leave_when_they_go(server: Server) -> None:
    """In all workers, within a second."""
    with opened(server, "/groups/room/one/") as peers:
        eventually(lambda: server.get("/groups/members/one/").body == b"%d" % len(peers))
        peers[0].vanish()
        eventually(lambda: server.get("/groups/members/one/").body == b"%d" % (len(peers) - 1))
    eventually(lambda: server.get("/groups/members/one/").body == b"0")


@with_workers
@pytest.mark.parametrize("view", ["room", *later("async-room")])
def test_order_is_kept_and_nothing_comes_twice(server: Server, view: str) -> None:
    """Of what one publisher sends, at every member of every worker."""
    with opened(server, f"/groups/{view}/one/") as peers:
        outside(
            server,
            "from dwebsocket import group\n"
            "for number in range(2000): group('room-one').send(str(number))",
        )
        for peer in peers:
            assert [int(peer.read_message()) for _ in range(2000)] == list(range(2000))


@with_workers
def test_a_user_is_reached_in_all_workers(server: Server) -> None:
    """And no other user."""
    mia, tom = sign_in(server), sign_in(server, "tom")
    with (
        opened(server, "/groups/inbox/", mia) as hers,
        opened(server, "/groups/inbox/", tom) as his,
    ):
        assert server.get("/groups/notify/?message=for+mia", mia).status == 200
        assert {peer.read_message() for peer in hers} == {b"for mia"}
        assert server.get("/groups/notify/?message=for+tom", tom).status == 200
        assert {peer.read_message() for peer in his} == {b"for tom"}


@with_workers
def test_close_user_reaches_all_workers(server: Server) -> None:
    """With its code; other users stay."""
    mia, tom = sign_in(server), sign_in(server, "tom")
    with (
        opened(server, "/groups/inbox/", mia) as hers,
        opened(server, "/groups/inbox/", tom) as his,
    ):
        assert server.get("/groups/ban/", mia).status == 200
        assert {peer.read_frame().code for peer in hers} == {BANNED}
        assert server.get("/groups/notify/?message=still+here", tom).status == 200
        assert {peer.read_message() for peer in his} == {b"still here"}


def process_by_room(peer: RawPeer) -> object:
    """Join a room, and have it say in which process it is."""
    peer.send_text(json.dumps({"id": 1, "join": "sync-banned"}))
    peer.send_text(json.dumps({"id": 2, "to": "sync-banned", "event": "pid"}))
    while True:
        said = json.loads(peer.read_message())
        if said.get("id") == 2:
            return said["ok"]


@with_workers
def test_close_user_closes_connections_with_rooms(server: Server) -> None:
    """In all workers, though they are in no group of their user."""
    mia = sign_in(server)
    with opened(server, "/live-rooms/sync/", mia, process=process_by_room) as hers:
        assert server.get("/groups/ban/", mia).status == 200
        for peer in hers:
            while (frame := peer.read_frame()).opcode != CLOSE:
                pass
            assert frame.code == BANNED


@with_workers
@pytest.mark.parametrize("change", ["logs out", "deleted", *later("password", "deactivated")])
def test_a_sign_out_reaches_all_workers(own_users: Server, change: str) -> None:
    """At once, whichever process sees it; other sessions and users stay."""
    server = own_users
    mia, again, tom = sign_in(server), sign_in(server), sign_in(server, "tom")
    with (
        opened(server, "/groups/inbox/", mia) as hers,
        opened(server, "/groups/inbox/", again) as elsewhere,
        opened(server, "/groups/inbox/", tom) as his,
    ):
        if change == "logs out":
            assert server.get("/log-out/", mia).status == 200
            closed, open_ = hers, [*elsewhere, *his]
        else:
            statement = {
                "password": "mia.set_password('another'); mia.save()",
                "deactivated": "mia.is_active = False; mia.save()",
                "deleted": "mia.delete()",
            }[change]
            outside(
                server,
                "import project.urls\n"
                "from dwebsocket.users import sign_out; sign_out.listen_in_all()\n"
                "from django.contrib.auth.models import User\n"
                f"mia = User.objects.get(username='mia')\n{statement}",
            )
            closed, open_ = [*hers, *elsewhere], his
        assert {peer.read_frame().code for peer in closed} == {SIGNED_OUT}
        for headers in (again, tom) if change == "logs out" else (tom,):
            assert server.get("/groups/notify/?message=still+here", headers).status == 200
        for peer in open_:
            assert peer.read_message() == b"still here"


@with_workers
def test_a_session_in_a_file_ends_in_all_workers(
    kind: Kind, database: Path, tmp_path: Path
) -> None:
    """A session that is deleted closes its WebSockets at once; other sessions of the user stay."""
    engine = "django.contrib.sessions.backends.file"
    settings = {
        "SESSION_ENGINE": engine,
        "SESSION_FILE_PATH": str(tmp_path),
        "WEBSOCKET_AUTH_RECHECK": 0,
    }
    options = WORKERS[kind.family]
    with Server(kind, options=options, settings=settings, database=database) as server:
        mia, again = sign_in(server), sign_in(server)
        key = mia["Cookie"].partition("=")[2]
        with (
            opened(server, "/groups/inbox/", mia) as hers,
            opened(server, "/groups/inbox/", again) as elsewhere,
        ):
            outside(
                server,
                "import project.urls\n"
                "from django.core.signals import request_started; request_started.send(None)\n"
                f"from {engine} import SessionStore\nSessionStore().delete({key!r})",
            )
            assert {peer.read_frame().code for peer in hers} == {SIGNED_OUT}
            assert server.get("/groups/notify/?message=still+here", again).status == 200
            assert {peer.read_message() for peer in elsewhere} == {b"still here"}


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN], ids=str)
def test_impossible_names_are_not_found(server: Server) -> None:
    """A name that is too long, from the address; the log says why."""
    with pytest.raises(AssertionError, match="404"):
        RawPeer.open(server, f"/groups/room/{'x' * 300}/")


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN], ids=str)
def test_a_folder_that_cannot_be_used_refuses_members(kind: Kind, database: Path) -> None:
    """With 503; connections without groups open."""
    settings = {"WEBSOCKET_GROUPS": {"default": {"RUNTIME_DIR": os.devnull}}}
    with Server(kind, settings=settings, database=database) as server:
        with pytest.raises(AssertionError, match="503"):
            RawPeer.open(server, "/groups/room/one/")
        with RawPeer.open(server, "/groups/inbox/") as peer:
            assert peer.read_message()
