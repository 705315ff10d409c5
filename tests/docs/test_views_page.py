"""docs/views.md: each block runs, and does what the page says of it."""

from __future__ import annotations

import datetime
import json
import logging
import socket
import subprocess
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpResponse

from dwebsocket import WebSocketRequest, accept_websocket
from dwebsocket.testing import Clock, WebSocketClient
from support.pages import run
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., WebSocketClient]

PAGE = "docs/views.md"


def test_a_views_life(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """One view is the page and the WebSocket."""
    made = run(PAGE, 'f"{room}: {message}"')
    made["render"] = lambda request, template: HttpResponse(template)
    client = serve(chat=made["chat"])
    assert client.get("/chat/42/").content == b"chat.html"
    with client.websocket("/chat/42/") as websocket:
        websocket.send("hello")
        assert websocket.receive() == "42: hello"


@pytest.mark.parametrize(
    ("user", "is_over", "answer"),
    [("bidder", False, 101), ("bidder", True, 410), ("guest", False, 403)],
)
def test_deciding(serve: Serve, user: str, is_over: bool, answer: int) -> None:
    """By the user's permission, and by the lot."""
    auction = run(PAGE, "auctions.bid")["auction"]
    lot = SimpleNamespace(pk=7, is_over=is_over)

    def with_lot(request: Any) -> Any:
        return auction(request, lot)

    client = serve(with_lot)
    with client.websocket("/", headers={"X-User": user}) as websocket:
        assert websocket.response.status_code == answer
        if answer == 101:
            assert websocket.headers["x-lot"] == "7"
            websocket.send("100")
            assert websocket.receive() == "100"


def test_exact_receiving(serve: Serve) -> None:
    """Until the client closes; without a message for half a minute it is asked."""
    view = run(PAGE, "Are you still there?")["questions"]
    with serve(view).websocket("/") as websocket:
        websocket.send("yes")
        assert websocket.receive() == "You said yes"
        Clock().advance(31)
        assert websocket.receive() == "Are you still there?"


def test_invalid_messages(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A list is no order: 1007 with the view's words."""
    view = run(PAGE, "an order has an id")["orders"]
    caplog.set_level(logging.INFO, logger="dwebsocket")
    with serve(view).websocket("/") as websocket:
        websocket.send_json({"id": 3})
        assert websocket.receive_json() == {"accepted": 3}
        websocket.send_json([])
        assert websocket.wait_closed() == 1007
        assert websocket.close_reason == "an order has an id"


def test_beside_other_sources(serve: Serve) -> None:
    """Both ways at once."""
    both = run(PAGE, "select.select")["both"]
    ours, theirs = socket.socketpair()

    @accept_websocket(text_type=bytes)
    def view(request: Any) -> None:
        both(request.websocket, ours)

    with ours, theirs, serve(view).websocket("/") as websocket:
        websocket.send("up")
        assert theirs.recv(10) == b"up"
        theirs.sendall(b"down")
        assert websocket.receive() == "down"


def test_sending(serve: Serve) -> None:
    """Text, binary, and JSON with a date."""
    say = run(PAGE, "def say(")["say"]
    order = SimpleNamespace(pk=1, created=datetime.date(2026, 1, 2))

    @accept_websocket
    def view(request: Any) -> None:
        say(request.websocket, order)

    with serve(view).websocket("/") as websocket:
        told = [websocket.receive() for _ in range(4)]
    assert told == ["text", "text", b"\0\1", '{"id": 1, "at": "2026-01-02"}']


def test_a_view_that_only_sends(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends by itself when the client has gone."""
    made = run(PAGE, "def clock(")
    ended = threading.Event()
    pauses = threading.Event()
    made["time"] = SimpleNamespace(time=lambda: 1.5, sleep=lambda _: pauses.wait(0.05))

    @accept_websocket
    def view(request: Any) -> None:
        try:
            made["clock"].__wrapped__(request)
        finally:
            ended.set()

    with serve(view).websocket("/") as websocket:
        assert websocket.receive_json() == {"time": 1.5}
        websocket.close()
        assert ended.wait(30)


def test_closing(serve: Serve) -> None:
    """The first code counts."""
    part = run(PAGE, "def part(")["part"]

    @accept_websocket
    def view(request: Any) -> None:
        part(request.websocket)

    with serve(view).websocket("/") as websocket:
        assert websocket.wait_closed() == 1000


@pytest.mark.parametrize("answers", [True, False])
def test_about_the_client(serve: Serve, answers: bool) -> None:
    """Address, time and the way of a ping; a client that does not answer is sent away."""
    view = run(PAGE, "you are far away")["status"]
    with serve(view).websocket("/", answer_pings=answers) as websocket:
        known = websocket.receive_json()
        assert known["you"] == "127.0.0.1"
        assert datetime.datetime.fromisoformat(known["since"]).tzinfo is not None
        if answers:
            assert 0 <= websocket.receive_json()["seconds"] < 5
        else:
            Clock().advance(6)
            assert websocket.wait_closed() == 4000


def test_at_the_end(serve: Serve) -> None:
    """Others are told when a client goes."""
    made = run(PAGE, "online.pop")
    client = serve(made["chat"])
    with client.websocket("/", headers={"X-User": "anna"}) as anna:
        with client.websocket("/", headers={"X-User": "bert"}):
            eventually(lambda: len(made["online"]) == 2)
        assert anna.receive() == "bert left"


def test_now_and_then(serve: Serve) -> None:
    """Prices come beside the answers."""
    view = run(PAGE, '"price": 42')["quotes"]
    with serve(view).websocket("/") as websocket:
        websocket.send("hello")
        assert websocket.receive() == "You said hello"
        Clock().advance(5)
        assert websocket.receive_json() == {"price": 42}


def test_from_a_source(serve: Serve) -> None:
    """The output of the command comes, and the command is killed at the end."""
    made = run(PAGE, "/var/log/syslog")
    commands, processes = [], []

    def popen(command: list[str], **options: Any) -> Any:
        commands.append(command)
        process = subprocess.Popen(["sh", "-c", "echo a line; exec sleep 100"], **options)
        processes.append(process)
        return process

    made["subprocess"] = SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE)
    with serve(made["log"]).websocket("/") as websocket:
        assert websocket.receive() == "a line\n"
    assert commands == [["tail", "-n", "100", "-f", "/var/log/syslog"]]
    assert processes[0].wait(30) != 0


def test_a_global_set(serve: Serve) -> None:
    """Every message reaches all."""
    made = run(PAGE, "users.discard")
    client = serve(made["chat"])
    with client.websocket("/") as one, client.websocket("/") as two:
        eventually(lambda: len(made["users"]) == 2)
        one.send("hello")
        assert one.receive() == two.receive() == "hello"


def test_types(serve: Serve) -> None:
    """A view with annotations, and a class of requests, run as any others."""
    made = run(PAGE, "open a WebSocket here")
    client = serve(echo=made["echo"])
    assert client.get("/echo/42/").content == b"open a WebSocket here"
    with client.websocket("/echo/42/") as websocket:
        websocket.send("hello")
        assert websocket.receive() == "hello"
    signed_in = run(PAGE, "class SignedIn", WebSocketRequest=WebSocketRequest)["SignedIn"]
    assert issubclass(signed_in, WebSocketRequest)


def test_expelling(serve: Serve, anna: Any) -> None:
    """Closes what the user has open."""
    expel = run(PAGE, "def expel(")["expel"]

    @accept_websocket
    def view(request: Any) -> None:
        request.websocket.wait()

    client = serve(
        view,
        settings={
            "MIDDLEWARE": [
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
            ]
        },
    )
    client.force_login(anna)
    with client.websocket("/") as websocket:
        assert expel(anna) == 1
        assert (websocket.wait_closed(), websocket.close_reason) == (4403, "see the rules")


def test_decorators(serve: Serve) -> None:
    """`login_required` above ours refuses before the connection opens; a class is a view."""
    made = run(PAGE, "chat.v2")
    client = serve(function=made["chat"], cls=made["Chat"].as_view())
    with client.websocket("/function/") as websocket:
        assert websocket.response.status_code == 302
    ada = {"X-User": "ada"}
    with client.websocket("/function/", subprotocols=["chat.v1"], headers=ada) as websocket:
        assert websocket.receive() == "chat.v1"
    with client.websocket("/cls/") as websocket:
        websocket.send("hello")
        assert websocket.receive() == "hello"


def test_middleware_of_a_projects_own() -> None:
    """It makes the attributes, opens the connection before the view, and closes it behind."""
    made = run(PAGE, "class SocketMiddleware")
    calls: list[str] = []
    websocket = SimpleNamespace(
        accept_connection=lambda: calls.append("accept"), close=lambda: calls.append("close")
    )

    def view(request: Any) -> str:
        calls.append("view")
        return json.dumps(request.is_websocket())

    for kind in (None, websocket):
        made["WebSocketFactory"] = lambda request, kind=kind: SimpleNamespace(
            create_websocket=lambda: kind
        )

        middleware = made["SocketMiddleware"](view)
        # As Django does between the two.
        middleware.get_response = lambda request, middleware=middleware: (
            middleware.process_view(request, view, (), {}) or view(request)
        )
        assert middleware(SimpleNamespace()) == json.dumps(kind is not None)
    assert calls == ["view", "accept", "view", "close"]
