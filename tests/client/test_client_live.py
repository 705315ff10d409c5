"""`dwebsocket.js` with real views: in Node, and in Chromium."""

from __future__ import annotations

import json
import signal
import uuid
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from websockets.sync.client import connect

from support.blocking_proxy import BlockingProxy
from support.browser import chromium
from support.js_client import JsClient
from support.pages import block, run
from support.server import GUNICORN_GTHREAD, RUNSERVER, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

URLS = {"ROOT_URLCONF": "project.client_urls"}
HISTORY = {
    "WEBSOCKET_GROUPS": {"default": {"HISTORY": {"client-*": {"size": 100, "seconds": 300}}}}
}


@pytest.fixture(scope="module")
def site(database: Path) -> Iterator[Server]:
    """The views, under gunicorn."""
    # Clients of the fallback in Node have no cookies, and so no CSRF token.
    settings = {**URLS, **HISTORY, "MIDDLEWARE": ["dwebsocket.middleware.WebSocketMiddleware"]}
    with Server(GUNICORN_GTHREAD, database=database, settings=settings) as server:
        yield server


@pytest.fixture
def client(site: Server) -> Iterator[JsClient]:
    """A client that is open."""
    with JsClient(site.url("/client/ws/"), protocols=["chat"]) as client:
        client.is_told("state", "open")
        yield client


@pytest.mark.needs("node")
@pytest.mark.xdist_group("dwebsocket.js")
class TestNode:
    """With the views of tests/project/client_views.py."""

    def test_messages(self, client: JsClient) -> None:
        """Text, JSON and bytes go and come."""
        assert client.call("facts")["protocol"] == "chat"
        for message in ("hi", {"a": [1, "ü"]}, ""):
            assert client.call("send", message) is None
        assert client.call("sendBytes", 0, 255) is None
        client.is_told("message", "hi", {"a": [1, "ü"]}, "", {"bytes": [0, 255]})

    def test_request(self, client: JsClient) -> None:
        """Each gets its own answer."""
        numbers = [client.start("request", {"number": number}) for number in range(5)]
        assert [client.result(number)["data"]["got"]["number"] for number in numbers] == [*range(5)]
        assert client.of("message") == []

    @pytest.mark.parametrize("code", [1000, 1011, 1012, 1013, 4000])
    def test_closed_and_back(self, client: JsClient, code: int) -> None:
        """It comes back after these codes, and sends what was said meanwhile."""
        client.call("send", {"close": [code, "why"]})
        client.is_told("state", "waiting")
        assert client.call("send", "meanwhile") is None
        client.is_told("message", "meanwhile")
        waiting = next(event for event in client.events if event[1] == "waiting")
        assert (waiting[2]["code"], waiting[2]["reason"]) == (code, "why")
        assert client.of("state") == ["open", "waiting", "connecting", "open"]

    @pytest.mark.parametrize("code", [4401, 1008])
    def test_closed_for_good(self, client: JsClient, code: int) -> None:
        """After these it says so and stops."""
        client.call("send", {"close": [code, "why"]})
        client.is_told("state", "closed")
        assert client.events[-1] == ["state", "closed", {"code": code, "reason": "why"}]
        assert client.call("send", "late") == "error: ClosedError"

    def test_retry_after(self, client: JsClient) -> None:
        """The view says when; `online` changes nothing about it."""
        client.call("send", {"close": [1013, "retry after 3600"]})
        client.is_told("state", "waiting")
        assert client.events[-1][2]["delay"] >= 3600_000
        client.call("online")
        assert client.call("facts")["state"] == "waiting"

    def test_close(self, client: JsClient) -> None:
        """By the client."""
        client.call("close", 4000, "done")
        client.is_told("state", "closed")
        assert client.call("send", "late") == "error: ClosedError"


@pytest.mark.needs("node")
@pytest.mark.xdist_group("dwebsocket.js")
class TestRooms:
    """With the room of tests/project/client_views.py, in Node."""

    @pytest.fixture(params=["websocket", "sse", pytest.param("polling", marks=pytest.mark.every)])
    def url(self, request: pytest.FixtureRequest, site: Server) -> Iterator[str]:
        """The view, also where no WebSocket gets through, and where responses are buffered."""
        if request.param == "websocket":
            yield site.url("/client/live/")
        else:
            with BlockingProxy(site, buffers=request.param == "polling") as proxy:
                yield proxy.url("/client/live/")

    def test_two_in_a_room(self, url: str) -> None:
        """They know of each other, get what is said, and an end."""
        name = f"client-{uuid.uuid4().hex}"
        with (
            JsClient(f"{url}?name=Anna", fallback=True) as anna,
            JsClient(f"{url}?name=Ben", fallback=True) as ben,
        ):
            anna.call("join", name)
            anna.is_told("state", "joined")
            ben.call("join", name, {"info": {"mood": "good"}})
            joined = {"mood": "good", "name": "Ben"}
            eventually(lambda: [each["info"] for each in anna.of("joined")] == [joined], 60)
            ben.is_told("state", "joined")
            assert len(ben.call("room", name)["members"]) == 2
            assert ben.call("emit", name, "say", {"text": "hi"}) == ["say", {"text": "hi"}]
            anna.is_told("message", {"text": "hi"})
            assert ben.call("emit", name, "typing", True) == {}
            anna.is_told("typing", True)
            assert ben.of("typing") == []
            assert ben.call("update", name, {"mood": "bad"}) == {}
            told = {"mood": "bad", "name": "Ben"}
            eventually(lambda: told in [each["info"] for each in anna.of("updated")], 60)
            # Away, and back.
            anna.call("emit", name, "cut", None)
            anna.is_told("state", "waiting")
            ben.call("emit", name, "say", {"text": "meanwhile"})
            anna.is_told("state", "joined", times=2)
            anna.is_told("message", {"text": "meanwhile"})
            assert anna.of("message") == [{"text": "hi"}, {"text": "meanwhile"}]
            assert anna.of("recovered")[-1]["recovered"]
            assert anna.of("left") == []
            # Thrown out.
            told_of = (each for each in anna.of("updated") if each["info"]["name"] == "Ben")
            (connection,) = next(told_of)["connections"]
            anna.call("emit", name, "evict", connection["id"])
            ben.is_told("state", "ended")
            assert ben.call("emit", name, "say", "late") == "error: evicted"
            ben.call("join", "client-closed")
            ben.is_told("state", "refused")
            assert ben.call("emit", "client-closed", "say", "x") == "error: denied"
            ben.call("join", name)
            ben.is_told("state", "joined", times=2)
            ben.call("leave", name)
            ben.is_told("state", "left")


def test_client_made_from_its_page(site: Server) -> None:
    """The one on docs/write_a_client.md: it says something, comes back, and is thrown out."""
    made = run("docs/write_a_client.md", "class Client:")
    code = block("docs/write_a_client.md", "client.events()")
    code = code.replace("ws://127.0.0.1:8000/live/", site.url("/client/live/"))
    name = f"client-{uuid.uuid4().hex}"
    code = code.replace("lobby-tea", name)
    seen: list[dict[str, Any]] = []

    class Enough(Exception):
        pass

    def see(room: str, message: dict[str, Any]) -> None:
        assert room == name
        seen.append(message)
        client = made["client"]
        if message.get("data") == '"missed"':
            client.ask(to=name, event="evict")
        elif "data" in message and len(seen) < 4:
            # The connection ends, and what another process says meanwhile is missed.
            client.ask(to=name, event="cut")
            client.socket.recv = Mock(side_effect=missing)
        if "ended" in message:
            raise Enough

    def missing(**_: Any) -> None:
        with connect(site.url("/client/live/")) as other:
            other.send(json.dumps({"id": 1, "join": name}))
            other.send(json.dumps({"id": 2, "to": name, "event": "say", "data": "missed"}))
            while json.loads(other.recv(60)).get("id") != 2:
                pass
        raise OSError("cut")

    made["print"] = see
    with pytest.raises(Enough):
        exec(compile(code, "docs/write_a_client.md", "exec"), made)
    data = [each["data"] for each in seen if "data" in each]
    assert data[:2] == ['{"text": "hi"}', '"missed"']
    joins = [each["ok"] for each in seen if "members" in str(each.get("ok"))]
    assert [each["missed"] for each in joins] == [0, 1]
    assert seen[-1]["ended"]["code"] == "evicted"
    assert made["client"].rooms == {}


@pytest.mark.needs("node")
def test_reload(own_server: Callable[..., Server]) -> None:
    """gunicorn's reload: what is said during it arrives, in order and once."""
    server = own_server(GUNICORN_GTHREAD, settings=URLS)
    with JsClient(server.url("/client/ws/")) as client:
        client.is_told("state", "open")
        server.send_signal(signal.SIGHUP)
        client.is_told("state", "waiting")
        sent = [client.start("send", f"{number}") for number in range(20)]
        assert [client.result(number) for number in sent] == [None] * 20
        client.is_told("message", "19")
        assert client.of("message") == [str(number) for number in range(20)]
    assert client.events[1][2]["code"] == 1012


@pytest.mark.needs("node")
def test_many_groups(own_server: Callable[..., Server]) -> None:
    """
    A client in 120 groups comes back, though its positions fit into no request line.

    It is told of the groups whose positions it has left out.
    """
    server = own_server(GUNICORN_GTHREAD, settings={**URLS, **HISTORY})
    with JsClient(server.url("/client/many/"), resume=True) as client:
        eventually(lambda: len(client.of("recovered")) == 120)
        assert all(told["recovered"] for told in client.of("recovered"))
        client.call("send", "end")
        client.is_told("state", "open", times=2)
        eventually(lambda: len(client.of("recovered")) == 240)
        recovered = [told["recovered"] for told in client.of("recovered")[120:]]
        assert 30 < sum(recovered) < 90
        # Those that come first are the oldest.
        assert recovered == sorted(recovered)


@pytest.fixture(scope="module")
def browser(
    database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Any]]:
    """Chromium at a page that imports the module by `{% static %}`; runs scripts there."""
    settings = {
        **URLS,
        **HISTORY,
        "DEBUG": True,
        "STATIC_URL": "/static/",
        "INSTALLED_APPS": [
            *("django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
            *("django.contrib.staticfiles", "dwebsocket"),
        ],
        "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    }
    with (
        Server(RUNSERVER, database=database, settings=settings) as server,
        chromium(tmp_path_factory.mktemp("profile")) as driver,
    ):
        driver.set_script_timeout(60)

        def run(script: str) -> Any:
            if script == "reload":
                driver.get(server.url("/client/page/", "http"))
                return eventually(lambda: run("return window.socket?.state") == "open", 60)
            return driver.execute_script(script)

        yield run


@pytest.mark.needs("chromium")
@pytest.mark.xdist_group("dwebsocket.js")
class TestChromium:
    """On a page of Django."""

    @pytest.fixture
    def page(self, browser: Callable[[str], Any]) -> Callable[[str], Any]:
        """The page, loaded anew."""
        browser("reload")
        return browser

    def test_messages(self, page: Callable[[str], Any]) -> None:
        """Text, JSON, bytes, requests and their answers."""
        assert page("return socket.send({a: 1}).then(() => socket.transport)") == "websocket"
        page("socket.send(new Uint8Array([1, 255]))")
        eventually(lambda: page("return messages.length") == 2)
        assert page("return [messages[0], [...messages[1]]]") == [{"a": 1}, [1, 255]]
        assert page("return socket.request('now?')")["data"] == {"got": "now?"}

    @pytest.mark.parametrize("code", [1012, 1013, 4000])
    def test_comes_back(self, page: Callable[[str], Any], code: int) -> None:
        """What waits is sent."""
        page(f"Math.random = () => 0.02; socket.send({{close: [{code}, '']}})")
        eventually(lambda: page("return states.includes('waiting')"))
        assert page("return socket.send('meanwhile')") is None
        eventually(lambda: page("return messages.includes('meanwhile')"))

    @pytest.mark.parametrize("code", [4401, 1008])
    def test_closed_for_good(self, page: Callable[[str], Any], code: int) -> None:
        """The page is told."""
        page(f"socket.send({{close: [{code}, '']}})")
        eventually(lambda: page("return states.at(-1) === 'closed'"))
        assert page("return socket.send('late').catch((error) => error.name)") == "ClosedError"

    @pytest.mark.parametrize(
        "event",
        [
            "dispatchEvent(new Event('online'))",
            "document.dispatchEvent(new Event('visibilitychange'))",
        ],
    )
    def test_at_once(self, page: Callable[[str], Any], event: str) -> None:
        """A wait of days ends when the page is online or visible."""
        page("Math.random = () => 1e5; socket.send({close: [1013, '']})")
        eventually(lambda: page("return socket.state === 'waiting'"))
        page(event)
        eventually(lambda: page("return socket.state === 'open'"))

    def test_rooms(self, page: Callable[[str], Any]) -> None:
        """Two connections in a room; what is missed comes behind a break."""
        script = """
        return import("/static/dwebsocket/dwebsocket.js").then(({ connect }) => {
          Math.random = () => 0.02;
          window.said = [];
          window.rooms = ["Anna", "Ben"].map((name) =>
            connect(`/client/live/?name=${name}`).join("client-page"));
          rooms[0].on("message", (data) => said.push(data));
        });
        """
        page(script)
        names = "return rooms.map((room) => room.members.map(({info}) => info.name).sort().join())"
        eventually(lambda: page(names) == ["Anna,Ben"] * 2)
        page("window.states = []; rooms[0].on('state', (state) => states.push(state))")
        page("rooms[0].emit('cut').catch(() => {})")
        eventually(lambda: page("return states.includes('joining')"))
        assert page("return rooms[1].emit('say', {a: 1})") == ["say", {"a": 1}]
        eventually(lambda: page("return said") == [{"a": 1}])

    def test_handler_that_throws(self, page: Callable[[str], Any]) -> None:
        """Its error is reported, and the other handlers are called."""
        page("socket.on('message', fails)")
        page("socket.on('message', () => messages.push('behind'))")
        page("socket.send('hi')")
        eventually(lambda: page("return messages.length") == 3)
        assert page("return messages") == ["hi", "behind", "mine"]

    def test_code_that_no_page_may_send(self, page: Callable[[str], Any]) -> None:
        """It raises, and the connection stays."""
        script = "try { socket.close(1001) } catch (error) { return error.name }"
        assert page(script) == "InvalidAccessError"
        assert page("return socket.state") == "open"
