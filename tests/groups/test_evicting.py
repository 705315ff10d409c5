"""`group(…).evict()` and `websocket.update()` for connections that are in no room."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from history_backends import (  # noqa: F401
    DATABASE,
    HISTORY_BACKENDS,
    POSTGRES,
    history_entry,
    own_backends,
    postgres_database,
    redis_server,
)
from presence_node import Tabs

from dwebsocket import UsageError, conf, group, signals
from dwebsocket.groups import backends, names, reports
from dwebsocket.users import registry
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.dispatch import Signal
    from history_backends import HistoryEntry
    from peer import LiveWebSocket

ROOM = group("room-1")
HALL = group("hall")


@pytest.fixture
def tabs(override: Callable[..., None]) -> Iterator[Tabs]:
    """WebSockets by names, in a group with presence."""
    presence = {"room-*": {"grace": 0}}
    entry = {"BACKEND": "dwebsocket.groups.process", "PRESENCE": presence}
    override(WEBSOCKET_GROUPS={"default": entry})
    with backends.replaced(backends.make):
        found = Tabs()
        yield found
        for live in found.live.values():
            live.websocket.close()
            live.client.vanish()


@pytest.mark.parametrize("how", ["sync", "async"])
def test_one_connection_is_evicted_by_its_id(tabs: Tabs, how: str) -> None:
    """It stays open, and gets nothing of the group; its user is gone."""
    tabs.come("1", "anna")
    tabs.come("2", "bert")
    own = tabs.live["1"].websocket.id
    if how == "sync":
        ROOM.evict(own, "bye")
    else:
        asyncio.run(ROOM.aevict(own, "bye"))
    ROOM.send("behind")
    assert tabs.live["2"].client.receive() == "behind"
    eventually(lambda: ROOM.count() == 1)
    eventually(lambda: [each.key for each in ROOM.members()] == ["user:bert"])
    tabs.live["1"].websocket.send("own")
    assert tabs.live["1"].client.receive() == "own"


def test_who_is_evicted_by_id_has_left_for_the_signals(tabs: Tabs) -> None:
    """At once, not at its end; and it may join and leave again."""
    seen: list[str] = []

    def note(signal: Signal, group: object, **_: object) -> None:
        if group == HALL:
            seen.append("joined" if signal is signals.group_joined else "left")

    for signal in (signals.group_joined, signals.group_left):
        signal.connect(note)
    try:
        tabs.come("1", "anna")
        websocket = tabs.live["1"].websocket
        websocket.join("hall")
        HALL.evict(websocket.id)
        eventually(lambda: seen == ["joined", "left"])
        websocket.join("hall")
        websocket.leave("hall")
    finally:
        for signal in (signals.group_joined, signals.group_left):
            signal.disconnect(note)
    assert seen == ["joined", "left"] * 2


@pytest.mark.parametrize("reason", [None, b"x", 1])
def test_a_wrong_reason_or_nobody_is_an_error(reason: Any) -> None:
    """At once, and in the caller."""
    with pytest.raises(TypeError, match="takes a text"):
        ROOM.evict(1, reason)
    with pytest.raises(ValueError, match="anonymous"):
        ROOM.evict(None)


def test_an_update_is_told_once_to_others(tabs: Tabs) -> None:
    """What was said last, of all that is said at once; with every connection of the user."""
    tabs.come("watcher", "watcher", presence=True)
    tabs.come("1", "anna", {"name": "Anna"})
    watcher = tabs.live["watcher"].client
    assert json.loads(watcher.receive() or "")["joined"]["info"] == {"name": "Anna"}
    websocket = tabs.live["1"].websocket
    websocket.update("room-1", info={"n": 1})
    first = json.loads(watcher.receive() or "")["updated"]
    assert first["connections"] == [{"id": websocket.id, "info": {"n": 1}}]
    for number in range(2, 50):
        websocket.update("room-1", info={"n": number})
    told = [json.loads(watcher.receive() or "")["updated"]["info"]["n"]]
    while told[-1] != 49:
        told.append(json.loads(watcher.receive() or "")["updated"]["info"]["n"])
    assert len(told) < 20
    assert asyncio.run(websocket.aupdate("room-1", info=None)) is None
    assert json.loads(watcher.receive() or "")["updated"]["connections"][0]["info"] is None


def test_a_tab_by_which_others_see_something_else_is_told(tabs: Tabs) -> None:
    """As ``members()`` has it: the latest tab's info counts, and that of the former after it."""
    tabs.come("watcher", "watcher", presence=True)
    watcher = tabs.live["watcher"].client
    tabs.come("1", "anna", {"n": 1})
    assert json.loads(watcher.receive() or "")["joined"]["info"] == {"n": 1}
    tabs.come("2", "anna", {"n": 2})
    assert json.loads(watcher.receive() or "")["updated"]["info"] == {"n": 2}
    # Others see the same as before.
    tabs.come("3", "anna", {"n": 2})
    tabs.leave("3", "room-1")
    tabs.leave("2", "room-1")
    assert json.loads(watcher.receive() or "")["updated"]["info"] == {"n": 1}


def test_an_update_of_a_group_that_it_is_not_in(tabs: Tabs) -> None:
    """Nor of one without presence."""
    tabs.come("1", "anna")
    for name in ("room-2", "hall"):
        with pytest.raises(UsageError):
            tabs.live["1"].websocket.update(name, info={})


def test_one_that_only_watches_is_nobody(tabs: Tabs) -> None:
    """It is told of those that come, before and behind it."""
    tabs.come("board", "board", presence="watch")
    assert (ROOM.members(), ROOM.count_members()) == ([], 0)
    tabs.come("1", "anna")
    tabs.come("2", "bert")
    told: list[Any] = []
    while len(told) < 2:
        joined = json.loads(tabs.live["board"].client.receive() or "")["joined"]
        told += joined if isinstance(joined, list) else [joined]
    assert [each["key"] for each in told] == ["user:anna", "user:bert"]
    assert [each.key for each in ROOM.members(limit=1)] == ["user:anna"]
    assert (ROOM.count_members(), asyncio.run(ROOM.acount_members())) == (2, 2)
    tabs.close("1")
    left = json.loads(tabs.live["board"].client.receive() or "")
    assert left["left"]["key"] == "user:anna"


@pytest.fixture
def hall(
    request: pytest.FixtureRequest,
    override: Callable[..., None],
    history_entry: HistoryEntry,  # noqa: F811
) -> Iterator[Tabs]:
    """Two tabs of user 7 and one of user 8 that are in a group, over a backend."""
    override(WEBSOCKET_GROUPS={"default": history_entry(request.param)})
    with own_backends():
        tabs, visitors = Tabs(), []
        for tab, user in (("1", "7"), ("2", "7"), ("3", "8")):
            tabs.open(tab, user)
            websocket: Any = tabs.live[tab].websocket
            who = registry.Who(user=user)
            visitors.append(registry.enter(who, websocket, conf.Admission.current()))
            websocket.join("hall")
        yield tabs
        for live in tabs.live.values():
            live.websocket.close()
            live.client.vanish()
        for visitor in visitors:
            assert isinstance(visitor, registry.Visitor)
            visitor.leave()


@pytest.fixture
def withheld(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The reports of evictions are withheld. Call it to deliver them once two have come."""
    noted: list[tuple[Any, ...]] = []
    report = reports.report
    monkeypatch.setattr(reports, "report", lambda *notice: noted.append(notice))

    def go_on() -> None:
        eventually(lambda: [kind for _, kind, _ in noted].count("evicted") == 2)
        for notice in noted:
            report(*notice)

    return go_on


def gets_nothing(live: LiveWebSocket) -> bool:
    """Whether a client has got nothing of what was published."""
    live.websocket.send("own")
    return live.client.receive() == "own"


@pytest.mark.parametrize("hall", HISTORY_BACKENDS, indirect=True)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_connections_of_a_user_have_left_when_it_returns(
    withheld: Callable[[], None], hall: Tabs, how: str
) -> None:
    """Messages published after it do not reach them, and they may join again at once."""
    one, two, other = (hall.live[tab] for tab in "123")
    HALL.send("before")
    for live in (one, two, other):
        assert live.client.receive() == "before"
    if how == "sync":
        HALL.evict(7)
    else:
        asyncio.run(HALL.aevict(7))
    assert not one.websocket.groups | two.websocket.groups
    HALL.send("behind")
    assert other.client.receive() == "behind"
    assert gets_nothing(one)
    assert gets_nothing(two)
    one.websocket.join("hall")
    withheld()
    assert (one.websocket.groups, two.websocket.groups) == ({"hall"}, frozenset())


@pytest.mark.parametrize("hall", ["process"], indirect=True)
def test_all_have_left_before_the_first_is_told(hall: Tabs) -> None:
    """Receivers of the signal may take long."""
    seen = []

    def note(**_: Any) -> None:
        seen.append([tab for tab, live in hall.live.items() if live.websocket.groups])

    signals.group_left.connect(note)
    try:
        for live in hall.live.values():
            live.websocket.leave("hall")
            live.websocket.join("hall")
        seen.clear()
        HALL.evict(7)
    finally:
        signals.group_left.disconnect(note)
    assert seen == [["3"], ["3"]]


@pytest.mark.parametrize("hall", HISTORY_BACKENDS, indirect=True)
def test_another_process_evicts(hall: Tabs, monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections of the user leave, and no others."""
    backend = backends.backend("default")
    with monkeypatch.context() as there:
        there.setattr(names, "_here", "another process")
        name = names.of_plain("7", is_for_all=False)
    backend.evict("hall", name, "")
    eventually(lambda: HALL.count() == 1)
    assert hall.live["3"].websocket.groups == {"hall"}


@pytest.mark.parametrize("hall", [POSTGRES], indirect=True)
def test_an_eviction_comes_with_the_commit(hall: Tabs) -> None:
    """The user stays until then, and after a rollback."""
    one = hall.live["1"].websocket
    with suppress(ZeroDivisionError), transaction.atomic(DATABASE):
        HALL.evict(7)
        raise ZeroDivisionError
    with transaction.atomic(DATABASE):
        HALL.evict(7)
        assert one.groups == {"hall"}
    eventually(lambda: HALL.count() == 1)
    assert not one.groups
