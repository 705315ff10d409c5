"""Long polling, the fallback where even server-sent events are kept back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.event_stream import request_bytes
from support.polling import Poller
from support.raw_peer import RawPeer
from support.server import (
    ASGI,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    RUNSERVER,
    SERVERS,
    UVICORN,
    Kind,
    Server,
)
from support.users import sign_in
from support.waiting import eventually
from support.wsgi_kinds import WSGI_SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.raw_peer import Response

everywhere = pytest.mark.parametrize(
    "server", [*SERVERS, *WSGI_SERVERS, *ASGI], indirect=True, ids=str
)
on_some = pytest.mark.parametrize(
    "server", [RUNSERVER, GUNICORN_SYNC, UVICORN], indirect=True, ids=str
)

ECHOES = ["echo/", "async-echo/", "handler/x/", "async-handler/x/"]


def rss(pid: int) -> int:
    """Give the memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_unfinished(peer: RawPeer, size: int) -> bool:
    """Whether less than so many bytes came before the end."""
    with peer:
        try:
            return len(peer.read_response().body) < size
        except (OSError, AssertionError):
            return True


def get(server: Server, target: str, headers: dict[str, str] | None = None) -> Response:
    """Make a GET."""
    with RawPeer(server.address) as peer:
        peer.send(request_bytes(target, server.host, headers))
        return peer.read_response()


@everywhere
class TestMessages:
    """Messages go there and back as through a WebSocket."""

    @pytest.mark.parametrize("view", ECHOES)
    def test_they_are_echoed_in_order(self, server: Server, view: str) -> None:
        """Text of any kind and bytes, in one POST or several."""
        poller = Poller.open(server, f"/fallback/{view}")
        texts = ["hello", "", "grüße 日本語 🙂", "a\nb\n", "\n", "a\r\nb", "\0", " x", '"\\']
        poller.send(*texts)
        assert [poller.message() for _ in texts] == texts
        poller.send(b"\xff\x00\r\n")
        poller.send("last")
        assert [poller.message(), poller.message()] == [b"\xff\x00\r\n", "last"]
        poller.close(4001, "bye")
        assert poller.close_event()[0] == 4001

    def test_large_ones(self, server: Server) -> None:
        """Larger than any buffer of the server."""
        poller = Poller.open(server, "/fallback/echo/")
        text = "é\n" * 100_000
        poller.send(text)
        assert poller.message() == text

    def test_the_server_goes_on(self, server: Server) -> None:
        """Polls that wait occupy no worker."""
        pollers = [Poller.open(server, "/fallback/echo/") for _ in range(10)]
        held = [poller.begin_poll() for poller in pollers]
        assert server.get("/fallback/echo/").body == b"a page"
        for number, poller in enumerate(pollers):
            poller.send(f"to {number}")
        for number, (poller, peer) in enumerate(zip(pollers, held, strict=True)):
            poller.take(peer.read_response())
            assert poller.message() == f"to {number}"
            peer.close()

    def test_the_end_of_a_view(self, server: Server) -> None:
        """The close code and reason are the last event."""
        poller = Poller.open(server, "/fallback/closes/")
        assert poller.message() == "first"
        assert poller.close_event() == (4000, 'a "reason"\n')


@on_some
class TestPolls:
    """What a poll gets, and when."""

    def test_the_head(self, server: Server) -> None:
        """Whole responses, which no cache keeps, with the headers of middleware."""
        poller = Poller.open(server, "/fallback/echo/")
        assert "csrftoken" in poller.cookies
        assert len(poller.id) > 30
        poller.send("hi")
        for response in (poller.response, poller.poll()):
            header = response.header
            assert header("Content-Type") == "application/json"
            assert "no-store" in (header("Cache-Control") or "")
            assert header("Content-Length") == str(len(response.body))
            assert header("Transfer-Encoding") is None

    def test_the_view_sees_the_transport_only(self, server: Server) -> None:
        """All else is as with a WebSocket."""
        poller = Poller.open(server, "/fallback/facts/")
        assert json.loads(poller.message()) == {
            "transport": "polling",
            "is_websocket": True,
            "path": "/fallback/facts/",
            "subprotocol": None,
        }
        assert poller.close_event() == (1000, "")

    def test_events_stay_until_they_are_acknowledged(self, server: Server) -> None:
        """A response that is lost loses nothing, and one that came is not repeated."""
        poller = Poller.open(server, "/fallback/echo/")
        poller.send("1", "2")
        eventually(lambda: poller.poll().json()["n"] == 2)
        lost = [poller.poll().json() for _ in range(3)]
        assert lost == [{"n": 2, "events": [{"text": "1"}, {"text": "2"}]}] * 3
        assert poller.poll(1).json() == {"n": 2, "events": [{"text": "2"}]}
        poller.ack = 2
        poller.send("3")
        assert poller.message() == "3"

    @pytest.mark.parametrize("ack", ["", "-1", "x", "1.5", "9" * 17, "٣", "1\r\nX: y", "5", 2**53])
    def test_a_wrong_acknowledgement(self, server: Server, ack: object) -> None:
        """One of the future, too. It does no harm."""
        poller = Poller.open(server, "/fallback/echo/")
        assert poller.poll(ack).status == 400
        poller.send("hi")
        assert poller.message() == "hi"

    def test_an_acknowledgement_of_the_past(self, server: Server) -> None:
        """What was acknowledged is gone; the poll that waits goes on."""
        poller = Poller.open(server, "/fallback/echo/")
        poller.send("1")
        assert poller.message() == "1"
        with poller.held_poll() as held:
            assert poller.poll(0).status == 400
            poller.send("2")
            assert held.read_response().json() == {"n": 2, "events": [{"text": "2"}]}

    def test_two_polls_at_once(self, server: Server) -> None:
        """The older one ends, with nothing."""
        poller = Poller.open(server, "/fallback/echo/")
        with poller.held_poll() as older:
            with poller.begin_poll() as newer:
                assert older.read_response().json() == {"n": 0, "events": []}
                poller.send("hi")
                assert newer.read_response().json() == {"n": 1, "events": [{"text": "hi"}]}

    def test_a_poll_that_is_given_up(self, server: Server) -> None:
        """The next one gets its events."""
        poller = Poller.open(server, "/fallback/echo/")
        with poller.held_poll():
            pass
        poller.send("hi")
        assert poller.message() == "hi"

    def test_a_poll_waits_for_a_ping_interval(self, server: Server) -> None:
        """So proxies see an answer before their time is up."""
        poller = Poller.open(server, "/fallback/lively/")
        begun = time.monotonic()
        assert poller.poll().json() == {"n": 0, "events": []}
        assert 0.2 <= time.monotonic() - begun < 10
        poller.send("enough")
        assert poller.close_event()[0] == 1000

    def test_a_client_that_goes_is_noticed(self, server: Server) -> None:
        """When it has not polled for a ping interval and timeout: 1006, as with a WebSocket."""
        name = uuid.uuid4().hex
        poller = Poller.open(server, f"/fallback/impatient/{name}/")
        seen = f"/fallback/seen/{name}/"
        assert eventually(lambda: server.get(seen).json()["seen"])[0] == 1006
        assert eventually(lambda: poller.poll(0)).status == 410

    def test_a_client_that_closes(self, server: Server) -> None:
        """The view sees its code and reason, and what it sent before."""
        name = uuid.uuid4().hex
        poller = Poller.open(server, f"/fallback/reports/{name}/")
        poller.close(4321, "gründe")
        assert poller.close_event()[0] == 4321
        seen = f"/fallback/seen/{name}/"
        assert eventually(lambda: server.get(seen).json()["seen"]) == [4321, "gründe"]

    def test_a_client_that_does_not_poll(self, server: Server) -> None:
        """The view is told, and nothing grows without end."""
        poller = Poller.open(server, "/fallback/pours/")
        eventually(lambda: poller.post("x", n=1).status == 410)

    def test_subprotocols(self, server: Server) -> None:
        """The URL offers them; none breaks the response."""
        offers = [("protocol", "chat"), ("protocol", "chat.v2")]
        poller = Poller.open(server, "/fallback/async-echo/", query=offers)
        assert poller.subprotocol == "chat.v2"
        for wrong in ("a&protocol=a", "a%0d%0aSet-Cookie:%20x=y", "%22", ""):
            target = f"/fallback/async-echo/?transport=polling&protocol={wrong}"
            assert get(server, target).status == 400

    def test_groups(self, server: Server) -> None:
        """Members of all kinds get the messages."""
        room = f"/fallback/room/{uuid.uuid4().hex}/"
        poller = Poller.open(server, room)
        with RawPeer.open(server, room) as peer:
            peer.send_text("from a\nWebSocket")
            assert poller.message() == "from a\nWebSocket"
            assert peer.read_message() == b"from a\nWebSocket"
            poller.send("hi", "binary \xff")
            assert [poller.message(), poller.message()] == ["hi", "binary ÿ".encode()]
            assert peer.read_message() == b"hi"


@pytest.mark.parametrize("server", [GUNICORN_GTHREAD, UVICORN], indirect=True, ids=str)
class TestUnread:
    """Answers that nobody reads."""

    def test_there_is_one_for_each_connection(self, server: Server) -> None:
        """The one before is given up, and the process needs no more memory for it."""
        poller = Poller.open(server, "/fallback/echo/")
        text = "x" * 8 * 1024 * 1024
        poller.send(text)
        eventually(lambda: poller.poll().json()["n"] == 1)
        before = max(map(rss, server.workers()))
        with contextlib.ExitStack() as stack:
            peers = []
            for _ in range(16):
                peers.append(stack.enter_context(poller.begin_poll()))
                # Its answer has begun: no later request overtakes it.
                assert peers[-1].sock.recv(1, socket.MSG_PEEK)
            # This one is read.
            poller.take(poller.poll())
            assert poller.message() == text
            assert all(is_unfinished(peer, len(text)) for peer in peers)
        assert max(map(rss, server.workers())) - before < 64 * 1024 * 1024
        poller.send("the connection goes on")
        assert poller.message() == "the connection goes on"


@on_some
class TestAccess:
    """Who may open, poll and post."""

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Origin": "https://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Referer": "https://evil.example/page"}, 403),
            ({"User-Agent": "Mozilla/5.0"}, 403),
            ({"Origin": "https://friend.example"}, 200),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
        ],
        ids=str,
    )
    def test_origins(self, server: Server, headers: dict[str, str], status: int) -> None:
        """As for a WebSocket, for the handshake and each poll."""
        assert get(server, "/fallback/echo/?transport=polling", headers).status == status
        poller = Poller.open(server, "/fallback/echo/")
        poller.send("hi")
        assert poller.poll(headers=headers).status == status

    def test_csrf(self, server: Server) -> None:
        """Django's token is needed for a POST."""
        poller = Poller.open(server, "/fallback/echo/")
        assert poller.post("forged", n=1, headers={"X-CSRFToken": None}).status == 403

    @pytest.mark.parametrize("name", ["", "x", "A" * 43, "é", None])
    def test_an_unknown_id_is_gone(self, server: Server, name: str | None) -> None:
        """An id of another form, too."""
        poller = Poller.open(server, "/fallback/echo/")
        changed = poller.id[:-4] + ("AAAA" if poller.id[-4:] != "AAAA" else "BBBB")
        assert poller.poll(name=changed if name is None else name).status == 410
        assert poller.poll(path="/fallback/async-echo/").status == 410

    def test_another_session_is_refused(self, server: Server) -> None:
        """Whoever has the id needs the session as well."""
        mia, ben = sign_in(server, "mia"), sign_in(server, "ben")
        poller = Poller.open(server, "/fallback/echo/", headers=mia)
        poller.send("from mia")
        for cookie in (ben["Cookie"], ""):
            assert poller.poll(headers={"Cookie": cookie}).status == 410
        assert poller.message() == "from mia"

    def test_messages_that_are_too_large(self, server: Server) -> None:
        """They end the connection, and a body that is too large is not read."""
        poller = Poller.open(server, "/fallback/at-most-1000/")
        assert poller.post_body(b"x" * 200_000).status == 413
        assert poller.post("x" * 1001, n=1).status == 413
        assert poller.close_event()[0] == 1009

    def test_a_view_may_refuse(self, server: Server) -> None:
        """By any response; one without a fallback knows no polls."""
        target = "/fallback/decides/pay/?transport=polling"
        assert get(server, target).status == 402
        poller = Poller.open(server, "/fallback/decides/accept/")
        assert "sessionid" in poller.cookies
        assert server.get("/fallback/without/?transport=polling").body == b"a page with polling"


@pytest.mark.parametrize("kind", [GUNICORN_SYNC, *ASGI], ids=str)
def test_a_process_that_ends_tells_its_clients(
    own_server: Callable[..., Server], kind: Kind
) -> None:
    """The poll that waits is answered."""
    server = own_server(kind)
    poller = Poller.open(server, "/fallback/echo/")
    with poller.held_poll() as held:
        server.send_signal(server.end_signal)
        (event,) = held.read_response().json()["events"]
        assert event["close"]["code"] == 1001


class TestOtherProcesses:
    """A poll may come to another process than its connection."""

    @pytest.fixture
    def server(self, own_server: Callable[..., Server]) -> Server:
        """One with several workers."""
        groups = {"default": {"BACKEND": "dwebsocket.groups.local", "TIMEOUT": 20}}
        options, settings = ("--workers", "3"), {"WEBSOCKET_GROUPS": groups}
        return own_server(GUNICORN_GTHREAD, options=options, settings=settings)

    def test_polls_find_their_connection(self, server: Server) -> None:
        """In order, each event once, whichever process a poll comes to."""
        poller = Poller.open(server, "/fallback/echo/")
        for number in range(40):
            with poller.begin_poll() as held:
                poller.send(f"{number}")
                poller.take(held.read_response())
        assert [poller.message() for _ in range(40)] == [str(number) for number in range(40)]
        poller.close(4000, "over")
        assert poller.close_event()[0] == 4000
        assert {poller.poll().status for _ in range(10)} == {410}

    def test_the_older_of_two_ends(self, server: Server) -> None:
        """Also where each waits in a process of its own."""
        poller = Poller.open(server, "/fallback/echo/")
        for _ in range(10):
            with poller.held_poll() as older:
                with poller.begin_poll() as newer:
                    assert older.read_response().json() == {"n": poller.ack, "events": []}
                    poller.send("hi")
                    poller.take(newer.read_response())

    def test_a_process_that_is_gone(self, server: Server) -> None:
        """Its connections are gone as well, at once for a new poll."""
        poller = Poller.open(server, "/fallback/echo/")
        before = server.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len({*server.workers()} - {*before}) == 3)
        assert eventually(lambda: _status(poller)) == 410


def _status(poller: Poller) -> int | None:
    try:
        return poller.poll().status
    except (OSError, AssertionError):
        # A worker that has gone had accepted it.
        return None
