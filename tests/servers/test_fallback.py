"""The fallback on every server: server-sent events, and POST."""

from __future__ import annotations

import json
import os
import re
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import django
import pytest

from support.event_stream import Stream, head_of, request_bytes
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
    "server", [RUNSERVER, GUNICORN_SYNC, GUNICORN_GTHREAD, UVICORN], indirect=True, ids=str
)

ASGI_TLS = [
    Kind(
        f"{server}-tls",
        "asgi",
        ("{python}", "-m", server, *options.split(), "{module}.asgi:application"),
        tls=True,
    )
    for server, options in (
        ("uvicorn", "--log-level warning --port {port} --ssl-certfile {certificate}"),
        (
            "hypercorn",
            "--log-level warning -w 0 -b 127.0.0.1:{port} --certfile {certificate} "
            "--keyfile {certificate}",
        ),
    )
]

# Servers whose bodies without a length are not read. nginx in front tells the length.
_NEEDS_LENGTH = re.compile(r"runserver|uwsgi(?!-nginx)|eventlet-|cheroot")

ECHOES = ["echo/", "async-echo/", "handler/x/", "async-handler/x/"]


def get(server: Server, target: str, headers: dict[str, str] | None = None) -> Response:
    """Make a GET that no stream answers."""
    with RawPeer(server.address) as peer:
        peer.send(request_bytes(target, server.host, headers))
        return head_of(peer)


def seen(server: Server, name: str) -> list[object]:
    """Wait until a view has noted its end, and return that."""
    return eventually(lambda: server.get(f"/fallback/seen/{name}/").json()["seen"])


@everywhere
class TestMessages:
    """Messages go there and back as through a WebSocket."""

    @pytest.mark.parametrize("view", ECHOES)
    def test_they_are_echoed_in_order(self, server: Server, view: str) -> None:
        """Text of any kind and bytes, in one POST or several."""
        with Stream.open(server, f"/fallback/{view}") as stream:
            texts = ["hello", "", "grüße 日本語 🙂", "a\nb\n", "\n", "a\r\nb", "\0", " x", ": y"]
            stream.send(*texts)
            assert [stream.message() for _ in texts] == texts
            stream.send(b"\xff\x00\r\n")
            stream.send("last")
            assert [stream.message(), stream.message()] == [b"\xff\x00\r\n", "last"]
            stream.close(4001, "bye")
            assert stream.close_event()[0] == 4001

    def test_large_ones(self, server: Server) -> None:
        """Larger than any buffer of the server."""
        with Stream.open(server, "/fallback/echo/") as stream:
            text = "é\n" * 100_000
            stream.send(text)
            assert stream.message() == text

    def test_a_post_without_a_length(self, server: Server) -> None:
        """It is taken where the server tells its end; else the client is told what is missing."""
        with Stream.open(server, "/fallback/echo/") as stream:
            response = stream.post("hi", n=1, chunked=True)
            if _NEEDS_LENGTH.match(str(server.kind)):
                assert response.status == 411
                assert b"Content-Length" in response.body
                stream.send("hi")
            else:
                assert response.status == 204, response
            assert stream.message() == "hi"

    def test_the_server_goes_on(self, server: Server) -> None:
        """A stream that waits occupies no worker."""
        streams = [Stream.open(server, "/fallback/echo/") for _ in range(10)]
        assert server.get("/fallback/echo/").body == b"a page"
        for number, stream in enumerate(streams):
            stream.send(f"to {number}")
        assert [stream.message() for stream in streams] == [f"to {n}" for n in range(10)]
        for stream in streams:
            stream.peer.close()

    def test_a_client_that_goes_is_noticed(self, server: Server) -> None:
        """The view sees 1006, as with a WebSocket that is lost."""
        name = uuid.uuid4().hex
        with Stream.open(server, f"/fallback/reports/{name}/") as stream:
            stream.send("hi")
        assert seen(server, name)[0] == 1006

    def test_the_end_of_a_view(self, server: Server) -> None:
        """The close code and reason are the last event."""
        with Stream.open(server, "/fallback/closes/") as stream:
            assert stream.message() == "first"
            assert stream.close_event() == (4000, 'a "reason"\n')


@on_some
class TestOpening:
    """The response to the GET."""

    def test_the_head(self, server: Server) -> None:
        """It forbids proxies to keep the events, and has the headers of middleware."""
        with Stream.open(server, "/fallback/echo/") as stream:
            header = stream.response.header
            assert header("Content-Type") == "text/event-stream; charset=utf-8"
            assert header("Cache-Control") == "no-cache, no-transform"
            assert header("X-Accel-Buffering") == "no"
            assert header("Content-Length") is None
            if server.kind.family != "asgi":
                # The engine's own response: it suits HTTP/1.0.
                assert header("Connection") == "close"
                assert header("Transfer-Encoding") is None
            assert "csrftoken" in stream.cookies
            assert len(stream.id) > 30

    def test_http_1_0_will_do(self, server: Server) -> None:
        """As nginx speaks it by default."""
        with Stream.open(server, "/fallback/echo/", http="HTTP/1.0") as stream:
            stream.send("hi")
            assert stream.message() == "hi"

    def test_the_view_sees_the_transport_only(self, server: Server) -> None:
        """All else is as with a WebSocket."""
        with Stream.open(server, "/fallback/facts/") as stream:
            assert json.loads(stream.message()) == {
                "transport": "sse",
                "is_websocket": True,
                "path": "/fallback/facts/",
                "subprotocol": None,
            }
            assert stream.close_event() == (1000, "")

    def test_subprotocols(self, server: Server) -> None:
        """The URL offers them."""
        offers = [("protocol", "chat"), ("protocol", "chat.v2")]
        with Stream.open(server, "/fallback/async-echo/", query=offers) as stream:
            assert stream.subprotocol == "chat.v2"
        twice = get(server, "/fallback/async-echo/?transport=sse&protocol=a&protocol=a")
        assert twice.status == 400
        many = "".join(f"&protocol=v{number}" for number in range(129))
        assert get(server, f"/fallback/async-echo/?transport=sse{many}").status == 400

    def test_too_many_headers(self, server: Server) -> None:
        """The request stays in memory. Some servers refuse so many themselves, with a page."""
        many = {f"X-{number}": "" for number in range(128)}
        assert get(server, "/fallback/echo/?transport=sse", many).status == 431

    def test_a_plain_get_is_the_page(self, server: Server) -> None:
        """Also in a view that has no fallback, whatever the parameter."""
        assert server.get("/fallback/echo/").body == b"a page"
        assert server.get("/fallback/without/?transport=sse").body == b"a page with sse"
        assert server.get("/fallback/facts/").status == 400

    @pytest.mark.parametrize("transport", ["", "websocket", "carrier-pigeon"])
    def test_another_transport_is_refused(self, server: Server, transport: str) -> None:
        """With a message that names those that there are."""
        response = server.get(f"/fallback/echo/?transport={transport}")
        assert response.status == 400
        assert b"sse" in response.body

    @pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
    def test_another_method_is_refused(self, server: Server, method: str) -> None:
        """PUT and DELETE by Django, for want of a token."""
        response = server.get("/fallback/echo/?transport=sse", method=method)
        assert response.status == (400 if method == "HEAD" else 403)

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Origin": "https://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Referer": "https://evil.example/page"}, 403),
            ({"Origin": "https://friend.example"}, 200),
            ({"Accept": "text/html,*/*;q=0.8"}, 403),
            ({"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": "none"}, 200),
            ({"User-Agent": "Mozilla/5.0"}, 403),
            ({"User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "none"}, 200),
            ({"User-Agent": "curl/8.5.0"}, 200),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({"Sec-Fetch-Site": "cross-site", "Referer": "https://friend.example/"}, 200),
            ({}, 200),
        ],
        ids=str,
    )
    def test_origins(self, server: Server, headers: dict[str, str], status: int) -> None:
        """As for a WebSocket; browsers send no Origin with a GET to the page's own site."""
        assert get(server, "/fallback/echo/?transport=sse", headers).status == status

    @pytest.mark.parametrize(("answer", "status"), [("pay", 402), ("reject", 403)])
    def test_a_view_that_decides_may_refuse(self, server: Server, answer: str, status: int) -> None:
        """By any response."""
        assert get(server, f"/fallback/decides/{answer}/?transport=sse").status == status

    def test_a_view_that_decides_may_accept(self, server: Server) -> None:
        """And may set cookies, to which the connection is bound."""
        with Stream.open(server, "/fallback/decides/accept/") as stream:
            assert "sessionid" in stream.cookies
            stream.send("hi")
            assert stream.message() == "hi"


@on_some
class TestPosts:
    """What a POST may bring, and who."""

    def test_a_repeated_post_is_taken_once(self, server: Server) -> None:
        """And answered as before."""
        with Stream.open(server, "/fallback/echo/") as stream:
            for number in (1, 1, 2, 1, 2, 3):
                assert stream.post(f"{number}", n=number).status == 204
            assert [stream.message() for _ in range(3)] == ["1", "2", "3"]

    def test_a_gap_is_refused(self, server: Server) -> None:
        """Messages would be lost."""
        with Stream.open(server, "/fallback/echo/") as stream:
            assert stream.post("late", n=2).status == 400

    @pytest.mark.parametrize("name", ["", "x", "A" * 43, "é", None])
    def test_an_unknown_id_is_gone(self, server: Server, name: str | None) -> None:
        """An id of another form, too."""
        with Stream.open(server, "/fallback/echo/") as stream:
            changed = stream.id[:-4] + ("AAAA" if stream.id[-4:] != "AAAA" else "BBBB")
            assert stream.post("hi", name=changed if name is None else name).status == 410

    def test_a_connection_that_has_ended_is_gone(self, server: Server) -> None:
        """Also for a POST that is repeated."""
        with Stream.open(server, "/fallback/echo/") as stream:
            stream.send("hi")
            stream.close()
            assert stream.close_event()[0] == 1000
            assert stream.post("hi", n=1).status == 410

    def test_the_id_is_of_one_path(self, server: Server) -> None:
        """It opens no way around what guards another view."""
        with Stream.open(server, "/fallback/echo/") as stream:
            assert stream.post("hi", path="/fallback/async-echo/").status == 410

    def test_another_session_is_refused(self, server: Server) -> None:
        """Whoever has the id needs the session as well."""
        mia, ben = sign_in(server, "mia"), sign_in(server, "ben")
        with Stream.open(server, "/fallback/echo/", headers=mia) as stream:
            token = f"; csrftoken={stream.cookies['csrftoken']}"
            for cookie in (ben["Cookie"] + token, token[2:]):
                assert stream.post("hi", n=1, headers={"Cookie": cookie}).status == 410
            stream.send("from mia")
            assert stream.message() == "from mia"
        with Stream.open(server, "/fallback/echo/") as stream:
            token = f"; csrftoken={stream.cookies['csrftoken']}"
            assert stream.post("hi", headers={"Cookie": ben["Cookie"] + token}).status == 410

    @pytest.mark.parametrize(
        "headers",
        [
            {"X-CSRFToken": None},
            {"X-CSRFToken": "x" * 32},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": None, "Referer": "https://evil.example/"},
        ],
        ids=str,
    )
    def test_csrf(self, server: Server, headers: dict[str, str | None]) -> None:
        """Django's token is needed, and the page's origin is that of a WebSocket."""
        with Stream.open(server, "/fallback/echo/") as stream:
            assert stream.post("forged", n=1, headers=headers).status == 403
            stream.send("own")
            assert stream.message() == "own"

    def test_a_message_that_is_too_large(self, server: Server) -> None:
        """Ends the connection with 1009, as through a WebSocket."""
        with Stream.open(server, "/fallback/at-most-1000/") as stream:
            stream.send("x" * 1000, "\0" * 1000)
            assert [stream.message(), stream.message()] == ["1000", "1000"]
            assert stream.post("x" * 1001).status == 413
            assert stream.close_event()[0] == 1009

    def test_a_body_that_is_too_large(self, server: Server) -> None:
        """It is not read."""
        with Stream.open(server, "/fallback/at-most-1000/") as stream:
            assert stream.post_body(b"x" * 200_000).status == 413

    def test_a_body_without_a_length_that_is_too_large(self, server: Server) -> None:
        """It is read up to the limit alone."""
        with Stream.open(server, "/fallback/at-most-1000/") as stream:
            response = stream.post_body(b"x" * 200_000, chunked=True)
            assert response.status == (411 if server.kind is RUNSERVER else 413)
            stream.send("hi")
            assert stream.message() == "2"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"\xff",
            b"[" * 100_000,
            [],
            {},
            {"n": 1},
            {"n": 0, "messages": []},
            {"n": "1", "messages": []},
            {"n": 1.5, "messages": []},
            {"n": True, "messages": []},
            {"n": 1, "messages": {}},
            {"n": 1, "messages": ["text"]},
            {"n": 1, "messages": [{"text": 5}]},
            {"n": 1, "messages": [{"binary": "*"}]},
            {"n": 1, "messages": [{"close": 1000}]},
            {"n": 1, "messages": [{"close": {"code": 1005}}]},
            {"n": 1, "messages": [{"close": {"code": 1000, "reason": "x" * 124}}]},
        ],
        ids=repr,
    )
    def test_a_body_of_another_form(self, server: Server, body: object) -> None:
        """It is refused as a whole, and does no harm."""
        with Stream.open(server, "/fallback/echo/") as stream:
            assert stream.post_body(body).status == 400
            stream.send("hi")
            assert stream.message() == "hi"

    def test_half_an_emoji(self, server: Server) -> None:
        """It is replaced, as browsers do for a WebSocket; what comes with it is taken."""
        body = b'{"n": 1, "messages": [{"text": "a"}, {"text": "\\ud800b"}, {"text": "c"}]}'
        with Stream.open(server, "/fallback/echo/") as stream:
            assert stream.post_body(body).status == 204
            assert [stream.message() for _ in range(3)] == ["a", "\ufffdb", "c"]

    def test_a_view_that_is_behind(self, server: Server) -> None:
        """The client is told to come again; nothing grows without end."""
        with Stream.open(server, "/fallback/never-read/") as stream:
            assert stream.message() == "ready"
            for number in range(1, 20):
                response = stream.post("x" * 1000, n=number)
                if response.status == 503:
                    break
            assert (response.status, response.header("Retry-After")) == (503, "1")
            assert number < 10


@on_some
class TestLife:
    """How a connection lives and ends."""

    def test_signs_of_life(self, server: Server) -> None:
        """Comments come in the place of pings."""
        with Stream.open(server, "/fallback/lively/") as stream:
            before = stream.comments
            eventually(lambda: stream.fill() and stream.text.count(b":\n\n") > 2)
            stream.send("enough")
            assert stream.close_event()[0] == 1000
            assert stream.comments > before

    def test_a_client_that_closes(self, server: Server) -> None:
        """The view sees its code and reason, and what it sent before."""
        name = uuid.uuid4().hex
        with Stream.open(server, f"/fallback/reports/{name}/") as stream:
            stream.close(4321, "gründe")
            assert stream.close_event()[0] == 4321
        assert seen(server, name) == [4321, "gründe"]

    def test_an_exception_of_the_view(self, server: Server) -> None:
        """The client gets 1011."""
        with Stream.open(server, "/fallback/raises/") as stream:
            stream.send("go")
            assert stream.close_event()[0] == 1011

    def test_a_client_that_does_not_read(self, server: Server) -> None:
        """The view is told, and nothing grows without end."""
        with Stream.open(server, "/fallback/pours/") as stream:
            eventually(lambda: stream.post("x", n=1).status == 410)

    def test_what_follows_the_request_is_ignored(self, server: Server) -> None:
        """The response ends with the connection: a second request has no answer."""
        if server.kind.family == "asgi":
            pytest.skip("the server reads its connections itself")
        early = request_bytes("/status/", server.host) * 3
        with Stream.open(server, "/fallback/echo/", early=early) as stream:
            stream.peer.send(b"\x81\x82\0\0\0\0hi" * 1000)
            stream.send("hi")
            assert stream.message() == "hi"

    def test_handlers_see_the_end(self, server: Server) -> None:
        """As with a WebSocket."""
        name = uuid.uuid4().hex
        with Stream.open(server, f"/fallback/handler/{name}/") as stream:
            stream.close(4000, "over")
        assert seen(server, name) == [4000, "over"]

    def test_groups_have_members_of_both_kinds(self, server: Server) -> None:
        """Each gets the messages in the form of its connection."""
        room = f"/fallback/room/{uuid.uuid4().hex}/"
        with Stream.open(server, room) as stream, RawPeer.open(server, room) as peer:
            peer.send_text("from a\nWebSocket")
            assert stream.message() == "from a\nWebSocket"
            assert peer.read_message() == b"from a\nWebSocket"
            stream.send("from a\r\nstream", "binary \xff")
            assert [stream.message(), stream.message()] == ["from a\r\nstream", "binary ÿ".encode()]
            assert [peer.read_message(), peer.read_message()] == [
                b"from a\r\nstream",
                "binary ÿ".encode(),
            ]


@pytest.mark.parametrize("kind", [GUNICORN_SYNC, *ASGI], ids=str)
def test_a_process_that_ends_tells_its_streams(
    own_server: Callable[..., Server], kind: Kind
) -> None:
    """As it tells its WebSockets."""
    server = own_server(kind)
    with Stream.open(server, "/fallback/echo/") as stream:
        server.send_signal(server.end_signal)
        assert stream.close_event()[0] == 1001


@pytest.mark.skipif(django.VERSION < (5, 0), reason="Django cancels views from 5.0 on")
@pytest.mark.parametrize("server", ASGI, indirect=True, ids=str)
@pytest.mark.parametrize("query", ["", "?transport=sse", "?transport=polling"])
def test_a_page_of_the_project_stays_one(server: Server, query: str) -> None:
    """Its view gets the body, and is cancelled when its client goes, with any query."""
    name = f"{server.kind}{query.rpartition('=')[2]}"
    path = f"/fallback/page-that-waits/{name}/{query}"
    with RawPeer(server.address) as peer:
        peer.send(request_bytes(path, server.host, {"Content-Length": "4"}) + b"body")
        assert seen(server, name) == "body"
    eventually(lambda: seen(server, name) == "cancelled", what="cancelled")


@pytest.mark.parametrize("kind", ASGI_TLS, ids=str)
@pytest.mark.parametrize("client", [Stream, Poller])
def test_an_asgi_server_that_encrypts(
    own_server: Callable[..., Server], kind: Kind, client: type[Stream]
) -> None:
    """It keeps its connections in any case."""
    with client.open(own_server(kind), "/fallback/echo/") as stream:
        stream.send("hi")
        assert stream.message() == "hi"
        stream.close(4000, "over")
        assert stream.close_event()[0] == 4000


def test_a_csrf_middleware_of_the_project(own_server: Callable[..., Server]) -> None:
    """A subclass of Django's sets its cookie with the first response, too."""
    theirs = "project.middleware.OwnCsrfViewMiddleware"
    server = own_server(GUNICORN_SYNC, settings={"MIDDLEWARE": [theirs]})
    with Stream.open(server, "/fallback/echo/") as stream:
        assert stream.post("forged", n=1, headers={"X-CSRFToken": None}).status == 403
        stream.send("hi")
        assert stream.message() == "hi"


def test_without_csrf_middleware(own_server: Callable[..., Server]) -> None:
    """There is no cookie, and a POST needs none."""
    server = own_server(GUNICORN_SYNC, settings={"MIDDLEWARE": []})
    with Stream.open(server, "/fallback/echo/") as stream:
        assert stream.cookies == {}
        stream.send("hi")
        assert stream.message() == "hi"


def test_every_view_may_have_it(own_server: Callable[..., Server]) -> None:
    """By the setting."""
    server = own_server(GUNICORN_SYNC, settings={"WEBSOCKET_FALLBACK": True})
    with Stream.open(server, "/echo-str/") as stream:
        stream.send("hi")
        assert stream.message() == "hi"


class TestOtherProcesses:
    """A POST may come to another process than the stream."""

    @pytest.fixture(params=["dwebsocket.groups.local"])
    def server(self, request: pytest.FixtureRequest, own_server: Callable[..., Server]) -> Server:
        """One with several workers."""
        return own_server(
            GUNICORN_SYNC,
            options=("--workers", "3"),
            settings={"WEBSOCKET_GROUPS": {"default": {"BACKEND": request.param, "TIMEOUT": 20}}},
        )

    def test_posts_find_their_connection(self, server: Server) -> None:
        """In order, each once, with an answer of the process that has it."""
        with Stream.open(server, "/fallback/at-most-1000/") as stream:
            for number in range(1, 41):
                assert stream.post("x" * number, b"\xff", n=number).status == 204
                assert stream.post("again", n=number).status == 204
            lengths = [stream.message() for _ in range(80)]
            assert lengths == [length for n in range(1, 41) for length in (f"{n}", "1")]
            assert stream.post("x" * 1001, n=41).status == 413
            assert stream.close_event()[0] == 1009
            for _ in range(10):
                assert stream.post("late", n=42).status == 410

    def test_a_process_that_is_gone(self, server: Server) -> None:
        """Its connections are gone as well."""
        with Stream.open(server, "/fallback/echo/") as stream:
            before = server.workers()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            assert stream.event()[0] == "end"
            eventually(lambda: len({*server.workers()} - {*before}) == 3)
            assert eventually(lambda: stream.post("hi", n=1).status in (410, 503))
            eventually(lambda: stream.post("hi", n=1).status == 410)

    def test_many_at_once(self, server: Server) -> None:
        """Streams of all workers, posts to all workers."""
        streams = [Stream.open(server, "/fallback/echo/") for _ in range(20)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda stream: [stream.send(f"{n}") for n in range(10)], streams))
        for stream in streams:
            assert [stream.message() for _ in range(10)] == [f"{n}" for n in range(10)]
            stream.peer.close()


def test_posts_within_a_transaction(own_server: Callable[..., Server]) -> None:
    """What a transaction would hold back goes at once."""
    settings = {"PROJECT_ATOMIC_REQUESTS": True}
    server = own_server(GUNICORN_SYNC, options=("--workers", "3"), settings=settings)
    with Stream.open(server, "/fallback/echo/") as stream:
        for number in range(10):
            stream.send(f"{number}")
        assert [stream.message() for _ in range(10)] == [f"{n}" for n in range(10)]


def test_the_process_backend_has_one_process(own_server: Callable[..., Server]) -> None:
    """So others answer that there is no such connection."""
    groups = {"default": {"BACKEND": "dwebsocket.groups.process"}}
    server = own_server(
        GUNICORN_SYNC, options=("--workers", "2"), settings={"WEBSOCKET_GROUPS": groups}
    )
    with Stream.open(server, "/fallback/echo/") as stream:
        found: set[int] = set()
        with ThreadPoolExecutor(4) as pool:
            while found != {204, 410}:
                found |= set(pool.map(lambda _: stream.post("hi", n=1).status, range(8)))
                assert found <= {204, 410}
