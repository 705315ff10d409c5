"""The history of groups: what is kept, and clients that come back to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from history_backends import (
    HISTORY_BACKENDS,
    HistoryEntry,
    history_entry,
    own_backends,
    postgres_database,
    redis_server,
)
from peer import LiveWebSocket

from dwebsocket import (
    GroupUnavailable,
    UsageError,
    _core,
    group,
    group_statistics,
    signals,
    user,
)
from dwebsocket.groups import backends, history
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["history_entry", "postgres_database", "redis_server"]

Open = Callable[..., LiveWebSocket]
Override = Callable[..., None]

NEVER = "0" * 16
MARKER = "the marker"


Keep = Callable[..., None]


@pytest.fixture(params=HISTORY_BACKENDS, autouse=True)
def keep(
    request: pytest.FixtureRequest, override: Override, history_entry: HistoryEntry
) -> Iterator[Keep]:
    """Give groups `room-…` a history, in each backend that has one: of ten messages at first."""
    own = history_entry(request.param)

    def keep(**limits: float) -> None:
        history = {"size": 10, "seconds": 300, **limits}
        override(WEBSOCKET_GROUPS={"default": {**own, "HISTORY": {"room-*": history}}})

    keep()
    with own_backends():
        yield keep


def publish(*messages: str | bytes) -> None:
    """Send messages to the room."""
    for message in messages:
        group("room-1").send(message)


def publish_and_close(*messages: str) -> None:
    """The same in a thread, whose connection to the database nothing else would close."""
    try:
        publish(*messages)
    finally:
        connections.close_all()


def until_marker(live: LiveWebSocket) -> list[Any]:
    """Give what has come, by a marker that the group gets last."""
    publish(MARKER)
    found: list[Any] = []
    while (message := live.client.receive()) != MARKER:
        assert message is not None, found
        found.append(message)
    return found


@contextlib.contextmanager
def without(monkeypatch: pytest.MonkeyPatch, *calls: str) -> Iterator[None]:
    """Have these calls of the backend find it away."""

    def fail(*_: object) -> None:
        raise GroupUnavailable("away")

    with monkeypatch.context() as patch:
        for call in calls:
            patch.setattr(backends.backend("default"), call, fail)
        yield


def position(offset: int) -> str:
    """Give a position of the room's present epoch."""
    return f"{group('room-1').position().partition('-')[0]}-{offset}"


class TestHistory:
    """`group(…).history()`."""

    def test_gives_what_is_kept_oldest_first(self) -> None:
        """The newest ten."""
        publish(*(str(number) for number in range(12)), b"binary")
        found = group("room-1").history()
        assert [entry.message for entry in found] == [*map(str, range(3, 12)), b"binary"]
        assert [entry.offset for entry in found] == list(range(4, 14))
        assert len({entry.epoch for entry in found}) == 1
        assert datetime.now(timezone.utc) - found[0].sent_at < timedelta(minutes=1)
        assert found[-1].position == group("room-1").position()

    def test_limit_and_since(self) -> None:
        """The newest of those behind a position."""
        publish("one", "two", "three")
        assert [entry.message for entry in group("room-1").history(limit=2)] == ["two", "three"]
        assert group("room-1").history(limit=0) == []
        since = group("room-1").history(since=position(1))
        assert [entry.message for entry in since] == ["two", "three"]

    def test_of_an_empty_group(self) -> None:
        """Is empty, and its position ends in 0."""
        assert group("room-1").history() == []
        assert group("room-1").position().endswith("-0")

    def test_not_of_groups_of_this_package(self, override: Override) -> None:
        """Though a pattern fits all names."""
        backend = {"BACKEND": "dwebsocket.groups.process", "HISTORY": {"*": {}}}
        override(WEBSOCKET_GROUPS={"default": backend})
        user(7).send("private")
        with pytest.raises(UsageError, match="has none"):
            user(7).history()
        assert group("any").history() == []

    @pytest.mark.parametrize("call", ["history", "position"])
    def test_needs_the_setting(self, call: str) -> None:
        """Which the error names."""
        with pytest.raises(UsageError, match="HISTORY of WEBSOCKET_GROUPS"):
            getattr(group("hall"), call)()


class TestComingBack:
    """`websocket.join(…, since=…)`."""

    def test_what_was_missed_comes_first(self, open_websocket: Open) -> None:
        """Then what comes, with nothing twice."""
        publish("one", "two", "three")
        live = open_websocket()
        recovery = live.websocket.join("room-1", since=position(1))
        assert (recovery.recovered, recovery.missed, recovery.position) == (True, 2, position(3))
        publish("four")
        assert until_marker(live) == ["two", "three", "four"]

    def test_much_of_it_comes_in_parts(self, open_websocket: Open) -> None:
        """A client that takes nothing has the process hold one part, however much is kept."""
        before = group("room-1").position()
        publish(*[str(number) * 400_000 for number in range(6)])
        backend = backends.backend("default")
        page = backend.read_history("room-1", history.read_position(before), (10, 300.0))
        assert not page.is_last
        assert sum(len(row[2]) for row in page.rows) < 1_500_000
        kept = group("room-1").history(since=before)
        assert [entry.message[0] for entry in kept] == list("012345")
        live = open_websocket()
        done = threading.Thread(
            target=live.websocket.join, args=["room-1"], kwargs={"since": before}
        )
        done.start()
        # That part, twice, counts beside what waits for the socket.
        eventually(lambda: _core.buffered_bytes() > 2_000_000)
        assert [(live.client.receive() or "")[0] for _ in range(6)] == list("012345")
        done.join(60)
        eventually(lambda: _core.buffered_bytes() == 0)

    def test_without_a_position(self, open_websocket: Open) -> None:
        """Nothing old comes."""
        publish("one")
        live = open_websocket()
        recovery = live.websocket.join("room-1")
        assert (recovery.recovered, recovery.missed, recovery.position) == (True, 0, position(1))
        publish("two")
        assert until_marker(live) == ["two"]

    @pytest.mark.parametrize(
        "since",
        ["", "nonsense", "-1", f"{NEVER}-1", "{epoch}-1", "{epoch}-99", "{epoch}-01", "{epoch}-x"],
    )
    @pytest.mark.parametrize("partial", [False, True])
    def test_from_a_position_that_is_of_no_use(
        self, open_websocket: Open, since: str, *, partial: bool
    ) -> None:
        """What is kept comes only if that was asked for."""
        publish(*(str(number) for number in range(12)))
        since = since.format(epoch=position(0).partition("-")[0])
        live = open_websocket()
        recovery = live.websocket.join("room-1", since=since, partial=partial)
        kept = [str(number) for number in range(2, 12)] if partial else []
        assert (recovery.recovered, recovery.missed) == (False, len(kept))
        assert recovery.position == position(12)
        assert until_marker(live) == kept

    def test_in_an_event_loop(self, open_websocket: Open) -> None:
        """The async calls do the same."""
        publish("one", "two", "three")
        live, since, last = open_websocket(), position(1), position(3)

        async def come_back() -> None:
            recovery = await live.websocket.ajoin("room-1", since=since)
            assert (recovery.recovered, recovery.missed, recovery.position) == (True, 2, last)
            kept = await group("room-1").ahistory(limit=1)
            assert [entry.message for entry in kept] == ["three"]
            assert await group("room-1").aposition() == last

        asyncio.run(come_back())
        assert until_marker(live) == ["two", "three"]

    def test_numbered(self, open_websocket: Open) -> None:
        """What was missed and what comes have the same form."""
        publish('a "quote"', b"\x00\xff")
        live = open_websocket()
        live.websocket.join("room-1", since=position(0), numbered=True)
        publish("later")
        found = [json.loads(live.client.receive()) for _ in range(3)]
        assert found == [
            {"group": "room-1", "position": position(1), "data": 'a "quote"'},
            {
                "group": "room-1",
                "position": position(2),
                "data": base64.b64encode(b"\x00\xff").decode(),
                "binary": True,
            },
            {"group": "room-1", "position": position(3), "data": "later"},
        ]

    def test_beside_members_that_asked_for_no_numbers(self, open_websocket: Open) -> None:
        """Each gets the form that it asked for."""
        plain, numbered = open_websocket(), open_websocket()
        plain.websocket.join("room-1")
        numbered.websocket.join("room-1", numbered=True)
        publish("hello")
        assert plain.client.receive() == "hello"
        assert json.loads(numbered.client.receive())["data"] == "hello"

    def test_what_it_was_excluded_from(self, open_websocket: Open) -> None:
        """Does not come to the connection that names its former one."""
        first = open_websocket()
        group("room-1").send("mine", exclude=first.websocket)
        publish("of others")
        second = open_websocket()
        since, former = position(0), first.websocket.id
        assert second.websocket.join("room-1", since=since, former=former).missed == 1
        assert until_marker(second) == ["of others"]

    def test_joining_again(self, open_websocket: Open) -> None:
        """From a position: what is behind it, once."""
        publish("one", "two")
        live = open_websocket()
        live.websocket.join("room-1")
        live.websocket.join("room-1", since=position(1))
        assert until_marker(live) == ["two"]

    def test_joining_again_without_a_position(self, open_websocket: Open) -> None:
        """Changes nothing: it goes on getting messages as it did."""
        live = open_websocket()
        live.websocket.join("room-1", numbered=True)
        publish("one")
        recovery = live.websocket.join("room-1")
        assert (recovery.recovered, recovery.missed, recovery.position) == (True, 0, position(1))
        publish("two")
        found = [json.loads(live.client.receive())["data"] for _ in range(2)]
        assert found == ["one", "two"]

    @pytest.mark.parametrize("is_async", [False, True])
    def test_joining_again_for_numbers(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch, *, is_async: bool
    ) -> None:
        """Each message that is published meanwhile comes once."""
        live, backend = open_websocket(), backends.backend("default")
        live.websocket.join("room-1")
        hold, ahold = backend.hold, backend.ahold

        def publish_and_hold(name: str) -> None:
            publish("meanwhile")
            hold(name)

        async def apublish_and_hold(name: str) -> None:
            await group(name).asend("meanwhile")
            await ahold(name)

        with monkeypatch.context() as patch:
            patch.setattr(backend, "hold", publish_and_hold)
            patch.setattr(backend, "ahold", apublish_and_hold)
            if is_async:
                recovery = asyncio.run(live.websocket.ajoin("room-1", numbered=True))
            else:
                recovery = live.websocket.join("room-1", numbered=True)
        assert (recovery.recovered, recovery.missed, recovery.position) == (True, 0, position(1))
        publish("after")
        first, second = live.client.receive(), live.client.receive()
        numbered = {"group": "room-1", "position": position(1), "data": "meanwhile"}
        assert first == "meanwhile" or json.loads(first or "") == numbered
        assert json.loads(second or "") == {**numbered, "position": position(2), "data": "after"}

    @pytest.mark.parametrize("options", [{}, {"numbered": True}, {"since": f"{NEVER}-0"}])
    def test_joining_again_is_no_news(self, open_websocket: Open, options: dict[str, Any]) -> None:
        """The signals tell of one membership, which ends once."""
        live = open_websocket()
        told: list[str] = []

        def on_joined(**_: Any) -> None:
            told.append("joined")

        def on_left(**_: Any) -> None:
            told.append("left")

        signals.group_joined.connect(on_joined)
        signals.group_left.connect(on_left)
        try:
            live.websocket.join("room-1")
            live.websocket.join("room-1", **options)
            live.websocket.leave("room-1")
        finally:
            signals.group_joined.disconnect(on_joined)
            signals.group_left.disconnect(on_left)
        assert told == ["joined", "left"]

    @pytest.mark.parametrize("options", [{}, {"numbered": True}, {"since": f"{NEVER}-0"}])
    def test_joining_again_while_the_backend_is_away(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
    ) -> None:
        """It stays a member."""
        live = open_websocket()
        live.websocket.join("room-1")
        with without(monkeypatch, "catch_up", "read_history"), pytest.raises(GroupUnavailable):
            live.websocket.join("room-1", **options)
        assert live.websocket.groups == {"room-1"}
        publish("one")
        assert until_marker(live) == ["one"]

    def test_the_backend_goes_away_while_it_comes_back(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is no member any more, and is closed: its client comes back."""
        live = open_websocket()
        live.websocket.join("room-1")
        with without(monkeypatch, "read_history"):
            assert live.websocket.join("room-1", since=f"{NEVER}-0") is False
        assert live.client.closing()[0] == 1013

    # Servers keep some more.
    @pytest.mark.parametrize("keep", ["process", "local"], indirect=True)
    @pytest.mark.parametrize("recovers", [True, False])
    def test_what_is_gone_before_it_is_a_member(
        self, keep: Keep, open_websocket: Open, monkeypatch: pytest.MonkeyPatch, *, recovers: bool
    ) -> None:
        """It is not recovered then; one that gave no position does not ask."""
        keep(size=2)
        publish("one")
        backend, live = backends.backend("default"), open_websocket()
        join_at = backend.join_at

        def join_late(*args: Any, **options: Any) -> Any:
            # This process has no member yet.
            publish("two", "three", "four")
            return join_at(*args, **options)

        monkeypatch.setattr(backend, "join_at", join_late)
        since = position(1) if recovers else None
        recovery = live.websocket.join("room-1", since=since)
        assert (recovery.recovered, recovery.missed) == (not recovers, 0)
        assert until_marker(live) == ["three", "four"]

    def test_added_by_the_group(self, open_websocket: Open) -> None:
        """As one that has joined, beside others that come back meanwhile."""
        live, other = open_websocket(), open_websocket()
        with group("room-1").joined(live.websocket) as is_member:
            assert is_member
            assert group("room-1").add(live.websocket)
            publish("one")
            other.websocket.join("room-1", since=position(0))
            assert asyncio.run(group("room-1").aadd(other.websocket))
            publish("two")
            for each in (live, other):
                assert [each.client.receive(), each.client.receive()] == ["one", "two"]
        assert live.websocket.groups == frozenset()

    def test_several_groups(self, open_websocket: Open) -> None:
        """Need a call each for positions."""
        live = open_websocket()
        with pytest.raises(TypeError, match="takes one group"):
            live.websocket.join("room-1", "room-2", since=f"{NEVER}-0")
        assert live.websocket.join("room-1", "hall") is None
        assert live.websocket.groups == {"room-1", "hall"}

    @pytest.mark.parametrize("options", [{"since": f"{NEVER}-0"}, {"numbered": True}])
    def test_needs_the_setting(self, open_websocket: Open, options: dict[str, Any]) -> None:
        """Which the error names."""
        live = open_websocket()
        with pytest.raises(UsageError, match="HISTORY of WEBSOCKET_GROUPS"):
            live.websocket.join("hall", **options)
        assert live.websocket.groups == frozenset()

    @pytest.mark.parametrize("options", [{"partial": 1}, {"numbered": "yes"}, {"former": 7}])
    def test_arguments_of_another_type(self, open_websocket: Open, options: dict[str, Any]) -> None:
        """Are named."""
        live = open_websocket()
        name = next(iter(options))
        with pytest.raises(TypeError, match=name):
            live.websocket.join("room-1", **options)
        assert live.websocket.groups == frozenset()

    def test_when_it_is_over(self, open_websocket: Open) -> None:
        """As without a history."""
        live = open_websocket()
        live.client.close()
        eventually(live.websocket.is_closed)
        assert live.websocket.join("room-1", since=position(0)) is False

    def test_while_much_is_published(
        self, request: pytest.FixtureRequest, open_websocket: Open, keep: Keep
    ) -> None:
        """No message is lost, none comes twice."""
        keep(size=100_000)
        # A database takes a while for each.
        messages = 500 if "postgres" in request.node.name else 3000
        publishers = [
            threading.Thread(target=publish_and_close, args=["x" * 20] * messages) for _ in range(2)
        ]
        start = position(0)
        epoch = start.partition("-")[0]
        for thread in publishers:
            thread.start()
        comers = []
        while any(thread.is_alive() for thread in publishers):
            # No ping comes between messages that are long in coming.
            live = open_websocket(ping_interval=None)
            live.websocket.join("room-1", since=start, numbered=True)
            comers.append(live)
            if len(comers) == 3:
                break
        for thread in publishers:
            thread.join()
        for live in comers:
            found = [json.loads(live.client.receive())["position"] for _ in range(2 * messages)]
            assert found == [f"{epoch}-{number}" for number in range(1, 2 * messages + 1)]


class TestLimits:
    """What is too old or too much is not kept."""

    def test_age(self, keep: Keep, open_websocket: Open) -> None:
        """Then a client cannot come back."""
        keep(seconds=0.05)
        publish("old")
        eventually(lambda: group("room-1").history() == [])
        live = open_websocket()
        assert live.websocket.join("room-1", since=position(0)).recovered is False
        assert open_websocket().websocket.join("room-1", since=position(1)).recovered is True

    def test_of_all_groups(self, request: pytest.FixtureRequest, override: Override) -> None:
        """Holds behind a burst where they are in memory or files; a server keeps them all."""
        limit, length, count = 1024 * 1024, 65536, 40
        override(WEBSOCKET_MAX_HISTORY=limit)
        names = [f"room-{number}" for number in range(count)]
        for name in names:
            group(name).send("x" * length)
        kept = [len(group(name).history()) for name in names]
        usage = group_statistics()["default"]["history"]
        if not any(kind in request.node.name for kind in ("local", "process")):
            assert (kept, usage) == ([1] * count, None)
            return
        assert usage is not None
        assert sum(kept) * length <= usage["bytes"] <= limit
        assert usage["evicted"] == count - sum(kept)
        # The oldest groups made room, and for no more than that.
        assert sum(kept) >= 13
        assert kept[-1] == 1
        assert kept[:10] == [0] * 10

    @pytest.mark.parametrize("keep", ["local", "process"], indirect=True)
    def test_of_one_group(self, override: Override, keep: Keep, open_websocket: Open) -> None:
        """It loses its oldest messages, but not its numbering: members miss nothing."""
        keep(size=1000)
        override(WEBSOCKET_MAX_HISTORY=512 * 1024)
        live, since = open_websocket(), position(0)
        live.websocket.join("room-1", numbered=True)
        for number in range(1, 31):
            publish("x" * 32768)
            assert json.loads(live.client.receive())["position"] == position(number)
        usage = group_statistics()["default"]["history"]
        assert usage is not None
        assert usage["bytes"] <= 512 * 1024
        assert 0 < usage["evicted"] < 24
        for at, is_recovered in ((since, False), (position(28), True), (position(30), True)):
            found = open_websocket().websocket.join("room-1", since=at)
            assert found.recovered is is_recovered


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("room-*", "must be a dict of patterns"),
        ({"": {}}, "must be a str"),
        ({"room-*": 5}, "must be a dict with size and seconds"),
        ({"room-*": {"length": 5}}, "unknown key 'length'"),
        ({"room-*": {"size": 0}}, "'size'"),
        ({"room-*": {"size": True}}, "'size'"),
        ({"room-*": {"seconds": 0}}, "'seconds'"),
        ({"room-*": {"seconds": "1"}}, "'seconds'"),
    ],
)
def test_wrong_settings(history: object, message: str) -> None:
    """Each error names the entry."""
    from dwebsocket.conf import group_settings

    with pytest.raises(ValueError, match=message):
        group_settings.read({"default": {"HISTORY": history}})
