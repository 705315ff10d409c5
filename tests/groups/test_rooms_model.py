"""
Pages that join, leave and are evicted while others publish: nothing lost or doubled.

Hypothesis writes the scripts. A model knows which messages each page has to get: those that are
published while it is in the room, and those that it has missed when it says where it was.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings
from django.urls import path
from history_backends import history_entry, own_backends  # noqa: F401
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwebsocket import group
from dwebsocket.rooms import Room, rooms, wire
from dwebsocket.testing import WebSocketClient, websockets_of_a_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from history_backends import HistoryEntry

    from dwebsocket.testing import ClientRooms

ROOMS = ("kept-1", "kept-2", "plain-1")
PAGES = range(2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from(PAGES), st.sampled_from(ROOMS)),
        st.tuples(st.just("resume"), st.sampled_from(PAGES), st.sampled_from(ROOMS)),
        st.tuples(st.just("leave"), st.sampled_from(PAGES), st.sampled_from(ROOMS)),
        st.tuples(st.just("evict"), st.sampled_from(PAGES), st.sampled_from(ROOMS)),
        st.tuples(st.just("send"), st.just(0), st.sampled_from(ROOMS)),
    ),
    min_size=5,
    max_size=40,
)


class Named(Room):
    name = "<slug:kind>-<int:pk>"

    def receive(self, event: str, data: Any) -> str:
        return self.websocket.id


urlpatterns = [path("live/", rooms(Named))]


class Page:
    """One connection, and what it has to get."""

    def __init__(self, live: ClientRooms) -> None:
        self.live = live
        live.join("id-1")
        self.id = live.emit("id", to="id-1")
        self.joined: set[str] = set()
        self.expected: dict[str, list[str]] = {name: [] for name in ROOMS}
        self.got: dict[str, list[str]] = {name: [] for name in ROOMS}
        # The position in each room, and what was published up to it.
        self.at: dict[str, tuple[str | None, int]] = {}

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
    kept = {"kept-*": {"size": 10_000, "seconds": 300}}
    entry = {**history_entry(backend), "HISTORY": kept}
    override(ROOT_URLCONF=__name__, WEBSOCKET_GROUPS={"default": entry})

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STEPS)
    def run(steps: list[tuple[str, int, str]]) -> None:
        with override_settings(WEBSOCKET_ROOMS_BURST=1000), ExitStack() as stack:
            stack.enter_context(websockets_of_a_test())
            stack.enter_context(own_backends())
            live = [stack.enter_context(WebSocketClient().rooms("/live/")) for _ in PAGES]
            play([Page(each) for each in live], steps)

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
            if name in page.joined:
                assert "ended" in page.live.receive(name)
                page.joined.discard(name)
    for page in pages:
        for name in ROOMS:
            page.read(name)
            page.live.leave(name)
            assert not page.live._waiting.get(name)
        assert page.got == page.expected


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_any_text_is_a_request_or_malformed(text: str) -> None:
    """And nothing else happens."""
    with suppress(wire.Malformed):
        assert wire.read(text).kind in ("join", "leave", "event", "update", "ping")
