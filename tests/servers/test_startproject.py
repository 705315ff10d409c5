"""The project that `startproject` makes, with its own `asgi.py`, serves our views."""

from __future__ import annotations

import contextlib
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from support.raw_peer import CLOSE, RawPeer, Response, handshake_request
from support.server import ASGI, Kind, Server
from support.start_page import make
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.extended("makes a project for each server")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chat of docs/start.md."""
    folder = tmp_path_factory.mktemp("start")
    make(folder)
    return folder


@pytest.mark.parametrize("kind", ASGI, ids=str)
def test_chat_of_an_untouched_asgi_file(kind: Kind, project: Path) -> None:
    """Pages, and WebSockets by one URL."""
    with Server(kind, cwd=project, module="mysite", probe="/chat/") as server:
        origin = {"Origin": f"http://{server.host}"}
        with (
            RawPeer.open(server, "/chat/", headers=origin) as one,
            RawPeer.open(server, "/chat/", headers=origin) as other,
        ):

            def reach_each_other() -> bool:
                # A member is there when its view runs.
                one.send_text("hello")
                return one.read_message() == b"hello"

            eventually(reach_each_other)
            assert other.read_message() == b"hello"


@pytest.mark.parametrize("kind", ASGI, ids=str)
def test_many_see_the_end_of_it(kind: Kind, project: Path) -> None:
    """On SIGTERM each client sees a close frame, and the log has no traceback."""
    with Server(kind, cwd=project, module="mysite", probe="/chat/") as server:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(RawPeer.open(server, "/chat/")) for _ in range(10)]
            server.send_signal(signal.SIGTERM)
            for peer in peers:
                while (frame := peer.read_frame()).opcode != CLOSE:
                    pass
                assert frame.code == 1001
                peer.send_frame(CLOSE, frame.payload)
        server.wait(60)
        assert "Traceback" not in server.stderr()


@pytest.mark.parametrize("kind", ASGI[:1], ids=str)
def test_handshake_that_is_refused(kind: Kind, project: Path) -> None:
    """It gets Django's response, and a line in the log."""
    with Server(kind, cwd=project, module="mysite", probe="/chat/") as server:
        with RawPeer(server.address) as peer:
            peer.send(handshake_request("/chat/", server.host, headers={"Origin": "http://a.b"}))
            assert peer.read_response().status == 403
        eventually(lambda: "WebSocket refused with 403: /chat/" in server.stderr())


OWN_HANDLER = """
import os

import django
from django.core.handlers.asgi import ASGIHandler

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()


class Handler(ASGIHandler):
    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            query = scope["query_string"] or b"by=handler"
            await super().__call__({**scope, "query_string": query}, receive, send)
            return
        await receive()
        print("own lifespan")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def send_response(self, response, send):
        response["X-Own"] = "yes"
        await super().send_response(response, send)


application = Handler()
"""


@pytest.mark.parametrize("kind", ASGI[:1], ids=str)
def test_handler_of_the_project(kind: Kind, project: Path, tmp_path: Path) -> None:
    """A subclass of Django's handler keeps what it does by itself, and its own lifespan."""
    folder = tmp_path / "site"
    shutil.copytree(project, folder)
    (folder / "mysite" / "asgi.py").write_text(OWN_HANDLER)
    with (folder / "chat" / "views.py").open("a") as views:
        views.write("""
@accept_websocket(text_type=str)
def query(request):
    request.websocket.send(request.META["QUERY_STRING"])


@accept_websocket(fallback=True)
def told(request):
    request.websocket.send("hello")
""")
    with (folder / "mysite" / "urls.py").open("a") as urls:
        urls.write('urlpatterns += [path("query/", views.query), path("told/", views.told)]\n')

    def own(response: Response) -> list[str]:
        return [value for name, value in response.headers if name.lower() == "x-own"]

    with Server(kind, cwd=folder, module="mysite", probe="/chat/") as server:
        assert own(server.get("/chat/")) == ["yes"]
        with RawPeer.open(server, "/query/") as peer:
            assert peer.read_message() == b"by=handler"
        with RawPeer(server.address) as peer:
            peer.send(handshake_request("/chat/", server.host, headers={"Origin": "http://a.b"}))
            response = peer.read_response()
        assert (response.status, own(response)) == (403, ["yes"])
        stream = server.get("/told/?transport=sse", {"Origin": f"http://{server.host}"})
        assert (stream.status, b"hello" in stream.body) == (200, True)
        assert "own lifespan" in server.stdout()
