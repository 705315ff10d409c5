"""`dwebsocket.rooms`: what a page asks for in rooms, and what it gets."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import subprocess
import sys
import threading
import tracemalloc
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from accounts import BACKEND
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model, login
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Permission
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import PermissionDenied
from django.core.signals import got_request_exception
from django.http import Http404, HttpResponseForbidden
from django.test import RequestFactory
from django.urls import path
from django.utils.functional import SimpleLazyObject

from dwebsocket import UsageError, _core, accept_websocket, group, signals, user
from dwebsocket.compat.django_auth import renew_user
from dwebsocket.groups import backends, reports, seats
from dwebsocket.groups.backends import process
from dwebsocket.rooms import Room, rooms
from dwebsocket.runners import moving
from dwebsocket.telemetry import records
from dwebsocket.testing import (
    AsyncWebSocketClient,
    Clock,
    RoomError,
    WebSocketClient,
    websockets_of_a_test,
)
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User

    from dwebsocket.testing import ClientRooms

Override = "Callable[..., None]"
KEPT = {
    "default": {
        "BACKEND": "dwebsocket.groups.process",
        "HISTORY": {"kept-*": {"size": 5, "seconds": 300}},
    }
}
CALLS: list[Any] = []
GO_ON = threading.Event()


class Chat(Room):
    name = "room-<int:pk>"
    events: ClassVar[list[str]] = ["typing"]

    def allow(self) -> Any:
        CALLS.append(("allow", self.name))
        return ANSWERS.get(self.name, ANSWERS.get("*", lambda: True))()

    def receive(self, event: str, data: Any) -> Any:
        if event == "deny":
            raise PermissionDenied("the secret reason")
        if event == "miss":
            raise Http404
        if event == "wait":
            CALLS.append(("waits", self.name))
            assert GO_ON.wait(60)
        if event == "break":
            raise RuntimeError("broken")
        if event == "say":
            self.group.send_json(data)
        return {"pk": self.kwargs["pk"], event: data}

    def joined(self) -> None:
        CALLS.append(("joined", self.name))

    def left(self) -> None:
        CALLS.append(("left", self.name))


class AsyncChat(Chat):
    async def allow(self) -> Any:
        return super().allow()

    async def receive(self, event: str, data: Any) -> Any:
        if event == "say":
            await self.group.asend_json(data)
            event, data = "said", data
        return super().receive(event, data)

    async def joined(self) -> None:
        super().joined()


class Kept(Chat):
    name = "kept-<int:pk>"


class Alias(Room):
    name = "alias-<int:pk>"

    def group_name(self) -> str:
        return f"room-{self.kwargs['pk']}"


class Bell(Room):
    name = "bell"

    def group_name(self) -> Any:
        return user(self.user)


class Staff(Room):
    name = "staff-<int:pk>"

    def allow(self) -> Any:
        CALLS.append(("team", getattr(self.user, "team", None)))
        return self.user.is_active and self.user.has_perm("auth.view_user")


class AsyncStaff(Staff):
    async def allow(self) -> Any:
        return await sync_to_async(super().allow)()


@accept_websocket(text_type=str, groups=["room-1"])
def plain(request: Any) -> None:
    for message in request.websocket:
        request.websocket.send(message)


ANSWERS: dict[str, Callable[[], Any]] = {}
urlpatterns = [
    path("plain/", plain),
    path("slow/", rooms(Chat, send_buffer=10_000)),
    path("sync/", rooms(Chat, Kept, Alias, Bell, Staff)),
    path("async/", rooms(AsyncChat, Kept, Alias, Bell, AsyncStaff)),
]


@pytest.fixture(autouse=True)
def _site(override: Callable[..., None]) -> Iterator[None]:
    CALLS.clear()
    ANSWERS.clear()
    override(ROOT_URLCONF=__name__, WEBSOCKET_GROUPS=KEPT)
    with backends.replaced(process.Backend), websockets_of_a_test():
        yield


@pytest.fixture(params=["sync", "async"])
def live(request: pytest.FixtureRequest) -> Iterator[ClientRooms]:
    """A connection with rooms whose methods are functions, or coroutine functions too."""
    with WebSocketClient().rooms(f"/{request.param}/") as found:
        yield found


def code_of(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(RoomError) as raised:
        call()
    return raised.value.code, raised.value.text


def test_the_subprotocol_is_agreed_on(live: ClientRooms) -> None:
    """It is ours; a client that offers none is served, too."""
    assert live.websocket.subprotocol == "dwebsocket.rooms.1"
    with WebSocketClient().rooms("/sync/", subprotocols=[]) as other:
        assert other.websocket.subprotocol is None
        assert other.join("room-1")["missed"] == 0


def test_a_member_gets_what_is_sent_under_the_name_of_the_room(live: ClientRooms) -> None:
    """Text as it is, binary as base64; nothing after it has left."""
    assert live.join("room-1") == {"position": None, "recovered": True, "missed": 0}
    group("room-1").send("hi")
    group("room-1").send(b"\x00\xff")
    assert live.receive() == {"room": "room-1", "position": None, "data": "hi"}
    assert live.receive() == {"room": "room-1", "position": None, "data": "AP8=", "binary": True}
    live.leave("room-1")
    group("room-1").send("late")
    live.join("room-2")
    group("room-2").send("there")
    assert live.receive("room-2")["data"] == "there"
    assert not live._waiting["room-1"]
    expected = [
        ("allow", "room-1"),
        ("joined", "room-1"),
        ("left", "room-1"),
        ("allow", "room-2"),
        ("joined", "room-2"),
    ]
    eventually(lambda: expected == CALLS)


def test_several_tasks_use_one_client() -> None:
    """Each gets its own answer, and the message that it waits for, whoever has read it."""

    async def visit() -> None:
        async with AsyncWebSocketClient().rooms("/async/") as live:
            names = ["room-1", "room-2", "room-3"]
            await asyncio.gather(*map(live.join, names))
            waiting = asyncio.create_task(live.receive("room-1"))
            assert await live.emit("say", 1, to="room-1") == {"pk": 1, "said": 1}
            assert (await waiting)["data"] == "1"
            both = [asyncio.create_task(live.receive("room-2")) for _ in range(2)]
            for number in range(2):
                await live.emit("say", number, to="room-2")
            assert sorted([(await each)["data"] for each in both]) == ["0", "1"]

    asyncio.run(visit())


def test_what_came_before_a_leave_is_not_there_after_the_next_join(live: ClientRooms) -> None:
    """As on a page. The end of the only room is received without its name."""
    live.join("room-1")
    group("room-1").send("before")
    live.emit("ask")
    live.leave("room-1")
    live.join("room-1")
    group("room-1").send("now")
    assert live.receive()["data"] == "now"
    group("room-1").evict(websockets()[0].id)
    eventually(lambda: group("room-1").count() == 0)
    assert code_of(lambda: live.emit("ask", to="room-1"))[0] == "invalid"
    assert live.receive()["ended"]["code"] == "evicted"


def test_all_rooms_are_left_at_the_end(live: ClientRooms) -> None:
    """Each is told so, and no group has a member any more."""
    live.join("room-1")
    live.join("room-2")
    live.websocket.close()
    eventually(lambda: {("left", "room-1"), ("left", "room-2")} <= set(CALLS))
    assert group("room-1").count() == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_joins_that_wait_count_among_what_is_buffered(
    kind: str, override: Callable[..., None]
) -> None:
    """`WEBSOCKET_MAX_BUFFERED` limits them, too."""
    override(WEBSOCKET_ROOMS_BURST=1, WEBSOCKET_ROOMS_RATE=0.01)
    with WebSocketClient().rooms(f"/{kind}/") as live:
        live.join("room-1")
        for number in range(10):
            join = {"id": number, "join": "room-2", "info": {"a": "x" * 900}}
            live.websocket.send_json(join)
        eventually(lambda: _core.buffered_bytes() > 9_000)
    eventually(lambda: _core.buffered_bytes() < 9_000)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_violation_in_a_room_ends_the_connection_at_once(
    kind: str, override: Callable[..., None]
) -> None:
    """The engine has no answer to wait for."""
    override(WEBSOCKET_CLOSE_TIMEOUT=600)
    with WebSocketClient().rooms(f"/{kind}/") as live:
        live.join("room-1")
        live.websocket.send_frame(3)
        assert live.websocket.wait_closed() == 1002


def test_an_event_is_acknowledged_by_what_receive_returns(live: ClientRooms) -> None:
    """Without an id there is no answer; the message to the group comes all the same."""
    live.join("room-1")
    assert live.emit("ask", [1, None]) == {"pk": 1, "ask": [1, None]}
    live.websocket.send_json({"to": "room-1", "event": "say", "data": {"n": 1}})
    assert json.loads(live.receive()["data"]) == {"n": 1}
    assert live.emit("__proto__", {"constructor": 1}) == {
        "pk": 1,
        "__proto__": {"constructor": 1},
    }


def test_a_listed_event_goes_to_the_others(live: ClientRooms) -> None:
    """As it is, with its sender; that one gets the acknowledgement only, other members nothing."""
    live.join("room-1")
    with WebSocketClient().rooms("/sync/") as other:
        other.join("alias-1")
        assert live.emit("typing", {"on": True}) == {}
        got = other.receive()
        assert got["from"].pop("key").startswith("connection:")
        assert got == {
            "room": "alias-1",
            "event": "typing",
            "data": {"on": True},
            "from": {"user": None},
        }
        group("room-1").send("next")
        assert live.receive()["data"] == "next"


@pytest.mark.parametrize("name", ["ended", "joined", "recovered", "room", 'x","ended":{"code":"y'])
def test_no_member_speaks_for_the_server(live: ClientRooms, name: str) -> None:
    """Whatever it calls an event and sends: only names in `events` are passed on, as such."""
    forged = {"room": "room-1", "ended": {"code": "evicted"}, "from": {"user": "1"}, "id": 1}
    with WebSocketClient().rooms("/sync/") as other:
        other.join("room-1")
        live.join("room-1")
        live.emit(name, forged)
        live.emit("typing", forged)
        live.emit("say", forged)
        event, message = other.receive(), other.receive()
        assert event.keys() == {"room", "event", "data", "from"}
        assert (event["event"], event["data"], event["from"]["user"]) == ("typing", forged, None)
        assert message.keys() == {"room", "position", "data"}
        assert json.loads(message["data"]) == forged


@pytest.mark.parametrize(
    ("event", "code"),
    [("deny", "denied"), ("miss", "unknown"), ("break", "failed")],
)
def test_an_exception_of_receive_has_a_code(
    live: ClientRooms, event: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No client sees its text; the log has the one that nobody expects, with its traceback."""
    live.join("room-1")
    found, text = code_of(lambda: live.emit(event))
    assert (found, "secret" in text, "broken" in text) == (code, False, False)
    assert [bool(each.exc_info) for each in caplog.records if each.levelno >= logging.ERROR] == (
        [True] if code == "failed" else []
    )
    assert live.emit("ask") == {"pk": 1, "ask": None}


def test_false_and_permission_denied_are_alike(live: ClientRooms) -> None:
    """To the letter, so that nobody learns the reason."""

    def deny() -> None:
        raise PermissionDenied("not a member of the board")

    ANSWERS.update({"room-1": lambda: False, "room-2": deny, "room-3": lambda: None})
    found = {code_of(lambda name=f"room-{n}": live.join(name)) for n in (1, 2, 3)}
    assert len(found) == 1
    assert found.pop()[0] == "denied"


def test_a_room_that_is_not_there_is_as_one_without_a_class(live: ClientRooms) -> None:
    """`Http404` of `allow` tells nothing that a wrong name does not tell."""

    def miss() -> None:
        raise Http404("there was one")

    ANSWERS["room-1"] = miss
    assert code_of(lambda: live.join("room-1")) == code_of(lambda: live.join("nothing"))


@pytest.mark.parametrize(
    "name",
    [
        *("room-007", "room--1", "room-", "room-1x", "xroom-1", "room-1\n", "room-1/", "", " "),
        *("__proto__", "constructor", "room-\ud800", "dwebsocket.user:1", "x" * 300, "room-\u0661"),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_only_canonical_names_are_known(live: ClientRooms, name: str, before: bool) -> None:
    """Each room has one name: that which its arguments give back."""
    if before:
        live.join("room-5")
    assert code_of(lambda: live.join(name))[0] == "unknown"
    assert {called for _, called in CALLS} <= {"room-5"}


def test_what_is_not_joined_is_invalid(live: ClientRooms) -> None:
    """An event and an update look the same for every name; a leave is done already."""
    ANSWERS["room-1"] = lambda: False
    live.join("room-5")
    names = ["room-1", "room-2", "no such", "__proto__", "room-\ud800"]
    found = {code_of(lambda name=name: live.emit("say", to=name)) for name in names}
    found |= {code_of(lambda name=name: live.update({}, to=name)) for name in names}
    assert [code for code, _ in found] == ["invalid"]
    for name in names:
        live.leave(name)


def test_an_exception_is_reported_as_that_of_a_page(
    live: ClientRooms, caplog: pytest.LogCaptureFixture
) -> None:
    """Error trackers get Django's signal, and its loggers the request."""
    told: list[Any] = []

    def note(request: Any, **_: Any) -> None:
        told.append(request)

    got_request_exception.connect(note)
    try:
        live.join("room-1")
        assert code_of(lambda: live.emit("break"))[0] == "failed"
        ANSWERS["room-2"] = lambda: 1 / 0
        assert code_of(lambda: live.join("room-2"))[0] == "failed"
    finally:
        got_request_exception.disconnect(note)
    for record in caplog.records:
        assert record.name == "django.request"
        found = record.event, record.status_code, record.request.path  # type: ignore[attr-defined]
        assert found == ("websocket.view_failed", 500, told[0].path)
    assert len(told) == len(caplog.records) == 2


def test_failures_that_a_page_repeats_are_logged_in_part(
    override: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Each traceback is more than the event that causes it, and the connection stays open."""
    override(WEBSOCKET_ROOMS_RATE=1000, WEBSOCKET_ROOMS_BURST=1000)
    records._floods.clear()
    with WebSocketClient().rooms("/sync/") as other:
        other.join("room-1")
        for _ in range(150):
            assert code_of(lambda: other.emit("break"))[0] == "failed"
        assert 100 <= len(caplog.records) < 150
        # Another mistake, and another class, have records of their own.
        ANSWERS["room-2"] = lambda: {}["missing"]
        assert code_of(lambda: other.join("room-2"))[0] == "failed"
        assert caplog.messages[-1] == "The room 'room-2' has failed"
        other.join("kept-1")
        assert code_of(lambda: other.emit("break", to="kept-1"))[0] == "failed"
        assert caplog.messages[-1] == "The room 'kept-1' has failed"
        Clock().advance(1)
        code_of(lambda: other.emit("break", to="room-1"))
    assert re.search(r" has failed \(and \d+ more\)$", caplog.messages[-1])
    records._floods.clear()


def test_an_exception_of_allow_refuses(live: ClientRooms, caplog: pytest.LogCaptureFixture) -> None:
    """With `failed`, and a traceback in the log."""
    ANSWERS["room-1"] = lambda: 1 / 0
    assert code_of(lambda: live.join("room-1"))[0] == "failed"
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    "message",
    [
        *("", "hi", "[]", "1", "null", "{}", '{"id": 1}', "{", '{"id": NaN, "join": "room-1"}'),
        *('{"join": "room-1"}', '{"leave": "room-1"}', '{"update": "room-1", "info": {}}'),
        *('{"id": true, "join": "room-1"}', '{"id": {}, "join": "room-1"}'),
        *('{"id": null, "join": "room-1"}', '{"id": 1, "join": 1}'),
        *('{"id": 1, "join": "room-1", "since": 7}', '{"id": 1, "to": "room-1"}'),
        *('{"id": 1, "event": "say"}', '{"id": 1, "to": "room-1", "event": 1}', '{"ping": 2}'),
        *('{"id": 1e999, "join": "room-1"}', '{"to": "room-1", "event": "x", "data": -1e999}'),
        *("[" * 100_000, '{"id": 1, "data": ' + '{"a":' * 5000, "1" * 10_000),
    ],
)
def test_other_forms_close_with_1007(live: ClientRooms, message: str) -> None:
    """With a reason; a message without any sense is a fault of the client's code."""
    live.websocket.send(message)
    assert live.websocket.wait_closed() == 1007
    assert live.websocket.close_reason


def test_binary_closes_with_1007(live: ClientRooms) -> None:
    """All messages of the subprotocol are text."""
    live.websocket.send(b"{}")
    assert live.websocket.wait_closed() == 1007


def test_unknown_keys_are_ignored_and_ids_are_given_back(live: ClientRooms) -> None:
    """Numbers and texts of any kind, since they are the client's own."""
    for number in (0, -1, 1.5, "", "__proto__", "é\ud800"):
        live.websocket.send_json({"id": number, "join": "room-1", "x": {"y": 1}})
        assert live.websocket.receive_json()["id"] == number
    live.websocket.send('{"ping": 1, "x": 2}')
    assert live.websocket.receive() == '{"pong":1}'


def test_a_ping_is_answered_while_a_method_runs() -> None:
    """By the engine: a page knows that the connection lives."""
    GO_ON.clear()
    with WebSocketClient().rooms("/sync/") as live:
        live.join("room-1")
        live.websocket.send_json({"id": 7, "to": "room-1", "event": "wait"})
        live.websocket.send('{ "ping": 1 }')
        assert live.websocket.receive() == '{"pong":1}'
        GO_ON.set()
        assert live.websocket.receive_json()["id"] == 7


def test_two_names_of_one_group_get_each_message(live: ClientRooms) -> None:
    """Under their own names; leaving one of them leaves the other."""
    live.join("room-1")
    live.join("alias-1")
    group("room-1").send("a")
    assert [live.receive(name)["room"] for name in ("room-1", "alias-1")] == ["room-1", "alias-1"]
    live.leave("room-1")
    group("room-1").send("b")
    assert live.receive("alias-1")["data"] == "b"
    assert not live._waiting["room-1"]


def test_the_signals_are_about_the_group_not_its_names(live: ClientRooms) -> None:
    """One for the first name by which a connection is in it, and one for the last."""
    told: list[str] = []

    def note(signal: Any, group: Any, **_: Any) -> None:
        told.append(f"{'joined' if signal is signals.group_joined else 'left'} {group.name}")

    both = (signals.group_joined, signals.group_left)
    for signal in both:
        signal.connect(note)
    try:
        for name in ("room-1", "alias-1", "room-1"):
            live.join(name)
        assert told == ["joined room-1"]
        live.leave("room-1")
        assert told == ["joined room-1"]
        live.leave("alias-1")
        assert told == ["joined room-1", "left room-1"]
        for name in ("room-2", "alias-2"):
            live.join(name)
        live.websocket.close()
        eventually(lambda: len(told) == 4)
        assert told[2:] == ["joined room-2", "left room-2"]
    finally:
        for signal in both:
            signal.disconnect(note)


def test_a_second_join_is_answered_and_sends_nothing_twice(live: ClientRooms) -> None:
    """Its position is where the client is."""
    live.join("kept-1")
    group("kept-1").send("a")
    at = live.receive()["position"]
    assert live.join("kept-1", since=at.rpartition("-")[0] + "-0") == {
        "position": at,
        "recovered": True,
        "missed": 0,
    }
    group("kept-1").send("b")
    assert live.receive()["data"] == "b"
    assert CALLS.count(("joined", "kept-1")) == 1


def test_a_client_that_comes_back_gets_what_it_has_missed(live: ClientRooms) -> None:
    """Behind the answer, whose position is behind it; then what comes."""
    position = live.join("kept-1")["position"]
    live.leave("kept-1")
    for text in ("a", "b"):
        group("kept-1").send(text)
    answer = live.join("kept-1", since=position)
    assert (answer["recovered"], answer["missed"]) == (True, 2)
    group("kept-1").send("c")
    got = [live.receive("kept-1") for _ in "abc"]
    assert [each["data"] for each in got] == ["a", "b", "c"]
    assert answer["position"] == got[1]["position"]


@pytest.mark.parametrize("since", ["", "x", "0-1", "ffffffffffffffff-1"])
def test_a_wrong_position_recovers_nothing(live: ClientRooms, since: str) -> None:
    """The answer's position is the head, and nothing old comes."""
    group("kept-1").send("old")
    head = group("kept-1").position()
    answer = live.join("kept-1", since=since)
    assert answer == {"position": head, "recovered": False, "missed": 0}
    group("kept-1").send("new")
    assert live.receive("kept-1")["data"] == "new"


def test_what_is_too_old_recovers_nothing(live: ClientRooms) -> None:
    """More was missed than is kept."""
    position = live.join("kept-1")["position"]
    live.leave("kept-1")
    for number in range(6):
        group("kept-1").send(str(number))
    assert live.join("kept-1", since=position)["recovered"] is False


def test_without_history_there_is_no_position(live: ClientRooms) -> None:
    """So nothing is recovered."""
    assert live.join("room-1", since="epoch-7") == {
        "position": None,
        "recovered": False,
        "missed": 0,
    }


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "latest"])
def test_a_loss_is_told_before_the_next_message(policy: str, override: Callable[..., None]) -> None:
    """Of a client that did not read for a while; what comes behind that comes whole."""
    entry = {"BACKEND": "dwebsocket.groups.process", "SLOW": policy}
    override(WEBSOCKET_GROUPS={"default": entry})
    with backends.replaced(process.Backend), WebSocketClient().rooms("/slow/") as live:
        live.join("room-1")
        groups = backends.backend("default").groups
        while not sum(n for name, n in groups.statistics().items() if "dropped" in name):
            group("room-1").send("x" * 50_000)
        assert group("room-1").count() == 1
        group("room-1").send("y" * 50_000)
        told: list[Any] = []
        while {"room": "room-1", "recovered": False} not in told:
            told.append(live.receive())
            group("room-1").send("after")
        # More may be lost meanwhile, which is told, too: before the next message.
        while live.receive().get("data") != "after":
            group("room-1").send("after")


SIGNED_IN = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def in_team(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add to Django's user, within another lazy object, as packages for two factors do."""

    def middleware(request: Any) -> Any:
        user = request.user

        def look_up() -> Any:
            user.team = "red"
            return user

        request.user = SimpleLazyObject(look_up)
        return get_response(request)

    return middleware


def by_token(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Take the user from a header, as packages for tokens do."""

    def middleware(request: Any) -> Any:
        if request.headers.get("Authorization") == "Bearer anna":
            request.user = get_user_model().objects.get(username="anna")
            request.user.team = "red"
        return get_response(request)

    return middleware


TEAM, TOKEN = f"{__name__}.in_team", f"{__name__}.by_token"


@pytest.mark.parametrize(
    "middleware",
    [SIGNED_IN, [*SIGNED_IN, TEAM], [*SIGNED_IN, TOKEN], [TOKEN]],
    ids=["django", "wrapped", "token", "token alone"],
)
@pytest.mark.parametrize("path", ["/sync/", "/async/"])
def test_allow_sees_the_user_as_it_is_now(
    path: str, middleware: list[str], anna: User, override: Callable[..., None]
) -> None:
    """A permission that is taken away ends rooms at the recheck, and keeps an evicted page out."""
    override(MIDDLEWARE=middleware, WEBSOCKET_AUTH_RECHECK=60)
    may = Permission.objects.get(codename="view_user")
    anna.user_permissions.add(may)
    client, clock = WebSocketClient(), Clock()
    if TOKEN not in middleware:
        client.force_login(anna)
    with client.rooms(path, headers={"Authorization": "Bearer anna"}) as live:
        live.join("staff-1")
        live.join("staff-2")
        anna.user_permissions.clear()
        group("staff-1").evict(anna)
        assert live.receive("staff-1")["ended"]["code"] == "evicted"
        assert code_of(lambda: live.join("staff-1"))[0] == "denied"
        clock.advance(60)
        assert live.receive("staff-2")["ended"]["code"] == "denied"
        anna.user_permissions.add(may)
        clock.advance(2)
        live.join("staff-1")
        # The attribute of middleware stays.
        assert {team for name, team in CALLS if name == "team"} == {
            "red" if {TEAM, TOKEN} & set(middleware) else None
        }


def test_what_middleware_has_added_does_not_outlive_the_user(anna: User) -> None:
    """A user whom the backend knows no more is an anonymous one, without attributes of others."""
    request: Any = RequestFactory().get("/")
    request.session = SessionStore()
    login(request, anna)
    anna.team = "red"  # type: ignore[attr-defined]
    request.user = SimpleLazyObject(lambda: anna)
    renew_user(request)
    assert request.user is not anna
    assert (request.user, request.user.team) == (anna, "red")
    type(anna).objects.filter(pk=anna.pk).update(is_active=False)
    renew_user(request)
    assert request.user.is_anonymous
    assert not hasattr(request.user, "team")


# A user of a model that is not that of the settings.
_unmanaged = type("Meta", (), {"app_label": "auth", "managed": False})
Customer = type("Customer", (AbstractBaseUser,), {"__module__": __name__, "Meta": _unmanaged})


def test_a_user_of_another_kind_stays(anna: User) -> None:
    """Its key may be that of a stranger, also beside a session, or it has none."""
    request: Any = RequestFactory().get("/")
    for own in Customer(pk=anna.pk), SimpleNamespace(is_authenticated=True):
        request.user = own
        renew_user(request)
        request.session = SessionStore()
        request.session.update({"_auth_user_id": str(anna.pk + 1), "_auth_user_backend": BACKEND})
        renew_user(request)
        assert request.user is own


WITHOUT_USERS = """
from types import SimpleNamespace
from django.conf import settings
settings.configure()
import django
django.setup()
from dwebsocket.compat.django_auth import renew_user
user = SimpleNamespace(is_authenticated=True, pk=1)
request = SimpleNamespace(user=user, session=SimpleNamespace(_session_cache={}))
renew_user(request)
assert request.user is user
"""


def test_a_project_without_users_of_django_has_its_own() -> None:
    """The app of Django's users is not there."""
    subprocess.run([sys.executable, "-c", WITHOUT_USERS], check=True)


def test_the_group_of_the_user_is_joined_by_a_room_only(
    live: ClientRooms, anna: User, override: Callable[..., None]
) -> None:
    """A socket with rooms gets `user(x).send()` under the name of a room, or not at all."""
    override(MIDDLEWARE=SIGNED_IN)
    client = WebSocketClient()
    client.force_login(anna)
    with client.rooms("/sync/") as hers:
        user(anna).send("not for it")
        hers.join("bell")
        user(anna).send("ring")
        assert hers.receive()["data"] == "ring"


def test_the_limit_of_rooms(live: ClientRooms, override: Callable[..., None]) -> None:
    """One more is refused; a known one is not one more; one that is left makes room."""
    override(WEBSOCKET_MAX_ROOMS=2)
    live.join("room-1")
    live.join("room-2")
    live.join("room-2")
    assert code_of(lambda: live.join("room-3"))[0] == "limit"
    live.leave("room-1")
    live.join("room-3")


def test_joins_above_the_rate_wait_and_events_are_refused(override: Callable[..., None]) -> None:
    """Joins come in order when their time has come."""
    override(WEBSOCKET_ROOMS_RATE=1, WEBSOCKET_ROOMS_BURST=2)
    clock = Clock()
    with WebSocketClient().rooms("/sync/") as live:
        for number in range(4):
            live.websocket.send_json({"id": number, "join": f"room-{number}"})
        assert [live.websocket.receive_json()["id"] for _ in range(2)] == [0, 1]
        live.websocket.send_json({"id": 9, "leave": "room-3"})
        assert live.emit("ask", to="room-0")["pk"] == 0
        assert live.emit("ask", to="room-0")["pk"] == 0
        assert code_of(lambda: live.emit("ask", to="room-0"))[0] == "limit"
        assert CALLS.count(("joined", "room-2")) == 0
        clock.advance(1)
        eventually(lambda: ("joined", "room-2") in CALLS)
        assert ("joined", "room-3") not in CALLS
        clock.advance(1)
        eventually(lambda: ("left", "room-3") in CALLS)


def test_a_leave_is_taken_though_too_many_joins_wait(override: Callable[..., None]) -> None:
    """Requests that wait for its room are refused, and the page never joins it."""
    override(WEBSOCKET_ROOMS_RATE=1, WEBSOCKET_ROOMS_BURST=1, WEBSOCKET_MAX_ROOMS=2)
    clock = Clock()
    with WebSocketClient().rooms("/sync/") as live:
        for number in range(4):
            live.websocket.send_json({"id": number, "join": f"room-{number}"})
        live.websocket.send_json({"id": 4, "leave": "room-1"})
        answers = {each["id"]: each for each in (live.websocket.receive_json() for _ in range(4))}
        assert answers[3]["error"]["code"] == "limit"
        assert answers[1]["error"] == {"code": "invalid", "text": "This room was left."}
        assert answers[4] == {"id": 4, "ok": {}}
        clock.advance(2)
        eventually(lambda: ("joined", "room-2") in CALLS)
        assert ("joined", "room-1") not in CALLS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([], ["join", "leave", "join"], id="mounted twice"),
        pytest.param([], ["join", "leave"] * 3 + ["join"], id="mounted again and again"),
        pytest.param([], ["join", "event", "event"], id="events behind joins"),
        pytest.param(["join", "leave"], ["join"], id="another dashboard before"),
    ],
)
def test_no_join_of_a_page_that_wants_few_rooms_is_refused(
    override: Callable[..., None], before: list[str], after: list[str]
) -> None:
    """However often it has changed its mind: rooms that it has left take no places."""
    override(WEBSOCKET_ROOMS_RATE=1, WEBSOCKET_ROOMS_BURST=1, WEBSOCKET_MAX_ROOMS=4)
    clock = Clock()
    asked: list[str] = []
    with WebSocketClient().rooms("/sync/") as live:

        def say(kind: str, room: str) -> None:
            said = {"to": room, "event": "say"} if kind == "event" else {kind: room}
            live.websocket.send_json({"id": len(asked), **said})
            asked.append(kind)

        for group, kinds in ((10, before), (20, before), (30, after)):
            for number in range(4):
                for kind in kinds:
                    say(kind, f"room-{group + number}")
        wanted = {("joined", f"room-{30 + number}") for number in range(4)}

        def all_are_joined() -> bool:
            clock.advance(1)
            return wanted <= set(CALLS)

        eventually(all_are_joined)
        answers: dict[int, Any] = {}
        while len(answers) < len(asked):
            answer = live.websocket.receive_json()
            if "id" in answer:
                answers[answer["id"]] = answer
        leaves = [answers[each] for each, kind in enumerate(asked) if kind == "leave"]
        assert all(each["ok"] == {} for each in leaves)


def test_a_leave_is_answered_once_where_the_limit_has_become_smaller(
    override: Callable[..., None],
) -> None:
    """As for a connection that has moved to new settings: joins that wait already go on waiting."""
    override(WEBSOCKET_ROOMS_RATE=1, WEBSOCKET_ROOMS_BURST=1, WEBSOCKET_MAX_ROOMS=4)
    Clock()
    with WebSocketClient().rooms("/sync/") as live:
        for number in range(5):
            live.websocket.send_json({"id": number, "join": f"room-{number}"})
        live.websocket.send_json({"id": 7, "to": "room-0", "event": "ask"})
        assert [live.websocket.receive_json()["id"] for _ in range(2)] == [0, 7]
        override(WEBSOCKET_MAX_ROOMS=1)
        live.websocket.send_json({"id": 5, "leave": "room-1"})
        live.websocket.send_json({"id": 6, "leave": "room-0"})
        answers = [live.websocket.receive_json() for _ in range(3)]
        assert [each["id"] for each in answers] == [1, 5, 6]
        assert [each.get("ok") for each in answers[1:]] == [{}, {}]


def test_the_size_of_events_and_info(live: ClientRooms, override: Callable[..., None]) -> None:
    """Each has its setting."""
    override(WEBSOCKET_MAX_ROOM_EVENT=200, WEBSOCKET_MAX_ROOM_INFO=20)
    live.join("room-1")
    assert code_of(lambda: live.emit("ask", "x" * 300))[0] == "limit"
    assert code_of(lambda: live.update({"x": "y" * 30}))[0] == "limit"
    assert code_of(lambda: live.join("room-2", info={"x": "y" * 30}))[0] == "limit"
    assert code_of(lambda: live.join("room-2", info=[1]))[0] == "invalid"
    assert code_of(lambda: live.join("room-2", info={"x": "好" * 5}))[0] == "limit"
    # 20 bytes.
    live.join("room-2", info={"x": "好好好好"})
    live.leave("room-2")
    assert live.emit("ask", "x")["ask"] == "x"


HEAVY = "[" + ",".join(["[]"] * 80_000) + "]"


def test_what_is_too_large_is_not_read(live: ClientRooms) -> None:
    """As values it would take thirty times as many bytes, above any limit."""
    live.join("room-1")
    send = live.websocket._wire.send
    tracemalloc.start()
    try:
        for number in range(3):
            send(f'{{"id": {number}, "join": "room-2", "info": {{"x": {HEAVY}}}}}')
            send(f'{{"id": {number}, "to": "room-1", "event": "ask", "data": {HEAVY}}}')
        codes = [live.websocket.receive_json()["error"]["code"] for _ in range(6)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert codes == ["limit"] * 6
    assert peak < 20 * len(HEAVY)
    send(f'{{"id": 1, "update": "room-1", "info": {{"x": {HEAVY}}}}}')
    assert live.websocket.receive_json()["error"]["code"] == "limit"
    send(f'{{"id": 1, "leave": "room-1", "x": {HEAVY}}}')
    assert live.websocket.wait_closed() == 1007


@pytest.mark.parametrize("size", [5_000, 60_000])
def test_large_messages_count_before_they_are_read(
    size: int, override: Callable[..., None]
) -> None:
    """Each takes as long as hundreds of others, whatever it is."""
    override(WEBSOCKET_ROOMS_RATE=0.01, WEBSOCKET_ROOMS_BURST=5)
    with WebSocketClient().rooms("/sync/") as live:
        for _ in range(6):
            live.websocket.send(f'{{"id": 1, "leave": "room-1", "x": "{"x" * size}"}}')
        assert live.websocket.wait_closed() == 1008


@pytest.mark.parametrize("kind", ['"to": "room-1", "event": "ask", "data"', '"join": "r", "info"'])
def test_what_is_far_too_large_is_not_looked_at(live: ClientRooms, kind: str) -> None:
    """It may be a small frame, before it was inflated."""
    live.join("room-1")
    live.websocket.send(f'{{"id": 1, {kind}: [{HEAVY}{", 1" * 400_000}]}}')
    assert live.websocket.wait_closed() == 1009


@pytest.mark.parametrize("end", ["", "\\", '"'])
def test_a_text_without_end_is_looked_through_once(live: ClientRooms, end: str) -> None:
    """Not once more for each quote in it: that takes minutes, in which nothing else runs."""
    live.websocket.send("[" + "[]," * 101 + '"' + '\\"' * 30_000 + end)
    assert live.websocket.wait_closed() == 1007


def test_long_names_are_not_remembered(live: ClientRooms) -> None:
    """A client may ask for any name."""
    for number in range(20):
        assert code_of(lambda: live.join("x" * 200_000 + str(number)))[0] == "unknown"  # noqa: B023
    tracemalloc.start()
    try:
        for number in range(20):
            assert code_of(lambda: live.join(f"{number}" + "y" * 200_000))[0] == "unknown"  # noqa: B023
        gc.collect()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 1_000_000


def test_requests_that_wait_have_a_limit_of_bytes(override: Callable[..., None]) -> None:
    """Not of their number only. A page that comes back has far less."""
    override(WEBSOCKET_ROOMS_RATE=0.01, WEBSOCKET_ROOMS_BURST=1)
    with WebSocketClient().rooms("/sync/") as live:
        live.join("room-1")
        for number in range(50):
            info = {"x": "y" * 1000}
            live.websocket.send_json({"id": number, "join": f"room-{number}", "info": info})
        for number in range(50, 60):
            event = {"id": number, "to": "room-1", "event": "ask", "data": "x" * 60_000}
            live.websocket.send_json({**event, "to": "room-2"})
        refused = live.websocket.receive_json()
        assert refused["error"]["code"] == "limit"
        assert refused["id"] in range(52, 56)


def test_a_hostile_client_harms_nobody(live: ClientRooms) -> None:
    """10,000 joins: so many rooms as it may have, an answer to each, and others go on."""
    with WebSocketClient().rooms("/sync/") as other:
        for number in range(10_000):
            name = f"room-{number}" if number % 2 else f"secret-{number}"
            live.websocket._wire.send(json.dumps({"id": number, "join": name}))
        live.websocket._exchange()
        other.join("room-1")
        assert other.emit("ask", 1) == {"pk": 1, "ask": 1}
        codes = [live.websocket.receive_json() for _ in range(9_800)]
        assert {each["error"]["code"] for each in codes if "error" in each} == {"limit", "unknown"}
        assert sum("ok" in each for each in codes) <= 100


def test_an_eviction_ends_the_room_alone(live: ClientRooms) -> None:
    """By the id of the connection: it is told, gets nothing more, and may go on elsewhere."""
    live.join("room-1")
    live.join("room-2")
    one = live.websocket
    ids = [each.id for each in websockets()]
    group("room-1").evict(ids[0], "bye")
    group("room-1").send("late")
    group("room-2").send("still")
    assert live.receive("room-1") == {
        "room": "room-1",
        "ended": {"code": "evicted", "text": "bye"},
    }
    assert live.receive("room-2")["data"] == "still"
    assert not live._waiting["room-1"]
    eventually(lambda: ("left", "room-1") in CALLS)
    assert code_of(lambda: live.emit("ask", to="room-1"))[0] == "invalid"
    assert live.join("room-1")["missed"] == 0
    assert not one.closed


def test_a_user_is_evicted_from_rooms_and_from_plain_groups(
    anna: User, override: Callable[..., None]
) -> None:
    """All connections stay open; those in rooms are told."""
    override(
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ]
    )
    client = WebSocketClient()
    client.force_login(anna)
    with client.websocket("/plain/") as one, client.rooms("/sync/") as live:
        live.join("room-1")
        live.join("alias-1")
        with WebSocketClient().websocket("/plain/") as other:
            group("room-1").evict(anna.pk + 1)
            group("room-1").evict(anna)
            assert live.receive("room-1")["ended"] == {"code": "evicted", "text": ""}
            assert live.receive("alias-1")["ended"] == {"code": "evicted", "text": ""}
            eventually(lambda: group("room-1").count() == 1)
            group("room-1").send("behind")
            assert other.receive() == "behind"
            one.send("echo")
            assert one.receive() == "echo"


def websockets() -> list[Any]:
    """The connections on the server's side."""
    owners = {id(owner): owner for owner in seats._owners.values()}
    return [owner.websocket for owner in owners.values()]  # type: ignore[attr-defined]


def test_the_recheck_asks_allow_again(override: Callable[..., None]) -> None:
    """Anonymous users, too. An exception keeps the room; a no ends it."""
    override(WEBSOCKET_AUTH_RECHECK=60)
    clock = Clock()
    with WebSocketClient().rooms("/sync/") as live:
        live.join("room-1")
        live.join("room-2")
        asked = len(CALLS)
        ANSWERS.update({"room-1": lambda: False, "room-2": lambda: 1 / 0})
        clock.advance(60)
        eventually(lambda: len(CALLS) > asked + 2)
        assert live.receive("room-1") == {
            "room": "room-1",
            "ended": {"code": "denied", "text": "This is not allowed."},
        }
        assert live.emit("ask", to="room-2")["pk"] == 2
        assert ("left", "room-1") in CALLS


def test_allow_is_asked_again_where_an_eviction_may_have_been_missed(live: ClientRooms) -> None:
    """The link to the server of the groups was away, and nobody may have heard of it."""
    live.join("room-1")
    eventually(lambda: ("joined", "room-1") in CALLS)
    ANSWERS["room-1"] = lambda: False
    reports.report(backends.backend("default"), "regained", ["link"])
    # It is spread over some seconds.
    Clock().advance(30)
    assert live.receive("room-1")["ended"]["code"] == "denied"


def test_a_client_that_always_says_something_is_rechecked(override: Callable[..., None]) -> None:
    """And its joins have their turns: not only when no message waits."""
    override(WEBSOCKET_AUTH_RECHECK=60)
    GO_ON.clear()
    with WebSocketClient().rooms("/sync/") as live:
        live.join("room-1")
        live.join("room-2")
        ANSWERS["room-2"] = lambda: False
        for number, name, event in [(7, "room-1", "wait"), (8, "room-2", "ask"), (9, "x", "ask")]:
            live.websocket.send_json({"id": number, "to": name, "event": event})
        eventually(lambda: ("waits", "room-1") in CALLS)
        live.websocket._exchange()
        _core.step_clock(61)
        GO_ON.set()
        got = [live.websocket.receive_json() for _ in range(4)]
        assert [each.get("id", each.get("ended")) for each in got] == [
            7,
            {"code": "denied", "text": "This is not allowed."},
            8,
            9,
        ]
        assert got[2]["error"]["code"] == "invalid"


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"name": ""}, TypeError),
        ({"presence": "yes"}, ValueError),
        ({"events": "typing"}, TypeError),
        ({"events": ["typing", "joined"]}, ValueError),
        ({"events": ["message"]}, ValueError),
        ({"max_members": 0}, ValueError),
        ({"rate": "x"}, TypeError),
        ({"rate": float("nan")}, ValueError),
        ({"rate": 10**400}, ValueError),
        ({"history": {"size": 3}}, ValueError),
        ({"presence": 1}, ValueError),
        ({"history": 0}, ValueError),
        ({"events": None}, TypeError),
        ({"events": 5}, TypeError),
        ({"allow": True}, TypeError),
        ({"info": {}}, TypeError),
    ],
)
def test_a_wrong_class_is_an_error_at_once(
    attributes: dict[str, Any], error: type[Exception]
) -> None:
    """And not in the first connection."""
    with pytest.raises(error, match="Wrong"):
        rooms(type("Wrong", (Room,), {"name": "x", **attributes}))


@pytest.mark.parametrize("name", ["_seat", "_state", "_backend"])
def test_names_of_the_base_class_are_refused(name: str) -> None:
    """In place of them no page could join, and nothing would say why."""
    mixin = type("Mixin", (), {name: "theirs"})
    for bases, members in (
        ((mixin, Chat), {}),
        ((Chat,), {name: "theirs"}),
        ((Chat,), {"__static_attributes__": ("_mine", name)}),
    ):
        with pytest.raises(TypeError, match=rf"\.{name} stands in place of a part of Room"):
            rooms(type("Chess", bases, members))


def test_a_class_of_several_views() -> None:
    """It is left as it was by the first one."""
    assert rooms(Chat)
    assert rooms(Chat, Bell)
    assert rooms(type("Chess", (Chat,), {}))


def test_rooms_takes_rooms_and_options() -> None:
    """Options are those of the decorators."""
    with pytest.raises(TypeError, match="none was given"):
        rooms()
    with pytest.raises(TypeError, match="subclasses of Room"):
        rooms(object)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no argument 'colour'"):
        rooms(Chat, colour="red")
    with pytest.raises(ValueError, match="subprotocols"):
        rooms(Chat, subprotocols="chat")
    assert rooms(Chat, fallback=True, send_buffer=1000)


def test_allow_counts_however_it_came_to_the_class(
    live: ClientRooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a decorator of the class, or a test: nothing is open because it came late."""
    monkeypatch.setattr(Bell, "group_name", Room.group_name)
    live.join("bell")
    live.leave()
    monkeypatch.setattr(Bell, "allow", lambda _: False)
    assert code_of(lambda: live.join("bell"))[0] == "denied"


class Answers:
    """As a queryset: it tells where it is asked whether there is anything."""

    def __bool__(self) -> bool:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return True


class Sync(Room):
    name = "sync"

    def allow(self) -> Any:
        return ANSWERS["sync"]()

    def receive(self, event: str, data: Any) -> Any:
        return next(iter(()))

    def info(self) -> Any:
        return ["no dict"]


class Watched(Sync):
    name = "watched"
    presence = True


@pytest.fixture(params=["sync", "mixed"])
def mixed(request: pytest.FixtureRequest, override: Callable[..., None]) -> Iterator[ClientRooms]:
    """Functions alone; and the same beside a class with coroutine functions."""
    both = {"sync": (Sync, Watched), "mixed": (Sync, Watched, AsyncChat)}[request.param]
    urls = ModuleType("mixed_urls")
    vars(urls)["urlpatterns"] = [path("mixed/", rooms(*both))]
    override(ROOT_URLCONF=urls)
    with WebSocketClient().rooms("/mixed/") as found:
        yield found


def test_what_allow_returns_is_asked_where_it_was_called(mixed: ClientRooms) -> None:
    """A queryset takes a query, which no event loop may run. A response is no answer."""
    ANSWERS["sync"] = Answers
    mixed.join("sync")
    ANSWERS["sync"] = HttpResponseForbidden
    assert code_of(lambda: mixed.join("watched"))[0] == "failed"


def test_a_method_that_exhausts_an_iterator_has_failed(mixed: ClientRooms) -> None:
    """No future can have StopIteration: the page gets its answer all the same."""
    ANSWERS["sync"] = lambda: True
    mixed.join("sync")
    assert code_of(lambda: mixed.emit("x"))[0] == "failed"


def test_an_info_that_is_no_dict_is_named(
    mixed: ClientRooms, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, for who wrote it."""
    ANSWERS["sync"] = lambda: True
    assert code_of(lambda: mixed.join("watched"))[0] == "failed"
    assert "Watched.info() must return a dict or None" in caplog.text


def test_an_eviction_while_allow_is_at_work_counts(live: ClientRooms) -> None:
    """The page is no member yet, so `allow` is asked once more: it may have looked too early."""
    is_banned = threading.Event()

    def bans() -> bool:
        may = not is_banned.is_set()
        is_banned.set()
        group("room-1").evict(websockets()[0].id)
        return may

    ANSWERS["room-1"] = bans
    assert code_of(lambda: live.join("room-1")) == ("denied", "This is not allowed.")
    assert CALLS.count(("allow", "room-1")) == 2
    assert group("room-1").count() == 0
    ANSWERS.clear()
    live.join("room-1")


def test_a_second_join_during_which_the_room_ends_joins_anew(live: ClientRooms) -> None:
    """`allow` says yes, so the page is in the room afterwards."""

    def evicts() -> bool:
        del ANSWERS["room-1"]
        group("room-1").evict(websockets()[0].id)
        eventually(lambda: group("room-1").count() == 0)
        return True

    live.join("room-1")
    ANSWERS["room-1"] = evicts
    live.join("room-1")
    assert live.receive("room-1")["ended"]["code"] == "evicted"
    group("room-1").send("again")
    assert live.receive("room-1")["data"] == "again"
    eventually(lambda: CALLS.count(("joined", "room-1")) == 2)


def test_nothing_that_is_published_after_an_eviction_comes(live: ClientRooms) -> None:
    """Also where it comes before the answer of the join."""

    def evicts(websocket: Any, **_: Any) -> None:
        group("room-1").send("before")
        group("room-1").evict(websocket.id)
        group("room-1").send("after")

    signals.group_joined.connect(evicts)
    try:
        live.join("room-1")
    finally:
        signals.group_joined.disconnect(evicts)
    assert live.receive("room-1")["data"] == "before"
    assert live.receive("room-1")["ended"]["code"] == "evicted"
    live.join("room-2")
    assert not live._waiting["room-1"]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("joined", [0, 20])
def test_a_move_may_begin_while_a_room_with_a_group_of_its_own_is_joined(
    kind: str, joined: int
) -> None:
    """Its group is known once it is joined; until then the connection has its other rooms."""
    seen: list[set[str]] = []

    def look(group: Any, **_: Any) -> None:
        if group.name == "room-99":
            with ThreadPoolExecutor() as other_thread:
                (handler,) = moving.survivors()
                seen.append(set(other_thread.submit(handler._seats_to_move).result()))

    others = {f"alias-{number}" for number in range(joined)}
    with WebSocketClient().rooms(f"/{kind}/") as live:
        for each in others:
            live.join(each)
        signals.group_joined.connect(look)
        signals.group_left.connect(look)
        try:
            live.join("alias-99")
            (handler,) = moving.survivors()
            eventually(lambda: set(handler._seats_to_move()) == {*others, "alias-99"})
            live.leave("alias-99")
        finally:
            signals.group_joined.disconnect(look)
            signals.group_left.disconnect(look)
    assert seen == [others, others]


@pytest.mark.parametrize("whom", ["7", "", str(uuid.UUID(int=7))])
def test_eviction_by_a_text_that_is_a_primary_key(whom: str) -> None:
    """It would be taken for the id of a WebSocket, and nobody would leave."""
    with pytest.raises(ValueError, match="id of a WebSocket"):
        group("room-1").evict(whom)


@pytest.mark.parametrize("whom", [[1], (1,), b"1", True, 1.5, object(), iter(())])
def test_eviction_of_what_is_no_user(whom: object) -> None:
    """An error, not a ban of nobody."""
    with pytest.raises(TypeError, match="primary key"):
        group("room-1").evict(whom)


@pytest.mark.parametrize("name_of", [user, group("room-1").evict])
def test_an_object_of_another_model_is_no_user(name_of: Callable[[object], object]) -> None:
    """Its primary key is that of somebody else."""
    with pytest.raises(TypeError, match="primary key"):
        name_of(Permission(pk=7))


def test_the_only_room_is_found_after_another_one_has_ended(live: ClientRooms) -> None:
    """Refused when it is asked again, or by the recheck."""
    live.join("room-1")
    live.join("room-2")
    ANSWERS["room-1"] = lambda: False
    assert code_of(lambda: live.join("room-1"))[0] == "denied"
    assert live.emit("ask", 1) == {"pk": 2, "ask": 1}


class Seen(Room):
    name = "seen"
    presence = True

    def joined(self) -> None:
        CALLS.append(self.group.count_members())
        self.websocket.update(self.name, info={"by": "the server"})


def test_the_methods_of_a_room_know_its_members(override: Callable[..., None]) -> None:
    """Without an entry in the settings; and they may change what others see."""
    import sys
    from types import SimpleNamespace

    sys.modules["seen_urls"] = SimpleNamespace(urlpatterns=[path("s/", rooms(Seen))])  # type: ignore[assignment]
    override(ROOT_URLCONF="seen_urls")
    with WebSocketClient().rooms("/s/") as one, WebSocketClient().rooms("/s/") as two:
        one.join("seen")
        # The answer comes before the call of `joined`.
        eventually(lambda: CALLS == [1])
        assert two.join("seen")["count"] == 2
        eventually(lambda: CALLS == [1, 2])
        while "updated" not in (told := one.receive()):
            pass
        assert told["updated"]["info"] == {"by": "the server"}
    eventually(lambda: not seats._present)
    with pytest.raises(UsageError):
        group("seen").members()


class Muted(Room):
    name = "muted"
    presence = True

    def info(self) -> Any:
        return {"name": "Anna"}

    def receive(self, event: str, data: Any) -> None:
        self.websocket.update(self.name, info={"name": "Anna", "muted": True})


def test_a_page_does_not_undo_the_info_of_the_server(override: Callable[..., None]) -> None:
    """Neither by leaving it out, nor by another value."""
    import sys
    from types import SimpleNamespace

    sys.modules["muted_urls"] = SimpleNamespace(urlpatterns=[path("s/", rooms(Muted))])  # type: ignore[assignment]
    override(ROOT_URLCONF="muted_urls")
    with WebSocketClient().rooms("/s/") as one, WebSocketClient().rooms("/s/") as two:
        one.join("muted")
        two.join("muted", info={"mood": "good"})
        two.emit("mute")
        two.update({"muted": False, "mood": "bad"})
        expected = {"name": "Anna", "muted": True, "mood": "bad"}
        eventually(lambda: one.receive().get("updated", {}).get("info") == expected)


def lists() -> int:
    return sum(type(each) is list for each in gc.get_objects())


def test_info_is_kept_as_text(override: Callable[..., None]) -> None:
    """Objects that a page writes in a kilobyte would take thirty times as much."""
    override(ROOT_URLCONF=(path("s/", rooms(Muted)),))
    with WebSocketClient().rooms("/s/") as live:
        live.join("muted")
        before = lists()
        live.update({"x": [[]] * 300})
        assert lists() - before < 100


class Small(Room):
    name = "small"
    max_members = 1
    rate = 1


def test_a_room_may_be_full(override: Callable[..., None]) -> None:
    """It counts connections where users are not known. Its own rate limits its events."""
    import sys
    from types import SimpleNamespace

    sys.modules["small_urls"] = SimpleNamespace(urlpatterns=[path("s/", rooms(Small))])  # type: ignore[assignment]
    override(ROOT_URLCONF="small_urls")
    with WebSocketClient().rooms("/s/") as one, WebSocketClient().rooms("/s/") as two:
        one.join("small")
        assert code_of(lambda: two.join("small"))[0] == "limit"
        codes = [code_of(lambda: one.emit("x"))[0] for _ in range(4)]
        assert codes == ["invalid", "invalid", "invalid", "limit"]
        one.leave()
        two.join("small")
