"""Consumers of Channels, unmodified, as views on every server."""

from __future__ import annotations

import contextlib
import json
import os

import pytest

from support.clients import websocket
from support.raw_peer import BINARY, CLOSE, TEXT, Frame, RawPeer, handshake_request
from support.server import (
    ASGI,
    GEVENT_PATCHED,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_GTHREAD_TLS,
    GUNICORN_SYNC,
    RUNSERVER,
    Server,
)
from support.users import sign_in
from support.waiting import eventually
from support.wsgi_kinds import (
    CHEROOT,
    UWSGI_GEVENT,
    UWSGI_HTTP_SOCKET,
    UWSGI_ONE_THREAD,
    WAITRESS,
    WERKZEUG,
)

as_gthread = pytest.mark.extended("consumers run there as under gthread")
KINDS = (
    *(pytest.param(kind, marks=as_gthread) for kind in (RUNSERVER, GUNICORN_SYNC)),
    *(GUNICORN_GTHREAD, GUNICORN_GTHREAD_TLS),
    *(GUNICORN_GEVENT, GEVENT_PATCHED),
    *(WERKZEUG, CHEROOT, WAITRESS, UWSGI_HTTP_SOCKET, UWSGI_ONE_THREAD, UWSGI_GEVENT),
    *ASGI,
)
pytestmark = pytest.mark.parametrize("server", KINDS, indirect=True, ids=str)


@pytest.fixture
def site_settings() -> dict[str, object]:
    """The project with consumers, whose channel layer is that of one process."""
    return {
        "ROOT_URLCONF": "project.consumer_site",
        "CHANNEL_LAYERS": {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    }


def origin_of(server: Server) -> dict[str, str]:
    """Give the Origin that Channels' validator asks for."""
    return {"Origin": server.url("", "http").rstrip("/")}


def ends(server: Server, query: str) -> list[int]:
    """Give the codes that the consumers with a query have seen."""
    return server.get(f"/ends/?{query}").json()


@pytest.mark.parametrize("path", ["/Echo/", "/AsyncEcho/", "/application/"])
class TestEcho:
    """Sync and async consumers, and an application without Channels."""

    def test_messages(self, server: Server, path: str) -> None:
        """Text and bytes come back as they were."""
        with server.quiet(), RawPeer.open(server, path) as peer:
            for frame in (
                Frame(TEXT, "grüße".encode()),
                Frame(BINARY, b"plain"),
                Frame(BINARY, os.urandom(70_000)),
            ):
                peer.send_frame(frame.opcode, frame.payload)
                assert peer.read_frame() == frame
            peer.send_close(1000)
            assert peer.read_frame().code == 1000

    def test_a_mebibyte(self, server: Server, path: str) -> None:
        """A large message, whole."""
        data = os.urandom(1 << 20)
        with websocket(server, path) as client:
            client.send(data)
            assert client.recv(20) == data

    def test_the_end_is_told_once(self, server: Server, path: str) -> None:
        """Also to those whose client vanishes; nothing is left."""
        query = f"ends-of={path.strip('/')}"
        address = f"{path}?{query}"

        def talk() -> None:
            with RawPeer.open(server, address) as peer:
                peer.send_text("hi")
                assert peer.read_message() == b"hi"
                peer.send_close(4001)
                peer.read_frame()

        # The loop of async views, and what it needs, stay.
        talk()
        with server.nothing_left(), server.quiet():
            talk()
            talk()
            with RawPeer.open_many(server, address, 3) as peers:
                for peer in peers:
                    peer.vanish()
            eventually(lambda: len(ends(server, query)) >= 6)
        seen = ends(server, query)
        assert len(seen) == 6
        assert seen.count(4001) == 3


@pytest.mark.parametrize("path", ["/ws/room/lobby/", "/below/red/ws/async-room/lobby/"])
def test_room(server: Server, path: str) -> None:
    """Channels' groups, behind its router and all of its middleware."""
    with contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(RawPeer.open(server, path, headers=origin_of(server)))
            for _ in range(5)
        ]
        # Each has joined when it has heard itself.
        for number, peer in enumerate(peers):
            peer.send_text(json.dumps({"message": f"here is {number}"}))
            for other in peers:
                assert json.loads(other.read_message()) == {"message": f"here is {number}"}


def heard(peer: RawPeer, text: str) -> int:
    """Read up to a message of the room; give how many it was for."""
    while True:
        count, _, found = peer.read_message().decode().partition(": ")
        if found == text:
            return int(count)


def test_list_of_connections(server: Server) -> None:
    """Consumers that send to each other's connections, from threads."""

    def eventually_here(number: int) -> None:
        def are_here() -> bool:
            peers[0].send_text("who is here?")
            return heard(peers[0], "who is here?") == number

        eventually(are_here)

    with server.quiet(), RawPeer.open_many(server, "/Listed/", 5) as peers:
        eventually_here(5)
        for number, peer in enumerate(peers):
            peer.send_text(f"hello {number}")
            for other in peers:
                assert heard(other, f"hello {number}") == 5
        for peer in peers[3:]:
            peer.vanish()
        eventually_here(3)
        peers[0].send_text("close")
        while (frame := peers[0].read_frame()).opcode != CLOSE:
            pass
        assert frame.code == 1000


@pytest.mark.parametrize("path", ["/Facts/", "/AsyncFacts/", "/ws/facts/7/", "/ws/async-facts/"])
def test_users_and_the_orm(server: Server, path: str) -> None:
    """The session's user and the database, in both kinds of consumers."""
    headers = {**sign_in(server, "anna"), **origin_of(server)}
    with server.quiet(), RawPeer.open(server, f"{path}?a=1", headers=headers) as peer:
        facts = json.loads(peer.read_message())
    assert facts["user"] == "anna"
    if "sync" not in path.lower():
        expected = {"number": 7} if "7" in path else {}
        assert (facts["path"], facts["query"], facts["route"]) == (path, "a=1", expected)


@pytest.mark.parametrize("path", ["/Closing/", "/AsyncClosing/"])
def test_close_by_the_consumer(server: Server, path: str) -> None:
    """Code and reason arrive behind what was sent."""
    query = f"closed={path.strip('/')}"
    with server.quiet(), RawPeer.open(server, f"{path}?{query}") as peer:
        assert peer.read_message() == b"last words"
        frame = peer.read_frame()
        assert frame.code == 4007
        assert frame.reason == "the reason"
    eventually(lambda: ends(server, query) == [4007])


@pytest.mark.parametrize("path", ["/Denying/", "/AsyncDenying/"])
def test_refusal(server: Server, path: str) -> None:
    """403, from consumers as from views."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request(path, server.host))
        assert peer.read_response().status == 403


def test_denial_response(server: Server) -> None:
    """The application's own answer, where the server has it."""
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/unpaid/", server.host))
        response = peer.read_response()
    assert (response.status, response.body) == (402, b"no money")


@pytest.mark.parametrize("path", ["/ws/nothing/", "/below/red/ws/", "/ws/room/"])
def test_no_route(server: Server, path: str) -> None:
    """404, for WebSockets and for pages."""
    assert server.get(path).status == 404


@pytest.mark.parametrize("path", ["/Accepting/", "/AsyncAccepting/"])
def test_error(server: Server, path: str) -> None:
    """The client gets 1011, the log the traceback, once."""
    before = len(server.stderr())
    with RawPeer.open(server, path) as peer:
        peer.send_text("boom")
        assert peer.read_frame().code in (1011, 4011)
    eventually(lambda: "LookupError: boom" in server.stderr()[before:])
    log = server.stderr()[before:]
    assert log.count("Internal Server Error in WebSocket") == 1


def test_pages_beside_them(server: Server) -> None:
    """Workers are free while consumers wait: there are more of these than workers."""
    with RawPeer.open_many(server, "/Echo/", 12) as peers:
        assert server.get("/census/").status == 200
        for peer in peers:
            peer.send_text("hi")
            assert peer.read_message() == b"hi"
