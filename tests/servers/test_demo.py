"""The chat demo with several workers: whichever of them serves a browser, it sees all others."""

from __future__ import annotations

import contextlib
import http.cookiejar
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.keys import Keys
from websockets.exceptions import ConnectionClosed

from support.browser import chromium
from support.clients import websocket
from support.server import GUNICORN_GTHREAD, ROOT, TESTS, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome
    from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.extended("runs the examples")

DEMO = ROOT / "examples" / "chat"
ARTIFACTS = TESTS / "artifacts"

# Says numbers in a room, as the demo does, from a process that is no server.
COUNT = """
import time
from chat.models import Room
from django.utils import timezone
room = Room.objects.get(slug={slug!r})
for number in range({most}):
    said = {{"key": f"count-{{number}}", "author": "Shell", "text": str(number)}}
    room.group.send_json({{**said, "at": timezone.now()}})
    time.sleep(0.02)
"""


def manage(demo: Server, *arguments: str) -> subprocess.Popen[str]:
    """Start a management command of the demo beside its server."""
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.Popen(command, cwd=DEMO, env=demo.env, text=True)


def shell(demo: Server, code: str) -> None:
    """Run code in `manage.py shell`."""
    assert manage(demo, "shell", "-c", code).wait(60) == 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo as `make demo WORKERS=4` runs it, with a database of its own."""
    server = Server(
        GUNICORN_GTHREAD,
        options=("--workers", "4", "--threads", "4"),
        cwd=DEMO,
        module="demo",
        probe="/",
        env={"CHAT_DB": str(tmp_path_factory.mktemp("demo") / "chat.sqlite3")},
    )
    assert manage(server, "migrate", "--verbosity", "0").wait(60) == 0
    with server:
        yield server


def cookies(demo: Server, room: str, name: str) -> str:
    """Take a name by the form of a room, and give the cookies of that browser."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar)
    )
    address = demo.url(room, "http")
    opener.open(address, timeout=20).close()
    (token,) = (each.value for each in jar if each.name == "csrftoken")
    form = urllib.parse.urlencode({"name": name, "csrfmiddlewaretoken": token})
    with opener.open(address, form.encode(), timeout=20) as page:
        assert f'<b id="own-name">{name}</b>' in page.read().decode()
    return "; ".join(f"{each.name}={each.value}" for each in jar)


class Person:
    """Somebody in a room, with what has come."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        # Others may come before.
        first = self.sees(lambda event: "here" in event)
        self.worker: int = first["worker"]
        self.here = {member["info"]["name"] for member in first["here"]}
        self._ids = itertools.count(1)

    def say(self, text: str) -> None:
        """Say something, and wait for the receipt."""
        number = next(self._ids)
        message = {"id": number, "data": {"key": f"{id(self)}-{number}", "text": text}}
        self.client.send(json.dumps(message))
        assert self.sees(lambda event: event.get("id") == number)["data"] == "said"

    def sees(self, expected: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait for an event; give it."""
        while True:
            event = dict(json.loads(self.client.recv(20)))
            if expected(event):
                return event

    def hears(self, text: str) -> str:
        """Wait for what somebody says; give the name."""
        event = self.sees(lambda event: text in event.get("data", ""))
        message = json.loads(event["data"])
        assert message["text"] == text
        return str(message["author"])

    def meets(self, name: str, how: str = "joined") -> None:
        """Wait for somebody who joins, or leaves."""
        self.sees(lambda event: name in str(event.get(how)))


@contextlib.contextmanager
def two_people(demo: Server, room: str) -> Iterator[tuple[Person, Person]]:
    """Ada and Bert enter a room on two workers; Ada first."""
    eventually(lambda: len(demo.workers()) == 4, what="four workers")
    ada, bert = ({"Cookie": cookies(demo, room, name)} for name in ("Ada", "Bert"))
    with websocket(demo, room, additional_headers=ada) as client, contextlib.ExitStack() as others:
        one = Person(client)
        # One worker may get dozens of connections before another has its second.
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            other = Person(others.enter_context(websocket(demo, room, additional_headers=bert)))
            if other.worker != one.worker:
                break
            other.client.close()
        assert other.worker != one.worker
        yield one, other


def test_two_workers_are_one_chat(demo: Server) -> None:
    """Names, typing, messages and leaving reach the other worker's people."""
    room = "/room/reading-room/"
    with two_people(demo, room) as (ada, bert):
        if "Ada" not in bert.here:
            bert.meets("Ada")
        ada.meets("Bert")
        ada.client.send('{"typing": true}')
        bert.sees(lambda event: event == {"typing": "Ada"})
        ada.say("hello from another process")
        assert bert.hears("hello from another process") == "Ada"
        bert.client.close()
        ada.meets("Bert", "left")
        assert "hello from another process" in demo.get(room).body.decode()


@pytest.mark.parametrize(
    "message",
    ["no JSON", "[" * 10_000, "42", '{"id": 1, "data": {"text": 1}}', '{"typing": true}'],
)
def test_what_is_not_understood(demo: Server, message: str) -> None:
    """Also what only those with a name may send: the connection ends with 1008, for good."""
    with websocket(demo, "/room/workshop/") as client:
        client.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            list(client)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "not understood")


def test_text_that_no_page_could_show(demo: Server) -> None:
    """Half a character, by JSON's escapes, is left out; markup stays text."""
    room = "/room/workshop/"
    headers = {"Cookie": cookies(demo, room, "Eve")}
    with websocket(demo, room, additional_headers=headers) as client:
        Person(client).say("odd \ud800<script>alert(1)</script>")
    page = demo.get(room)
    assert page.status == 200
    assert "odd &lt;script&gt;alert(1)&lt;/script&gt;" in page.body.decode()


def test_push_from_a_shell(demo: Server) -> None:
    """The shell is a process without any connection."""
    with websocket(demo, "/shell/") as client:
        shell(demo, 'from dwebsocket import group; group("shell").send("from a shell")')
        assert client.recv(20) == "from a shell"


def test_a_killed_worker_takes_no_other_one_along(demo: Server) -> None:
    """Its people are disconnected; the others go on, and the next worker joins in."""
    room = "/room/night-shift/"
    with two_people(demo, room) as (ada, bert):
        os.kill(ada.worker, signal.SIGKILL)
        bert.meets("Ada", "left")
        eventually(lambda: len(demo.workers()) == 4 and ada.worker not in demo.workers())
        headers = {"Cookie": cookies(demo, room, "Cleo")}
        with websocket(demo, room, additional_headers=headers) as client:
            Person(client).say("back")
            assert bert.hears("back") == "Cleo"


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chrome, Chrome]]:
    """Two browsers, wide enough for the list of rooms."""
    folder = tmp_path_factory.mktemp("browsers")
    with chromium(folder / "one") as one, chromium(folder / "two") as other:
        for browser in (one, other):
            browser.set_window_size(1180, 720)
        yield one, other


def text(browser: Chrome, identity: str) -> str:
    """Give the text of an element."""
    return str(browser.execute_script(f"return document.getElementById({identity!r}).innerText"))


def said(browser: Chrome) -> list[str]:
    """Give all messages on the page, in order."""
    script = "return [...document.querySelectorAll('#messages .text')].map((p) => p.textContent)"
    return list(browser.execute_script(script))


def people(browser: Chrome) -> list[str]:
    """Give the names in the list of who is here."""
    script = "return [...document.querySelectorAll('.person')].map((name) => name.textContent)"
    return list(browser.execute_script(script))


def enter(demo: Server, browser: Chrome, room: str, name: str) -> None:
    """Open a room, and take a name unless the browser has it."""
    browser.get(demo.url(room, "http"))
    field = browser.find_element("id", "name")
    if field.get_attribute("value") != name:
        if not field.is_displayed():
            browser.find_element("id", "rename").click()
        field.clear()
        field.send_keys(name, Keys.ENTER)
    eventually(lambda: text(browser, "state") == "Live", what="connected")
    eventually(lambda: name in people(browser), what=f"{name} is there")


def say(browser: Chrome, message: str) -> None:
    """Type a message, and Enter."""
    browser.find_element("id", "message").send_keys(message, Keys.ENTER)


@pytest.mark.needs("chromium")
@pytest.mark.xdist_group("demo")
class TestBrowsers:
    """What people see."""

    @pytest.mark.every("the parts of it are tested one by one")
    def test_two_workers(self, demo: Server, browsers: tuple[Chrome, Chrome]) -> None:
        """Names, typing, messages, what is unread elsewhere, and who has gone."""
        ada, bert = browsers
        room = "/room/kitchen-table/"
        for browser in browsers:
            # Forgets what other tests have made it say: a reload refuses connections for a moment.
            browser.get_log("browser")
        enter(demo, ada, room, "Ada")
        enter(demo, bert, room, "Bert")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if text(ada, "worker") != text(bert, "worker"):
                break
            enter(demo, bert, room, "Bert")
        assert text(ada, "worker") != text(bert, "worker")
        assert text(ada, "worker").startswith("Served by process ")
        for browser in browsers:
            eventually(lambda b=browser: people(b) == ["Ada", "Bert"], what="both are there")

        bert.execute_script(
            "const wait = setTimeout; window.setTimeout = (call, ms, ...values) =>"
            " wait(call, ms === 4000 ? 60000 : ms, ...values);"
        )
        ada.find_element("id", "message").send_keys("Hello")
        eventually(lambda: text(bert, "typing") == "Ada is typing", what="typing")
        say(ada, " from the other worker")
        eventually(lambda: said(bert)[-1:] == ["Hello from the other worker"])
        assert text(bert, "typing") == ""
        say(bert, "I can see you")
        eventually(lambda: said(ada)[-1:] == ["I can see you"])

        ada.get(demo.url("/room/workshop/", "http"))
        badge = 'a[data-room="kitchen-table"] [data-unread]'
        eventually(lambda: text(ada, "clock") != "--:--:--", what="the pulse")
        assert not ada.find_element("css selector", badge).is_displayed()
        say(bert, "Are you still here?")
        eventually(lambda: ada.find_element("css selector", badge).text == "1 new")
        # Though the browser may keep Ada's page, for its Back button.
        eventually(lambda: people(bert) == ["Bert"], what="Ada has left")
        ada.back()
        eventually(lambda: people(bert) == ["Ada", "Bert"], what="Ada is back")
        eventually(lambda: said(ada)[-1:] == ["Are you still here?"], what="what Ada has missed")

        bert.get(demo.url("/shell/", "http"))
        eventually(lambda: text(bert, "state") == "Live")
        shell(demo, 'from dwebsocket import group; group("shell").send("from a shell")')
        eventually(lambda: text(bert, "lines") == "from a shell")
        for browser in browsers:
            assert browser.get_log("browser") == []

    @pytest.mark.every("a reload that loses nothing shows it, too")
    def test_history_is_there_after_a_reload(
        self, demo: Server, browsers: tuple[Chrome, Chrome]
    ) -> None:
        """Whichever worker makes the page, and for people who were not there."""
        ada, bert = browsers
        room = "/room/reading-room/"
        enter(demo, ada, room, "Ada")
        for number in range(3):
            say(ada, f"page {number}")
        eventually(lambda: said(ada)[-1:] == ["page 2"])
        before = said(ada)
        for _ in range(4):
            ada.refresh()
            assert said(ada) == before
        bert.get(demo.url(room, "http"))
        assert said(bert) == before

    @pytest.mark.parametrize(
        ("switch", "transport"),
        [
            ("on", "websocket"),
            pytest.param("off", "sse", marks=pytest.mark.every("as test_client_fallback.py")),
        ],
        ids=["websocket", "http"],
    )
    def test_reload_of_the_server_loses_nothing(
        self, demo: Server, browsers: tuple[Chrome, Chrome], switch: str, transport: str
    ) -> None:
        """
        What others and oneself say during `kill -HUP` arrives, once and in order.

        With WebSockets, and where the network blocks them.
        """
        ada, _ = browsers
        slug, most = f"hup-{switch}", 150
        shell(demo, f"from chat.models import Room; Room.objects.create(name='HUP', slug={slug!r})")
        enter(demo, ada, f"/room/{slug}/?websocket={switch}", "Ada")
        eventually(lambda: text(ada, "state") == "Live")
        state = ada.find_element("id", "state")
        assert state.get_attribute("data-transport") == transport
        eventually(lambda: len(demo.workers()) == 4, what="four workers")
        old = set(demo.workers())

        process = manage(demo, "shell", "-c", COUNT.format(slug=slug, most=most))
        eventually(lambda: said(ada), what="the first number")
        demo.send_signal(signal.SIGHUP)
        own = [f"own {number}" for number in range(20)]
        for message in own:
            say(ada, message)
        assert process.wait(60) == 0
        eventually(lambda: len(said(ada)) >= most + len(own), what="all messages")
        eventually(lambda: not old & set(demo.workers()), what="new workers")
        eventually(lambda: text(ada, "state") == "Live")
        heard = said(ada)
        assert [each for each in heard if each.isdigit()] == [str(each) for each in range(most)]
        assert sorted(each for each in heard if not each.isdigit()) == sorted(own)
        assert people(ada) == ["Ada"]
        # A page that is made now has the same.
        ada.get(demo.url(f"/room/{slug}/?websocket=on", "http"))
        assert said(ada) == heard

    @pytest.mark.every("the parts of it are tested one by one")
    def test_taking_another_name(self, demo: Server, browsers: tuple[Chrome, Chrome]) -> None:
        """The former one leaves; other tabs of the browser have to be loaded again."""
        ada, bert = browsers
        room = "/room/workshop/"
        enter(demo, ada, room, "Ada")
        enter(demo, bert, room, "Bert")
        first = bert.current_window_handle
        bert.switch_to.new_window("tab")
        enter(demo, bert, room, "Robert")
        eventually(lambda: people(ada) == ["Ada", "Robert"], what="the new name")
        bert.close()
        bert.switch_to.window(first)
        eventually(lambda: text(bert, "state") == "Closed", what="the other tab")
        bert.find_element("css selector", "#hint-closed a").click()
        eventually(lambda: text(bert, "own-name") == "Robert", what="the new name")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [360, 1180])
    @pytest.mark.parametrize("page", ["/", "/room/kitchen-table/", "/shell/"])
    def test_fits(
        self,
        demo: Server,
        browsers: tuple[Chrome, Chrome],
        page: str,
        width: int,
        scheme: str,
    ) -> None:
        """Nothing is wider than the screen, and the colours are those of the system."""
        browser, _ = browsers
        screen = {"width": width, "height": 720, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        try:
            browser.get(demo.url(page, "http"))
            eventually(lambda: text(browser, "state") == "Live")
            ARTIFACTS.mkdir(exist_ok=True)
            name = f"demo{page.replace('/', '-').rstrip('-')}-{width}-{scheme}.png"
            browser.save_screenshot(str(ARTIFACTS / name))
            wide = "return document.documentElement.scrollWidth"
            assert browser.execute_script(wide) <= width
            shade = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"
            assert (int(browser.execute_script(shade)) < 128) == (scheme == "dark")
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
