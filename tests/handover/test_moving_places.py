"""Histories and presence of connections that move: nobody notices, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from handover.carriers import SERVED, SHARED, carried
from handover.conversations import Crowd, Visitors, rounds
from handover.test_gunicorn import SETTINGS, SLACK_S, assert_calm, kill_one_meanwhile, reload
from handover.test_moving_groups import Publisher
from support.raw_peer import RawPeer
from support.selection import later
from support.server import GUNICORN_GTHREAD, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

Own = Callable[..., Server]

# A new worker may take long to start on a busy machine: until then the old ones wait.
PATIENT = ("--graceful-timeout", "120", "--timeout", "120")
TWO = ("--workers", "2", *PATIENT)


def with_places(settings: dict[str, Any], grace: float = 0, **options: Any) -> dict[str, Any]:
    """Add histories and presence to the groups of a site."""
    groups = {
        **settings["WEBSOCKET_GROUPS"]["default"],
        "HISTORY": {pattern: {"size": 5000, "seconds": 600} for pattern in ("kept", "talk-1")},
        "PRESENCE": {pattern: {"grace": grace} for pattern in ("present", "talk-*")},
    }
    return {**settings, "WEBSOCKET_GROUPS": {"default": groups}, **options}


@pytest.fixture
def carrier(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The settings of a site with histories and presence."""
    with carried(request.param) as settings:
        yield with_places(settings)


def reload_often(server: Server, crowd: Crowd, numbers: range) -> None:
    """Replace all workers so often; each connection goes on each time."""
    for number in numbers:
        reload(server)
        eventually(
            lambda number=number: crowd.all(lambda each: each.resumed >= number or each.end),
            SLACK_S,
            "all were resumed",
        )
        assert crowd.ends() == {None}


def numbers_of(told: list[dict[str, Any]], group: str) -> list[int]:
    """The offsets of the messages of a group, in order."""
    found = [each["position"] for each in told if each.get("group") == group and "data" in each]
    return [int(position.rpartition("-")[2]) for position in found]


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("carrier", ["process", "local", *SERVED], indirect=True)
def test_each_message_of_a_group_with_a_history_comes_once(
    carrier: dict[str, Any], own_server: Own, request: pytest.FixtureRequest
) -> None:
    """While workers are replaced, and four publishers publish; numbers have no gap."""
    is_shared = not carrier["WEBSOCKET_GROUPS"]["default"]["BACKEND"].endswith(".process")
    workers = TWO if is_shared else PATIENT
    server = own_server(GUNICORN_GTHREAD, options=workers, settings=carrier)
    with Crowd(server, 12, "/kept/", "/numbered/") as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 0), SLACK_S, "all are members")
        publishers = [Publisher(server, str(number), "group=kept") for number in range(4)]
        reload_often(server, crowd, rounds(request, 5, 2))
        published = [text for each in publishers for text in each.stop()]
        assert len(published) > 50

        def heard(at: int) -> list[str]:
            each = crowd.conversations[at]
            if at % 2 == 0:
                return each.heard
            return [it["data"].removeprefix("group:") for it in each.told if "data" in it]

        if is_shared:
            eventually(
                lambda: all(set(published) <= set(heard(at)) for at in range(12)),
                SLACK_S,
                "all have heard all",
            )
        for at, each in enumerate(crowd.conversations):
            assert max(Counter(heard(at)).values()) == 1
            if at % 2 and is_shared:
                numbers = numbers_of(each.told, "kept")
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                assert not [it for it in each.told if "recovered" in it]
        assert crowd.ends() == {None}
    assert_calm(server)


class Census:
    """Asks again and again who is present in a group, while the caller does something."""

    def __init__(self, server: Server, group: str) -> None:
        self._server, self._group = server, group
        self._has_to_stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.found: list[dict[str, list[str]]] = []
        self._thread.start()

    def _work(self) -> None:
        while not self._has_to_stop.is_set():
            with contextlib.suppress(OSError):
                answer = self._server.get(f"/members/?group={self._group}")
                if answer.status == 200:
                    self.found.append(json.loads(answer.body))

    def stop(self) -> list[dict[str, list[str]]]:
        """Stop, and return the answers."""
        self._has_to_stop.set()
        self._thread.join()
        return self.found


def members(server: Server, group: str) -> dict[str, list[str]]:
    """The names of the connections of each user."""
    found: dict[str, list[str]] = json.loads(server.get(f"/members/?group={group}").body)
    return found


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("carrier", SHARED, indirect=True)
def test_nobody_is_seen_to_leave_or_to_join(
    carrier: dict[str, Any], own_server: Own, request: pytest.FixtureRequest
) -> None:
    """Neither by members, nor by those that ask who is there: each connection is there once."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=carrier)
    cookies = server.get("/sign-in/?name=ada").cookies()
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with (
        Crowd(server, 6, "/present/?name=x", "/watching/", "/present/?name=y") as crowd,
        Crowd(server, 3, "/present/?name=ada", Cookie=cookie) as tabs,
    ):
        for each in (crowd, tabs):
            eventually(
                lambda each=each: each.all(lambda it: it.answered > 0), SLACK_S, "all are there"
            )
        eventually(
            lambda: sorted(map(len, members(server, "present").values())) == [1, 1, 1, 1, 3],
            SLACK_S,
            "all are known",
        )
        there = members(server, "present")
        everyone = [*crowd.conversations, *tabs.conversations]
        eventually(lambda: are_quiet(everyone), SLACK_S, "nothing is told")
        before = [len(each.told) for each in everyone]
        census = Census(server, "present")
        reload_often(server, crowd, rounds(request, 5, 2))
        assert tabs.ends() == {None}
        eventually(lambda: len(census.found) > 20, SLACK_S, "it has asked often")
        answers = census.stop()
        assert len(answers) > 20
        assert [answer for answer in answers if answer != there] == []
        for each, count in zip(everyone, before, strict=True):
            assert each.told[count:] == []
    assert_calm(server)


def are_quiet(everyone: list[Any]) -> bool:
    """Whether the last news was told a while ago: rounds of news are 50 ms apart."""
    before = [len(each.told) for each in everyone]
    threading.Event().wait(0.5)
    return before == [len(each.told) for each in everyone]


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("carrier", SHARED, indirect=True)
def test_others_that_come_and_go_meanwhile_are_told_once(
    carrier: dict[str, Any], own_server: Own, request: pytest.FixtureRequest
) -> None:
    """Those that move learn of each join and each leave, in this order."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=carrier)
    with Crowd(server, 6, "/present/?name=x", "/watching/") as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 0), SLACK_S, "all are there")
        visitors = Visitors(server, "/present/")
        reload_often(server, crowd, rounds(request, 5, 2))
        eventually(lambda: len(visitors.names) > 5, SLACK_S, "there were some")
        names = visitors.stop()
        assert len(names) > 5
        eventually(
            lambda: crowd.all(lambda each: left(each.told) >= set(names)),
            SLACK_S,
            "all were seen to leave",
        )
        for each in crowd.conversations:
            seen: dict[str, list[str]] = {}
            for kind, name in visits_of(each.told):
                seen.setdefault(name, []).append(kind)
            for name in names:
                assert seen.get(name) == ["joined", "left"], (name, seen.get(name))
        assert crowd.ends() == {None}
    # A visitor may come to a worker that ends.
    assert "handed over" not in server.stderr()
    assert "Traceback" not in server.stderr()


def visits_of(told: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Whether they joined or left, and the names, of those that are told to have visited."""
    found = []
    for each in told:
        for kind in ("joined", "left"):
            users = each.get(kind, [])
            for user in users if isinstance(users, list) else [users]:
                name = (user["info"] or {}).get("name", "")
                if name.startswith("visitor"):
                    found.append((kind, name))
    return found


def left(told: list[dict[str, Any]]) -> set[str]:
    """The names of those that are told to have left."""
    return {name for kind, name in visits_of(told) if kind == "left"}


def test_presence_that_each_process_knows_for_itself_does_not_move(own_server: Own) -> None:
    """Others would see it leave here, and join there."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=with_places(SETTINGS))
    with RawPeer.open(server, "/present/") as peer:
        peer.send_text("here")
        reload(server)
        assert peer.read_to_eof().code == 1012
    (line,) = server.stderr().splitlines()
    assert "each process knows for itself" in line


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("victim", ["heir", *later("giver")])
def test_a_worker_that_is_killed_meanwhile_leaves_no_user_behind(
    victim: str, own_server: Own, request: pytest.FixtureRequest
) -> None:
    """Closes, and no wrong message; in the end those are present that are open."""
    with carried("local") as site:
        server = own_server(GUNICORN_GTHREAD, options=TWO, settings=with_places(site, grace=1))
    for number in rounds(request, 10, 3):
        with Crowd(server, 12, "/present/?name=x", "/kept/", "/watching/") as crowd:
            kill_one_meanwhile(server, crowd, victim, number * 0.07)
            left = sum(each.end is None for each in crowd.conversations[::3])
            eventually(lambda left=left: len(members(server, "present")) == left, SLACK_S, "those")
        eventually(lambda: len(server.workers()) == 2, SLACK_S, "two serve")
    assert "Traceback" not in server.stderr()
