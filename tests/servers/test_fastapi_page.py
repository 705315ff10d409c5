"""The examples and commands of docs/fastapi.md."""

from __future__ import annotations

import json
import re
import shlex
import signal
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import CLOSE, TEXT, RawPeer, handshake_request
from support.server import ROOT, Kind, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.extended("it is for sites without Django"),
    pytest.mark.skipif(not find_spec("fastapi"), reason="pip install fastapi"),
]

PAGE = (ROOT / "docs" / "fastapi.md").read_text()
FILES = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
UVICORN, LIMITED, GUNICORN = (
    line for line in re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE) if not line.startswith("pip")
)
STARTS = {
    UVICORN: "{python} -m {words} --port {port}",
    LIMITED: "{python} -m {words} --port {port}",
    "run.py": "env PORT={port} {python} {words}",
    GUNICORN: "{python} -m {words} --bind 127.0.0.1:{port}",
}

# The page says that such endpoints need no change.
STARLETTE = """
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket


async def echo(websocket: WebSocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


class Double(WebSocketEndpoint):
    encoding = "json"

    async def on_receive(self, websocket, data):
        await websocket.send_json({"double": 2 * data["number"]})


app = Starlette(routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/double", Double)])
"""


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Write the page's files, and run one of its commands for one of the frameworks."""
    command, framework = request.param
    for name, code in FILES:
        (tmp_path / name).write_text(code)
    if framework == "starlette":
        (tmp_path / "main.py").write_text(STARLETTE)
    words = shlex.split(command)
    variables = dict(word.split("=") for word in words if re.match(r"[A-Z_]+=", word))
    line = STARTS.get(command, STARTS[UVICORN]).replace(
        "{words}", " ".join(words[len(variables) :])
    )
    kind = Kind("page", "asgi", tuple(line.split()), alone=command != GUNICORN)
    server = Server(kind, cwd=tmp_path, probe="/", env=variables)
    del server.env["DJANGO_SETTINGS_MODULE"]
    with server:
        yield server


@pytest.mark.parametrize(
    "site",
    [(each, "fastapi") for each in STARTS],
    indirect=True,
    ids=["uvicorn", "with-variables", "run.py", "gunicorn"],
)
def test_fastapi(site: Server, request: pytest.FixtureRequest) -> None:
    """Visitors hear each other, others are refused, and the limit and the end are the page's."""
    for path, status in [("/rooms/lobby", 403), ("/rooms/attic?name=ada", 404)]:
        with RawPeer(site.address) as peer:
            peer.send(handshake_request(path, site.host))
            assert peer.read_response().status == status
    is_limited = request.node.callspec.params["site"][0] in (LIMITED, "run.py")
    if "--workers" not in site.kind.options:
        with (
            RawPeer.open(site, "/rooms/lobby?name=ada") as ada,
            RawPeer.open(site, "/rooms/lobby?name=grace") as grace,
        ):
            ada.send_text("hello")
            assert ada.read_message() == grace.read_message() == b"ada: hello"
    with RawPeer.open(site, "/rooms/lobby?name=ada") as peer:
        peer.send_frame(TEXT, b"x" * 65537)
        frame = peer.read_frame()
        assert (frame.opcode == CLOSE and frame.code == 1009) is is_limited
    with RawPeer.open(site, "/rooms/lobby?name=ada") as peer:
        site.send_signal(signal.SIGTERM)
        assert peer.read_frame().code in (1001, 1012)
        peer.send_close(1001)
        peer.read_to_eof()
    site.wait(30)
    assert "Traceback" not in site.stderr()


@pytest.mark.parametrize(
    "site",
    [(f"DWEBSOCKET_SEND_TIMEOUT=1 DWEBSOCKET_SEND_BUFFER=4096 {UVICORN}", "fastapi")],
    indirect=True,
    ids=["uvicorn"],
)
def test_a_slow_visitor_ends_no_other(site: Server) -> None:
    """It is given up, and the others go on."""
    with (
        RawPeer.open(site, "/rooms/lobby?name=slow") as slow,
        RawPeer.open(site, "/rooms/lobby?name=ada") as ada,
    ):
        slow.send_text("here")
        assert ada.read_message() == b"slow: here"
        # More than the buffers of both sides hold.
        for _ in range(300):
            ada.send_text("x" * 60_000)
            assert ada.read_message() == b"ada: " + b"x" * 60_000


@pytest.mark.parametrize("site", [(UVICORN, "starlette")], indirect=True, ids=["uvicorn"])
def test_starlette(site: Server) -> None:
    """A function and a class."""
    for path, sent, answer in [
        ("/echo", "hello", b"hello"),
        ("/double", json.dumps({"number": 21}), b'{"double":42}'),
    ]:
        with RawPeer.open(site, path) as peer:
            peer.send_text(sent)
            assert peer.read_message() == answer
            peer.send_close(1000)
            assert peer.read_to_eof().code == 1000
