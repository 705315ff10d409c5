"""The projects of docs/recovery.md and docs/presence.md, with their scripts in a browser."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from pages import files_of

from support.browser import chromium
from support.server import GUNICORN_GTHREAD, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

pytestmark = pytest.mark.needs("chromium")

SETTINGS = """
import os
SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "site_of_page.urls"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "dwebsocket",
    "chat",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
}]
"""
URLS = """
from chat import views
from django.http import HttpResponse
from django.urls import path

urlpatterns = [
    path("status/", lambda request: HttpResponse("up")),
    path("ws/<room>/", views.chat, name="chat"),
    path("chat/<room>/", views.page),
]
"""
WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_of_page.settings")
application = get_wsgi_application()
"""


@pytest.fixture
def site_of(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Start the project of a page."""
    with contextlib.ExitStack() as servers:

        def start(page: str) -> Server:
            blocks = files_of(page)
            files = {
                "site_of_page/__init__.py": "",
                "site_of_page/settings.py": SETTINGS + blocks.pop("settings.py"),
                "site_of_page/urls.py": URLS,
                "site_of_page/wsgi.py": WSGI,
                "chat/__init__.py": "",
                **blocks,
            }
            for name, content in files.items():
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
            return servers.enter_context(
                Server(GUNICORN_GTHREAD, cwd=tmp_path, module="site_of_page")
            )

        yield start


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser."""
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def shell(site: Server, code: str) -> None:
    """Run code in another process of the project."""
    command = [sys.executable, "-m", "django", "shell", "-c", code]
    subprocess.run(command, cwd=site.cwd, env=site.env, check=True, timeout=60)


def lines(browser: Chrome, name: str) -> list[str]:
    """Give the items of a list."""
    script = f"return [...document.querySelectorAll('#{name} li')].map((li) => li.textContent)"
    return list(browser.execute_script(script))


def test_recovery(site_of: Callable[[str], Server], browser: Chrome) -> None:
    """The page shows what was said; what is said later, and while it is away, is added once."""
    site = site_of("recovery.md")
    code = "from dwebsocket import group; room = group('room-42')"
    shell(site, f"{code}; room.send('one')")
    browser.get(site.url("/chat/42/", "http"))
    assert lines(browser, "messages") == ["one"]
    shell(site, f"{code}; room.send('<two>')")
    eventually(lambda: lines(browser, "messages") == ["one", "<two>"])
    shell(site, f"{code}; room.close(1012); room.send('three'); room.send('four')")
    expected = ["one", "<two>", "three", "four"]
    eventually(lambda: lines(browser, "messages") == expected, what="what was missed")
    shell(site, f"{code}; room.send('five')")
    eventually(lambda: lines(browser, "messages") == [*expected, "five"])
    # Its attempts to connect to a site that has ended would be among the errors of the next page.
    browser.get("about:blank")


def test_presence(site_of: Callable[[str], Server], browser: Chrome) -> None:
    """Those who come appear in the list, and those who go leave it after the grace."""
    site = site_of("presence.md")
    browser.get_log("browser")
    browser.get(site.url("/chat/42/", "http"))
    eventually(lambda: lines(browser, "members") == ["guest"], what="oneself")
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(site.url("/chat/42/", "http"))
    eventually(lambda: lines(browser, "members") == ["guest", "guest"], what="both")
    second = browser.current_window_handle
    browser.switch_to.window(first)
    eventually(lambda: lines(browser, "members") == ["guest", "guest"], what="who has joined")
    browser.switch_to.window(second)
    browser.close()
    browser.switch_to.window(first)
    eventually(lambda: lines(browser, "members") == ["guest"], what="who has left")
    errors = [each for each in browser.get_log("browser") if "favicon.ico" not in each["message"]]
    assert errors == []
