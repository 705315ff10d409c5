"""Rooms of connections that move: their pages notice nothing, and nothing is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from handover.carriers import LATER, POSTGRES_LATER, REDIS, SHARED, carried, on_redis
from handover.conversations import Crowd, Page, rounds
from handover.test_gunicorn import SETTINGS, SLACK_S, assert_calm, kill_one_meanwhile, reload
from handover.test_moving_at_markers import cuts, reload_while, restarts
from handover.test_moving_groups import Publisher
from handover.test_moving_places import (
    PATIENT,
    TWO,
    Census,
    members,
    reload_often,
    with_places,
)
from support import redis
from support.raw_peer import RawPeer
from support.selection import later
from support.server import GUNICORN_GTHREAD, Server
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Own = Callable[..., Server]

# No event is refused.
RATES = {"WEBSOCKET_ROOMS_RATE": 10_000, "WEBSOCKET_ROOMS_BURST": 10_000}
LOCAL = {**SETTINGS, "WEBSOCKET_GROUPS": {"default": {"BACKEND": "dwebsocket.groups.local"}}}
SITE = with_places(LOCAL, **RATES)
ALL = pytest.mark.parametrize("carrier", SHARED, indirect=True)


def on_each(name: str, local: str, redis: str) -> pytest.MarkDecorator:
    """Two values, each on one backend; the other pairs wait for `--every-server`."""
    at_once = [pytest.param(local, "local"), pytest.param(redis, "redis", marks=REDIS.marks)]
    at_last = [
        pytest.param(redis, "local", marks=LATER),
        pytest.param(local, "redis", marks=[*REDIS.marks, LATER]),
        pytest.param(local, "postgres", marks=POSTGRES_LATER.marks),
        pytest.param(redis, "postgres", marks=POSTGRES_LATER.marks),
    ]
    return pytest.mark.parametrize((name, "carrier"), at_once + at_last, indirect=["carrier"])


@pytest.fixture
def carrier(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The settings of a site with rooms, with and without histories and presence."""
    with carried(request.param) as settings:
        yield with_places(settings, grace=1, **RATES)


def news(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was told of users, without the messages of groups."""
    return [each for each in told if {"joined", "left", "updated"} & set(each)]


class Talker(Page):
    """A page in three rooms. It tells the others there of each event that it sends."""

    rooms = ("talk-1", "talk-2", "plain-1")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: How often it has told them, by rooms.
        self.said: Counter[str] = Counter()

    async def _ask(self, asked: dict[str, Any]) -> None:
        await super()._ask(asked)
        if room := asked.get("to"):
            self.said[room] += 1
            await self.ask(to=room, event="typing", data=[self._number, self.said[room]])


def said(told: list[dict[str, Any]]) -> dict[tuple[str, int], list[int]]:
    """The numbers of what pages have told, by room and page."""
    found: dict[tuple[str, int], list[int]] = {}
    for each in told:
        if each.get("event") == "typing":
            page, number = each["data"]
            found.setdefault((each["room"], page), []).append(number)
    return found


def have_heard_all(everyone: list[Any]) -> bool:
    """Whether each page has heard what each other one has said last."""
    return all(
        said(each.told).get((room, other._number), [0])[-1] == count
        for each, other in itertools.permutations(everyone, 2)
        for room, count in other.said.items()
    )


def assert_exact(crowd: Crowd, publisher: Publisher, *, in_order: bool) -> None:
    """
    Nothing has come twice, or after something later.

    Args:
        publisher: The one that has published in rooms.
        in_order: Whether a server gives all messages one order. With `local` those of one process
            have one, and requests reach any worker; pages move from one to another.
    """
    for each in crowd.conversations:
        by_publisher: dict[tuple[str, str], list[int]] = {}
        by_process: dict[tuple[str, bytes | None], list[int]] = {}
        for room, text in (
            (it["room"], it["data"]) for it in each.told if "position" in it and "data" in it
        ):
            text = text.removeprefix("group:")
            name, _, number = text.partition(".")
            by_publisher.setdefault((room, name), []).append(int(number))
            process = publisher.processes.get(text)
            by_process.setdefault((f"{room} {name}", process), []).append(int(number))
        for which, numbers in by_process.items():
            assert numbers == sorted(numbers), which
        for whose, numbers in (*by_publisher.items(), *said(each.told).items()):
            assert len(numbers) == len(set(numbers)), whose
            assert not in_order or numbers == sorted(numbers), whose


@pytest.mark.extended("many reloads under load")
@on_each("path", local="/async-rooms/", redis="/rooms/")
def test_rooms_move_with_their_page(
    path: str, carrier: dict[str, Any], own_server: Own, request: pytest.FixtureRequest
) -> None:
    """Their states, messages, positions and users; events of the page go to them as before."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=carrier)
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
        for each in everyone:
            each.is_quiet = True
        eventually(lambda: have_heard_all(everyone), SLACK_S, "all have heard each other")
        assert [answer for answer in census.stop() if answer != there] == []
        for each, count in zip(everyone, before, strict=True):
            for numbers in said(each.told).values():
                # With `local`, one process may be heard before another one that has ended.
                assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
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


@ALL
def test_a_page_that_has_moved_sends_events_updates_and_leaves(
    carrier: dict[str, Any], own_server: Own
) -> None:
    """As before; the others know it by the same name."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=carrier)
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


def test_rooms_that_want_nothing_of_a_history_are_closed_with_1012_and_named(
    own_server: Own,
) -> None:
    """Their messages have positions, and they have none: nobody knows which ones have come."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SITE)
    with (
        RawPeer.open(server, "/forgetful-rooms/") as kept,
        RawPeer.open(server, "/forgetful-rooms/") as other,
    ):
        assert "ok" in ask(kept, join="talk-1")
        assert "ok" in ask(other, join="talk-2")
        reload(server)
        assert kept.read_to_eof().code == 1012
        assert ask(other, to="talk-2", event="count")["ok"]["resumed"] == 1
    (line,) = server.stderr().splitlines()
    assert "rooms(Forgetful) are closed with 1012" in line
    assert "the room 'talk-1' has no history, and its group has one" in line


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


@pytest.mark.parametrize(("room", "name"), [("named-1", "named-1"), ("named-10", "group-10")])
def test_rooms_that_name_their_group_move(own_server: Own, room: str, name: str) -> None:
    """Twice, to the same group, be it the one that they had without."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SITE)
    with RawPeer.open(server, "/named-rooms/") as peer:
        assert "ok" in ask(peer, join=room)
        for number in (1, 2):
            reload(server)
            assert ask(peer, to=room, event="count")["ok"]["resumed"] == number
            assert server.get(f"/publish/?group={name}&text=hi").status == 200
            assert wait_for(peer, "room")["data"] == "group:hi"
        assert "ok" in ask(peer, leave=room)
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
@ALL
def test_pages_that_are_evicted_meanwhile_are_told_once(
    carrier: dict[str, Any], own_server: Own
) -> None:
    """By the old process or by the new one."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=carrier)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(RawPeer.open(server, "/rooms/")) for _ in range(24)]
        for peer in peers:
            assert "ok" in ask(peer, join="talk-2")
            assert "ok" in ask(peer, join="plain-1")
        eventually(lambda: len(members(server, "talk-2")) == len(peers), SLACK_S, "all are known")
        names = [name for found in members(server, "talk-2").values() for name in found]

        def evict() -> None:
            for name in names:
                # All the time until the last page has moved.
                pause(0.08)
                with contextlib.suppress(OSError):
                    server.get(f"/evict/?group=plain-1&id={name}")

        thread = threading.Thread(target=evict)
        thread.start()
        reload(server)
        thread.join()
        for name in names:
            # The worker that was asked may have ended meanwhile.
            assert server.get(f"/evict/?group=plain-1&id={name}").status == 200
        for peer in peers:
            ended = wait_for(peer, "ended")["ended"]
            assert ended == {"code": "evicted", "text": "out"}
            peer.send_text(json.dumps({"id": 8, "join": "plain-2"}))
            while (told := json.loads(peer.read_message())).get("id") != 8:
                assert "ended" not in told
            assert "ok" in told
    assert "Traceback" not in server.stderr()
    assert "handed over" not in server.stderr()


@pytest.mark.needs("redis")
@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("disturbance", [cuts, *later(restarts)])
def test_a_server_that_is_lost_meanwhile_costs_closes_and_no_wrong_message(
    disturbance: Callable[[redis.Redis], Callable[[], object]],
    own_server: Own,
    request: pytest.FixtureRequest,
) -> None:
    """Pages that have moved are members still, and so are those that stay."""
    with redis.Redis() as running:
        site = with_places(on_redis(running, TIMEOUT=5.0), grace=1, **RATES)
        server = own_server(GUNICORN_GTHREAD, options=TWO, settings=site)
        for number in rounds(request, 10, 2):
            with Crowd(server, 20, "/rooms/", "/async-rooms/", kind=Talker) as crowd:
                eventually(
                    lambda crowd=crowd: crowd.all(lambda each: each.answered > 6),
                    SLACK_S,
                    "all are members",
                )
                publisher = Publisher(server, "5", "group=plain-1")
                reload_while(server, disturbance(running), 0.2 * number)
                publisher.stop()
                is_heard_by_all_that_are_open(server, crowd)
                assert crowd.ends() <= {None, 1012}
                assert_exact(crowd, publisher, in_order=True)


def is_heard_by_all_that_are_open(server: Server, crowd: Crowd) -> None:
    """Publish until each page that has not ended has heard one of these messages."""
    numbers = itertools.count(1)

    def have_heard() -> bool:
        with contextlib.suppress(OSError):
            server.get(f"/publish/?group=plain-1&text=last.{next(numbers)}")
        return crowd.all(
            lambda each: (
                each.end is not None or any(text.startswith("last") for text in texts_of(each.told))
            )
        )

    eventually(have_heard, SLACK_S, "all have heard it")


@pytest.mark.extended("many reloads under load")
@on_each("victim", local="giver", redis="heir")
def test_a_worker_that_is_killed_meanwhile_leaves_no_page_behind(
    victim: str, carrier: dict[str, Any], own_server: Own, request: pytest.FixtureRequest
) -> None:
    """Closes, and no wrong message; in the end those are present that are open."""
    is_local = carrier["WEBSOCKET_GROUPS"]["default"]["BACKEND"] == "dwebsocket.groups.local"
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=carrier)
    for number in rounds(request, 10, 3):
        with Crowd(server, 12, "/rooms/", "/async-rooms/", kind=Talker) as crowd:
            eventually(lambda: crowd.all(lambda it: it.answered > 6), SLACK_S, "all joined")
            publisher = Publisher(server, "5", "group=plain-1")
            kill_one_meanwhile(server, crowd, victim, number * 0.07)
            publisher.stop()
            assert_exact(crowd, publisher, in_order=not is_local)
            left = sum(each.end is None for each in crowd.conversations)
            eventually(lambda left=left: len(members(server, "talk-2")) == left, SLACK_S, "those")
        eventually(lambda: len(server.workers()) == 2, SLACK_S, "two serve")
    assert "Traceback" not in server.stderr()
