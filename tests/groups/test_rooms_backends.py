"""Rooms over each backend of groups: joins, recovery, presence, events, evictions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from django.db import connections
from django.urls import path
from history_backends import (  # noqa: F401
    DATABASE,
    HISTORY_BACKENDS,
    history_entry,
    own_backends,
    postgres_database,
    redis_server,
)

from dwebsocket import group
from dwebsocket.rooms import Room, rooms
from dwebsocket.signals import member_joined
from dwebsocket.testing import RoomError, WebSocketClient, websockets_of_a_test
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from history_backends import HistoryEntry

    from dwebsocket.testing import ClientRooms


class Chat(Room):
    name = "room-<int:pk>"
    presence = True
    events: ClassVar[list[str]] = ["typing"]

    def info(self) -> dict[str, Any]:
        return {"server": self.kwargs["pk"]}


class AsyncChat(Chat):
    async def info(self) -> dict[str, Any]:
        return super().info()


class Dashboard(Room):
    name = "watch-<int:pk>"
    presence = "watch"

    def group_name(self) -> str:
        return f"room-{self.kwargs['pk']}"


class Pair(Room):
    name = "pair"
    presence = True
    max_members = 2


class Again(Room):
    """The chat under another name."""

    name = "again-<int:pk>"
    presence = True

    def group_name(self) -> str:
        return f"room-{self.kwargs['pk']}"


class Bare(Room):
    """Its group has no history."""

    name = "bare"


class Guarded(Room):
    """Each connection is banned while `allow` is at work, and others may join meanwhile."""

    name = "guarded-<int:pk>"
    banned: ClassVar[set[str]] = set()
    meanwhile: ClassVar[Callable[[], object]] = bool

    def allow(self) -> bool:
        if (one := self.websocket.id) in self.banned:
            return False
        self.banned.add(one)
        self.group.evict(one)
        type(self).meanwhile()
        return True


class Unguarded(Room):
    """The same group for others."""

    name = "unguarded-<int:pk>"

    def group_name(self) -> str:
        return f"guarded-{self.kwargs['pk']}"


urlpatterns = [
    path("sync/", rooms(Chat, Dashboard, Pair, Again, Bare, Guarded, Unguarded)),
    path("async/", rooms(AsyncChat, Dashboard, Pair, Again, Bare, Guarded, Unguarded)),
]


@pytest.fixture(params=HISTORY_BACKENDS, autouse=True)
def _backend(
    request: pytest.FixtureRequest,
    override: Callable[..., None],
    history_entry: HistoryEntry,  # noqa: F811
) -> Iterator[None]:
    entry = {**history_entry(request.param), "HISTORY": {"room-*": {"size": 10, "seconds": 300}}}
    override(WEBSOCKET_GROUPS={"default": entry}, ROOT_URLCONF=__name__)
    # Those of tests would stay in this process.
    with websockets_of_a_test(), own_backends():
        yield


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Callable[..., ClientRooms]:
    """Opens connections whose rooms have functions, or coroutine functions."""
    return lambda: WebSocketClient().rooms(f"/{request.param}/")


def next_of(live: ClientRooms, kind: str, name: str | None = None) -> Any:
    while kind not in (got := live.receive(name)):
        pass
    return got[kind]


def test_a_join_is_told_by_the_signal(client: Callable[..., ClientRooms]) -> None:
    """Once, and the join waits for no timeout, though the settings name no presence."""
    told = []

    def note(member: Any, **_: Any) -> None:
        told.append(member.key)

    member_joined.connect(note)
    try:
        with client() as anna:
            [own] = anna.join("room-1")["members"]
            anna.join("room-2")
    finally:
        member_joined.disconnect(note)
    assert told == [own["key"]] * 2


def test_who_is_here_is_told(client: Callable[..., ClientRooms]) -> None:
    """In the answer, and by messages: a join, what one says, a leave within its grace."""
    with client() as anna, client() as bert:
        first = anna.join("room-1", info={"name": "Anna", "server": "forged"})
        assert first["count"] == 1
        [own] = first["members"]
        assert own["info"] == {"name": "Anna", "server": 1}
        assert own["connections"] == [{"id": own["connections"][0]["id"], "info": own["info"]}]
        second = bert.join("room-1", info={"name": "Bert"})
        assert second["count"] == 2
        assert second["members"][0] == own
        joined = next_of(anna, "joined")
        assert joined == second["members"][1]
        bert.update({"name": "Bert", "typing": True})
        updated = next_of(anna, "updated")
        assert updated["key"] == joined["key"]
        assert updated["connections"][0]["info"] == {"name": "Bert", "typing": True, "server": 1}
        assert anna.members()[1]["info"]["typing"] is True
        assert bert.emit("typing", {"on": True}) == {}
        event = anna.receive()
        assert (event["event"], event["data"], event["from"]) == ("typing", {"on": True}, updated)


def test_one_connection_under_two_names_says_one_thing(client: Callable[..., ClientRooms]) -> None:
    """The latest info counts, for the connection and for its user."""
    with client() as anna:
        anna.join("again-1", info={"at": "a"})
        [member] = anna.join("room-1", info={"at": "b"})["members"]
        assert [each["info"] for each in member["connections"]] == [member["info"]]
        assert member["info"]["at"] == "b"
        anna.update({"at": "c"}, to="again-1")
        [member] = anna.members("room-1")
        assert [each["info"] for each in member["connections"]] == [{"at": "c"}]


def test_a_dashboard_is_told_and_is_nobody(client: Callable[..., ClientRooms]) -> None:
    """It sees who is there, under its own name of the group."""
    with client() as board, client() as anna:
        assert board.join("watch-1") | {"position": ""} == {
            "position": "",
            "recovered": True,
            "missed": 0,
            "members": [],
            "count": 0,
        }
        assert anna.join("room-1")["count"] == 1
        assert next_of(board, "joined", "watch-1")["info"] == {"server": 1}
        assert board.members("watch-1") == anna.members()


def test_what_was_missed_comes_behind_the_answer(client: Callable[..., ClientRooms]) -> None:
    """Then what comes; each once."""
    with client() as live:
        position = live.join("room-1")["position"]
        group("room-1").send_json({"n": 0})
        assert json.loads(next_of(live, "data")) == {"n": 0}
    group("room-1").send("1")
    group("room-1").send(b"2")
    with client() as live:
        answer = live.join("room-1", since=position)
        assert (answer["recovered"], answer["missed"]) == (True, 3)
        group("room-1").send("3")
        got = [live.receive() for _ in range(4)]
        assert [each["data"] for each in got] == ['{"n": 0}', "1", "Mg==", "3"]
        assert answer["position"] == got[2]["position"]


def cut_off(request: pytest.FixtureRequest) -> None:
    """Ends the connection by which messages come here; skips where there is none."""
    name = request.node.callspec.params["_backend"]
    if name == "redis":
        request.getfixturevalue("redis_server").ask("CLIENT", "KILL", "TYPE", "pubsub")
    elif name == "postgres":
        with connections[DATABASE].cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND application_name LIKE 'dwebsocket %'"
            )
    else:
        pytest.skip("no server in between")


def test_a_loss_is_told_before_the_next_message_of_a_room_without_a_history(
    client: Callable[..., ClientRooms], request: pytest.FixtureRequest
) -> None:
    """One with a history has not lost any."""
    with client() as live:
        for name in ("bare", "room-1"):
            live.join(name)
            group(name).send("before")
            assert live.receive(name)["data"] == "before"
        cut_off(request)
        told = live.receive("bare")
        assert told == {"room": "bare", "recovered": False}
        for name in ("bare", "room-1"):
            group(name).send("after")
            assert live.receive(name)["data"] == "after"


def test_an_eviction_reaches_the_member_in_order(client: Callable[..., ClientRooms]) -> None:
    """What is published behind it does not come; the user is there no more."""
    with client() as anna, client() as bert:
        anna.join("room-1")
        mine = anna.members()[0]["connections"][0]["id"]
        bert.join("room-1")
        group("room-1").send("before")
        group("room-1").evict(mine, "rude")
        group("room-1").send("behind")
        assert next_of(bert, "data") == "before"
        assert next_of(bert, "data") == "behind"
        assert next_of(anna, "data") == "before"
        assert next_of(anna, "ended") == {"code": "evicted", "text": "rude"}
        assert not anna._waiting["room-1"]
        with pytest.raises(RoomError) as refused:
            anna.emit("typing", to="room-1")
        assert refused.value.code == "invalid"
        eventually(lambda: [each["connections"] == [] for each in bert.members()] == [True, False])


def test_one_that_is_evicted_while_allow_is_at_work_stays_out(
    client: Callable[..., ClientRooms],
) -> None:
    """Also where its process has no other member of the group."""
    with client() as anna, pytest.raises(RoomError) as refused:
        anna.join("guarded-1")
    assert refused.value.code == "denied"


def test_one_stays_out_also_where_another_member_comes_behind_the_eviction(
    client: Callable[..., ClientRooms], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then evictions from the group do not come to its process."""
    with client() as anna, client() as bert:
        monkeypatch.setattr(Guarded, "meanwhile", lambda: bert.join("unguarded-1"))
        with pytest.raises(RoomError) as refused:
            anna.join("guarded-1")
    assert refused.value.code == "denied"


def test_members_are_counted_without_the_grace(client: Callable[..., ClientRooms]) -> None:
    """One that has left makes room at once."""
    with client() as one, client() as two, client() as three:
        one.join("pair")
        two.join("pair")
        with pytest.raises(RoomError) as refused:
            three.join("pair")
        assert refused.value.code == "limit"
        two.leave()
        assert three.join("pair")["count"] == 3
