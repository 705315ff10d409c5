"""
Client libraries and a browser with compression: by default, with context takeover, small windows.

Without compression they are in tests/servers/test_clients.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import websockets.asyncio.client
from selenium.webdriver.support.ui import WebDriverWait
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from support.browser import chromium
from support.clients import node, websocket
from support.server import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from support.server import Server

pytestmark = pytest.mark.extended("builds a client, and compares many more")

# The view of the second keeps all that the client lets it keep.
PATHS = ["/echo-exact/", "/echo-with-context/"]
MESSAGES: list[str | bytes] = [
    "",
    "grüße",
    json.dumps([{"id": number, "name": "alice"} for number in range(100)]),
    "水🎉" * 30_000,
    os.urandom(100_000),
    bytes(1 << 20),
    "once more " * 100,
    "once more " * 100,
]
NO_TAKEOVER = {"server_no_context_takeover": True, "client_no_context_takeover": True}
SMALL = {"server_max_window_bits": 9, "client_max_window_bits": 9}
WEBSOCKETS = [{}, SMALL, {**SMALL, **NO_TAKEOVER}, {"client_max_window_bits": 12}]


@pytest.mark.parametrize("path", PATHS)
class TestWebsockets:
    """The clients of `websockets`."""

    @pytest.mark.parametrize("parameters", WEBSOCKETS, ids=str)
    def test_sync(self, server: Server, path: str, parameters: dict[str, Any]) -> None:
        """The threaded one, which sends fragments, too."""
        offer = ClientPerMessageDeflateFactory(**{"client_max_window_bits": True, **parameters})
        with websocket(server, path, extensions=[offer], compression=None) as client:
            assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
            for message in MESSAGES:
                client.send(message)
                assert client.recv(20) == message
            client.send(iter(["one ", "", "two ", "three"] * 200))
            assert client.recv(20) == "one two three" * 200
            client.close(4002, "done")
            assert client.close_code == 4002

    def test_async(self, server: Server, path: str) -> None:
        """The one on asyncio, as it is by default."""

        async def main() -> int | None:
            async with websockets.asyncio.client.connect(
                server.url(path), proxy=None, max_size=None
            ) as client:
                assert client.protocol.extensions
                for message in MESSAGES:
                    await client.send(message)
                    assert await client.recv() == message
            return client.close_code

        assert asyncio.run(asyncio.wait_for(main(), 60)) == 1000


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bits", [15, 9])
def test_aiohttp(server: Server, path: str, bits: int) -> None:
    """`aiohttp` can ask for a window."""

    async def main() -> int | None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(server.url(path, "http"), compress=bits, max_msg_size=0) as ws,
        ):
            assert ws.compress
            for message in MESSAGES:
                if isinstance(message, str):
                    await ws.send_str(message)
                    assert await ws.receive_str(timeout=20) == message
                else:
                    await ws.send_bytes(message)
                    assert await ws.receive_bytes(timeout=20) == message
            await ws.close(code=4002)
            return ws.close_code

    assert asyncio.run(main()) == 4002


@pytest.mark.needs("node")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"serverMaxWindowBits": 9, "clientMaxWindowBits": 9},
        {"serverNoContextTakeover": True, "clientNoContextTakeover": True},
    ],
    ids=str,
)
def test_node_ws(server: Server, path: str, options: dict[str, Any]) -> None:
    """The `ws` package on Node compresses fragments one by one."""
    # Arguments of a process have their limits.
    texts = [text for text in MESSAGES if isinstance(text, str) and len(text) < 10_000]
    seen = node(
        "ws",
        server.url(path),
        deflate={"threshold": 0, **options},
        send=[
            *({"text": text} for text in texts),
            {"binary_size": 100_000},
            {"fragments": ["one ", "two ", "three " * 100]},
        ],
        close=[4002, "done"],
    )
    assert seen["extensions"] == "permessage-deflate"
    assert (seen["code"], seen["errors"]) == (4002, [])
    expected: list[dict[str, Any]] = [{"binary": False, "text": text} for text in texts]
    expected.append({"binary": True, "same": True, "size": 100_000})
    expected.append({"binary": False, "text": "one two " + "three " * 100})
    assert seen["messages"] == expected


@pytest.mark.every("compiles another crate")
@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is missing")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", [*PATHS, "/echo-uncompressed/"])
def test_tokio_tungstenite(server: Server, path: str) -> None:
    """It has no compression, and gets none."""
    # `cargo test` has built it in this profile already.
    client = ["cargo", "run", "--quiet", "--profile", "test", "--no-default-features"]
    done = subprocess.run(
        [*client, "--example", "tungstenite", "--", server.url(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


CONVERSATION = """
    window.outcome = null;
    const messages = ["", "grüße", "once more ".repeat(1000), "水🎉".repeat(30000), "end"];
    const socket = new WebSocket(arguments[0]);
    const came = [];
    socket.onopen = () => socket.send(messages[0]);
    socket.onmessage = (event) => {
        came.push(event.data === messages[came.length]);
        if (came.length < messages.length) socket.send(messages[came.length]);
        else socket.close(4002);
    };
    socket.onclose = (event) => {
        window.outcome = [socket.extensions, came, event.code, event.wasClean];
    };
"""


@pytest.mark.needs("chromium")
def test_chromium(server: Server, tmp_path: Path) -> None:
    """A browser always offers compression, and shows which extension was agreed on."""
    agreed = {
        PATHS[0]: "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        PATHS[1]: "permessage-deflate",
        "/echo-uncompressed/": "",
    }
    with chromium(tmp_path / "profile") as browser:
        browser.get(server.url("/plain/", "http"))
        for path, extensions in agreed.items():
            browser.execute_script(CONVERSATION, server.url(path))
            outcome = WebDriverWait(browser, 20).until(
                lambda driver: driver.execute_script("return window.outcome")
            )
            assert outcome == [extensions, [True] * 5, 4002, True]
