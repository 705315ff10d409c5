"""The examples in docstrings of the calls that most projects use: each runs, and does its work."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import path

import dwebsocket
from dwebsocket import (
    Group,
    ReceiveTimeout,
    WebSocketHandler,
    accept_websocket,
    connect,
    group,
    require_websocket,
)
from dwebsocket.rooms import Room, rooms
from dwebsocket.testing import Clock, WebSocketClient
from dwebsocket.websocket import WebSocket
from support.far_server import far_server

if TYPE_CHECKING:
    from collections.abc import Callable

    Serve = Callable[..., WebSocketClient]

# The calls that have an example: a test below runs each of them.
CALLS: dict[str, Any] = {
    "accept_websocket": accept_websocket,
    "require_websocket": require_websocket,
    "connect": connect,
    "send": WebSocket.send,
    "receive": WebSocket.receive,
    "wait": WebSocket.wait,
    "iteration": WebSocket.__iter__,
    "close": WebSocket.close,
    "is_closed": WebSocket.is_closed,
    "accept": WebSocket.accept,
    "reject": WebSocket.reject,
    "join": WebSocket.join,
    "leave": WebSocket.leave,
    "group.send": Group.send,
    "group.send_json": Group.send_json,
    "group.history": Group.history,
    "group.members": Group.members,
    "handler.connect": WebSocketHandler.connect,
    "handler.receive": WebSocketHandler.receive,
    "handler.disconnect": WebSocketHandler.disconnect,
    "handler.resumed": WebSocketHandler.resumed,
    "as_view": WebSocketHandler.as_view,
    "test client": WebSocketClient.websocket,
    "statistics": dwebsocket.statistics,
    "send_json": WebSocket.send_json,
    "receive_json": WebSocket.receive_json,
    "every": WebSocket.every,
    "group": dwebsocket.group,
    "user": dwebsocket.user,
    "rooms": rooms,
}
ROOM = {
    "WEBSOCKET_GROUPS": {
        "default": {"HISTORY": {"room-*": {"size": 9, "seconds": 60}}, "PRESENCE": {"room-*": {}}}
    }
}


def example(name: str) -> str:
    """Give the code of a call's one example."""
    found = re.findall(
        r"\bExample::\n\n((?:    .*\n|\n)+)", f"{inspect.getdoc(CALLS[name])}\n", re.MULTILINE
    )
    assert len(found) == 1, name
    return textwrap.dedent(found[0])


def run(name: str, **names: Any) -> dict[str, Any]:
    """Execute an example with the names that it uses; give those that it makes as well."""
    made = {"__name__": "example", "group": group, "time": time, **names}
    exec(compile(example(name), f"example of {name}", "exec"), made)
    return made


def view_of(name: str, **names: Any) -> Any:
    """Give a view that executes an example, and notes what it makes in `view.made`."""
    made: list[dict[str, Any]] = []

    @accept_websocket(text_type=str)
    def view(request: Any) -> None:
        made.append(run(name, request=request, **names))

    view.__dict__["made"] = made
    return view


def test_every_example_is_run() -> None:
    """One that is added in the package has its test here."""
    code = [each.read_text() for each in Path(dwebsocket.__file__).parent.rglob("*.py")]
    docs = [
        ast.get_docstring(node) or ""
        for each in code
        for node in ast.walk(ast.parse(each))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    assert sum("Example::" in each for each in docs) == len(CALLS)
    tests = Path(__file__).read_text()
    assert [name for name in CALLS if not re.search(rf'(run|view_of)\("{name}"', tests)] == []


def test_accept_websocket(serve: Serve) -> None:
    """One view is the page and the WebSocket."""

    def render(request: Any, template: str) -> HttpResponse:
        return HttpResponse(template)

    made = run("accept_websocket", accept_websocket=accept_websocket, render=render)
    client = serve(chat=made["chat"])
    assert client.get("/chat/42/").content == b"chat.html"
    with client.websocket("/chat/42/") as websocket:
        websocket.send("hello")
        assert websocket.receive() == "hello"


def test_require_websocket(serve: Serve) -> None:
    """A plain request gets 400; the view ends with the client."""
    clock = SimpleNamespace(time=lambda: 1.5, sleep=lambda _: time.sleep(0.01))
    view = run("require_websocket", require_websocket=require_websocket, time=clock)["clock"]
    client = serve(view)
    assert client.get("/").status_code == 400
    with client.websocket("/", subprotocols=["v1.clock"]) as websocket:
        assert websocket.subprotocol == "v1.clock"
        assert websocket.receive_json() == {"time": 1.5}


def test_send(serve: Serve) -> None:
    """Each price, with two digits."""
    view = view_of("send", prices=lambda: [1, 2.5])
    with serve(view).websocket("/") as websocket:
        assert [websocket.receive(), websocket.receive()] == ["1.00", "2.50"]


def test_receive(serve: Serve) -> None:
    """The answer; or 4000 after half a minute."""
    view = view_of("receive", ReceiveTimeout=ReceiveTimeout)
    client = serve(view)
    with client.websocket("/") as websocket:
        websocket.send("yes")
        assert websocket.wait_closed() == 1000
    assert view.made[0]["answer"] == "yes"
    with client.websocket("/") as websocket:
        Clock().advance(31)
        assert websocket.wait_closed() == 4000
        assert websocket.close_reason == "no answer"


@pytest.mark.parametrize("view", [view_of("wait"), view_of("iteration")], ids=["wait", "for"])
def test_wait_and_iteration(serve: Serve, view: Any) -> None:
    """Every message comes back."""
    with serve(view).websocket("/") as websocket:
        for message in ("hello", b"\0"):
            websocket.send(message)
            assert websocket.receive() == message
    assert view.made


def test_close(serve: Serve) -> None:
    """Code and reason come after the last message."""
    with serve(view_of("close")).websocket("/") as websocket:
        assert websocket.receive() == "You have won"
        assert websocket.wait_closed() == 4001
        assert websocket.close_reason == "game over"


def test_is_closed(serve: Serve) -> None:
    """The loop ends with the client."""
    clock = SimpleNamespace(sleep=lambda _: time.sleep(0.01))
    view = view_of("is_closed", next_quote=lambda: "1.10", time=clock)
    with serve(view).websocket("/") as websocket:
        assert websocket.receive() == "1.10"
    assert view.made


@pytest.mark.parametrize(("user", "status"), [("bidder", 101), ("guest", 403)])
def test_accept(serve: Serve, user: str, status: int) -> None:
    """By the user's permission."""
    auction = run("accept", accept_websocket=accept_websocket)["auction"]
    client = serve(lambda request: auction(request, 7))
    with client.websocket("/", headers={"X-User": user}) as websocket:
        assert websocket.response.status_code == status
        if status == 101:
            assert websocket.headers["x-lot"] == "7"


@pytest.mark.parametrize(("over", "status"), [(True, 410), (False, 101)])
def test_reject(serve: Serve, over: bool, status: int) -> None:
    """By the lot."""
    names = {"accept_websocket": accept_websocket, "is_over": lambda lot: over}
    auction = run("reject", **names)["auction"]
    client = serve(lambda request: auction(request, 7))
    with client.websocket("/") as websocket:
        assert websocket.response.status_code == status


def test_join_and_leave(serve: Serve) -> None:
    """Of two groups that were joined, one remains."""
    found: list[frozenset[str]] = []

    @accept_websocket
    def view(request: Any) -> None:
        run("join", request=request)
        found.append(request.websocket.groups)
        run("leave", request=request)
        found.append(request.websocket.groups)

    with serve(view).websocket("/") as websocket:
        websocket.wait_closed()
    assert found == [frozenset({"news", "room-42"}), frozenset({"news"})]


def test_group_send(serve: Serve) -> None:
    """The sender itself does not get it."""

    @accept_websocket(groups=["room-42"])
    def view(request: Any) -> None:
        if request.websocket.wait():
            run("group.send", request=request)
            request.websocket.send("sent")

    client = serve(view)
    with client.websocket("/") as sender, client.websocket("/") as other:
        sender.send("now")
        assert sender.receive() == "sent"
        assert other.receive() == "It rains"


def test_group_send_json(serve: Serve, tables: None) -> None:
    """As JSON."""

    @accept_websocket(groups=["orders"])
    def view(request: Any) -> None:
        request.websocket.wait()

    with serve(view).websocket("/") as websocket:
        run("group.send_json", order=SimpleNamespace(pk=7))
        assert websocket.receive_json() == {"order": 7, "paid": True}


def test_group_history(serve: Serve) -> None:
    """The texts, and then what comes."""
    view = view_of("group.history")

    @accept_websocket
    def site(request: Any) -> None:
        view.__wrapped__(request)
        request.websocket.send("joined")
        request.websocket.wait()

    client = serve(site, settings=ROOM)
    group("room-42").send("first")
    with client.websocket("/") as websocket:
        assert websocket.receive() == "joined"
        group("room-42").send("second")
        assert websocket.receive() == "second"
    assert view.made[0]["texts"] == ["first"]


def test_group_members(serve: Serve) -> None:
    """Their names, as they have joined with them."""

    @accept_websocket
    def view(request: Any) -> None:
        request.websocket.join("room-42", info={"name": "Anna"})
        request.websocket.send("joined")
        request.websocket.wait()

    with serve(view, settings=ROOM).websocket("/") as websocket:
        assert websocket.receive() == "joined"
        assert run("group.members")["names"] == ["Anna"]


def test_handlers(serve: Serve) -> None:
    """Three methods and the route of one class."""
    made = {
        **run("handler.connect", PermissionDenied=PermissionDenied),
        **run("handler.receive"),
        **run("handler.disconnect"),
    }
    methods = {name: made[name] for name in ("connect", "receive", "disconnect")}
    chat = type("Chat", (WebSocketHandler,), methods)
    (route,) = run("as_view", path=path, Chat=chat)["urlpatterns"]

    @accept_websocket(groups=["lobby"])
    def lobby(request: Any) -> None:
        request.websocket.wait()

    client = serve(lobby, chat=route.callback)
    with client.websocket("/chat/42/") as websocket:
        assert websocket.response.status_code == 403
    with client.websocket("/") as told:
        with client.websocket("/chat/42/", headers={"X-User": "anna"}) as websocket:
            websocket.send("hello")
            assert websocket.receive() == "You said hello"
        assert "anna" in str(told.receive())


def test_connect() -> None:
    """To a server of `websockets`."""
    with far_server() as url:

        def connect_there(_: str) -> dwebsocket.ClientConnection:
            return connect(f"{url}/ws/")

        assert run("connect", connect=connect_there)["answer"] == "hello"


def test_test_client(serve: Serve) -> None:
    """The example asserts by itself."""
    client = serve(None, echo=view_of("iteration"))
    run("test client", WebSocketClient=lambda: client)


def test_resumed() -> None:
    """What moves is a key, and the object is found again."""
    game = SimpleNamespace(objects=SimpleNamespace(get=lambda pk: f"game {pk}"))
    handler = SimpleNamespace(state={"game": 7})
    run("handler.resumed", Game=game)["resumed"](handler)
    assert handler.game == "game 7"


def test_statistics() -> None:
    """A number, and a number for each view."""
    made = run("statistics", dwebsocket=dwebsocket)
    assert made["open_here"] >= 0
    assert isinstance(made["by_view"], dict)


def test_send_json_and_receive_json(serve: Serve) -> None:
    """Decimals go out as Django writes them; what comes is parsed."""
    lot = SimpleNamespace(name="vase", price=Decimal("9.50"), ends=date(2026, 12, 1))
    with serve(view_of("send_json", lot=lot)).websocket("/") as websocket:
        told = websocket.receive_json()
        assert told == {"name": "vase", "price": "9.50", "ends": "2026-12-01"}
    view = view_of("receive_json")
    with serve(view).websocket("/") as websocket:
        websocket.send_json({"prices": [1, 2.5]})
        assert websocket.wait_closed() == 1000
    assert view.made[0]["total"] == 3.5


def test_every(serve: Serve) -> None:
    """Again and again, until the client goes."""
    with serve(view_of("every", orders_waiting=lambda: 3)).websocket("/") as websocket:
        for _ in range(2):
            Clock().advance(5)
            assert websocket.receive_json() == {"waiting": 3}


def test_group_and_user(serve: Serve, tables: None) -> None:
    """The members of a room, and all tabs of one user."""

    @accept_websocket(groups=["room-7"])
    def view(request: Any) -> None:
        request.websocket.join(dwebsocket.user(7))
        request.websocket.send("joined")
        request.websocket.wait()

    with serve(view).websocket("/") as websocket:
        assert websocket.receive() == "joined"
        run("group", room=SimpleNamespace(pk=7))
        assert websocket.receive() == "The room closes in five minutes"
        run("user", user=dwebsocket.user, order=SimpleNamespace(pk=42, customer=7))
        assert websocket.receive_json() == {"order": 42, "paid": True}


def test_rooms(serve: Serve, override: Callable[..., None]) -> None:
    """An event of a page reaches the members, itself among them, as the server tells it."""
    client = serve(None)
    made = run("rooms", Room=Room, rooms=rooms, path=path)
    override(ROOT_URLCONF=tuple(made["urlpatterns"]))
    with client.rooms("/live/", headers={"X-User": "anna"}) as live:
        live.join("room-42")
        live.emit("say", {"text": "hello"}, to="room-42")
        told = live.receive("room-42")
        assert json.loads(told["data"]) == {"author": "anna", "text": "hello"}
