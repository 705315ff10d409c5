"""Presence in one process: `members()`, `join(info=…, presence=True)`, and the signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import path
from peer import LiveWebSocket
from presence_backends import folder, presence_entry, redis_server  # noqa: F401
from presence_node import Tabs

from dwebsocket import (
    GroupUnavailable,
    UsageError,
    WebSocketHandler,
    accept_websocket,
    group,
    require_websocket,
    signals,
    user,
)
from dwebsocket.groups import Member, backends
from dwebsocket.testing import Clock, WebSocketClient, websockets_of_a_test
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User
    from django.http import HttpRequest
    from presence_backends import PresenceEntry

Open = Callable[..., LiveWebSocket]
Override = Callable[..., None]

ROOM = group("room-1")
TWO: list[dict[str, Any]] = [{"id": "a", "info": None}, {"id": "b", "info": [1]}]
A_ROOM = {"room-*": {"grace": 3600}}


@pytest.fixture(
    params=[
        "process",
        "local",
        "memory_backend.MemoryBackend",
        pytest.param("redis", marks=pytest.mark.needs("redis")),
    ],
    autouse=True,
)
def know(
    request: pytest.FixtureRequest,
    override: Override,
    presence_entry: PresenceEntry,  # noqa: F811
) -> Iterator[Callable[..., None]]:
    """Give groups `room-…` presence, in backends of each kind."""

    def know(**entry: Any) -> None:
        backend, _ = presence_entry(request.param)
        override(WEBSOCKET_GROUPS={"default": {**backend, "PRESENCE": A_ROOM, **entry}})

    know()
    with backends.replaced(backends.make):
        yield know


@pytest.fixture
def tabs() -> Iterator[Tabs]:
    """WebSockets by names, and what the signals have told."""
    found = Tabs()
    yield found
    for live in found.live.values():
        live.websocket.close()
        live.client.vanish()


def present() -> dict[str, int]:
    """Give the connections of each user."""
    return {member.key: len(member.connections) for member in ROOM.members()}


@pytest.mark.parametrize("has_history", [False, True])
def test_a_group_whose_users_cannot_be_asked_for_is_not_joined(
    know: Callable[..., None],
    open_websocket: Open,
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_history: bool,
) -> None:
    """A connection that was in the group before stays there."""
    if has_history:
        if not backends.backend("default").keeps_history:
            pytest.skip("it keeps no history")
        know(HISTORY={"room-*": {}})
    live, backend = open_websocket(), backends.backend("default")

    def fail(*_: object) -> Any:
        raise backend.unavailable("away")
        yield

    for is_member in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(backend, "entering", fail)
            for add in (ROOM.add, lambda each: asyncio.run(ROOM.aadd(each))):
                with pytest.raises(GroupUnavailable):
                    add(live.websocket)
                assert ("room-1" in live.websocket.groups) is is_member
        assert ROOM.add(live.websocket)


class TestMembers:
    """`group(…).members()`."""

    def test_are_users_and_not_connections(self, tabs: Tabs) -> None:
        """Those first that have joined first."""
        tabs.come("1", "anna", {"name": "Anna"})
        tabs.come("2", "anna")
        eventually(lambda: datetime.now(timezone.utc) - ROOM.members()[0].since > timedelta(0))
        tabs.come("3", "bert")
        anna, bert = ROOM.members()
        assert (anna.user, anna.key, anna.info, len(anna.connections)) == (
            "anna",
            "user:anna",
            {"name": "Anna"},
            2,
        )
        assert (bert.user, bert.info, len(bert.connections)) == ("bert", None, 1)
        assert datetime.now(timezone.utc) - anna.since < timedelta(minutes=1)
        assert asyncio.run(ROOM.amembers()) == [anna, bert]

    def test_of_many_connections_some_are_named(self, tabs: Tabs) -> None:
        """Each change is told to all members, with all connections of the user that it names."""
        for number in range(20):
            tabs.come(str(number), "anna", {"name": "x" * 1000})
        [anna] = ROOM.members()
        assert len(anna.connections) == 6

    def test_anonymous_users(self, tabs: Tabs) -> None:
        """One for each session, and one for each connection that has none."""
        for tab, session in (("1", "secret one"), ("2", "secret one"), ("3", ""), ("4", "")):
            tabs.open(tab, session=session)
            tabs.join(tab)
        found = ROOM.members()
        assert sorted(len(member.connections) for member in found) == [1, 1, 2]
        assert {member.user for member in found} == {None}
        kinds = sorted(member.key.partition(":")[0] for member in found)
        assert kinds == ["connection", "connection", "session"]
        assert "secret" not in repr(found)
        assert not any(live.websocket.id in repr(found) for live in tabs.live.values())

    def test_of_an_empty_group(self) -> None:
        """Are none."""
        assert ROOM.members() == []

    @pytest.mark.parametrize("end", ["close", "leave"])
    def test_stay_for_the_grace(self, tabs: Tabs, end: str) -> None:
        """However the last connection has ended."""
        tabs.come("1", "anna", {"name": "Anna"})
        getattr(tabs, end)("1")
        eventually(lambda: present() == {"user:anna": 0})
        assert ROOM.members()[0].info == {"name": "Anna"}

    def test_a_connection_that_another_process_would_be_told_to_close(self, tabs: Tabs) -> None:
        """As by a sign-out: it is a leave like any other."""
        tabs.come("1", "anna")
        ROOM.close(4401)
        eventually(lambda: present() == {"user:anna": 0})

    def test_joining_and_leaving_again(self, tabs: Tabs) -> None:
        """Is idempotent."""
        tabs.come("1", "anna", {"name": "Anna"})
        tabs.join("1")
        ROOM.add(tabs.live["1"].websocket)
        assert present() == {"user:anna": 1}
        tabs.leave("1")
        tabs.leave("1")
        assert present() == {"user:anna": 0}
        tabs.join("1")
        assert present() == {"user:anna": 1}

    @pytest.mark.parametrize("history", [False, True])
    @pytest.mark.parametrize("is_async", [False, True])
    def test_group_add(
        self, tabs: Tabs, know: Callable[..., None], *, history: bool, is_async: bool
    ) -> None:
        """Makes present as `join` does, also in a group that has a history."""
        if history:
            if not backends.backend("default").keeps_history:
                pytest.skip("it keeps no history")
            know(HISTORY={"room-*": {}})
        tabs.open("1", "anna")
        websocket = tabs.live["1"].websocket
        assert asyncio.run(ROOM.aadd(websocket)) if is_async else ROOM.add(websocket)
        assert present() == {"user:anna": 1}
        if is_async:
            asyncio.run(ROOM.adiscard(websocket))
        else:
            ROOM.discard(websocket)
        assert present() == {"user:anna": 0}
        with ROOM.joined(websocket):
            assert present() == {"user:anna": 1}
        assert present() == {"user:anna": 0}

    def test_a_connection_that_is_over(self, tabs: Tabs) -> None:
        """Is not present."""
        tabs.open("1", "anna")
        tabs.live["1"].client.vanish()
        eventually(tabs.live["1"].websocket._end)
        eventually(lambda: tabs.join("1") is False)
        assert present() == {}

    def test_groups_that_no_pattern_fits(self, tabs: Tabs) -> None:
        """Know no users; the error names the setting."""
        tabs.open("1", "anna")
        tabs.join("1", "hall")
        ask: list[Callable[[], Any]] = [
            group("hall").members,
            lambda: asyncio.run(group("hall").amembers()),
            lambda: tabs.join("1", "hall", presence=True),
            lambda: tabs.join("1", "hall", info={"name": "Anna"}),
        ]
        for call in ask:
            with pytest.raises(UsageError, match=r"'hall'.*PRESENCE of WEBSOCKET_GROUPS"):
                call()

    def test_not_of_groups_of_this_package(self, know: Callable[..., None]) -> None:
        """Though a pattern fits all names."""
        know(PRESENCE={"*": {}})
        with pytest.raises(UsageError, match="has none"):
            user(7).members()
        assert group("any").members() == []


class TestMember:
    """What `members()` gives."""

    SINCE = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)

    def test_is_a_value(self) -> None:
        """It can be compared, hashed, pickled and read."""
        member = Member("7", "user:7", self.SINCE, {"name": "Ännchen"}, TWO)
        assert (member.since, member.info) == (self.SINCE, {"name": "Ännchen"})
        assert pickle.loads(pickle.dumps(member)) == member
        assert len({member, pickle.loads(pickle.dumps(member))}) == 1
        others = [
            Member(None, "user:7", self.SINCE, {"name": "Ännchen"}, TWO),
            Member("7", "user:8", self.SINCE, {"name": "Ännchen"}, TWO),
            Member("7", "user:7", self.SINCE, None, TWO),
            Member("7", "user:7", self.SINCE, {"name": "Ännchen"}, []),
        ]
        assert member not in others
        assert member != "member"

    def test_repr(self) -> None:
        """Has all of it."""
        member = Member(None, "session:ab", self.SINCE, None, TWO[:1])
        assert repr(member) == (
            f"Member(user=None, key='session:ab', since={self.SINCE!r}, info=None, connections=1)"
        )


class TestWatch:
    """`join(presence="watch")`, and another join of the connection."""

    @pytest.mark.parametrize("how", ["sync", "async"])
    @pytest.mark.parametrize("wish", [{"presence": True, "info": 1}, {"info": 1}, {}])
    def test_one_that_watches_takes_part_later(
        self, tabs: Tabs, wish: dict[str, Any], how: str
    ) -> None:
        """Its user is present then; others are told, and it is told of others as before."""
        tabs.come("watcher", "watcher", presence=True)
        tabs.open("board", "anna")
        board = tabs.live["board"].websocket
        board.join("room-1", presence="watch")
        assert present() == {"user:watcher": 1}
        if how == "sync":
            board.join("room-1", **wish)
        else:
            asyncio.run(board.ajoin("room-1", **wish))
        assert present() == {"user:watcher": 1, "user:anna": 1}
        assert tabs.told("watcher", 1) == [["joined", "user:anna"]]
        tabs.come("2", "bert")
        assert tabs.told("board", 1) == [["joined", "user:bert"]]
        assert ROOM.members()[1].info == wish.get("info")
        board.leave("room-1")
        assert present() == {"user:watcher": 1, "user:anna": 0, "user:bert": 1}

    def test_one_that_takes_part_watches_later(self, tabs: Tabs) -> None:
        """Its user stays present."""
        tabs.come("1", "anna", 1)
        tabs.live["1"].websocket.join("room-1", presence="watch")
        assert present() == {"user:anna": 1}
        tabs.come("2", "bert")
        assert tabs.told("1", 1) == [["joined", "user:bert"]]


class TestInfo:
    """`join(info=…)`."""

    @pytest.mark.parametrize("info", ["text", 7, [1, 2], {"näme": 'quote " and \n'}, False, ""])
    def test_is_anything_that_json_can_represent(self, tabs: Tabs, info: Any) -> None:
        """And comes as such to others."""
        tabs.come("watcher", "watcher", presence=True)
        tabs.come("1", "anna", info)
        assert ROOM.members()[1].info == info
        message = json.loads(tabs.live["watcher"].client.receive() or "")
        assert message["joined"]["info"] == info

    def test_is_changed_by_joining_again(self, tabs: Tabs) -> None:
        """What is not said is not changed."""
        tabs.come("1", "anna", {"mood": "good"})
        tabs.join("1", info={"mood": "better"})
        assert ROOM.members()[0].info == {"mood": "better"}
        tabs.join("1")
        assert ROOM.members()[0].info == {"mood": "better"}

    def test_too_large(self, tabs: Tabs) -> None:
        """Nothing is joined then."""
        tabs.open("1", "anna")
        with pytest.raises(ValueError, match=r"4098 bytes.*more than 4096"):
            tabs.join("1", info="x" * 4096)
        assert present() == {}
        assert tabs.live["1"].websocket.groups == frozenset()
        tabs.join("1", info="x" * 4094)

    @pytest.mark.parametrize("info", [object(), float("nan"), {"a": float("inf")}])
    def test_no_json(self, tabs: Tabs, info: Any) -> None:
        """Nothing is joined then."""
        tabs.open("1", "anna")
        with pytest.raises((TypeError, ValueError), match="JSON"):
            tabs.join("1", info=info)
        assert tabs.live["1"].websocket.groups == frozenset()

    def test_presence_is_a_bool(self, tabs: Tabs) -> None:
        """What one says is `info`."""
        tabs.open("1", "anna")
        with pytest.raises(TypeError, match="presence must be True or False, not dict"):
            tabs.join("1", presence={"name": "Anna"})


class TestBeingTold:
    """`join(presence=True)`."""

    def test_the_message(self, tabs: Tabs) -> None:
        """Key, primary key, info and since."""
        tabs.come("watcher", "watcher", presence=True)
        tabs.come("1", "anna", {"name": "Anna"})
        message = json.loads(tabs.live["watcher"].client.receive() or "")
        member = ROOM.members()[1]
        assert message == {
            "group": "room-1",
            "joined": {
                "key": "user:anna",
                "user": "anna",
                "info": {"name": "Anna"},
                "since": member.since.isoformat(timespec="microseconds"),
                "connections": [
                    {"id": tabs.live["1"].websocket.id, "info": {"name": "Anna"}},
                ],
            },
        }

    def test_nobody_is_told_of_himself(self, tabs: Tabs) -> None:
        """Nor is another tab of his."""
        anna = tabs.come("1", "anna", presence=True)
        tabs.come("2", "anna", presence=True)
        bert = tabs.come("3", "bert", presence=True)
        clara = tabs.come("4", "clara")
        assert tabs.told("1", 2) == tabs.told("2", 2) == [["joined", bert], ["joined", clara]]
        assert tabs.told("3", 1) == [["joined", clara]]
        assert anna in present()

    def test_only_those_that_ask(self, tabs: Tabs) -> None:
        """Others get the messages of the group only."""
        tabs.come("quiet", "quiet")
        tabs.come("watcher", "watcher", presence=True)
        tabs.come("1", "anna")
        tabs.told("watcher", 1)
        ROOM.send("hello")
        assert tabs.live["quiet"].client.receive() == "hello"

    def test_later(self, tabs: Tabs) -> None:
        """From the join on that asks for it."""
        tabs.come("1", "anna")
        tabs.come("2", "bert")
        tabs.join("1", presence=True)
        clara = tabs.come("3", "clara")
        assert tabs.told("1", 1) == [["joined", clara]]

    def test_several_at_once_are_a_list(self, tabs: Tabs) -> None:
        """So that a crowd costs each member few messages."""
        tabs.come("watcher", "watcher", presence=True)
        tabs.come_many(0, 100)
        client = tabs.live["watcher"].client
        messages = 0
        told: list[str] = []
        while len(told) < 100:
            joined = json.loads(client.receive() or "")["joined"]
            told += [user["key"] for user in (joined if isinstance(joined, list) else [joined])]
            messages += 1
        assert sorted(told) == sorted(f"user:{number}" for number in range(100))
        assert messages < 100

    def test_leaving(self, tabs: Tabs, know: Callable[..., None]) -> None:
        """Without a grace it is told at once."""
        know(PRESENCE={"room-*": {"grace": 0}})
        tabs.come("watcher", "watcher", presence=True)
        anna = tabs.come("1", "anna")
        tabs.close("1")
        assert tabs.told("watcher", 2) == [["joined", anna], ["left", anna]]
        assert present() == {"user:watcher": 1}

    def test_one_that_leaves_is_told_no_more(self, tabs: Tabs) -> None:
        """And again when it has joined again with `presence`."""
        tabs.come("1", "anna", presence=True)
        tabs.leave("1")
        tabs.come("2", "bert")
        tabs.join("1", presence=True)
        clara = tabs.come("3", "clara")
        assert tabs.told("1", 1) == [["joined", clara]]

    def test_compressed(self, open_websocket: Open, tabs: Tabs) -> None:
        """As any message of a group."""
        watcher = open_websocket(compression=True)
        watcher.websocket.join("room-1", presence=True)
        tabs.come("1", "anna", "x" * 1000)
        assert json.loads(watcher.client.receive() or "")["joined"]["info"] == "x" * 1000


class TestGrace:
    """A user who comes back in time neither leaves nor joins."""

    def test_in_time(self, tabs: Tabs, know: Callable[..., None]) -> None:
        """The clock is the engine's, which tests can step ahead."""
        know(PRESENCE={"room-*": {"grace": 100}})
        clock = Clock()
        tabs.come("watcher", "watcher", presence=True)
        anna = tabs.come("1", "anna")
        tabs.close("1")
        eventually(lambda: present()[anna] == 0)
        clock.advance(90)
        assert present()[anna] == 0
        tabs.come("2", "anna")
        clock.advance(90)
        assert present()[anna] == 1
        tabs.close("2")
        eventually(lambda: present()[anna] == 0)
        clock.advance(90)
        assert present()[anna] == 0
        clock.advance(20)
        eventually(lambda: anna not in present())
        assert tabs.told("watcher", 2) == [["joined", anna], ["left", anna]]

    @pytest.mark.parametrize("session", ["secret", ""])
    def test_of_anonymous_users(self, tabs: Tabs, know: Callable[..., None], session: str) -> None:
        """They stay as others do. A visitor with a session comes back by its key."""
        know(PRESENCE={"room-*": {"grace": 100}})
        clock = Clock()
        tabs.come("watcher", "watcher", presence=True)
        tabs.open("1", session=session)
        tabs.join("1")
        (stranger,) = set(present()) - {"user:watcher"}
        tabs.close("1")
        eventually(lambda: present()[stranger] == 0)
        clock.advance(90)
        assert present()[stranger] == 0
        if session:
            tabs.open("2", session=session)
            tabs.join("2")
            assert present()[stranger] == 1
            tabs.close("2")
            eventually(lambda: present()[stranger] == 0)
            clock.advance(90)
        clock.advance(20)
        eventually(lambda: stranger not in present())
        assert tabs.told("watcher", 2) == [["joined", stranger], ["left", stranger]]

    def test_the_first_pattern_that_fits_counts(
        self, tabs: Tabs, know: Callable[..., None]
    ) -> None:
        """As in HISTORY."""
        know(PRESENCE={"room-1": {"grace": 0}, "room-*": {"grace": 3600}})
        for name in ("room-1", "room-2"):
            tabs.open(name, "anna")
            tabs.join(name, name)
            tabs.leave(name, name)
        eventually(lambda: group("room-1").members() == [])
        assert [member.connections for member in group("room-2").members()] == [[]]


def about(key: str, sent: list[list[str]]) -> list[str]:
    """Give what the signals have told of a user. Users of the test before may leave only now."""
    return [event for event, each in sent if each == key]


@contextlib.contextmanager
def receiving(receiver: Callable[..., None]) -> Iterator[None]:
    """Connect a receiver to both signals; no other test has it, however long it is alive."""
    both = (signals.member_joined, signals.member_left)
    for signal in both:
        signal.connect(receiver)
    try:
        yield
    finally:
        for signal in both:
            signal.disconnect(receiver)


class TestSignals:
    """`member_joined` and `member_left`."""

    def test_are_about_users(self, tabs: Tabs, know: Callable[..., None]) -> None:
        """Once for all connections of one."""
        know(PRESENCE={"room-*": {"grace": 0}})
        for tab in "123":
            tabs.come(tab, "zoe")
        for tab in "123":
            tabs.close(tab)
        eventually(lambda: about("user:zoe", tabs.sent) == ["joined", "left"])

    def test_arguments(self, tabs: Tabs, know: Callable[..., None]) -> None:
        """A signal about leaving has no connection any more."""
        know(PRESENCE={"room-*": {"grace": 0}})
        found: list[dict[str, Any]] = []

        def receive(member: Any, **arguments: Any) -> None:
            if member.key == "user:yves":
                found.append({"member": member, **arguments})

        with receiving(receive):
            tabs.come("1", "yves", {"name": "Yves"})
            websocket = tabs.live["1"].websocket
            member = ROOM.members()[0]
            tabs.leave("1")
            eventually(lambda: len(found) == 2)
        joined, left = found
        assert joined["websocket"] is websocket
        assert left["websocket"] is None
        assert joined["group"] == left["group"] == ROOM
        assert joined["member"] == member
        assert (left["member"].key, left["member"].connections) == ("user:yves", [])

    def test_many_that_leave_at_once(self, tabs: Tabs, know: Callable[..., None]) -> None:
        """None of them is forgotten."""
        know(PRESENCE={"room-*": {"grace": 0}})
        tabs.come_many(0, 300)
        ROOM.close()
        everybody = {f"user:{number}" for number in range(300)}
        eventually(lambda: {key for event, key in tabs.sent if event == "left"} >= everybody)

    def test_a_receiver_that_fails(
        self, tabs: Tabs, know: Callable[..., None], request_log: Any
    ) -> None:
        """Harms nobody else."""
        know(PRESENCE={"room-*": {"grace": 0}})

        def fail(**arguments: Any) -> None:
            raise ValueError("on purpose")

        with receiving(fail):
            tabs.come("1", "anna")
            tabs.leave("1")
            eventually(lambda: ["left", "user:anna"] in tabs.sent)


@accept_websocket(groups=["room-{room}", "hall"], presence=True)
def watching(request: HttpRequest, room: str) -> None:
    """Wait for the client's end."""
    request.websocket.wait_closed()  # type: ignore[attr-defined]


def name_of(request: HttpRequest, room: str) -> dict[str, str]:
    """Say what others see."""
    return {"name": request.GET["name"], "room": room}


@require_websocket(groups=["room-{room}"], presence=name_of)
async def naming(request: HttpRequest, room: str) -> None:
    """Wait for the client's end."""
    await request.websocket.await_closed()  # type: ignore[attr-defined]


@accept_websocket(groups=["room-{room}"], presence=name_of, resume=True)
def resuming(request: HttpRequest, room: str) -> None:
    """Wait for the client's end."""
    request.websocket.wait_closed()  # type: ignore[attr-defined]


class Handled(WebSocketHandler):
    """Asks as the views do."""

    groups = ["room-{room}"]  # noqa: RUF012
    presence = name_of


class TestViews:
    """`presence` of decorators and handlers."""

    @pytest.fixture
    def serve(self, override: Override) -> Iterator[Callable[[Any], WebSocketClient]]:
        """Give a client of one view, at `/<room>/`."""

        def serve(view: Any) -> WebSocketClient:
            override(ROOT_URLCONF=(path("<room>/", view),), MIDDLEWARE=[])
            return WebSocketClient()

        with websockets_of_a_test():
            yield serve

    @pytest.mark.parametrize("view", [watching, naming, resuming, Handled.as_view()])
    def test_its_clients_are_present_and_told(
        self, serve: Callable[[Any], WebSocketClient], view: Any, know: Callable[..., None]
    ) -> None:
        """And say what a function says of them."""
        if view is resuming:
            know(HISTORY={"room-*": {}})
        client = serve(view)
        with client.websocket("/1/?name=one") as one:
            if view is resuming:
                assert one.receive_json()["recovered"] is True
            eventually(lambda: len(present()) == 1)
            with client.websocket("/1/?name=two"):
                told = one.receive_json()
                assert told["group"] == "room-1"
                expected = None if view is watching else {"name": "two", "room": "1"}
                assert told["joined"]["info"] == expected
                assert [member.info for member in ROOM.members()][1:] == [expected]
        eventually(lambda: list(present().values()) == [0, 0])

    def test_the_user_and_the_session_of_the_handshake(
        self,
        serve: Callable[[Any], WebSocketClient],
        override: Override,
        tables: None,
        anna: User,
    ) -> None:
        """Are those that are present."""
        client = serve(watching)
        override(
            MIDDLEWARE=[
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
            ]
        )
        client.force_login(anna)
        stranger = WebSocketClient()
        stranger.session.save()
        with client.websocket("/1/"), client.websocket("/1/"), stranger.websocket("/1/"):
            eventually(lambda: len(present()) == 2)
            eventually(lambda: sorted(present().values()) == [1, 2])
            users = {member.user: member.key for member in ROOM.members()}
            assert users[str(anna.pk)] == f"user:{anna.pk}"
            assert users[None].startswith("session:")

    def test_needs_groups(self) -> None:
        """Else there is nobody to be told of."""
        with pytest.raises(TypeError, match=r"accept_websocket\(presence=…\) needs groups"):
            accept_websocket(presence=True)
        with pytest.raises(TypeError, match=r"Loud.presence needs groups"):
            type("Loud", (WebSocketHandler,), {"presence": True}).as_view()  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match=r"presence=…\) takes True, False or a function"):
            accept_websocket(groups=["room"], presence={"name": "Anna"})  # type: ignore[call-overload]

    def test_needs_a_group_that_has_presence(self, serve: Callable[[Any], WebSocketClient]) -> None:
        """The error names the setting."""
        client = serve(accept_websocket(groups=["hall"], presence=True)(lambda request, room: None))
        with pytest.raises(UsageError, match=r"'hall'.*PRESENCE of WEBSOCKET_GROUPS"):
            client.websocket("/1/").__enter__()

    def test_an_async_function(self, serve: Callable[[Any], WebSocketClient]) -> None:
        """Is refused: the handshake is validated in sync code."""

        async def info(request: HttpRequest, room: str) -> None: ...

        client = serve(accept_websocket(groups=["room-1"], presence=info)(watching))
        with pytest.raises(UsageError, match=r"presence=…\) takes a sync function"):
            client.websocket("/1/").__enter__()


def test_async_joins(tabs: Tabs) -> None:
    """As sync ones."""
    tabs.open("1", "anna")
    tabs.open("2", "bert")

    async def main() -> None:
        await tabs.live["1"].websocket.ajoin("room-1", presence=True)
        await tabs.live["2"].websocket.ajoin("room-1", "room-2", info={"name": "Bert"})
        assert [member.info for member in await ROOM.amembers()] == [None, {"name": "Bert"}]
        assert len(await group("room-2").amembers()) == 1

    asyncio.run(main())
    assert tabs.told("1", 1) == [["joined", "user:bert"]]
