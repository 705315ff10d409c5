"""Four workers as one site: statistics, the page in a browser, and errors in Sentry."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from operators import PAGE, TOKEN, Person, manage, site
from prometheus_client.parser import text_string_to_metric_families

from support import postgres
from support.browser import chromium
from support.raw_peer import RawPeer
from support.redis import Redis
from support.server import ASGI
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

    from support.server import Server

pytestmark = pytest.mark.extended("four workers and a browser")

ALIKE = pytest.mark.every("much like another case")
WORKERS = 4
COUNT = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The site, by four workers."""
    with site(WORKERS) as running:
        yield running


@pytest.fixture
def crowd(server: Server) -> Iterator[list[RawPeer]]:
    """Open WebSockets, of which each worker has some."""
    with contextlib.ExitStack() as stack:
        peers: list[RawPeer] = []

        def all_have_some() -> bool:
            peers.extend(stack.enter_context(RawPeer.open_many(server, "/chat/x/", COUNT)))
            # A process that has had a WebSocket answers, also when it has none any more.
            found = [each["statistics"]["open"]["total"] for each in stats(server)["processes"]]
            return len([*filter(None, found)]) == WORKERS

        eventually(all_have_some)
        yield peers


def stats(server: Server) -> Any:
    """Ask by the command, in a process of its own."""
    return json.loads(manage(server, "websocket_stats", "--json"))


def total_of(server: Server, **expected: Any) -> Any:
    """Give what all processes have counted, when that is so; else None."""
    total = stats(server)["total"]
    return total if {key: total.get(key) for key in expected} == expected else None


def test_every_process_sees_the_whole_site(server: Server, crowd: list[RawPeer]) -> None:
    """The command, the metrics of whichever worker, and the page."""

    # A process that is slow to answer is left out.
    def complete() -> Any:
        found = stats(server)
        return None if found["missing"] else found

    found = eventually(complete, what="all processes answer")
    assert found["total"]["open"]["total"] == len(crowd)
    assert sorted(each["pid"] for each in found["processes"]) == sorted(server.workers())
    root = Person(server, "root")

    def measured() -> tuple[int, float]:
        text = server.get("/metrics", {"Authorization": f"Bearer {TOKEN}"}).body.decode()
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        open_ones = [s.value for s in samples if s.name == "dwebsocket_open"]
        return len(open_ones), sum(open_ones)

    for _ in range(2 * WORKERS):
        eventually(lambda: measured() == (WORKERS, len(crowd)), what="all are measured")
        eventually(lambda: root.shows(f"{len(crowd)} WebSockets"), what="the page shows all")


def test_any_worker_closes_those_of_others(server: Server, crowd: list[RawPeer]) -> None:
    """All WebSockets of a user, wherever they are."""
    anna, root = Person(server, "anna"), Person(server, "root")
    with contextlib.ExitStack() as stack:
        hers = [stack.enter_context(anna.websocket("/chat/hers/")) for _ in range(2 * WORKERS)]
        eventually(lambda: len(root.rows("?q=anna")) == len(hers), what="the page shows hers")
        root.get(PAGE)
        user = manage(
            server,
            *("shell", "--verbosity", "0", "--command"),
            "from django.contrib.auth.models import User;"
            "print(User.objects.get(username='anna').pk)",
        ).strip()
        root.post(f"{PAGE}close/", user=user)
        assert {each.read_to_eof().code for each in hers} == {1008}
    eventually(lambda: root.rows("?q=anna") == ["None."], what="they are gone")
    crowd[0].send_text("still here")
    assert crowd[0].read_message() == b"still here"


def test_a_killed_worker_is_not_waited_for_for_long(server: Server, crowd: list[RawPeer]) -> None:
    """Its WebSockets are gone, and its successor counts anew."""
    victim = server.workers()[0]
    os.kill(victim, 9)
    eventually(lambda: victim not in [each["pid"] for each in stats(server)["processes"]])
    eventually(lambda: stats(server)["missing"] == 0)
    eventually(lambda: len(server.workers()) == WORKERS)


@pytest.fixture
def browser(server: Server, tmp_path: Path) -> Iterator[Chrome]:
    """Chromium, logged in as a user with all rights."""
    with chromium(tmp_path / "profile") as driver:
        driver.set_page_load_timeout(60)
        driver.get(f"http://{server.host}/log-in/root/")
        yield driver


def problems(browser: Chrome) -> list[str]:
    """Give what the browser complains about, but for the icon that the site does not have."""
    return [e["message"] for e in browser.get_log("browser") if "favicon" not in e["message"]]


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (390, "dark"),
        pytest.param(390, "light", marks=ALIKE),
        pytest.param(1280, "dark", marks=ALIKE),
        pytest.param(1280, "light", marks=ALIKE),
    ],
)
def test_the_page_in_a_browser(
    server: Server, crowd: list[RawPeer], browser: Chrome, width: int, theme: str
) -> None:
    """The charts move, nothing is wider than the screen, and the colours are the theme's."""
    emulate = browser.execute_cdp_cmd
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    emulate("Emulation.setDeviceMetricsOverride", screen)
    feature = {"name": "prefers-color-scheme", "value": theme}
    emulate("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(f"http://{server.host}{PAGE}")

    def paths() -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('.ws-charts path')].map(p => p.getAttribute('d'))"
        )

    eventually(lambda: browser.find_element("id", "ws-live").text == "Charts: live")
    before = paths()
    eventually(lambda: paths() != before and all(paths()))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    back = browser.execute_script(
        "return getComputedStyle(document.querySelector('.ws-cards div')).backgroundColor"
    )
    is_dark = sum(map(int, back.removeprefix("rgb(").rstrip(")").split(","))) < 3 * 128
    assert is_dark == (theme == "dark")
    assert problems(browser) == []


@pytest.mark.needs("chromium")
def test_the_page_ends_with_the_session(server: Server, browser: Chrome) -> None:
    """The charts stop, and the page says so."""
    browser.get(f"http://{server.host}{PAGE}")
    live = browser.find_element("id", "ws-live")
    eventually(lambda: live.text == "Charts: live")
    cookie = browser.get_cookie("sessionid")
    assert cookie is not None
    person = Person(server)
    person.cookies["sessionid"] = cookie["value"]
    person.get("/admin/password_change/")
    assert person.post("/admin/logout/").status == 200
    eventually(lambda: live.get_attribute("data-state") == "closed")


class Outage(NamedTuple):
    """A site of two processes by way of a server that can be away."""

    server: Server
    away: Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def over_redis(_: Path) -> Iterator[Outage]:
    """Groups by Redis."""
    with Redis() as redis:
        groups = {"BACKEND": "dwebsocket.groups.redis", "LOCATION": redis.url}
        with site(2, WEBSOCKET_GROUPS={"default": groups}) as server:

            @contextlib.contextmanager
            def away() -> Iterator[None]:
                redis.kill()
                yield
                redis.start()

            yield Outage(server, away)


@contextlib.contextmanager
def over_postgresql(folder: Path) -> Iterator[Outage]:
    """Groups by PostgreSQL; users and sessions are elsewhere, so that pages outlive an outage."""
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3")}
    with postgres.postgres() as socket:
        server = site(
            2,
            DATABASES={"default": sqlite, "groups": postgres.entry(socket)},
            WEBSOCKET_GROUPS={
                "default": {"BACKEND": "dwebsocket.groups.postgres", "DATABASE": "groups"}
            },
        )
        manage(server, "migrate", "--verbosity", "0", "--database", "groups")
        with server:
            yield Outage(server, lambda: postgres.away(socket))


@pytest.mark.parametrize(
    "over",
    [
        pytest.param(over_redis, marks=pytest.mark.needs("redis")),
        pytest.param(
            over_postgresql,
            marks=[pytest.mark.needs("postgresql"), pytest.mark.every("as over Redis")],
        ),
    ],
)
def test_processes_are_asked_over_a_server_as_well(
    over: Callable[[Path], contextlib.AbstractContextManager[Outage]], tmp_path: Path
) -> None:
    """While it is away the page says so, and metrics are unavailable; then all is back."""
    with over(tmp_path) as outage, contextlib.ExitStack() as stack:
        server = outage.server
        peers: list[RawPeer] = []

        def both_have_some() -> bool:
            peers.extend(stack.enter_context(RawPeer.open_many(server, "/chat/x/", 10)))
            return len(root.rows()) > 0 and len(stats(server)["processes"]) == 2

        root = Person(server, "root")
        eventually(both_have_some)
        eventually(lambda: stats(server)["total"]["open"]["total"] == len(peers))
        with outage.away():
            eventually(lambda: root.shows("cannot be asked"))
            token = {"Authorization": f"Bearer {TOKEN}"}
            assert server.get("/metrics", token).status == 503
        eventually(lambda: root.shows(f"{len(peers)} WebSockets"))


@pytest.mark.parametrize(
    ("name", "driven_by"),
    [("granian", "server"), pytest.param("uvicorn-sansio", "engine", marks=ALIKE)],
)
def test_asgi_servers_count_the_same(name: str, driven_by: str) -> None:
    """Whether the engine has the connection, or the server keeps it."""
    (kind,) = (kind for kind in ASGI if kind.name == name)
    with site(kind=kind) as server:
        root = Person(server, "root")
        with root.websocket("/chat/x/") as peer:
            peer.send_text("hello")
            assert peer.read_message() == b"hello"
            eventually(lambda: root.sees("/chat/x/"))
            total = eventually(lambda: total_of(server, messages={"in": 1, "out": 1}))
            assert total["open"]["driven_by"] == {driven_by: 1}
            assert min(total["bytes"].values()) >= 5
            peer.send_close(1000)
            peer.read_to_eof()
        # What it has carried stays in the sum.
        total = eventually(lambda: total_of(server, closed={"1000": {"peer": 1}}))
        assert (total["open"]["total"], total["messages"]) == (0, {"in": 1, "out": 1})


def test_sentry_sees_an_exception_of_a_view_once(tmp_path: Path) -> None:
    """With the request, as of an exception in a page."""
    running = site()
    running.env["SENTRY_FILE"] = str(tmp_path / "events")
    running.env["PYTHONPATH"] += os.pathsep + str(running.cwd)
    with sentry(running), Person(running, "anna").websocket("/breaks/?why=test") as peer:
        peer.send_text("go")
        assert peer.read_to_eof().code == 1011
        # Another one, behind which nothing of the first can come any more.
        with RawPeer.open(running, "/breaks/?why=again") as other:
            other.send_text("go")
            assert other.read_to_eof().code == 1011
        events = eventually(lambda: events_of(tmp_path / "events", 2))
    first, second = (event for event in events if "exception" in event)
    assert [event["request"]["query_string"] for event in (first, second)] == [
        "why=test",
        "why=again",
    ]
    assert first["request"]["url"].endswith("/breaks/")
    assert first["exception"]["values"][-1]["value"] == "broken on purpose"
    assert first["user"]["username"] == "anna"


@contextlib.contextmanager
def sentry(running: Server) -> Iterator[Server]:
    """Run the site by the application that sets Sentry up."""
    command = running.command
    running.command = (
        lambda: [  # type: ignore[method-assign]
            *command()[:-1],
            "sentry_wsgi:application",
        ]
    )
    with running:
        yield running


def events_of(file: Path, count: int) -> list[dict[str, Any]]:
    """Give what Sentry got, once there are so many exceptions."""
    if not file.exists():
        return []
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return found if sum("exception" in event for event in found) >= count else []
