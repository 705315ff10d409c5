"""The site of these tests, and people that use it by HTTP."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from support.raw_peer import RawPeer, Response
from support.server import GUNICORN_GTHREAD, TESTS, Kind, Server

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).resolve().parent
TOKEN = "a token for tests"
PAGE = "/admin/websockets/"
LIVE = "/admin/websockets/live/"

_USERS = """
from django.contrib.auth.models import Permission, User
User.objects.create_superuser("root", "", "pw")
User.objects.create_user("staff", password="pw", is_staff=True)
viewer = User.objects.create_user("viewer", password="pw", is_staff=True)
viewer.user_permissions.add(Permission.objects.get(codename="view_websockets"))
outsider = User.objects.create_user("outsider", password="pw")
outsider.user_permissions.add(Permission.objects.get(codename="view_websockets"))
for name in ("anna", "ben<b>"):
    User.objects.create_user(name, password="pw")
"""


def site(workers: int = 1, kind: Kind = GUNICORN_GTHREAD, **settings: object) -> Server:
    """Make the site, not started yet: a database with users, and its server, gunicorn."""
    options = ("--workers", str(workers), "--threads", "4") if kind is GUNICORN_GTHREAD else ()
    server = Server(kind, options=options, settings=settings, cwd=FOLDER, module="operated")
    server.env["PYTHONPATH"] += os.pathsep + str(TESTS)
    manage(server, "migrate", "--verbosity", "0")
    manage(server, "shell", "--verbosity", "0", "--command", _USERS)
    return server


def manage(server: Server, *arguments: str) -> str:
    """Run a command of the site in a process of its own, and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        cwd=server.cwd,
        env=server.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Person:
    """A browser's cookies."""

    def __init__(self, server: Server, name: str = "") -> None:
        """Log in as the user ``name``, if one is given."""
        self.server = server
        self.cookies: dict[str, str] = {}
        if name:
            assert self.get(f"/log-in/{name}/").status == 200

    @property
    def headers(self) -> dict[str, str]:
        """The header with the cookies."""
        pairs = (f"{name}={value}" for name, value in self.cookies.items())
        return {"Cookie": "; ".join(pairs)} if self.cookies else {}

    def get(self, path: str) -> Response:
        """Get a page."""
        return self._ask("GET", path, None)

    def post(self, path: str, *, token: bool = True, **fields: str) -> Response:
        """Post a form, with the token against forged requests or without."""
        if token:
            fields["csrfmiddlewaretoken"] = self.cookies["csrftoken"]
        return self._ask("POST", path, fields)

    def _ask(self, method: str, path: str, fields: Mapping[str, str] | None) -> Response:
        host, port = self.server.address  # type: ignore[misc]
        connection = http.client.HTTPConnection(host, port, timeout=30)
        headers = {"Connection": "close", **self.headers}
        body = None
        if fields is not None:
            body = urlencode(fields)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = Response(answer.status, answer.getheaders(), answer.read())
        connection.close()
        for line in found.header_all("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return found

    def websocket(self, path: str, **headers: str) -> RawPeer:
        """Open a WebSocket."""
        return RawPeer.open(self.server, path, headers={**self.headers, **headers})

    def shows(self, text: str) -> bool:
        """Whether the page has this text."""
        return text in self.get(PAGE).body.decode()

    def sees(self, path: str) -> bool:
        """Whether the page lists one WebSocket with this path: not until its process listens."""
        rows = self.rows(f"?q={path}")
        return len(rows) == 1 and rows[0].startswith(path)

    def rows(self, query: str = "") -> list[str]:
        """Give the text of each row in the page's table of open WebSockets."""
        page = self.get(PAGE + query)
        assert page.status == 200
        table = re.search(r'<table id="ws-table">.*?</table>', page.body.decode(), re.DOTALL)
        assert table is not None
        rows = re.findall(r"<tr>(.*?)</tr>", table[0].partition("<tbody>")[2], re.DOTALL)
        return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in rows]
