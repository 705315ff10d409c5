"""`dwebsocket.js` in Chromium with real views, where no WebSocket gets through."""

from __future__ import annotations

import json
import signal
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from support.blocking_proxy import BlockingProxy
from support.browser import chromium
from support.raw_peer import RawPeer
from support.selection import later
from support.server import GUNICORN_SYNC, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome

SETTINGS = {
    "ROOT_URLCONF": "project.client_urls",
    "DEBUG": True,
    "INSTALLED_APPS": [
        *("django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
        "dwebsocket",
    ],
    "WEBSOCKET_GROUPS": {"default": {"HISTORY": {"client-*": {"size": 1000, "seconds": 300}}}},
    "WEBSOCKET_PING_INTERVAL": 5,
}

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.set_script_timeout(60)
        yield driver


@pytest.fixture(params=["sse", *later("polling")])
def transport(request: pytest.FixtureRequest) -> str:
    """What is left where `Upgrade` is dropped, and where responses are buffered as well."""
    return request.param


@pytest.fixture
def server(own_server: Callable[..., Server]) -> Server:
    """Two workers, each of which serves one request at a time."""
    return own_server(GUNICORN_SYNC, options=("--workers", "2"), settings=SETTINGS)


@pytest.fixture
def proxy(server: Server, transport: str) -> Iterator[BlockingProxy]:
    """What stands between the browser and the server."""
    with BlockingProxy(server, buffers=transport == "polling") as proxy:
        yield proxy


class Page:
    """A page whose module is connected to a room."""

    def __init__(self, driver: Chrome, proxy: BlockingProxy, room: str) -> None:
        self.run: Callable[[str], Any] = driver.execute_script
        driver.get(proxy.url(f"/client/room-page/{room}/"))
        eventually(lambda: self.run("return window.socket?.state") == "open", 60)

    def has(self, expected: list[Any]) -> None:
        """Wait for messages; these and no others have come, in this order."""
        eventually(lambda: self.run("return messages.length") >= len(expected), 60)
        assert self.run("return messages") == expected


def publish(server: Server, room: str, *messages: str) -> None:
    """Send to the group through a WebSocket, past the proxy."""
    with RawPeer.open(server, f"/client/room/{room}/") as peer:
        for message in messages:
            peer.send_text(message)
            while json.loads(peer.read_message()).get("data") != message:
                pass
        peer.send_close()
        peer.read_to_eof()


def test_conversation(driver: Chrome, server: Server, proxy: BlockingProxy, transport: str) -> None:
    """Messages both ways, of the group, and those missed while the network was away."""
    room = uuid.uuid4().hex
    page = Page(driver, proxy, room)
    assert page.run("return socket.transport") == transport
    said = [f"{number}" for number in range(30)]
    page.run(f"return Promise.all({said}.map((text) => socket.send(text)))")
    page.has(said)
    said += [f"from outside {number}" for number in range(20)]
    publish(server, room, *said[30:])
    page.has(said)
    # Away.
    proxy.is_down = True
    proxy.cut()
    eventually(lambda: page.run("return socket.state") != "open", 60)
    page.run("window.sent = socket.send('meanwhile').then(() => true)")
    missed = [f"missed {number}" for number in range(50)]
    publish(server, room, *missed)
    proxy.is_down = False
    assert page.run("return sent") is True
    said += [*missed, "meanwhile"]
    page.has(said)
    assert page.run("return recoveries.every(({recovered}) => recovered)")


def test_frozen_page(driver: Chrome, server: Server, proxy: BlockingProxy, transport: str) -> None:
    """What is published meanwhile comes when the browser lets it run again, and what follows."""
    room = uuid.uuid4().hex
    page = Page(driver, proxy, room)
    page.run("return socket.send('before')")
    page.has(said := ["before"])
    page.run(
        "window.life = []; for (const name of ['freeze', 'resume'])"
        " document.addEventListener(name, () => life.push(name));"
        "window.ends = []; socket.on('state', (state, why) => why && ends.push(why.reason))"
    )
    for _ in range(2):
        driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
        said += [uuid.uuid4().hex for _ in range(50)]
        publish(server, room, *said[-50:])
        driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
        said.append(uuid.uuid4().hex)
        publish(server, room, said[-1])
        page.has(said)
    assert page.run("return life") == ["freeze", "resume"] * 2
    # Else a message would come after half a minute.
    assert "silence" not in page.run("return ends")
    page.run("return socket.send('after')")
    page.has([*said, "after"])
    assert page.run("return socket.transport") == transport
    assert page.run("return recoveries.every(({recovered}) => recovered)")


def test_reload(driver: Chrome, server: Server, proxy: BlockingProxy, transport: str) -> None:
    """New workers take over: nothing is lost or doubled, in either direction."""
    room = uuid.uuid4().hex
    page = Page(driver, proxy, room)
    before = server.workers()
    page.run("window.states = []; socket.on('state', (state) => states.push(state))")
    server.send_signal(signal.SIGHUP)
    eventually(lambda: page.run("return states.includes('waiting')"))
    said = [f"{number}" for number in range(20)]
    page.run(f"return Promise.all({said}.map((text) => socket.send(text)))")
    page.has(said)
    eventually(lambda: not {*server.workers()} & {*before}, 60)
    eventually(lambda: page.run("return socket.state") == "open", 60)
    assert page.run("return socket.transport") in ("sse", "polling")
