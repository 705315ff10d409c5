"""Events that go to the other members of a room: by the engine, or by Python where it has to."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.urls import path

from dwebsocket import group
from dwebsocket.groups import backends, seats
from dwebsocket.groups.backends import process
from dwebsocket.rooms import Room, rooms
from dwebsocket.rooms.connection import Rooms
from dwebsocket.testing import Clock, RoomError, WebSocketClient, websockets_of_a_test
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.testing import ClientRooms

BLOCKED = threading.Event()
GO_ON = threading.Event()


class Chat(Room):
    name = "room-<int:pk>"
    events: ClassVar[list[str]] = ["typing", "é\ud800", "é"]

    def receive(self, event: str, data: Any) -> Any:
        if event == "block":
            BLOCKED.set()
            assert GO_ON.wait(60)
        return data


class AsyncChat(Chat):
    async def receive(self, event: str, data: Any) -> Any:
        # It holds up the whole event loop.
        return super().receive(event, data)


class Present(Room):
    name = "present-<int:pk>"
    presence = True
    events: ClassVar[list[str]] = ["typing"]


class Slow(Room):
    name = "slow-<int:pk>"
    events: ClassVar[list[str]] = ["typing"]
    rate = 1


urlpatterns = [
    path("sync/", rooms(Chat, Present, Slow)),
    path("async/", rooms(AsyncChat, Present, Slow)),
]


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the events that Python takes."""
    found: list[str] = []
    receive = Rooms.receive

    def note(self: Rooms, message: str | bytes) -> Any:
        if (event := json.loads(message).get("event")) is not None:
            found.append(event)
        return receive(self, message)

    monkeypatch.setattr(Rooms, "receive", note)
    return found


@pytest.fixture(params=["sync", "async"])
def connect(
    request: pytest.FixtureRequest, override: Callable[..., None]
) -> Iterator[Callable[[], ClientRooms]]:
    """Opens connections whose rooms have functions, or coroutine functions."""
    groups = {"default": {"BACKEND": "dwebsocket.groups.process"}}
    override(ROOT_URLCONF=__name__, WEBSOCKET_GROUPS=groups, WEBSOCKET_HANDLER_THREADS=1)
    GO_ON.clear()
    BLOCKED.clear()
    with backends.replaced(process.Backend), websockets_of_a_test():
        yield lambda: WebSocketClient().rooms(f"/{request.param}/")
    GO_ON.set()


@pytest.fixture
def pair(connect: Callable[[], ClientRooms]) -> Iterator[tuple[ClientRooms, ClientRooms]]:
    """Two members of each of three rooms, the first of which sends."""
    with connect() as sender, connect() as other:
        for live in (other, sender):
            for name in ("room-1", "present-1", "slow-1"):
                live.join(name)
        rest()
        yield sender, other


def rest() -> None:
    """Wait until no connection has anything to do."""
    eventually(lambda: all(each.is_awaited() for each in connections()))


def websockets() -> list[Any]:
    """The server's ends, in the order in which they were opened."""
    owners = [owner for _, owner in sorted(seats._owners.items())]
    return [owner.websocket for owner in owners]  # type: ignore[attr-defined]


def connections() -> list[Any]:
    return [websocket._connection for websocket in websockets()]


def events_of(live: ClientRooms, name: str = "room-1") -> Any:
    while "event" not in (found := live.receive(name)):
        pass
    return found


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(RoomError) as raised:
        call()
    return raised.value.code


def test_an_event_passes_while_every_handler_waits(
    connect: Callable[[], ClientRooms], pair: tuple[ClientRooms, ClientRooms]
) -> None:
    """It needs no thread, and no event loop."""
    sender, other = pair
    with connect() as third:
        third.join("room-2")
        rest()
        third.websocket.send_json({"id": 7, "to": "room-2", "event": "block"})
        assert BLOCKED.wait(60)
        try:
            assert sender.emit("typing", [1], to="room-1") == {}
            assert events_of(other)["data"] == [1]
        finally:
            GO_ON.set()
        assert third.websocket.receive_json()["id"] == 7


MESSAGES = [
    '{"id":1,"to":"room-1","event":"typing","data":true}',
    ' {"id" : "a b", "to":"room-1","event":"typing","data" : {"a" : [1.50, -0, "\\u00e9é"]} }\n',
    '{"to":"room-1","event":"typing"}',
    '{"id":-3,"x":[null],"to":"room\\u002d1","event":"\\u00e9","data":"\\n\\"\\\\"}',
    '{"id":999999999999999999999,"to":"room-1","event":"typing","data":' + "8" * 300 + "}",
    '{"id":1.0,"to":"room-1","event":"typing","data":1}',
    '{"id":"é","to":"room-1","event":"typing","data":1.50}',
]
UNUSUAL = [
    '{"id":1,"to":"room-1","event":"typing","data":"\\ud800"}',
    '{"id":1,"to":"room-1","event":"\\u00e9\\ud800","data":1}',
    '{"id":1,"to":"room-1","event":"typing","data":1,"data":2}',
    '{"id":1,"to":"room-1","event":"typing","data":' + "[" * 90 + "]" * 90 + "}",
    '{"id":1,"to":"room-1","event":"typing","data":' + "8" * 301 + "}",
]


@pytest.mark.parametrize("message", [*MESSAGES, *UNUSUAL])
def test_an_event_is_the_same_by_either_way(
    pair: tuple[ClientRooms, ClientRooms], in_python: list[str], message: str
) -> None:
    """To the byte, with its acknowledgement; what the engine does not read goes by Python."""
    sender, other = pair
    own = connections()[0]
    found = []
    for names in (Chat.events, []):
        own.pass_events(names)
        sender.websocket.send(message)
        got = other.websocket.receive()
        while '"event"' not in got:
            got = other.websocket.receive()
        found.append((got, sender.websocket.receive() if '"id"' in message else None))
        rest()
    assert found[0] == found[1]
    sent = json.loads(message)
    assert json.loads(found[0][0])["data"] == sent.get("data")
    assert found[0][1] is None or json.loads(found[0][1]) == {"id": sent["id"], "ok": {}}
    assert len(in_python) == (1 if message in MESSAGES else 2)


@pytest.mark.parametrize("by", ["engine", "python"])
@pytest.mark.parametrize("name", ["present-1", group("present-1")])
def test_an_event_is_from_what_the_server_has_said_last(
    pair: tuple[ClientRooms, ClientRooms], by: str, name: Any
) -> None:
    """Whether it means the room, or its group."""
    sender, other = pair
    websocket = websockets()[0]
    websocket.update(name, info={"n": 1})
    if by == "python":
        websocket._connection.pass_events([])
    for _ in range(2):
        assert sender.emit("typing", {}, to="present-1") == {}
        event = events_of(other, "present-1")
        assert [each["info"] for each in event["from"]["connections"]] == [{"n": 1}]
        assert event["from"]["info"] == {"n": 1}
        rest()


def test_what_comes_behind_another_message_waits(
    pair: tuple[ClientRooms, ClientRooms], in_python: list[str]
) -> None:
    """The order of one client's messages holds, and a left room is none."""
    sender, other = pair
    sender.websocket.send_json({"id": 1, "to": "room-1", "event": "block", "data": 1})
    assert BLOCKED.wait(60)
    sender.websocket.send_json({"id": 2, "to": "room-1", "event": "typing", "data": 2})
    sender.websocket.send_json({"id": 3, "leave": "room-1"})
    sender.websocket.send_json({"id": 4, "to": "room-1", "event": "typing", "data": 4})
    sender.websocket.send_json({"ping": 1})
    assert sender.websocket.receive_json() == {"pong": 1}
    assert in_python == ["block"]
    GO_ON.set()
    answers = [sender.websocket.receive_json() for _ in range(4)]
    assert [each["id"] for each in answers] == [1, 2, 3, 4]
    assert answers[3]["error"]["code"] == "invalid"
    assert events_of(other)["data"] == 2
    group("room-1").send("behind")
    assert other.receive("room-1")["data"] == "behind"


def test_many_events_pass_in_order(
    pair: tuple[ClientRooms, ClientRooms], in_python: list[str]
) -> None:
    """One after the other, and a message between them is Python's."""
    sender, other = pair
    for number in range(50):
        event = "say" if number == 20 else "typing"
        sender.websocket.send_json({"id": number, "to": "room-1", "event": event, "data": number})
    assert [sender.websocket.receive_json()["id"] for _ in range(50)] == list(range(50))
    got = [events_of(other)["data"] for _ in range(49)]
    assert got == [number for number in range(50) if number != 20]
    assert in_python[0] == "say"
    assert connections()[0].messages()[0] == 3 + 50


def test_an_event_has_the_sender_of_now(
    pair: tuple[ClientRooms, ClientRooms], in_python: list[str]
) -> None:
    """As what others see of it has changed by an update, or by a second join."""
    sender, other = pair
    sender.update({"mood": "good"}, to="present-1")
    rest()
    sender.emit("typing", 1, to="present-1")
    assert events_of(other, "present-1")["from"]["info"] == {"mood": "good"}
    sender.join("present-1", info={"mood": "bad"})
    rest()
    sender.emit("typing", 2, to="present-1")
    found = events_of(other, "present-1")
    member = found["from"]
    [connection] = member["connections"]
    assert (found["data"], member["info"], connection["info"]) == (2, *[{"mood": "bad"}] * 2)
    assert member["since"]
    assert in_python == []


def test_who_was_evicted_sends_nothing(
    pair: tuple[ClientRooms, ClientRooms], in_python: list[str]
) -> None:
    """Its event is answered by Python, as one to a room that is not joined."""
    sender, other = pair
    sender.emit("typing", 1, to="room-1")
    assert in_python == []
    owners = [owner for _, owner in sorted(seats._owners.items())]
    group("room-1").evict(owners[0].websocket.id)  # type: ignore[attr-defined]
    assert "ended" in sender.receive("room-1")
    rest()
    assert code_of(lambda: sender.emit("typing", 2, to="room-1")) == "invalid"
    sender.join("room-1")
    rest()
    sender.emit("typing", 3, to="room-1")
    assert [events_of(other)["data"] for _ in range(2)] == [1, 3]


def test_python_and_the_engine_take_permits_of_one_bucket(
    connect: Callable[[], ClientRooms], override: Callable[..., None], in_python: list[str]
) -> None:
    """What is above it is refused, whoever has taken them."""
    override(WEBSOCKET_ROOMS_RATE=1, WEBSOCKET_ROOMS_BURST=3)
    clock = Clock()
    with connect() as live:
        live.join("room-1")
        rest()
        live.emit("typing")
        live.emit("say")
        rest()
        live.emit("typing")
        assert in_python == ["say"]
        assert code_of(lambda: live.emit("typing")) == "limit"
        rest()
        clock.advance(1)
        live.emit("typing")
        assert code_of(lambda: live.emit("say")) == "limit"
        assert in_python == ["say", "typing", "say"]


def test_a_room_has_a_rate_of_its_own(
    pair: tuple[ClientRooms, ClientRooms], in_python: list[str]
) -> None:
    """Beside that of the connection, of which its refusals take permits, too."""
    sender, _ = pair
    for _ in range(3):
        sender.emit("typing", to="slow-1")
    assert in_python == []
    assert code_of(lambda: sender.emit("typing", to="slow-1")) == "limit"
    rest()
    sender.emit("typing", to="room-1")
    assert in_python == ["typing"]


def test_a_large_event_is_refused(
    connect: Callable[[], ClientRooms], override: Callable[..., None], in_python: list[str]
) -> None:
    """By Python, whose answer says why."""
    override(WEBSOCKET_MAX_ROOM_EVENT=200)
    with connect() as live:
        live.join("room-1")
        rest()
        live.emit("typing", "x" * 100)
        assert in_python == []
        assert code_of(lambda: live.emit("typing", "x" * 200)) == "limit"


def test_an_event_waits_for_joins_and_leaves_before_it(
    connect: Callable[[], ClientRooms], override: Callable[..., None]
) -> None:
    """Those that wait for their turn."""
    override(WEBSOCKET_ROOMS_RATE=1, WEBSOCKET_ROOMS_BURST=1)
    clock = Clock()
    with connect() as live:
        live.join("room-1")
        live.websocket.send_json({"id": 1, "join": "room-1"})
        live.websocket.send_json({"id": 2, "leave": "room-1"})
        eventually(lambda: connections()[0].messages()[0] == 3)
        rest()
        live.websocket.send_json({"id": 3, "to": "room-1", "event": "typing"})
        eventually(lambda: connections()[0].messages()[0] == 4)
        rest()
        clock.advance(1)
        answers = [live.websocket.receive_json() for _ in range(3)]
        assert [each["id"] for each in answers] == [1, 2, 3]
        assert answers[2]["error"]["code"] == "invalid"
        live.join("room-2")
        rest()
