"""`group(…).evict()` and `websocket.update()` for connections that are in no room."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from presence_node import Tabs

from dwebsocket import UsageError, group
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOM = group("room-1")


@pytest.fixture
def tabs(override: Callable[..., None]) -> Iterator[Tabs]:
    """WebSockets by names, in a group with presence."""
    presence = {"room-*": {"grace": 0}}
    entry = {"BACKEND": "dwebsocket.groups.process", "PRESENCE": presence}
    override(WEBSOCKET_GROUPS={"default": entry})
    from dwebsocket.groups import backends

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
