"""Snippets about groups that belong to no file of a project, on four pages."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.db import transaction
from django.template import Context, Engine

import dwebsocket
from dwebsocket import accept_websocket, group
from support.pages import block, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.testing import WebSocketClient

    Serve = Callable[..., WebSocketClient]

PAGE = "docs/groups.md"
LAYER = "docs/channels-layer.md"


def member_of(*names: str) -> Any:
    """Give a view whose connections join groups, and a user's own."""

    @accept_websocket(groups=list(names))
    def view(request: Any) -> None:
        request.websocket.wait()

    return view


def test_one_call(serve: Serve) -> None:
    """Reaches all members, and all WebSockets of a user."""
    client = serve(member_of("room-42"))
    with client.websocket("/", headers={"X-User": "7"}) as websocket:
        run(PAGE, "from a view, a signal, Celery", request=SimpleNamespace(user="7"))
        assert websocket.receive() == "hi"
        assert websocket.receive_json() == {"unread": 3}


def test_joining_by_the_url(serve: Serve) -> None:
    """The group's name has the URL's argument."""
    view = run(PAGE, 'groups=["room-{room}"])\ndef chat(request, room):\n    for message')["chat"]
    client = serve(chat=view)
    with client.websocket("/chat/42/") as websocket:
        group("room-42").send("hello")
        assert websocket.receive() == "hello"


def test_joining_by_calls(serve: Serve) -> None:
    """And leaving."""
    left: list[Any] = []

    @accept_websocket
    def view(request: Any) -> None:
        run(PAGE, 'request.websocket.leave("news")', request=request)
        left.append(request.websocket.groups)

    with serve(view).websocket("/") as websocket:
        websocket.wait_closed()
    assert left == [frozenset({"room-42"})]


@pytest.mark.parametrize("fails", [False, True])
def test_with_transactions(serve: Serve, tables: None, fails: bool) -> None:
    """The message leaves when the transaction commits, and never when it is rolled back."""

    def save() -> None:
        if fails:
            raise LookupError

    names = {"transaction": transaction, "group": group}
    order = SimpleNamespace(pk=7, save=save)
    with serve(member_of("orders")).websocket("/") as websocket:
        if fails:
            with pytest.raises(LookupError):
                run(PAGE, "with transaction.atomic()", order=order, **names)
            group("orders").send_json("marker")
            assert websocket.receive_json() == "marker"
        else:
            run(PAGE, "with transaction.atomic()", order=order, **names)
            assert websocket.receive_json() == {"order": 7}


def test_going_on_without() -> None:
    """An outage of the backend is no error for this publisher."""
    asked = []

    class Away:
        def send_json(self, data: object) -> None:
            asked.append(data)
            raise dwebsocket.GroupUnavailable("it is away")

    run(PAGE, "suppress(GroupUnavailable)", group=lambda name: Away(), totals={})
    assert asked == [{}]


def test_statistics() -> None:
    """The comment has the keys that the call gives."""
    group("any").send("so that there are some")
    code = block(PAGE, '["groups"]\n# ')
    text = "".join(line.removeprefix("#") for line in code.splitlines()[1:])
    (shown,) = ast.literal_eval(text.strip()).values()
    (real,) = list(dwebsocket.statistics()["groups"].values())[:1]
    assert shown.keys() == real.keys()
    assert shown["dropped"].keys() == real["dropped"].keys()
    assert run(PAGE, '["groups"]\n# ', dwebsocket=dwebsocket)


def test_coming_from_a_global_list(serve: Serve) -> None:
    """The group in its place."""
    names = {"accept_websocket": accept_websocket, "group": group}
    view = run(PAGE, 'groups=["everyone"]', **names)["echo"]
    client = serve(view)
    with client.websocket("/") as one, client.websocket("/") as two:
        one.send("first")
        one.receive()
        two.send("second")
        assert two.receive() in ("first", "second", b"first", b"second")


def test_page_for_htmx() -> None:
    """Is a template that Django takes."""
    html = block(PAGE, 'ws-connect="/board/"', "html")
    templates = [("django.template.loaders.locmem.Loader", {"order.html": "<li></li>"})]
    engine = Engine(loaders=templates)
    context = Context({"orders": [1, 2], "csrf_token": "secret"})
    shown = engine.from_string(html).render(context)
    assert shown.count("<li>") == 2
    # Else Django refuses its POSTs.
    assert """hx-headers='js:{"X-CSRFToken": "secret",""" in shown


@pytest.mark.parametrize(
    ("page", "part"),
    [
        (PAGE, "redis://user:password@"),
        (PAGE, '"dwebsocket.groups.postgres"'),
        (LAYER, '"capacity": 200'),
        (LAYER, '{"BACKEND": "dwebsocket.channels.ChannelLayer"},\n}'),
        ("docs/recovery.md", "INSTALLED_APPS"),
    ],
)
def test_settings(override: Callable[..., None], page: str, part: str) -> None:
    """Are accepted by the system checks."""
    made = run(page, part)
    found = {name: value for name, value in made.items() if name.isupper()}
    assert found
    found.pop("INSTALLED_APPS", None)
    override(**found)
    ours = [each for each in checks.run_checks() if (each.id or "").startswith("dwebsocket")]
    # The database of these tests is SQLite, and their settings have no app.
    expected = ("which is no PostgreSQL", "is not in INSTALLED_APPS")
    assert [each for each in ours if not any(text in each.msg for text in expected)] == []


def test_consumer_in_a_group_of_ours(serve: Serve, override: Callable[..., None]) -> None:
    """A view's message reaches the consumer, and what a consumer sends to the group reaches it."""
    layer = {"BACKEND": "dwebsocket.channels.ChannelLayer", "CONFIG": {"bridge": True}}
    override(CHANNEL_LAYERS={"default": layer})
    chat = run(LAYER, "class Chat(")["Chat"]
    client = serve(dwebsocket.asgi_websocket(chat.as_asgi()))
    with client.websocket("/") as websocket:
        group("room").send("hi")
        assert websocket.receive() == "hi"
        websocket.send_json("from the client")
        assert websocket.receive_json() == {"type": "chat.message", "text": "from the client"}
