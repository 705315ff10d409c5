"""`dwebsocket.js` where packets vanish and nothing is closed, and the heartbeat of servers."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from support.browser import chromium
from support.event_stream import Stream
from support.js_client import JsClient
from support.polling import Poller
from support.raw_peer import TEXT, RawPeer
from support.relay import Relay
from support.selection import later
from support.server import ASGI, GUNICORN_GTHREAD, RUNSERVER, UVICORN, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.xdist_group("dwebsocket.js silence")

SETTINGS = {
    "ROOT_URLCONF": "project.client_urls",
    "DEBUG": True,
    "STATIC_URL": "/static/",
    "INSTALLED_APPS": [
        *("django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
        *("django.contrib.staticfiles", "dwebsocket"),
    ],
    "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
}
GRANIAN = next(kind for kind in ASGI if kind.name == "granian")
# How long it may take on a busy machine.
LATE_S = 8.0


@pytest.fixture(scope="module")
def site(database: Path) -> Iterator[Server]:
    """The views."""
    with Server(RUNSERVER, database=database, settings=SETTINGS) as server:
        yield server


@pytest.fixture
def relay(site: Server) -> Iterator[Relay]:
    """The relays in front of them."""
    with Relay(site.address[1]) as relay:
        yield relay


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.set_script_timeout(60)
        yield driver


@pytest.mark.needs("node")
class TestNode:
    """With WebSockets of `ws`."""

    @pytest.fixture
    def client(self, relay: Relay) -> Iterator[JsClient]:
        """A client that is open."""
        with JsClient(f"ws://127.0.0.1:{relay.port}/client/ws/") as client:
            client.is_told("state", "open")
            assert client.call("request", "here?")
            yield client

    def test_dead_connection_is_noticed_within_30_seconds(
        self, relay: Relay, client: JsClient
    ) -> None:
        """Messages from the time of a late beat on arrive over the next connection, once."""
        relay.swallow()
        silent_since = time.monotonic()
        time.sleep(23)  # the beat would have come after 20
        late = [client.start("send", f"late {number}") for number in range(5)]
        client.is_told("state", "waiting")
        assert time.monotonic() - silent_since < 30 + LATE_S
        assert (
            next(event for event in client.events if event[1] == "waiting")[2]["reason"]
            == "silence"
        )
        client.is_told("state", "open", times=2)
        assert [client.result(number) for number in late] == [None] * 5
        client.is_told("message", "late 4")
        assert client.of("message") == [f"late {number}" for number in range(5)]

    def test_dead_connection_is_noticed_when_the_page_is_online(
        self, relay: Relay, client: JsClient
    ) -> None:
        """Within seconds; what is said from then on arrives."""
        relay.swallow()
        client.call("online")
        online_since = time.monotonic()
        sent = [client.start("send", str(number)) for number in range(5)]
        client.is_told("state", "open", times=2)
        assert time.monotonic() - online_since < 10
        assert [client.result(number) for number in sent] == [None] * 5
        client.is_told("message", "4")
        assert client.of("message") == [str(number) for number in range(5)]
        assert client.of("state") == ["open", "connecting", "open"]

    def test_live_connection_is_kept(self, relay: Relay) -> None:
        """Beats alone keep it, and none of them is a message."""
        with JsClient(f"ws://127.0.0.1:{relay.port}/client/ws/", beat=10) as client:
            client.is_told("state", "open")
            time.sleep(17)  # without a beat it would be over
            assert client.events == [["state", "open", None]]
            assert client.call("request", "still here?")


@pytest.mark.needs("node")
class TestNodesOwnWebSocket:
    """The one of Node 20 and 22 tells of a failed handshake by an error alone."""

    ENV: ClassVar = {"OWN_WEBSOCKET": "1", "NODE_OPTIONS": "--experimental-websocket --no-warnings"}

    @pytest.mark.parametrize("path", ["/client/nothing/", "/client/ws/"])
    def test_failed_attempt_is_over_at_once(self, site: Server, path: str) -> None:
        """It is refused, or nobody listens; no attempt lasts until its limit of 10 seconds."""
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        url = site.url(path) if "nothing" in path else f"ws://127.0.0.1:{port}{path}"
        with JsClient(url, env=self.ENV) as client:
            client.is_told("state", "waiting")
            assert client.events[0][2]["reason"] != "timeout"

    def test_address_that_is_not_there_is_given_up(self, site: Server) -> None:
        """After three refused handshakes the page is asked for, and is a 404."""
        with JsClient(site.url("/client/nothing/"), env=self.ENV) as client:
            client.is_told("state", "closed")
            assert client.events[-1][2] == {"code": 1006, "reason": "HTTP 404", "status": 404}

    def test_messages(self, site: Server) -> None:
        """It works as those of browsers do."""
        with JsClient(site.url("/client/ws/"), env=self.ENV) as client:
            client.is_told("state", "open")
            assert client.call("send", "") is None
            assert client.call("sendBytes", 0, 255) is None
            client.is_told("message", "", {"bytes": [0, 255]})

    def test_rejection_that_nobody_awaits_ends_no_process(self, site: Server) -> None:
        """Nor does what follows on the end of a connection."""
        with JsClient(site.url("/client/ws/"), env=self.ENV) as client:
            client.is_told("state", "open")
            client.call("close")
            client.call("forget", "late")
            assert client.call("facts")["state"] == "closed"
            assert client._process.poll() is None

    def test_handler_that_throws_ends_no_process(self, site: Server) -> None:
        """Its error is printed, and the others are called."""
        with JsClient(site.url("/client/ws/"), env=self.ENV) as client:
            client.is_told("state", "open")
            client.call("fails")
            client.call("send", "hi")
            client.call("send", "more")
            client.is_told("message", "hi", "more")


@pytest.mark.needs("chromium")
class TestChromium:
    """On a page of Django."""

    @pytest.fixture
    def page(self, driver: Chrome, relay: Relay) -> Callable[[str], Any]:
        """A page that has answers from its view."""
        driver.get(f"http://127.0.0.1:{relay.port}/client/page/")
        eventually(lambda: driver.execute_script("return window.socket?.state") == "open", 60)
        assert driver.execute_script("return socket.request('here?')")["data"] == {"got": "here?"}
        return driver.execute_script

    @pytest.mark.parametrize("event", ["", "online"])
    def test_dead_connection_is_noticed(
        self, relay: Relay, page: Callable[[str], Any], event: str
    ) -> None:
        """Within 30 seconds, or 10 after `online`; nothing that waits is lost or repeated."""
        relay.swallow()
        since = time.monotonic()
        if event:
            page("dispatchEvent(new Event('online'))")
        else:
            time.sleep(23)
        page("for (let n = 0; n < 5; n++) socket.send(`${n}`)")
        eventually(
            lambda: page("return states.filter((state) => state === 'open').length") == 2, 60
        )
        assert time.monotonic() - since < (10 if event else 30 + LATE_S)
        eventually(lambda: page("return messages.length") == 5)
        assert page("return messages") == [str(number) for number in range(5)]


@pytest.mark.parametrize(
    "kind", [GUNICORN_GTHREAD, GRANIAN, *later(UVICORN)], ids=lambda kind: kind.name
)
def test_each_kind_of_server_beats(kind: Any, own_server: Callable[..., Server]) -> None:
    """Whether the engine has the socket or the server keeps it; who does not ask gets nothing."""
    server = own_server(kind, settings={"ROOT_URLCONF": "project.client_urls"})
    with (
        RawPeer.open(server, "/client/ws/?beat=10") as asks,
        RawPeer.open(server, "/client/ws/") as does_not,
    ):
        for _ in range(2):
            frame = asks.read_frame()
            assert (frame.opcode, frame.payload) == (TEXT, b"")
        for peer in (asks, does_not):
            peer.send_text("hi")
            frame = peer.read_frame()
            assert (frame.opcode, frame.payload) == (TEXT, b"hi")


@pytest.mark.parametrize("client", [Stream, Poller], ids=lambda client: client.transport)
@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, *later(UVICORN)], ids=lambda kind: kind.name)
def test_fallback_beats(kind: Any, client: type[Stream], own_server: Callable[..., Server]) -> None:
    """As an event with an empty text, by both transports."""
    history = {"default": {"HISTORY": {"client-*": {"size": 10, "seconds": 300}}}}
    settings = {"ROOT_URLCONF": "project.client_urls", "WEBSOCKET_GROUPS": history}
    server = own_server(kind, settings=settings)
    with client.open(server, "/client/room/a/", query=[("beat", "10")]) as fallback:
        assert "recovered" in fallback.event()[1]
        assert [fallback.event()[1] for _ in range(2)] == ["", ""]
        fallback.post(" ")
        assert json.loads(fallback.event()[1])["data"] == " "
