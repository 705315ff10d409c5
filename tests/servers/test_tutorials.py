"""
Code of the tutorials still works as pasted.

The nine things are views of examples/tutorials/, each through a real server and a real client.
"""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.browser import chromium
from support.clients import websocket
from support.raw_peer import RawPeer
from support.server import (
    ASGI,
    EVENTLET_PATCHED,
    GEVENT_PATCHED,
    GUNICORN_EVENTLET,
    GUNICORN_GEVENT,
    MAIN,
    ROOT,
    TESTS,
    UVICORN,
    Server,
)
from support.waiting import eventually
from support.wsgi_kinds import UWSGI_HTTP_SOCKET, WSGI_SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.extended("runs the examples")

PROJECT = ROOT / "examples" / "tutorials"
ARTIFACTS = TESTS / "artifacts"

# Not the hubs without monkey patching, which a view that sleeps stops.
GREEN = (GUNICORN_GEVENT, GEVENT_PATCHED, GUNICORN_EVENTLET, EVENTLET_PATCHED)
everywhere = pytest.mark.parametrize(
    "site", [*MAIN, *GREEN, *WSGI_SERVERS, *ASGI], ids=str, indirect=True
)
# A browser is the same everywhere, and slow to start.
in_a_browser = pytest.mark.parametrize(
    "site",
    [
        UVICORN,
        *(
            pytest.param(kind, marks=pytest.mark.every("the page is the same"))
            for kind in (*MAIN, GUNICORN_GEVENT, GUNICORN_EVENTLET, UWSGI_HTTP_SOCKET)
        ),
    ],
    ids=str,
    indirect=True,
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tutorials' environment: a migrated database of its own, with a user called ada."""
    env = {
        "TUTORIALS_DB": str(tmp_path_factory.mktemp("tutorials") / "db.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "tutorials.settings",
    }
    paths = [str(PROJECT), os.environ.get("PYTHONPATH")]
    for command in (
        ["migrate", "--verbosity", "0"],
        ["createsuperuser", "--noinput", "--username", "ada", "--email", "ada@localhost",
         "--verbosity", "0"],
    ):  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "django", *command],
            env={
                **os.environ,
                **env,
                "DJANGO_SUPERUSER_PASSWORD": "secret",
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            },
            check=True,
            timeout=60,
        )
    return env


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[Server]:
    """The tutorials on one kind of server."""
    with Server(
        request.param, cwd=PROJECT, module="tutorials", env=environment, probe="/running/"
    ) as server:
        yield server


def running(site: Server, view: str) -> int:
    """Return how many threads and greenlets are inside a view."""
    return site.get("/running/").json().get(view, 0)


def ends_with(client: ClientConnection, code: int) -> None:
    """Assert that nothing more comes, and how the connection ended."""
    with pytest.raises(ConnectionClosed):
        client.recv(20)
    assert client.close_code == code


@everywhere
class TestEcho:
    """1, 2 and 5: echo in three styles."""

    def test_once(self, site: Server) -> None:
        """`wait()` and `send()`; the view's end closes with 1000."""
        with websocket(site, "/echo-once/") as client:
            client.send("grüße")
            assert client.recv(20) == "grüße"
            ends_with(client, 1000)
        assert running(site, "echo_once") == 0

    def test_once_requires_a_websocket(self, site: Server) -> None:
        """A plain request gets 400."""
        assert site.get("/echo-once/").status == 400

    def test_two_modes(self, site: Server) -> None:
        """A page by GET, and the view that served it echoes bytes with bytes appended."""
        page = site.get("/echo/")
        assert (page.status, b"<html" in page.body) == (200, True)
        with websocket(site, "/echo/") as client:
            for text in ("one", "zwei", "三"):
                client.send(text)
                assert client.recv(20) == f"{text} ← echoed"

    def test_websocket_decorator(self, site: Server) -> None:
        """`@websocket` is `accept_websocket`; the loop ends by `wait()` giving None."""
        with websocket(site, "/websocket-echo/") as client:
            for text in ("a", "b"):
                client.send(text)
                assert client.recv(20) == text
            assert running(site, "websocket_echo") == 1
        eventually(lambda: running(site, "websocket_echo") == 0, 60)


@everywhere
class TestClock:
    """3: a loop that only sends."""

    def test_ticks(self, site: Server) -> None:
        """One JSON message a second."""
        with websocket(site, "/clock/") as client:
            ticks = [json.loads(client.recv(20)) for _ in range(2)]
        assert [tick["count"] for tick in ticks] == [1, 2]

    def test_ends_after_the_browser(self, site: Server) -> None:
        """The view's thread is gone three seconds after the browser, whichever way that went."""
        eventually(lambda: running(site, "clock") == 0, 60, "clocks of earlier tests are gone")
        with RawPeer.open_many(site, "/clock/", 6) as peers:
            for peer in peers:
                peer.read_message()
            assert running(site, "clock") == 6
            for peer in peers[:2]:
                peer.send_close(1001)
            for peer in peers[2:4]:
                peer.vanish()
        eventually(lambda: running(site, "clock") == 0, 60, "the clocks' threads are gone")


@everywhere
class TestChat:
    """4: a global list of connections."""

    def test_ten_browsers_some_vanish(self, site: Server) -> None:
        """Each member gets each message; those that vanish leave the list and disturb no other."""
        eventually(lambda: running(site, "chat") == 0, 60)
        with contextlib.ExitStack() as stack:
            stay = [stack.enter_context(websocket(site, "/chat/")) for _ in range(5)]
            vanish = stack.enter_context(RawPeer.open_many(site, "/chat/", 5))
            eventually(lambda: running(site, "chat") == 10, 60, "ten are in the room")
            for number, client in enumerate(stay):
                # One after the other, so that the order is the same for all.
                client.send(f"message {number}")
                assert [other.recv(20) for other in stay] == [f"message {number}"] * 5
                assert [peer.read_message() for peer in vanish] == [b"message %d" % number] * 5
            for number, peer in enumerate(vanish):
                peer.vanish() if number % 2 else peer.close()
            eventually(lambda: running(site, "chat") == 5, 60, "five have left the list")
            for client in stay:
                client.send("yes")
                assert [other.recv(20) for other in stay] == ["yes"] * 5
        eventually(lambda: running(site, "chat") == 0, 60, "the room is empty")


@everywhere
class TestPolling:
    """6: asking for messages instead of waiting."""

    def test_has_messages_and_read(self, site: Server) -> None:
        """`has_messages()` is true for the end, too, and `read()` gives it as None."""
        with websocket(site, "/poll/") as client:
            for text in ("one", "two"):
                client.send(text)
                assert client.recv(20) == text
        eventually(lambda: running(site, "poll") == 0, 60)

    def test_count_messages(self, site: Server) -> None:
        """The count is the number of whole messages that wait."""
        with websocket(site, "/count/") as client:
            for text in ("3", "a", "b", "c"):
                client.send(text)
            assert [client.recv(20) for _ in range(5)] == ["3", "a", "b", "c", "0"]
            ends_with(client, 1000)


@pytest.fixture(scope="module")
def accept_all(site: Server, environment: dict[str, str]) -> Iterator[Server]:
    """The tutorials with the other settings, on the same kind of server."""
    env = {**environment, "DJANGO_SETTINGS_MODULE": "tutorials.settings_accept_all"}
    with Server(site.kind, cwd=PROJECT, module="tutorials", env=env, probe="/running/") as server:
        yield server


@everywhere
class TestAcceptAll:
    """7: no decorators, but a setting and the middleware."""

    def test_undecorated_view(self, accept_all: Server) -> None:
        """A view without a decorator serves both kinds of request."""
        with websocket(accept_all, "/plain/") as client:
            client.send("grüße")
            assert client.recv(20).encode() == "grüße".encode().upper()
        assert accept_all.get("/plain/").body.strip() == b"plain view"

    def test_decorated_views_too(self, accept_all: Server) -> None:
        """The other views work as without the setting."""
        with websocket(accept_all, "/websocket-echo/") as client:
            client.send("still")
            assert client.recv(20) == "still"
        assert accept_all.get("/echo-once/").status == 400


@in_a_browser
@pytest.mark.needs("chromium")
def test_page_in_a_browser(site: Server, tmp_path: Path) -> None:
    """8: connect, send and close buttons of the tutorials' page, in a real browser."""
    with chromium(tmp_path / "profile") as browser:
        browser.get(site.url("/page/", "http"))

        def click(name: str) -> None:
            browser.find_element("id", name).click()

        def shown(line: str) -> None:
            def there() -> bool:
                return line in browser.find_element("id", "messages").text.splitlines()

            eventually(there, 60, f"the page shows {line!r}")

        click("send")
        shown("not connected")
        click("connect")
        shown("open")
        field = browser.find_element("id", "message")
        for text in ("Hello, world!", "grüße 日本語"):
            field.clear()
            field.send_keys(text)
            click("send")
            shown(f"received: {text} ← echoed")
        click("close")
        shown("closed: 1000")
        # And once more, as people do.
        click("connect")
        click("send")
        eventually(
            lambda: browser.find_element("id", "messages").text.count("open") == 2, 20, "reopened"
        )
        ARTIFACTS.mkdir(exist_ok=True)
        browser.save_screenshot(str(ARTIFACTS / f"page-{site.kind}.png"))
        problems = [
            entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]
        ]
        assert problems == []
    eventually(lambda: running(site, "echo") == 0, 60, "the view ended with the browser")


@everywhere
class TestRoom:
    """9: Django's own things inside the loop."""

    def talk(self, site: Server, path: str, cookie: str, *texts: str) -> list[dict]:
        """Say things in a room and return the answers; `bye` ends the conversation."""
        with websocket(site, path, additional_headers={"Cookie": cookie}) as client:
            answers = []
            for text in texts:
                client.send(text)
                answers.append(json.loads(client.recv(20)))
            client.send("bye")
            ends_with(client, 1000)
        return answers

    def test_guest(self, site: Server) -> None:
        """ORM, session, URL argument and query string; all of it is kept."""
        room = f"/room/blue-{site.kind}/"
        first = site.get(room)
        cookie = first.header("Set-Cookie").split(";")[0]
        assert first.json() == {
            "room": f"blue-{site.kind}", "notes": [], "visits": 1, "said": 0,
        }  # fmt: skip
        answers = self.talk(site, f"{room}?lang=de", cookie, "eins", "zwei")
        assert answers == [
            {
                "room": f"blue-{site.kind}", "user": "anonymous", "lang": "de", "text": text,
                "notes": number, "said": number,
            }
            for number, text in enumerate(["eins", "zwei"], 1)
        ]  # fmt: skip
        eventually(
            lambda: site.get(room, {"Cookie": cookie}).json()["said"] == 2, what="session saved"
        )
        assert site.get(room, {"Cookie": cookie}).json()["notes"] == ["eins", "zwei"]

    def test_user(self, site: Server) -> None:
        """`request.user` is the user that logged in by the ordinary form."""
        jar = http.cookiejar.CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        login = site.url("/login/", "http")
        with opener.open(login, timeout=20):
            token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
        form = {"username": "ada", "password": "secret", "csrfmiddlewaretoken": token}
        with opener.open(login, urllib.parse.urlencode(form).encode(), timeout=20) as answer:
            assert answer.status == 200
        cookie = "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)
        (answer,) = self.talk(site, f"/room/red-{site.kind}/", cookie, "hi")
        assert (answer["user"], answer["text"]) == ("ada", "hi")


@everywhere
def test_foreign_page_is_refused(site: Server) -> None:
    """A page of another site cannot open the tutorials' sockets."""
    with (
        pytest.raises(InvalidStatus) as caught,
        websocket(site, "/echo/", origin="http://evil.example"),
    ):
        pass
    assert caught.value.response.status_code == 403
