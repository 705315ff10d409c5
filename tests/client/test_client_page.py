"""What docs/client.md shows is executed: its project in Chromium, its JavaScript, its types."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stand_in import GROUP, StandIn

from support.browser import chromium
from support.server import ROOT, RUNSERVER, TESTS, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

TEXT = (ROOT / "docs" / "client.md").read_text()
MODULES = TESTS / "clients" / "node_modules"
FOLDER = ROOT / "python" / "dwebsocket" / "static" / "dwebsocket"
FILE = re.compile(r"^(?:# |// |<!-- )([\w/.-]+\.(?:py|js|html))(?: -->)?\n")

SETTINGS = """
SECRET_KEY = "for tests only"
DEBUG = True
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "site_of_page.urls"
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [{libraries!r}]
TEMPLATES = [{{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}}]
INSTALLED_APPS = ["django.contrib.staticfiles", "dwebsocket", "chat"]
"""
URLS = """
from chat import board, closed, lines, questions, views
from django.http import HttpResponse
from django.urls import path
from django.views.generic import TemplateView
from dwebsocket import group

urlpatterns = [
    path("status/", lambda request: HttpResponse("up")),
    path("chat/", views.page),
    path("ws/chat/<str:room>/", views.chat),
    path("ws/closed/", closed.closed_for_maintenance),
    path("ws/questions/", questions.questions),
    path("board/", board.page),
    path("board4/", TemplateView.as_view(template_name="board4.html")),
    path("ws/board/", board.board),
    path("lines/", lines.page),
    path("lines/members/", lambda request: HttpResponse(f"has {group('lines').count()} member")),
    path("ws/lines/", lines.lines),
]
"""
PAGE = """
{% load static %}
<ul id="messages"></ul>
<script type="module">
  import { connect } from "{% static 'dwebsocket/dwebsocket.js' %}";

  connect("/ws/chat/42/").on("message", (text) => {
    document.querySelector("#messages").append(text);
  });
</script>
"""
VIEWS = """
from django.shortcuts import render
from dwebsocket import accept_websocket, group


def page(request):
    return render(request, "chat.html")


@accept_websocket(text_type=str, groups=["room-{room}"])
def chat(request, room):
    for message in request.websocket:
        group(f"room-{room}").send(message)
"""
# A page where blocks of JavaScript run as they stand: `shown` has what they show.
RUN = """
const [code, url, done] = arguments;
window.shown = [];
const show = (text) => shown.push(text);
const AsyncFunction = (async () => {}).constructor;
import("/static/dwebsocket/dwebsocket.js").then(({ connect }) => {
  const socket = url ? connect(url) : undefined;
  window.socket = socket;
  return new AsyncFunction("connect", "socket", "show", code)(connect, socket, show);
}).then(() => done(""), (error) => done(String(error)));
"""


def blocks(language: str) -> list[str]:
    """Give the page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def block(part: str) -> str:
    """Give the block of JavaScript that names no file and contains a text."""
    (found,) = [each for each in blocks("js") if part in each and not FILE.match(each)]
    return found


def test_every_block_is_executed_here() -> None:
    """Those that name a file are the project; each of the others has a test below."""
    named = [each for each in blocks("(?:python|html|js)") if FILE.match(each)]
    assert len(named) == 9
    assert [each for each in [*blocks("python"), *blocks("html")] if not FILE.match(each)] == []
    rest = [each for each in blocks("js") if not FILE.match(each)]
    executed = ['"state"', "not sent", "/ws/questions/", '"recovered"']
    assert rest == [block(part) for part in executed]
    assert len(blocks("ts")) == 1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page's project."""
    folder = tmp_path_factory.mktemp("page")
    libraries = folder / "libraries"
    libraries.mkdir()
    shutil.copy(MODULES / "htmx.org" / "dist" / "htmx.js", libraries)
    shutil.copy(MODULES / "htmx-ext-ws" / "ws.js", libraries)
    shutil.copy(MODULES / "htmx4" / "dist" / "htmx.js", libraries / "htmx4.js")
    shutil.copy(MODULES / "htmx4" / "dist" / "ext" / "hx-ws.js", libraries)
    shutil.copy(MODULES / "@hotwired" / "turbo" / "dist" / "turbo.es2017-umd.js", libraries)
    files = {
        "site_of_page/__init__.py": "",
        "site_of_page/settings.py": SETTINGS.format(libraries=str(libraries)),
        "site_of_page/urls.py": URLS,
        "chat/__init__.py": "",
        "chat/views.py": VIEWS,
        "chat/templates/chat.html": PAGE,
    }
    for each in blocks("(?:python|html|js)"):
        if found := FILE.match(each):
            files[found[1]] = each[found.end() :]
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with Server(RUNSERVER, cwd=folder, module="site_of_page") as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.set_script_timeout(60)
        yield driver


def run(browser: Chrome, code: str, url: str = "") -> list[Any]:
    """Run a block, with a socket to `url`; give what it has shown so far."""
    assert browser.execute_async_script(RUN, code, url) == ""
    return shown(browser)


def shown(browser: Chrome) -> list[Any]:
    """Give what the block has shown."""
    return browser.execute_script("return window.shown")


@pytest.mark.needs("chromium")
@pytest.mark.needs("htmx")
@pytest.mark.xdist_group("dwebsocket.js")
class TestProject:
    """The page's files, as a site."""

    @pytest.mark.parametrize("page", ["/board/", "/board4/"])
    def test_htmx(self, site: Server, browser: Chrome, page: str) -> None:
        """The form's messages come back as fragments, in 2 and in 4."""
        browser.get(site.url(page, "http"))
        # In one step: htmx puts a new element in its place.
        shows = "return document.querySelector('#answer').innerText"
        for text in ("one", "two"):
            browser.execute_script(f"document.querySelector('[name=text]').value = '{text}'")
            browser.find_element("tag name", "button").click()
            eventually(lambda text=text: browser.execute_script(shows) == text)

    def test_turbo(self, site: Server, browser: Chrome) -> None:
        """A stream appends the text that a form posts."""
        browser.get(site.url("/lines/", "http"))
        # A post reaches the page only after its socket is open.
        eventually(lambda: b" 1 member" in site.get("/lines/members/").body)
        browser.find_element("tag name", "button").click()
        lines = "return [...document.querySelectorAll('#lines li')].map((line) => line.innerText)"
        eventually(lambda: browser.execute_script(lines) == ["hi"])

    def test_state(self, site: Server, browser: Chrome) -> None:
        """Each state is shown."""
        browser.get(site.url("/chat/", "http"))
        run(browser, block('"state"'), "/ws/chat/42/")
        eventually(lambda: shown(browser) == ["online"])
        browser.execute_script("socket.close()")
        assert shown(browser) == ["online", "closed"]

    def test_retry_after(self, site: Server, browser: Chrome) -> None:
        """The view's reason is the delay."""
        browser.get(site.url("/chat/", "http"))
        run(browser, block('"state"'), "/ws/closed/")
        told = eventually(lambda: [text for text in shown(browser) if "offline" in text])
        (delay,) = re.findall(r"in ([\d.]+) ms", told[0])
        assert float(delay) >= 600_000

    def test_sending(self, site: Server, browser: Chrome) -> None:
        """It arrives; on a closed socket the error is shown."""
        browser.get(site.url("/chat/", "http"))
        assert run(browser, block("not sent"), "/ws/chat/42/") == []
        # The page's own handler takes it for a text.
        eventually(lambda: browser.find_element("id", "messages").text == "[object Object]")
        assert run(browser, f"socket.close();\n{block('not sent')}", "/ws/chat/42/") == [
            "not sent: ClosedError"
        ]

    def test_request(self, site: Server, browser: Chrome) -> None:
        """The view answers."""
        browser.get(site.url("/chat/", "http"))
        assert run(browser, block("/ws/questions/")) == ["2 + 3 = 5"]


@pytest.mark.needs("chromium")
@pytest.mark.xdist_group("dwebsocket.js")
class TestResuming:
    """With a stand-in for the view with `resume=True`."""

    @pytest.fixture
    def stand_in(self, browser: Chrome) -> Iterator[StandIn]:
        """It has two messages, and the browser is at its page."""
        with StandIn() as server:
            server.pages["/"] = "<!doctype html>"
            server.begin_epoch("e1")
            server.publish("one", "two")
            browser.get(f"{server.url}/")
            yield server

    def test_module(self, stand_in: StandIn, browser: Chrome) -> None:
        """Messages behind the page's position, and who comes and goes."""
        run(browser, block('"recovered"'))
        eventually(lambda: len(shown(browser)) == 1)
        member = {"key": "1", "info": {"name": "Mia"}}
        stand_in.say({"group": GROUP, "joined": member})
        stand_in.say({"group": GROUP, "left": member})
        eventually(lambda: len(shown(browser)) == 3)
        stand_in.begin_epoch("e2")
        stand_in.cut()
        eventually(lambda: len(shown(browser)) == 4)
        assert shown(browser) == [
            "room-42 at e1-2: two",
            "Mia is here",
            "Mia has gone",
            "something is missing: load the page again",
        ]


@pytest.mark.needs("typescript")
def test_npm(tmp_path: Path) -> None:
    """npm installs the folder that the command prints, and the types are found."""
    (command,) = re.findall(r"^```\npython (-c .*)\n```$", TEXT, re.MULTILINE)
    code = command.removeprefix('-c "').removesuffix('"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    folder = done.stdout.strip()
    for path in filter(Path.is_file, FOLDER.iterdir()):
        assert Path(folder, path.name).read_bytes() == path.read_bytes()
    (tmp_path / "package.json").write_text('{"name": "page", "private": true}')
    npm = ["npm", "install", "--offline", "--silent", "--no-audit", "--no-fund", folder]
    subprocess.run(npm, cwd=tmp_path, check=True, capture_output=True, timeout=110)
    (tmp_path / "usage.ts").write_text(blocks("ts")[0])
    options = "--noEmit --strict --module esnext --moduleResolution bundler --target esnext"
    tsc = [str(MODULES / ".bin" / "tsc"), *options.split(), "--lib", "esnext,dom", "--types", ""]
    done = subprocess.run(
        [*tsc, "usage.ts"], cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert (done.stdout, done.returncode) == ("", 0)
