"""
`dwebsocket.js` and the wire of resuming, presence and the fallback, in Node and Chromium.

The server is `stand_in.py`, which speaks that wire and can break it; it is not the package's own.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from stand_in import GROUP, StandIn

from support.browser import chromium
from support.js_client import JsClient
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.xdist_group("dwebsocket.js")


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """A server that keeps all messages."""
    with StandIn() as server:
        yield server


@pytest.fixture
def connect(stand_in: StandIn) -> Iterator[Callable[..., JsClient]]:
    """Start clients; the first one is open on return."""
    clients: list[JsClient] = []

    def start(**options: Any) -> JsClient:
        client = JsClient(f"{stand_in.url}/ws/", resume=True, **options)
        clients.append(client)
        client.__enter__()
        client.is_told("state", "open")
        return client

    yield start
    for client in clients:
        client.__exit__()


def knows_its_position(client: JsClient) -> None:
    """Wait for the first position: without one a client cannot ask for what it has missed."""
    eventually(lambda: client.of("recovered"), what="the position")


def query(stand_in: StandIn, name: str) -> list[str]:
    """Give the values of a parameter with which the latest connection came."""
    return [value for each, value in stand_in.opened[-1][1] if each == name]


@pytest.mark.needs("node")
class TestResuming:
    """Over WebSockets."""

    def test_nothing_is_lost_or_repeated(
        self, stand_in: StandIn, connect: Callable[..., JsClient]
    ) -> None:
        """However often the connection breaks while messages are published."""
        client = connect()
        knows_its_position(client)
        for number in range(200):
            stand_in.publish(str(number))
            if number % 20 == 10:
                stand_in.cut()
        client.is_told("message", "199")
        assert client.of("message") == [str(number) for number in range(200)]
        assert all(told["recovered"] for told in client.of("recovered"))

    def test_position_is_in_the_url(
        self, stand_in: StandIn, connect: Callable[..., JsClient]
    ) -> None:
        """The first time that of the page, afterwards that of the last message."""
        stand_in.publish("a", "b", "c")
        client = connect(positions={GROUP: "e-1-1"})
        client.is_told("message", "c")
        assert client.of("message") == ["b", "c"]
        stand_in.publish(b"\x00\xff")
        client.is_told("message", {"bytes": [0, 255]})
        assert client.events[-1][2] == {"group": GROUP, "position": "e-1-4"}
        stand_in.cut()
        client.is_told("state", "open", times=2)
        # It notes a connection behind its answer.
        eventually(lambda: query(stand_in, "since") == [f"{GROUP}:e-1-4"])
        assert client.call("facts")["positions"] == {GROUP: "e-1-4"}

    def test_former_connection_is_in_the_url(
        self, stand_in: StandIn, connect: Callable[..., JsClient]
    ) -> None:
        """With the id that its summary told."""
        client = connect(former=True)
        knows_its_position(client)
        assert query(stand_in, "former") == [""]
        former = [*stand_in.connections]
        stand_in.cut()
        client.is_told("state", "open", times=2)
        eventually(lambda: query(stand_in, "former") == former)

    @pytest.mark.parametrize("lost", ["too many", "all"])
    def test_what_cannot_be_recovered(
        self, stand_in: StandIn, connect: Callable[..., JsClient], lost: str
    ) -> None:
        """The client is told, and goes on from there."""
        client = connect()
        stand_in.publish("first")
        client.is_told("message", "first")
        if lost == "all":
            stand_in.begin_epoch("e-2")
        else:
            stand_in.offset += 1
        stand_in.cut()
        client.is_told("recovered", {"group": GROUP, "recovered": False, "missed": 0})
        stand_in.publish("next")
        client.is_told("message", "next")
        assert client.of("message") == ["first", "next"]

    def test_presence(self, stand_in: StandIn, connect: Callable[..., JsClient]) -> None:
        """Single members and lists of them."""
        client = connect()
        stand_in.say({"group": GROUP, "joined": {"key": "1"}})
        stand_in.say({"group": GROUP, "joined": [{"key": "2"}, {"key": "3"}]})
        stand_in.say({"group": GROUP, "left": {"key": "1"}})
        client.is_told("left", {"key": "1"})
        assert client.of("joined") == [{"key": "1"}, {"key": "2"}, {"key": "3"}]
        assert client.of("message") == []


@pytest.mark.needs("node")
class TestFallback:
    """Where WebSockets are blocked."""

    @pytest.fixture(params=["sse", "polling"])
    def client(
        self, request: pytest.FixtureRequest, stand_in: StandIn, connect: Callable[..., JsClient]
    ) -> JsClient:
        """A client that has fallen back."""
        stand_in.websockets, stand_in.buffers = False, request.param == "polling"
        # No stream opens then: waiting 5 seconds for it proves no more than waiting 0.3.
        env = {"SSE_PATIENCE_MS": "300" if stand_in.buffers else "60000"}
        client = connect(env=env, fallback=True, protocols=["chat"])
        facts = client.call("facts")
        assert (facts["transport"], facts["protocol"]) == (request.param, "chat")
        return client

    def test_messages(self, stand_in: StandIn, client: JsClient) -> None:
        """Go and come as over a WebSocket."""
        sent = [client.start("send", each) for each in ("hi", {"a": "ü\r\n"}, "x" * 100_000)]
        sent.append(client.start("sendBytes", 0, 255))
        assert [client.result(number) for number in sent] == [None] * 4
        assert [message for _, message in stand_in.received] == [
            *("hi", '{"a":"ü\\r\\n"}', "x" * 100_000, b"\x00\xff"),
        ]
        stand_in.publish("a\nb", "", "ü" * 100_000, b"\x00\xff")
        client.is_told("message", "a\nb", "", "ü" * 100_000, {"bytes": [0, 255]})
        assert client.call("request", "now?")["data"] == {"got": "now?"}

    def test_resuming(self, stand_in: StandIn, client: JsClient) -> None:
        """A broken connection loses nothing."""
        knows_its_position(client)
        for number in range(30):
            stand_in.publish(str(number))
            if number % 10 == 5:
                stand_in.cut()
        client.is_told("message", "29")
        assert client.of("message") == [str(number) for number in range(30)]

    def test_lost_answers(self, stand_in: StandIn, client: JsClient) -> None:
        """A POST that is repeated is applied once."""
        stand_in.lost_answers = 3
        sent = [client.start("send", str(number)) for number in range(10)]
        assert [client.result(number) for number in sent] == [None] * 10
        assert [message for _, message in stand_in.received] == [str(n) for n in range(10)]
        assert stand_in.lost_answers == 0

    @pytest.mark.parametrize("code", [4401, 1008])
    def test_closed_for_good(self, stand_in: StandIn, client: JsClient, code: int) -> None:
        """By these codes of the server."""
        stand_in.close(code, "why")
        client.is_told("state", "closed")
        assert client.events[-1][2] == {"code": code, "reason": "why"}

    def test_refused(self, stand_in: StandIn, client: JsClient) -> None:
        """403 for a POST is the end."""
        stand_in.post_status = 403
        assert client.call("send", "hi") == "error: RefusedError"
        client.is_told("state", "closed")

    def test_websockets_work_again(self, stand_in: StandIn, client: JsClient) -> None:
        """On `online` it changes over; nothing is lost or repeated in either direction."""
        stand_in.publish("before")
        client.is_told("message", "before")
        sent = [client.start("send", str(number)) for number in range(10)]
        stand_in.websockets = True
        client.call("online")
        client.is_told("state", "open", times=2)
        assert client.call("facts")["transport"] == "websocket"
        sent += [client.start("send", str(number)) for number in range(10, 20)]
        stand_in.publish("after")
        client.is_told("message", "after")
        assert [client.result(number) for number in sent] == [None] * 20
        eventually(lambda: len(stand_in.received) == 20)
        assert [message for _, message in stand_in.received] == [str(n) for n in range(20)]
        assert client.of("message") == ["before", "after"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for the tests of this module."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.set_script_timeout(60)
        yield driver


PAGE = """\
<!doctype html><title>A page</title><meta name="referrer" content="no-referrer">
<script type="module">
  import { connect } from "/static/dwebsocket/dwebsocket.js";
  Math.random = () => 0.02;
  const wait = setTimeout;
  window.setTimeout = (call, ms, ...values) => wait(call, ms === 5000 ? PATIENCE : ms, ...values);
  window.messages = [];
  window.socket = connect("/ws/", { resume: true, fallback: true });
  socket.on("message", (message) => messages.push(message));
</script>
"""


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("transport", ["websocket", "sse", "polling"])
def test_in_chromium(stand_in: StandIn, browser: Chrome, transport: str) -> None:
    """
    Messages both ways and a broken connection, by each transport.

    POSTs have the CSRF token. Over HTTP a page tells its origin, whatever policy it has.
    """
    stand_in.websockets = transport == "websocket"
    stand_in.buffers = transport == "polling"
    stand_in.pages["/page.html"] = PAGE.replace("PATIENCE", "300" if stand_in.buffers else "60000")

    def run(script: str) -> Any:
        return browser.execute_script(script)

    browser.get(f"{stand_in.url}/page.html")
    eventually(lambda: run("return window.socket?.state === 'open'"))
    assert run("return socket.transport") == transport
    assert run("return socket.send('hi').then(() => socket.request({now: true}))")["data"] == {
        "got": {"now": True}
    }
    run("return socket.send(new Uint8Array([0, 255]))")
    eventually(lambda: len(stand_in.received) == 3)
    assert stand_in.received[-1] == (transport, b"\x00\xff")
    for number in range(30):
        stand_in.publish(str(number))
        if number % 10 == 5:
            stand_in.cut()
    eventually(lambda: run("return messages.at(-1) === '29'"))
    assert run("return messages") == [str(number) for number in range(30)]
    assert all(headers["X-CSRFToken"] == "the-token" for headers in stand_in.posts)
    assert all(headers["Origin"] == stand_in.url for headers in stand_in.posts)
    if transport != "websocket":
        assert {*stand_in.referers} == {f"{stand_in.url}/"}
    assert len(stand_in.posts) == (0 if transport == "websocket" else 3)


def test_the_stand_in_applies_a_post_once(stand_in: StandIn) -> None:
    """Else the tests above would prove nothing."""
    opened = urllib.request.urlopen(f"{stand_in.url}/ws/?transport=polling").read().decode()
    url = f"{stand_in.url}/ws/?transport=polling&id={json.loads(opened)['id']}"
    binary = base64.b64encode(b"a").decode()
    body = f'{{"n": 1, "messages": [{{"text": "hi"}}, {{"binary": "{binary}"}}]}}'.encode()
    for _ in range(2):
        with urllib.request.urlopen(urllib.request.Request(url, body)) as response:
            assert response.status == 204
    assert stand_in.received == [("polling", "hi"), ("polling", b"a")]
