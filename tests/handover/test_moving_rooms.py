"""Rooms of connections that move: their pages notice nothing, and nothing is lost."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from handover.carriers import ON_REDIS, carried
from handover.conversations import Crowd, Page, rounds
from handover.test_gunicorn import SETTINGS, SLACK_S, assert_calm, kill_one_meanwhile, reload
from handover.test_moving_groups import Publisher
from handover.test_moving_places import (
    PATIENT,
    TWO,
    Census,
    members,
    reload_often,
    with_places,
)
from support.raw_peer import RawPeer
from support.server import GUNICORN_GTHREAD, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

Own = Callable[..., Server]

# No event is refused.
RATES = {"WEBSOCKET_ROOMS_RATE": 10_000, "WEBSOCKET_ROOMS_BURST": 10_000}
LOCAL = {**SETTINGS, "WEBSOCKET_GROUPS": {"default": {"BACKEND": "dwebsocket.groups.local"}}}
SITE = with_places(LOCAL, **RATES)


def news(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was told of users, without the messages of groups."""
    return [each for each in told if {"joined", "left", "updated"} & set(each)]


class Talker(Page):
    """A page in three rooms."""

    rooms = ("talk-1", "talk-2", "plain-1")


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("path", ["/rooms/", "/async-rooms/"])
def test_rooms_move_with_their_page(
    path: str, own_server: Own, request: pytest.FixtureRequest
) -> None:
    """Their states, messages, positions and users; events of the page go to them as before."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SITE)
    with Crowd(server, 8, path, kind=Talker) as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 6), SLACK_S, "all are members")
        there = members(server, "talk-2")
        assert len(there) == 8
        everyone = crowd.conversations
        eventually(lambda: are_unmoved(everyone), SLACK_S, "nothing is told")
        before = [len(news(each.told)) for each in everyone]
        census = Census(server, "talk-2")
        targets = ("talk-1", "talk-2", "plain-1", "talk-1")
        publishers = [
            Publisher(server, str(number), f"group={target}")
            for number, target in enumerate(targets)
        ]
        reload_often(server, crowd, rounds(request, 5, 2))
        published = [text for each in publishers for text in each.stop()]
        assert len(published) > 50
        eventually(
            lambda: crowd.all(lambda each: set(published) <= set(texts_of(each.told))),
            SLACK_S,
            "all have heard all",
        )
        assert [answer for answer in census.stop() if answer != there] == []
        for each, count in zip(everyone, before, strict=True):
            assert max(Counter(texts_of(each.told)).values()) == 1
            assert news(each.told)[count:] == []
            numbers = [
                int(it["position"].rpartition("-")[2])
                for it in each.told
                if it.get("room") == "talk-1" and "data" in it and "event" not in it
            ]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert not [it for it in each.told if it.get("recovered") is False or "ended" in it]
        assert crowd.ends() == {None}
    assert_calm(server)


def are_unmoved(everyone: list[Any]) -> bool:
    """Whether no news of users has come for a while."""
    before = [len(news(each.told)) for each in everyone]
    threading.Event().wait(0.5)
    return before == [len(news(each.told)) for each in everyone]


def texts_of(told: list[dict[str, Any]]) -> list[str]:
    """The texts that were published to rooms."""
    texts = [each["data"] for each in told if "position" in each and "data" in each]
    return [text.removeprefix("group:") for text in texts]


def ask(peer: RawPeer, **asked: Any) -> dict[str, Any]:
    """Send a request of a page, and return the answer."""
    peer.send_text(json.dumps({"id": 7, **asked}))
    while True:
        told: dict[str, Any] = json.loads(peer.read_message())
        if told.get("id") == 7:
            return told


def wait_for(peer: RawPeer, key: str) -> dict[str, Any]:
    """Return the next text that has a key."""
    while True:
        told: dict[str, Any] = json.loads(peer.read_message())
        if key in told:
            return told


def test_a_page_that_has_moved_sends_events_updates_and_leaves(own_server: Own) -> None:
    """As before; the others know it by the same name."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SITE)
    with RawPeer.open(server, "/rooms/") as one, RawPeer.open(server, "/rooms/") as other:
        for peer in (one, other):
            assert "ok" in ask(peer, join="talk-2", info={"page": 1})
        first = wait_for(one, "joined")["joined"]["connections"][0]["id"]
        reload(server)
        ask(other, to="talk-2", event="typing", data=1)
        told = wait_for(one, "event")
        assert told["from"]["connections"] == [{"id": first, "info": {"page": 1, "kind": "talk"}}]
        ask(other, update="talk-2", info={"page": 2})
        told = wait_for(one, "updated")["updated"]
        assert told["connections"] == [{"id": first, "info": {"page": 2, "kind": "talk"}}]
        assert ask(other, leave="talk-2") == {"id": 7, "ok": {}}
        assert wait_for(one, "left")["left"]["connections"] == []
        assert ask(one, to="talk-2", event="count")["ok"]["count"] == 1
        assert ask(one, join="talk-2")["ok"]["count"] == 1
    assert_calm(server)


def test_rooms_that_do_not_survive_are_closed_without_a_word(own_server: Own) -> None:
    """One class that says so suffices."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SITE)
    with RawPeer.open(server, "/settled-rooms/") as peer:
        assert "ok" in ask(peer, join="plain-1")
        reload(server)
        assert peer.read_to_eof().code == 1012
    assert_calm(server)


def test_joins_that_wait_for_their_turn_are_answered_by_the_new_process(own_server: Own) -> None:
    """Each once, and the rooms are joined."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=with_places(LOCAL))
    with RawPeer.open(server, "/rooms/") as peer:
        count = 90
        for number in range(count):
            peer.send_text(json.dumps({"id": number, "join": f"plain-{number}"}))
        reload(server)
        answers = [json.loads(peer.read_message()) for _ in range(count)]
        assert [each["id"] for each in answers] == list(range(count))
        assert all("ok" in each for each in answers)
        for number in (0, count - 1):
            room = f"plain-{number}"
            assert ask(peer, to=room, event="count")["ok"]["room"] == room
            assert server.get(f"/publish/?group={room}&text=hi").status == 200
            assert wait_for(peer, "room") == {
                "room": room,
                "position": None,
                "data": "group:hi",
            }
    assert_calm(server)


def test_rooms_of_one_process_move_with_their_state(own_server: Own) -> None:
    """Whatever is published in the new process reaches them."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=with_places(SETTINGS))
    with RawPeer.open(server, "/rooms/") as peer:
        assert "ok" in ask(peer, join="plain-1")
        assert ask(peer, to="plain-1", event="count")["ok"]["count"] == 1
        reload(server)
        answer = ask(peer, to="plain-1", event="count")["ok"]
        assert (answer["count"], answer["resumed"], answer["process"]) == (2, 1, server.worker)
        assert server.get("/publish/?group=plain-1&text=hi").status == 200
        assert wait_for(peer, "room")["data"] == "group:hi"
    assert_calm(server)


def test_rooms_of_another_version_are_closed_with_1012_and_named(
    own_server: Own, tmp_path: Path
) -> None:
    """The new code would not understand their states."""
    file = tmp_path / "version"
    file.write_text("1")
    env = {"PROJECT_VERSION_FILE": str(file)}
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SITE, env=env)
    with RawPeer.open(server, "/rooms/") as joined, RawPeer.open(server, "/rooms/") as empty:
        assert "ok" in ask(joined, join="plain-1")
        ask(empty, leave="plain-1")
        file.write_text("2")
        reload(server)
        assert joined.read_to_eof().code == 1012
        assert "ok" in ask(empty, join="plain-1")
    (line,) = server.stderr().splitlines()
    assert "rooms(Talk, Plain) are closed with 1012" in line
    assert "the version of Plain is '2' now, not '1'" in line


@ON_REDIS
def test_rooms_of_a_server_do_not_move(own_server: Own) -> None:
    """What they get is not numbered: nobody would know which events have come."""
    with carried("redis") as site:
        server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=with_places(site))
        with RawPeer.open(server, "/rooms/") as peer:
            assert "ok" in ask(peer, join="plain-1")
            reload(server)
            assert peer.read_to_eof().code == 1012
        (line,) = server.stderr().splitlines()
        assert "rooms(Talk, Plain) are closed with 1012" in line
        assert "it has rooms in groups of dwebsocket.groups.redis" in line


def test_one_whose_user_has_signed_out_is_closed_with_4401(own_server: Own) -> None:
    """As a handler's; nobody asks ``allow``."""
    site = {**SITE, "WEBSOCKET_AUTH_RECHECK": 10_000}
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=site)
    cookies = server.get("/sign-in/?name=ada").cookies()
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with RawPeer.open(server, "/rooms/", headers={"Cookie": cookie}) as peer:
        assert "ok" in ask(peer, join="talk-2")
        with sqlite3.connect(server.database) as database:
            database.execute("DELETE FROM django_session")
        database.close()
        reload(server)
        assert peer.read_to_eof().code == 4401


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("victim", ["giver", "heir"])
def test_a_worker_that_is_killed_meanwhile_leaves_no_page_behind(
    victim: str, own_server: Own, request: pytest.FixtureRequest
) -> None:
    """Closes, and no wrong message; in the end those are present that are open."""
    site = with_places(LOCAL, grace=1, **RATES)
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=site)
    for number in rounds(request, 10, 3):
        with Crowd(server, 12, "/rooms/", "/async-rooms/", kind=Talker) as crowd:
            eventually(lambda: crowd.all(lambda it: it.answered > 6), SLACK_S, "all joined")
            kill_one_meanwhile(server, crowd, victim, number * 0.07)
            left = sum(each.end is None for each in crowd.conversations)
            eventually(lambda left=left: len(members(server, "talk-2")) == left, SLACK_S, "those")
        eventually(lambda: len(server.workers()) == 2, SLACK_S, "two serve")
    assert "Traceback" not in server.stderr()
