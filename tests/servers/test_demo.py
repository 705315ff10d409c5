"""The chat demo with several workers: whichever of them serves a browser, it sees all others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.keys import Keys

from support.browser import chromium
from support.clients import websocket
from support.server import GUNICORN_GTHREAD, ROOT, TESTS, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome
    from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.extended("runs the examples")

DEMO = ROOT / "examples" / "chat"
ROOM = "/room/kitchen-table/"
ARTIFACTS = TESTS / "artifacts"


def manage(demo: Server, *arguments: str) -> str:
    """Run a management command of the demo beside its server."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=DEMO,
        env=demo.env,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


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
    manage(server, "migrate", "--verbosity", "0")
    with server:
        yield server


class Person:
    """Somebody in a room, with what has come."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        # Events of others may come before.
        welcome = self.sees("welcome")
        self.worker: int = welcome["worker"]
        self.history = [message["text"] for message in welcome["history"]]

    def send(self, **event: Any) -> None:
        """Send an event."""
        self.client.send(json.dumps(event))

    def sees(self, kind: str, **expected: Any) -> dict[str, Any]:
        """Wait for an event; give it."""
        while True:
            event = json.loads(self.client.recv(20))
            if event["type"] == kind and expected.items() <= event.items():
                return dict(event)


@contextlib.contextmanager
def two_people(demo: Server, room: str) -> Iterator[tuple[Person, Person]]:
    """Enter a room on two workers."""
    found: dict[int, Person] = {}
    with contextlib.ExitStack() as clients:
        eventually(lambda: len(demo.workers()) == 4, what="four workers")
        while len(found) < 2:
            person = Person(clients.enter_context(websocket(demo, room)))
            if person.worker in found:
                person.client.close()
            found.setdefault(person.worker, person)
        one, other = found.values()
        yield one, other


def test_two_workers_are_one_chat(demo: Server) -> None:
    """Names, typing, messages and leaving reach the other worker's people."""
    room = "/room/reading-room/"
    with two_people(demo, room) as (ada, bert):
        ada.send(type="name", name="Ada")
        bert.send(type="name", name="Bert")
        for person in (ada, bert):
            person.sees("people", people=["Ada", "Bert"])
        ada.send(type="typing", active=True)
        assert bert.sees("typing") == {"type": "typing", "name": "Ada", "active": True}
        ada.send(type="say", text="hello from another process")
        for person in (ada, bert):
            assert person.sees("message", text="hello from another process")["author"] == "Ada"
        ada.client.close()
        bert.sees("people", people=["Bert"])
        with websocket(demo, room) as late:
            assert Person(late).history[-1] == "hello from another process"


def test_all_pages_hear_of_new_messages(demo: Server) -> None:
    """Those of other rooms too: each page counts what its browser has not read."""
    with two_people(demo, ROOM) as (ada, _):
        ada.send(type="name", name="Ada")
        with websocket(demo, "/pulse/?read=kitchen-table:0") as pulse:
            first = json.loads(pulse.recv(20))
            assert first["type"] == "unread"
            before = first["rooms"]["kitchen-table"]
            assert first["rooms"]["workshop"] == {"unread": 0, "last": 0}
            ada.send(type="say", text="news")
            message = ada.sees("message", text="news")
            assert message["id"] > before["last"]
            events = (json.loads(pulse.recv(20)) for _ in range(20))
            said = next(event for event in events if event["type"] == "said")
            assert said == {"type": "said", "room": "kitchen-table", "id": message["id"]}
        with websocket(demo, "/pulse/?read=kitchen-table:0") as pulse:
            now = json.loads(pulse.recv(20))["rooms"]["kitchen-table"]
        assert now == {"unread": before["unread"] + 1, "last": message["id"]}


def test_push_from_a_shell(demo: Server) -> None:
    """The shell is a process without any connection."""
    with websocket(demo, "/shell/") as client:
        manage(
            demo, "shell", "-c", 'from dwebsocket import group; group("shell").send("from a shell")'
        )
        assert client.recv(20) == "from a shell"


def test_a_killed_worker_takes_no_other_one_along(demo: Server) -> None:
    """Its people are disconnected; the others go on, and the next worker joins in."""
    room = "/room/night-shift/"
    with two_people(demo, room) as (ada, bert):
        ada.send(type="name", name="Ada")
        bert.sees("people", people=["Ada"])
        os.kill(ada.worker, signal.SIGKILL)
        bert.send(type="name", name="Bert")
        bert.sees("people")
        eventually(lambda: len(demo.workers()) == 4 and ada.worker not in demo.workers())
        with websocket(demo, room) as client:
            again = Person(client)
            again.send(type="name", name="Cleo")
            again.send(type="say", text="back")
            assert bert.sees("message", text="back")["author"] == "Cleo"


@pytest.mark.needs("chromium")
def test_two_browsers(demo: Server, tmp_path: Path) -> None:
    """On two workers they see each other's names, typing and messages; a third page counts."""
    with chromium(tmp_path / "one") as ada, chromium(tmp_path / "two") as bert:

        def text(browser: Chrome, identity: str) -> str:
            return str(browser.find_element("id", identity).text)

        def enter(browser: Chrome, name: str) -> None:
            browser.get(demo.url(ROOM, "http"))
            eventually(lambda: text(browser, "state") == "Live", what="connected")
            field = browser.find_element("id", "name")
            if field.is_displayed():
                field.send_keys(name, Keys.ENTER)
            eventually(lambda: name in text(browser, "people"), what=f"{name} is there")

        for browser in (ada, bert):
            # The list of rooms is for wide windows.
            browser.set_window_size(1180, 720)
        enter(ada, "Ada")
        enter(bert, "Bert")
        for _ in range(50):
            if text(ada, "worker") != text(bert, "worker"):
                break
            enter(bert, "Bert")
        assert text(ada, "worker") != text(bert, "worker")
        assert text(ada, "worker").startswith("Served by process ")
        for browser in (ada, bert):
            eventually(lambda b=browser: text(b, "people").split() == ["A", "Ada", "B", "Bert"])

        box = ada.find_element("id", "message")
        box.send_keys("Hello from the other worker")
        eventually(lambda: text(bert, "typing") == "Ada is typing", what="typing")
        box.send_keys(Keys.ENTER)
        eventually(lambda: "Hello from the other worker" in text(bert, "messages"))
        answer = bert.find_element("id", "message")
        answer.send_keys("I can see you", Keys.ENTER)
        eventually(lambda: "I can see you" in text(ada, "messages"))
        ARTIFACTS.mkdir(exist_ok=True)
        ada.save_screenshot(str(ARTIFACTS / "demo-ada.png"))
        bert.save_screenshot(str(ARTIFACTS / "demo-bert.png"))

        ada.get(demo.url("/room/workshop/", "http"))
        eventually(lambda: text(ada, "state") == "Live")
        answer.send_keys("Are you still here?", Keys.ENTER)
        badge = 'a[data-room="kitchen-table"] [data-unread]'
        eventually(lambda: ada.find_element("css selector", badge).text == "1 new")

        bert.get(demo.url("/shell/", "http"))
        eventually(lambda: text(bert, "state") == "Live")
        manage(
            demo, "shell", "-c", 'from dwebsocket import group; group("shell").send("from a shell")'
        )
        eventually(lambda: text(bert, "lines") == "from a shell")
        for browser in (ada, bert):
            assert browser.get_log("browser") == []
