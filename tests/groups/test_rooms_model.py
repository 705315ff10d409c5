"""
Pages that join, leave and are evicted while others publish: nothing lost or doubled.

Hypothesis writes the scripts. A model knows which messages each page has to get: those that are
published while it is in the room, and those that it has missed when it says where it was.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from django.test import override_settings
from django.urls import path
from history_backends import (  # noqa: F401
    HISTORY_BACKENDS,
    history_entry,
    own_backends,
    postgres_database,
    redis_server,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwebsocket import group
from dwebsocket.rooms import Room, rooms, wire
from dwebsocket.testing import Clock, WebSocketClient, websockets_of_a_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from history_backends import HistoryEntry

    from dwebsocket.testing import ClientRooms

ROOMS = ("kept-1", "kept-2", "plain-1")
PAGES = range(2)
MANY, MANY_AT_ONCE = 400, 20
KEPT = {"kept-*": {"size": 10_000, "seconds": 100_000}}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from(PAGES), st.sampled_from(ROOMS)),
        st.tuples(st.just("resume"), st.sampled_from(PAGES), st.sampled_from(ROOMS)),
        st.tuples(st.just("leave"), st.sampled_from(PAGES), st.sampled_from(ROOMS)),
        st.tuples(st.just("evict"), st.sampled_from(PAGES), st.sampled_from(ROOMS)),
        st.tuples(st.just("recheck"), st.just(0), st.sampled_from(ROOMS)),
        st.tuples(st.just("kill"), st.sampled_from(PAGES), st.just("")),
        st.tuples(st.just("send"), st.just(0), st.sampled_from(ROOMS)),
    ),
    min_size=5,
    max_size=40,
)


# The names of rooms that nobody may be in at the moment.
DENIED: set[str] = set()
PERIOD_S = 60


class Named(Room):
    name = "<slug:kind>-<int:pk>"

    def allow(self) -> bool:
        return self.name not in DENIED

    def receive(self, event: str, data: Any) -> str:
        return self.websocket.id


urlpatterns = [path("live/", rooms(Named))]


class Page:
    """One connection, and what it has to get."""

    def __init__(self, connect: Callable[[], ClientRooms]) -> None:
        self.connect = connect
        self.joined: set[str] = set()
        self.expected: dict[str, list[str]] = {name: [] for name in ROOMS}
        self.got: dict[str, list[str]] = {name: [] for name in ROOMS}
        # The position in each room, and what was published up to it.
        self.at: dict[str, tuple[str | None, int]] = {}
        self.open()

    def open(self) -> None:
        """Open a connection."""
        self.live = self.connect()
        self.live.join("id-1")
        self.id = self.live.emit("id", to="id-1")

    def lose(self) -> None:
        """Lose the connection, with what was not read."""
        self.live.websocket.vanish()
        self.joined.clear()
        self.expected = {name: list(got) for name, got in self.got.items()}
        self.open()

    def end(self, name: str) -> None:
        """Be told that it may be in a room no more, if it is."""
        self.read(name)
        if name in self.joined:
            assert "ended" in self.live.receive(name)
            self.joined.discard(name)

    def read(self, name: str) -> None:
        """Read what has to have come."""
        while len(self.got[name]) < len(self.expected[name]):
            message = self.live.receive(name)
            assert "data" in message, message
            self.got[name].append(message["data"])
            self.at[name] = message["position"], self.at[name][1] + 1


@pytest.mark.parametrize("backend", ["process", "local"])
def test_each_page_gets_each_message_once(
    backend: str,
    override: Callable[..., None],
    history_entry: HistoryEntry,  # noqa: F811
) -> None:
    """In order; nothing behind a leave or an eviction, all that was missed by a return."""
    entry = {**history_entry(backend), "HISTORY": KEPT}
    override(ROOT_URLCONF=__name__, WEBSOCKET_GROUPS={"default": entry})

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STEPS)
    def run(steps: list[tuple[str, int, str]]) -> None:
        changed = {"ROOMS_BURST": 1000, "AUTH_RECHECK": PERIOD_S, "PING_INTERVAL": None}
        changed = {f"WEBSOCKET_{name}": value for name, value in changed.items()}
        with override_settings(**changed), ExitStack() as stack:
            stack.enter_context(websockets_of_a_test())
            stack.enter_context(own_backends())

            def connect() -> ClientRooms:
                return stack.enter_context(WebSocketClient().rooms("/live/"))

            play([Page(connect) for _ in PAGES], steps)

    run()


def play(pages: list[Page], steps: list[tuple[str, int, str]]) -> None:
    """Do the steps, and compare."""
    published: dict[str, list[str]] = {name: [] for name in ROOMS}
    for number, (step, which, name) in enumerate(steps):
        page = pages[which]
        if step == "send":
            text = f"{name} {number}"
            published[name].append(text)
            group(name).send(text)
            for each in pages:
                if name in each.joined:
                    each.expected[name].append(text)
        elif step in ("join", "resume") and name not in page.joined:
            position, seen = page.at.get(name, (None, 0))
            resumes = step == "resume" and position is not None
            answer = page.live.join(name, since=position if resumes else None)
            assert answer["recovered"] is True
            missed = published[name][seen:] if resumes else []
            assert answer["missed"] == len(missed)
            page.expected[name] += missed
            page.joined.add(name)
            at = seen if resumes else len(published[name])
            page.at[name] = position if resumes else answer["position"], at
        elif step == "leave":
            page.read(name)
            page.live.leave(name)
            page.joined.discard(name)
        elif step == "evict":
            page.read(name)
            group(name).evict(page.id)
            page.end(name)
        elif step == "recheck":
            DENIED.add(name)
            Clock().advance(PERIOD_S)
            for each in pages:
                each.end(name)
            DENIED.clear()
        elif step == "kill":
            page.lose()
    for page in pages:
        for name in ROOMS:
            page.read(name)
            page.live.leave(name)
            assert not page.live._waiting.get(name)
        assert page.got == page.expected


@pytest.mark.parametrize("backend", HISTORY_BACKENDS)
def test_joins_while_others_publish(
    backend: str,
    override: Callable[..., None],
    history_entry: HistoryEntry,  # noqa: F811
) -> None:
    """Whenever a page joins, leaves or is lost: no gap, and nothing twice."""
    entry = {**history_entry(backend), "HISTORY": KEPT}
    override(ROOT_URLCONF=__name__, WEBSOCKET_GROUPS={"default": entry}, WEBSOCKET_ROOMS_BURST=1000)
    publisher: Future[None] | None = None
    kept: list[int] = []
    position = None
    with websockets_of_a_test(), own_backends(), ThreadPoolExecutor(1) as pool:
        while not kept or kept[-1] < MANY - 1:
            with WebSocketClient().rooms("/live/") as live:
                assert live.join("kept-1", since=position)["recovered"] is True
                publisher = publisher or pool.submit(publish, MANY)
                live.join("plain-1")
                for _ in range(min(MANY_AT_ONCE, MANY - 1 - (kept[-1] if kept else -1))):
                    message = live.receive("kept-1")
                    kept.append(int(message["data"]))
                    position = message["position"]
                live.leave("plain-1")
                plain = [int(message["data"]) for message in live._waiting.get("plain-1", ())]
                assert plain == list(range(plain[0], plain[0] + len(plain))) if plain else True
                live.websocket.vanish()
        assert publisher is not None
        publisher.result()
    assert kept == list(range(MANY))


def publish(count: int) -> None:
    """Publish numbers in two rooms, as a thread that ends then."""
    for number in range(count):
        group("kept-1").send(str(number))
        group("plain-1").send(str(number))
    connections.close_all()


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_any_text_is_a_request_or_malformed(text: str) -> None:
    """And nothing else happens."""
    with suppress(wire.Malformed):
        assert wire.read(text, 1 << 20).kind in ("join", "leave", "event", "update", "ping")
