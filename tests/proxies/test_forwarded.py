"""Behind a proxy with our configuration no client can choose its address itself."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING

import pytest

from support.installed import require
from support.proxy import Proxy, doctor
from support.raw_peer import RawPeer, handshake_request
from support.server import GUNICORN_GTHREAD, ROOT, UVICORN, Kind, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Behind = Callable[..., Proxy]

pytestmark = pytest.mark.extended("the proxies are Debian's")

MADE_UP = "192.0.2.99"
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
# For each proxy's block on the page, the lines that are replaced here.
PLACES = {
    "nginx": ("server {", "server { listen {listen};", "127.0.0.1:8000", "{upstream}"),
    "caddy": ("example.com {", "http://{listen} {", "127.0.0.1:8000", "{upstream}"),
    "apache": ("*:80", "{listen}", "127.0.0.1:8000", "{upstream}"),
}


def on_the_page(kind: str) -> str:
    """Give the configuration of `docs/deployment.md` with this test's addresses."""
    title = {"nginx": "nginx", "caddy": "Caddy", "apache": "Apache"}[kind]
    section = PAGE.partition(f"\n## {title}\n")[2]
    found = re.search(r"```\w*\n(.*?)```", section, re.DOTALL)
    assert found is not None
    text, places = found[1], PLACES[kind]
    for before, after in zip(places[::2], places[1::2], strict=True):
        assert before in text
        text = text.replace(before, after)
    return text


@pytest.fixture
def behind(own_server: Callable[..., Server]) -> Iterator[Behind]:
    """Start a server and a proxy in front: `behind(proxy, kind, snippet, **settings)`."""
    with contextlib.ExitStack() as stack:

        def start(proxy: str, kind: Kind, snippet: str | None, **settings: object) -> Proxy:
            require(proxy)
            server = own_server(kind, settings=settings)
            return stack.enter_context(Proxy(proxy, server, snippet=snippet))

        yield start


@pytest.mark.parametrize("source", ["doctor", "page"])
@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN], ids=str)
@pytest.mark.parametrize("proxy_kind", ["nginx", "caddy", "apache"])
def test_made_up_address(behind: Behind, proxy_kind: str, kind: Kind, source: str) -> None:
    """Sent in one header, in two, or in a list, it does not even arrive."""
    snippet = None if source == "doctor" else on_the_page(proxy_kind)
    proxy = behind(proxy_kind, kind, snippet)
    for value in (MADE_UP, f"{MADE_UP}, 127.0.0.1", "\x9b2J"):
        lines = [("X-Forwarded-For", value), ("x-forwarded-for", MADE_UP)]
        with RawPeer(proxy.address) as peer:
            peer.send(handshake_request("/addresses/", proxy.host, extra=lines))
            assert peer.read_response().status == 101
            assert json.loads(peer.read_message()) == {
                "peer": "127.0.0.1",
                "forwarded": "127.0.0.1",
            }


def test_limit_of_an_address(behind: Behind) -> None:
    """A client that makes up one address for each connection gets no more connections."""
    proxy = behind("nginx", UVICORN, None, WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=2)
    with contextlib.ExitStack() as stack:
        statuses = []
        for number in range(4):
            peer = stack.enter_context(RawPeer(proxy.address))
            lie = {"X-Forwarded-For": f"192.0.2.{number}"}
            peer.send(handshake_request("/echo/", proxy.host, headers=lie))
            statuses.append(peer.read_response().status)
    assert statuses[:2] == [101, 101]
    assert 101 not in statuses[2:]


class TestDoctor:
    """It sends a made-up address, and reports whether that is believed."""

    APPENDS = on_the_page("nginx").replace(
        "X-Forwarded-For $remote_addr", "X-Forwarded-For $proxy_add_x_forwarded_for"
    )
    PASSES_ON = on_the_page("nginx").replace("X-Forwarded-For", "X-Something")

    def examine(self, url: str) -> dict[str, dict[str, str]]:
        """Run it; give its findings by id."""
        done = doctor("--json", "--url", url)
        findings = json.loads(done.stdout)["findings"]
        return {finding["id"]: finding for finding in findings}

    @pytest.mark.parametrize("snippet", [APPENDS, PASSES_ON], ids=["appends", "passes-on"])
    def test_believed(self, behind: Behind, snippet: str) -> None:
        """By uvicorn, of a proxy that lets it pass."""
        proxy = behind("nginx", UVICORN, snippet)
        found = self.examine(proxy.url("/addresses/"))
        assert found["forwarded.believed"]["level"] == "warning"
        assert "192.0.2.123" in found["forwarded.believed"]["what"]
        assert "X-Forwarded-For $remote_addr" in found["forwarded.believed"]["fix"]

    @pytest.mark.parametrize(
        ("kind", "snippet"),
        [(UVICORN, None), (GUNICORN_GTHREAD, None), (GUNICORN_GTHREAD, PASSES_ON)],
        ids=["overwritten", "overwritten-gunicorn", "gunicorn-believes-nobody"],
    )
    def test_not_believed(self, behind: Behind, kind: Kind, snippet: str | None) -> None:
        """It reports the address that Django sees."""
        found = self.examine(behind("nginx", kind, snippet).url("/addresses/"))
        assert "forwarded.believed" not in found
        assert "Django sees this client as 127.0.0.1" in found["forwarded"]["what"]
