"""docs/rooms.md: its classes, in a site that has the models that they ask."""

from __future__ import annotations

import json
import sys
import uuid
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.test import RequestFactory

from dwebsocket import group, user
from dwebsocket.testing import RoomError
from support.pages import block, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User

    from dwebsocket.testing import WebSocketClient

PAGE = "docs/rooms.md"


class Rows(list[dict[str, Any]]):
    """A table: as much of a manager as the page uses."""

    def filter(self, **fields: Any) -> Rows:
        return Rows(each for each in self if fields.items() <= each.items())

    def exists(self) -> bool:
        return bool(self)

    def create(self, **fields: Any) -> None:
        self.append(fields)

    def delete(self) -> None:
        for each in self:
            MEMBERSHIPS.remove(each)


MEMBERSHIPS, MESSAGES, NOTES = Rows(), Rows(), Rows()


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (MEMBERSHIPS, MESSAGES, NOTES):
        rows.clear()
    tables = {"Membership": MEMBERSHIPS, "Message": MESSAGES, "Note": NOTES}
    for name in ("chat", "notes"):
        models = ModuleType(f"{name}.models")
        vars(models).update({key: SimpleNamespace(objects=rows) for key, rows in tables.items()})
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, f"{name}.models", models)


@pytest.fixture
def open_site(serve: Callable[..., WebSocketClient], anna: User) -> Callable[..., WebSocketClient]:
    """Serve a block's view at `/live/`, with a client that is signed in."""

    def open_(marker: str) -> WebSocketClient:
        client = serve(
            live=run(PAGE, marker)["live"],
            settings={
                "MIDDLEWARE": [
                    "django.contrib.sessions.middleware.SessionMiddleware",
                    "django.contrib.auth.middleware.AuthenticationMiddleware",
                ]
            },
        )
        client.force_login(anna)
        return client

    return open_


def test_the_chat_and_its_test(
    open_site: Callable[..., WebSocketClient], anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own test passes; the URL conf takes the view."""
    client = open_site("class Chat(Room)")
    own = ModuleType("chat.rooms")
    vars(own).update(run(PAGE, "class Chat(Room)"))
    monkeypatch.setitem(sys.modules, "chat.rooms", own)
    (route,) = run(PAGE, "urlpatterns = [")["urlpatterns"]
    assert route.callback is vars(own)["live"]
    MEMBERSHIPS.create(room=1, user=anna.pk)
    run(PAGE, "def test_chat")["test_chat"](client, anna, None)
    assert [each["text"] for each in MESSAGES] == ["hi"]


def test_evictions(open_site: Callable[..., WebSocketClient], anna: User) -> None:
    """By a user and by a connection, as the page has it; and by the moderator's view."""
    client = open_site("class Chat(Room)")
    for number in (1, 42):
        MEMBERSHIPS.create(room=number, user=anna.pk)
    with client.rooms("/live/") as live:
        live.join("room-42")
        run(PAGE, "You were rude.", user=anna, websocket_id="unknown")
        assert live.receive("room-42")["ended"] == {"code": "evicted", "text": "You were rude."}
        live.join("room-42")
        ban = run(PAGE, "def ban(")["ban"].__wrapped__
        assert ban(RequestFactory().get("/"), 42, anna.pk).status_code == 405
        assert ban(RequestFactory().post("/"), 42, anna.pk).status_code == 204
        assert live.receive("room-42")["ended"]["text"] == "You were banned."
        with pytest.raises(RoomError) as refused:
            live.join("room-42")
        assert refused.value.code == "denied"


def test_rows(open_site: Callable[..., WebSocketClient], anna: User) -> None:
    """Who has the right sees who looks at the row."""
    client = open_site("class Row(Room)")
    with client.rooms("/live/") as live, pytest.raises(RoomError) as refused:
        live.join("order-7")
    assert refused.value.code == "denied"
    anna.is_superuser = True
    anna.save()
    with client.rooms("/live/") as live:
        [member] = live.join("order-7")["members"]
        assert member["info"] == {"name": anna.get_username()}
        # As the page's text has a member.
        assert member.keys() == json.loads(block(PAGE, '"key": "user:7"', "json")).keys()


def test_private_rooms(open_site: Callable[..., WebSocketClient], anna: User) -> None:
    """A note of others looks as one that is not there."""
    client = open_site("class Shared(Room)")
    mine, other = uuid.uuid4(), uuid.uuid4()
    NOTES.create(pk=mine, readers=anna.pk)
    NOTES.create(pk=other, readers=None)
    with client.rooms("/live/") as live:
        live.join(f"note-{mine}")
        told = set()
        for name in (f"note-{other}", f"note-{uuid.uuid4()}", "nothing"):
            with pytest.raises(RoomError) as refused:
                live.join(name)
            told.add((refused.value.code, refused.value.text))
        assert len(told) == 1


def test_a_bell(open_site: Callable[..., WebSocketClient], anna: User) -> None:
    """It rings on the pages of its user."""
    client = open_site("class Bell(Room)")
    with client.rooms("/live/") as live:
        live.join("bell")
        user(anna).send_json({"unread": 3})
        assert json.loads(live.receive()["data"]) == {"unread": 3}


def test_a_dashboard(open_site: Callable[..., WebSocketClient], anna: User) -> None:
    """It is no member of what it watches."""
    anna.is_staff = True
    anna.save()
    client = open_site("class Machine(Room)")
    with client.rooms("/live/") as live:
        assert live.join("machine-press")["count"] == 0
        group("machine-press").send("warm")
        assert live.receive()["data"] == "warm"
