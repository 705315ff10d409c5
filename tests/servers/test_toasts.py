"""The toasts of examples/recipes/: messages on a user's open pages, from any process."""

from __future__ import annotations

import http.cookiejar
import json
import re
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from support.browser import chromium
from support.clients import websocket
from support.server import GUNICORN_GTHREAD, ROOT, TESTS, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.extended("runs the examples")

PROJECT = ROOT / "examples" / "recipes"
ARTIFACTS = TESTS / "artifacts"
# A toast is on the screen for so long: four times as long as the page says, for a busy machine.
SHOWN_S = 20
LONGER = (
    "const wait = setTimeout;"
    "window.setTimeout = (call, ms, ...values) => wait(call, ms * 4, ...values);"
)


def manage(site: Server, *arguments: str) -> str:
    """Run a management command beside the server; give what it says of errors."""
    command = [sys.executable, "manage.py", *arguments]
    done = subprocess.run(
        command, cwd=PROJECT, env=site.env, capture_output=True, text=True, timeout=60
    )
    return done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The recipes, with a database of their own, on two workers."""
    server = Server(
        GUNICORN_GTHREAD,
        options=("--workers", "2", "--threads", "4"),
        cwd=PROJECT,
        module="recipes",
        probe="/",
        env={"RECIPES_DB": str(tmp_path_factory.mktemp("toasts") / "recipes.sqlite3")},
    )
    assert manage(server, "migrate", "--verbosity", "0") == ""
    with server:
        yield server


def test_a_toast_waits_for_the_page_that_is_loading(site: Server) -> None:
    """What is sent between rendering and connecting comes, once, and to its user only."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar)
    )
    with opener.open(site.url("/toasts/", "http"), timeout=20) as answer:
        page = answer.read().decode()
    (name,) = re.findall(r'const group = "(.+)";', page)
    (position,) = re.findall(r'\?\? "(.+)";', page)
    (address,) = re.findall(r'connect\("ws://[^/]+(/.+?)"', page)
    assert manage(site, "toast", "you", "just in time", "--level", "warning") == ""
    headers = {"Cookie": "; ".join(f"{each.name}={each.value}" for each in jar)}
    with (
        websocket(site, f"{address}?since={name}:{position}", additional_headers=headers) as client,
        websocket(site, address) as stranger,
    ):
        toast = json.loads(client.recv(20))
        assert (toast["group"], json.loads(toast["data"])) == (
            name,
            {"level": "warning", "text": "just in time"},
        )
        assert json.loads(client.recv(20))["missed"] == 1
        with pytest.raises(TimeoutError):
            stranger.recv(0.5)


def test_unknown_user(site: Server) -> None:
    """The command says so."""
    assert "there is no user 'nobody'" in manage(site, "toast", "nobody", "hello")


def toasts(browser: Chrome) -> list[str]:
    """Give the toasts that are on the screen."""
    script = "return [...document.querySelectorAll('#toasts li')].map((item) => item.textContent)"
    return list(browser.execute_script(script))


@pytest.mark.needs("chromium")
def test_in_a_browser(site: Server, tmp_path: Path) -> None:
    """A view's toast survives its redirect; a command's is on all pages of the user."""
    with chromium(tmp_path) as browser:
        add = ("Page.addScriptToEvaluateOnNewDocument", {"source": LONGER})
        browser.execute_cdp_cmd(*add)
        browser.get(site.url("/toasts/", "http"))
        first = browser.current_window_handle
        browser.switch_to.new_window("tab")
        browser.execute_cdp_cmd(*add)
        # It has this user by the cookie.
        browser.get(site.url("/", "http"))
        second = browser.current_window_handle

        browser.switch_to.window(first)
        browser.find_element("id", "save").click()
        eventually(lambda: toasts(browser) == ["The order is saved"], what="the view's toast")
        assert manage(site, "toast", "you", "Backup & report are done") == ""
        for window in (first, second):
            browser.switch_to.window(window)
            eventually(lambda: "Backup & report are done" in toasts(browser), what="the command's")
        browser.switch_to.window(first)
        ARTIFACTS.mkdir(exist_ok=True)
        browser.save_screenshot(str(ARTIFACTS / "toasts.png"))

        # Left early, they come again; seen, they do not.
        browser.refresh()
        eventually(lambda: "Backup & report are done" in toasts(browser), what="once more")
        eventually(lambda: toasts(browser) == [], SHOWN_S + 60, "taken away")
        browser.refresh()
        assert manage(site, "toast", "you", "next") == ""
        eventually(lambda: toasts(browser) == ["next"], what="the next one, alone")
        assert browser.get_log("browser") == []
