"""Pages with a few blocks of Python: each runs, and does what its page says of it."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpResponse

import dwebsocket
from dwebsocket import signals
from dwebsocket.handover import offers
from support.pages import ROOT, block, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.testing import WebSocketClient

    Serve = Callable[..., WebSocketClient]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_first_pages(serve: Serve, page: str) -> None:
    """A page, and a chat."""
    made = run(page, "def chat(")
    made["render"] = lambda request, template: HttpResponse(template)
    client = serve(made["chat"])
    assert client.get("/").content == b"chat.html"
    with client.websocket("/") as one, client.websocket("/") as two:
        one.send("hello")
        assert one.receive() == two.receive() == "hello"


def test_handlers(serve: Serve) -> None:
    """A message of one visitor comes to the other with a name, and so does the end."""
    chat = run("docs/handlers.md", "class Chat(")["Chat"]
    (route,) = run("docs/handlers.md", "Chat.as_view()", Chat=chat)["urlpatterns"]
    client = serve(ws=route.callback)
    ada, bert = {"X-User": "ada"}, {"X-User": "bert"}
    with client.websocket("/ws/42/", headers=ada) as one:
        with client.websocket("/ws/42/", headers=bert) as two:
            two.send("hello")
            assert one.receive() == two.receive() == "bert: hello"
        assert one.receive() == "bert has left"


def test_guarded_handler(serve: Serve) -> None:
    """A stranger is sent away, a user comes in."""
    chat = run("docs/handlers.md", "class Chat(")["Chat"]
    members = run("docs/handlers.md", "class Members(", Chat=chat)["Members"]
    client = serve(ws=members.as_view())
    assert client.get("/ws/42/").status_code == 302
    with client.websocket("/ws/42/") as stranger:
        assert stranger.response.status_code == 302
    with client.websocket("/ws/42/", headers={"X-User": "ada"}) as one:
        one.send("hello")
        assert one.receive() == "ada: hello"


def test_fallback(serve: Serve) -> None:
    """A view with a fallback is one for WebSockets, too."""
    view = run("docs/fallback.md", "fallback=True")["chat"]
    client = serve(ws=view)
    with client.websocket("/ws/42/") as websocket:
        websocket.send("hello")
        assert websocket.receive() == "hello"


def test_signals(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Receivers of the app are told of a connection's beginning and end."""
    made = run("docs/signals.md", "class ChatConfig")
    app = made["ChatConfig"]("chat", SimpleNamespace(__path__=[str(ROOT / "tests")]))
    app.ready()
    try:
        client = serve(run("docs/index.md", "def chat(")["chat"])
        with client.websocket("/") as websocket:
            websocket.send("hello")
            websocket.receive()
    finally:
        signals.websocket_opened.disconnect(made["opened"])
        signals.websocket_closed.disconnect(made["closed"])
    opened, closed = capsys.readouterr().out.splitlines()
    assert opened.startswith("opened ")
    assert opened.endswith(" /")
    assert closed.startswith("closed ")
    assert closed.split()[2:] == ["1000", "0", "1", "1"]


def test_logging_counts() -> None:
    """The comment below the call has the form of what it gives."""
    code = block("docs/logging.md", '["events"]')
    shown = ast.literal_eval(code.partition("# ")[2])
    assert shown.keys() <= dwebsocket.event_counts().keys()
    for codes in shown.values():
        assert all(code.isdecimal() and isinstance(count, int) for code, count in codes.items())
    run("docs/logging.md", '["events"]', dwebsocket=dwebsocket)


def test_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is taken, and the drain runs on a thread of its own."""
    drained = threading.Event()
    given = {}

    def drain(**options: Any) -> None:
        given.update(options, thread=threading.current_thread())
        drained.set()

    before = signal.getsignal(signal.SIGUSR2)
    monkeypatch.setattr(dwebsocket, "drain", drain)
    try:
        run("docs/deployment.md", "SIGUSR2")
        os.kill(os.getpid(), signal.SIGUSR2)
        assert drained.wait(30)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert given.pop("thread") is not threading.main_thread()
    assert given == {"window": 10, "timeout": 20}


def test_survivor(capsys: pytest.CaptureFixture[str]) -> None:
    """What it keeps is plain, and it goes on with that."""
    sent: list[str] = []
    handler = run("docs/deploys.md", "survives = True")["Counter"]()
    handler.websocket, handler.state = SimpleNamespace(send_text=sent.append), {}
    handler.connect()
    handler.receive("a")
    handler.state = json.loads(json.dumps(offers.state_of(handler)))
    handler.resumed()
    handler.receive("b")
    assert (sent, capsys.readouterr().out) == (["1: a", "2: b"], "went on at 1\n")
    assert handler.survives


def test_surviving_room(capsys: pytest.CaptureFixture[str]) -> None:
    """Its state is there, empty, and moves."""
    cls = run("docs/deploys.md", "class Score(Room)")["Score"]
    room = cls(None, None, "score-1")
    assert room.state == {}
    room.joined()
    heir = cls(None, None, "score-1")
    heir.state.update(json.loads(json.dumps(room.state)))
    heir.resumed()
    assert capsys.readouterr().out == "went on at 0\n"
    assert (heir.survives, heir.version) == (True, 2)


class TestOperations:
    """docs/operations.md."""

    PAGE = "docs/operations.md"

    def test_apps(self) -> None:
        """The app is the one that Django finds."""
        made = run(self.PAGE, "INSTALLED_APPS")
        assert made["INSTALLED_APPS"] == [..., "dwebsocket"]

    def test_another_admin_site(self) -> None:
        """It has the page, beside its other addresses."""
        code = block(self.PAGE, "AdminSite")
        done = _with_admin(f"{code}\nprint('websockets/' in str(site.urls))")
        assert done == "True\n"

    def test_numbers(self, serve: Serve) -> None:
        """Of this process, and of all: the keys are there."""
        site = run(self.PAGE, 'statistics("site")')["site"]
        assert isinstance(site["total"]["open"]["views"], dict)

    def test_metrics(self, serve: Serve) -> None:
        """They need the token."""
        token = run(self.PAGE, "METRICS_TOKEN")["WEBSOCKET_METRICS_TOKEN"]
        assert token == os.environ.get("METRICS_TOKEN", "")
        (route,) = run(self.PAGE, "dwebsocket.metrics")["urlpatterns"]
        client = serve(route.callback, settings={"WEBSOCKET_METRICS_TOKEN": "x" * 16})
        assert client.get("/").status_code == 403
        answer = client.get("/", headers={"Authorization": f"Bearer {'x' * 16}"})
        assert answer.status_code == 200
        assert b"dwebsocket_open" in answer.content


def _with_admin(code: str) -> str:
    """Run code in a process of its own, with the admin installed."""
    settings = """
from django.conf import settings
apps = ["admin", "auth", "contenttypes", "messages", "sessions"]
settings.configure(
    SECRET_KEY="for tests only",
    INSTALLED_APPS=[*(f"django.contrib.{name}" for name in apps), "dwebsocket"],
    ROOT_URLCONF=(),
)
import django
django.setup()
"""
    done = subprocess.run(
        [sys.executable, "-c", settings + code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestAsgi:
    """docs/servers/asgi.md."""

    PAGE = "docs/servers/asgi.md"

    def test_application(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is an ASGI application of Django's kind."""
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project.settings")
        made = run(self.PAGE, 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site.settings")')
        assert callable(made["application"])

    def test_router(self) -> None:
        """Channels' router takes our application for WebSockets."""
        made = run(self.PAGE, "ProtocolTypeRouter")
        mapping = made["application"].application_mapping
        assert mapping["websocket"] is dwebsocket.asgi.websocket_application

    def test_uvicorn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is run with our protocol, and its settings are checked."""
        given: dict[str, Any] = {}
        ours = ModuleType("dwebsocket.uvicorn")
        ours.configured = lambda **options: options  # type: ignore[attr-defined]
        uvicorn = ModuleType("uvicorn")
        uvicorn.run = lambda *args, **options: given.update(options)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "uvicorn", uvicorn)
        monkeypatch.setitem(sys.modules, "dwebsocket.uvicorn", ours)
        run(self.PAGE, "uvicorn.run(")
        assert given["ws"].keys() <= {name.lower() for name in dwebsocket.conf.SETTINGS}


class TestChannels:
    """docs/channels.md, without its diffs."""

    PAGE = "docs/channels.md"

    def test_consumer(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is a view; and the test of the page drives it."""
        from channels.generic.websocket import JsonWebsocketConsumer

        class ChatConsumer(JsonWebsocketConsumer):
            def receive_json(self, content: Any) -> None:
                assert self.scope["url_route"]["kwargs"] == {"room": "lobby"}
                self.send_json(content)

        consumers = ModuleType("chat.consumers")
        consumers.ChatConsumer = ChatConsumer  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "chat", ModuleType("chat"))
        monkeypatch.setitem(sys.modules, "chat.consumers", consumers)
        (route,) = run(self.PAGE, "ws/chat/<room_name>/")["urlpatterns"]
        client = serve(**{"ws/chat": route.callback})
        with client.websocket("/ws/chat/lobby/") as websocket:
            websocket.send_json({"message": "hello"})
            assert websocket.receive_json() == {"message": "hello"}

    def test_more_threads(self) -> None:
        """By the setting, and by the argument of a consumer."""
        from django.test import override_settings
        from django.urls import path

        from dwebsocket import asgi_websocket, conf

        number = run(self.PAGE, "WEBSOCKET_CHANNELS_THREADS = ")["WEBSOCKET_CHANNELS_THREADS"]
        with override_settings(WEBSOCKET_CHANNELS_THREADS=number):
            assert conf.get("CHANNELS_THREADS") == number

        class ReportConsumer:
            @staticmethod
            def as_asgi() -> Any:
                return lambda scope, receive, send: None

        names = {"path": path, "asgi_websocket": asgi_websocket, "ReportConsumer": ReportConsumer}
        (route,) = run(self.PAGE, "thread_per_connection=True", **names)["urlpatterns"]
        assert str(route.pattern) == "ws/reports/"

    def test_libraries(self) -> None:
        """Their addresses are those of the site that is tested."""
        site = (ROOT / "tests/api_site/apisite/urls.py").read_text()
        lines = [line.strip() for line in block(self.PAGE, "strawberry.channels").splitlines()]
        assert [line for line in lines if line and line not in site] == []

    def test_another_application(self, serve: Serve) -> None:
        """Of any kind."""
        from django.urls import path

        from dwebsocket import asgi_websocket

        names = {"path": path, "asgi_websocket": asgi_websocket}
        (route,) = run(self.PAGE, "async def echo(", **names)["urlpatterns"]
        with serve(route.callback).websocket("/") as websocket:
            websocket.send("hello")
            assert websocket.receive() == "hello"


def test_recipes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that shows a toast, with those of the page and its history."""
    page = "docs/recipes.md"
    groups = run(page, '"toasts-*"')["WEBSOCKET_GROUPS"]
    groups["default"]["BACKEND"] = "dwebsocket.groups.process"
    toasts = run(page, "def toasts_of(")
    save = run(page, "def save(", toast=toasts["toast"])
    save["redirect"] = lambda name: HttpResponse(name)
    client = serve(save["save"], ws=toasts["toasts"], settings={"WEBSOCKET_GROUPS": groups})
    ada = {"X-User": "ada"}
    with client.websocket("/ws/", headers=ada) as websocket:
        assert websocket.receive_json()["recovered"] is True
        assert client.post("/", headers=ada).content == b"toast-page"
        assert '"The order is saved"' in websocket.receive_json()["data"]
    assert client.get("/", headers=ada).status_code == 405
    request = SimpleNamespace(user=SimpleNamespace(is_authenticated=False))
    assert toasts["for_templates"](request) == {}


def test_chat_example(serve: Serve) -> None:
    """Its page's code for a shell reaches the members."""

    @dwebsocket.accept_websocket(groups=["shell"])
    def view(request: Any) -> None:
        request.websocket.wait()

    client = serve(view)
    with client.websocket("/") as websocket:
        run("examples/chat/README.md", "hello from a shell")
        assert websocket.receive() == "hello from a shell"
