"""`dwebsocket.js` with real views: in Node, and in Chromium."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from support.browser import chromium
from support.js_client import JsClient
from support.server import GUNICORN_GTHREAD, RUNSERVER, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

URLS = {"ROOT_URLCONF": "project.client_urls"}


@pytest.fixture(scope="module")
def site(database: Path) -> Iterator[Server]:
    """The views, under gunicorn."""
    with Server(GUNICORN_GTHREAD, database=database, settings=URLS) as server:
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
    history = {"default": {"HISTORY": {"client-*": {"size": 10, "seconds": 300}}}}
    server = own_server(GUNICORN_GTHREAD, settings={**URLS, "WEBSOCKET_GROUPS": history})
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
