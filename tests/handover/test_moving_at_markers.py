"""Groups of Redis and PostgreSQL whose members move: each message reaches each member once."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from handover.carriers import POSTGRES_LATER, REDIS, SERVED, carried, on_redis
from handover.conversations import Conversation, Crowd, rounds
from handover.test_gunicorn import SETTINGS, SLACK_S, TWO, assert_calm, reload
from handover.test_moving_groups import Publisher
from support import redis
from support.raw_peer import RawPeer
from support.selection import later
from support.server import GUNICORN_GTHREAD, GUNICORN_SYNC, Kind, Server
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

Own = Callable[..., Server]

# A busy machine is slow to start an heir.
PATIENT = ("--graceful-timeout", "60", "--timeout", "120")


@pytest.fixture
def carrier(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The settings of a site whose groups are on a server of the test's own."""
    with carried(request.param) as settings:
        yield settings


@contextlib.contextmanager
def publishers(server: Server, target: str, count: int = 4) -> Iterator[list[str]]:
    """Publish on and on meanwhile; afterwards the list has all that was published for sure."""
    published: list[str] = []
    all_of_them = [Publisher(server, str(number), target) for number in range(count)]
    try:
        yield published
    finally:
        for each in all_of_them:
            published += each.stop()


def assert_once_and_in_order(crowd: Crowd) -> None:
    """No message has come twice, or after a later one of its publisher."""
    for each in crowd.conversations:
        assert max(Counter(each.heard).values(), default=1) == 1
        by_publisher: dict[str, list[int]] = {}
        for text in each.heard:
            publisher, _, number = text.partition(".")
            by_publisher.setdefault(publisher, []).append(int(number))
        for numbers in by_publisher.values():
            assert all(before < after for before, after in itertools.pairwise(numbers)), numbers


def have_moved(crowd: Crowd, times: int) -> None:
    """Wait until all have moved so often."""
    eventually(lambda: crowd.all(lambda each: each.resumed >= times), SLACK_S, "all were resumed")


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("carrier", SERVED, indirect=True)
@pytest.mark.parametrize(
    "kind",
    [GUNICORN_GTHREAD, *later(GUNICORN_SYNC)],
    ids=str,
)
def test_each_message_reaches_each_member_once(
    kind: Kind, carrier: dict[str, Any], own_server: Own, request: pytest.FixtureRequest
) -> None:
    """While workers are replaced, and four publishers go on publishing."""
    server = own_server(kind, options=(*TWO, *PATIENT), settings=carrier)
    with Crowd(server, 12, "/grouped/", "/async-grouped/") as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 0), SLACK_S, "all are members")
        with publishers(server, "group=all") as published:
            for number in rounds(request, 10, 2):
                reload(server)
                have_moved(crowd, number)
        assert len(published) > 50
        eventually(
            lambda: crowd.all(lambda each: set(published) <= set(each.heard)),
            SLACK_S,
            "all have heard all",
        )
        assert crowd.ends() == {None}
        assert_once_and_in_order(crowd)
    assert_calm(server)


@pytest.mark.needs("redis")
def test_many_members_move_together(own_server: Own, request: pytest.FixtureRequest) -> None:
    """More than the connections that are on their way at a time."""
    with redis.Redis() as running:
        server = own_server(GUNICORN_GTHREAD, options=(*TWO, *PATIENT), settings=on_redis(running))
        count = 600 if request.config.getoption("--every-server") else 80
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(RawPeer.open(server, "/grouped/")) for _ in range(count)]
            for round_number in range(1, 3):
                reload(server)
                text = f"round {round_number}"
                assert server.get(f"/publish/?group=all&text={round_number}").status == 200
                for peer in peers:
                    assert peer.read_message() == f"group:{round_number}".encode()
                    peer.send_text(text)
                    number, _, resumed = map(int, peer.read_message().split())
                    assert (number, resumed) == (round_number, round_number)
                    assert peer.read_message() == text.encode()
        assert_calm(server)


@pytest.mark.parametrize("carrier", [REDIS, POSTGRES_LATER], indirect=True)
def test_users_are_reached_before_and_after(carrier: dict[str, Any], own_server: Own) -> None:
    """The group of a user moves with the connection, whose handler knows the user."""
    server = own_server(GUNICORN_GTHREAD, options=(*TWO, *PATIENT), settings=carrier)
    cookies = server.get("/sign-in/?name=ada").cookies()
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with Crowd(server, 4, "/counting/", "/async-counting/", Cookie=cookie) as crowd:
        with publishers(server, "user=ada", 1) as published:
            for number in range(1, 3):
                reload(server)
                have_moved(crowd, number)
        eventually(
            lambda: crowd.all(lambda each: set(published) <= set(each.heard)),
            SLACK_S,
            "all have heard all",
        )
        assert_once_and_in_order(crowd)
        assert crowd.ends() == {None}
    assert_calm(server)


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("carrier", ["postgres"], indirect=True)
def test_long_messages_keep_their_place(carrier: dict[str, Any], own_server: Own) -> None:
    """Those that pass through the table of PostgreSQL, between others."""
    server = own_server(GUNICORN_GTHREAD, options=(*TWO, *PATIENT), settings=carrier)
    with Crowd(server, 4, "/grouped/") as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 0), SLACK_S, "all are members")
        publisher = Publisher(server, "5", "group=all")
        with publishers(server, "group=all&padding=7000", 2) as published:
            for number in range(1, 3):
                reload(server)
                have_moved(crowd, number)
        published += publisher.stop()
        eventually(
            lambda: crowd.all(lambda each: set(published) <= set(each.heard)),
            SLACK_S,
            "all have heard all",
        )
        assert_once_and_in_order(crowd)
        assert crowd.ends() == {None}
    assert_calm(server)


@pytest.mark.needs("redis")
def test_markers_that_do_not_come_cost_a_close(own_server: Own) -> None:
    """The heir has said yes, and nobody knows which messages are whose: 1012."""
    with redis.Redis() as running:
        apps = [*SETTINGS["INSTALLED_APPS"], "project.swallowed_markers.Swallowed"]
        settings = {**on_redis(running), "INSTALLED_APPS": apps}
        server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=settings)
        with (
            RawPeer.open(server, "/grouped/") as member,
            RawPeer.open(server, "/rooms/") as page,
            RawPeer.open(server, "/counting/") as no,
        ):
            page.send_text('{"id": 1, "join": "plain-1"}')
            assert b'"ok"' in page.read_message()
            reload(server)
            assert member.read_to_eof().code == 1012
            assert page.read_to_eof().code == 1012
            no.send_text("there")
            assert no.read_message().endswith(b" 1")
            assert no.read_message() == b"there"
        late = "its groups' messages were late"
        lines = server.stderr().splitlines()
        assert len(lines) == 2
        for name in ("Grouped", "rooms(Talk, Plain)"):
            assert any(f"{name} are closed with 1012" in line and late in line for line in lines)


@pytest.mark.needs("redis")
def test_a_server_that_is_silent_costs_a_close(own_server: Own) -> None:
    """And the old process ends in its time."""
    with redis.Redis() as running:
        options = ("--graceful-timeout", "6")
        settings = on_redis(running, TIMEOUT=2.0)
        server = own_server(GUNICORN_GTHREAD, options=options, settings=settings)
        with RawPeer.open(server, "/grouped/") as member:
            member.send_text("here")
            assert member.read_message().startswith(b"1 ")
            assert member.read_message() == b"here"
            running.freeze()
            try:
                reload(server)
                assert member.read_to_eof().code == 1012
            finally:
                running.thaw()


@pytest.mark.needs("redis")
def test_processes_on_two_servers_do_not_move_members(own_server: Own) -> None:
    """A deploy with another LOCATION: messages of the one never come to the other."""
    with redis.Redis() as one, redis.Redis() as other:
        file = one.folder / "location"
        file.write_text(one.url)
        settings = on_redis(one)
        settings["INSTALLED_APPS"] = [
            "project.location_of_a_file.Located",
            *SETTINGS["INSTALLED_APPS"],
        ]
        env = {"PROJECT_LOCATION_FILE": str(file)}
        server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=settings, env=env)
        with RawPeer.open(server, "/grouped/") as member:
            file.write_text(other.url)
            reload(server)
            assert member.read_to_eof().code == 1012
        (line,) = server.stderr().splitlines()
        assert "Grouped are closed with 1012" in line
        assert "its groups have another backend now" in line


def restarts(running: redis.Redis) -> Callable[[], object]:
    """Give what restarts Redis."""

    def restart() -> None:
        with running.away():
            time.sleep(0.1)

    return restart


def cuts(running: redis.Redis) -> Callable[[], object]:
    """Give what cuts the connections by which messages come from Redis."""
    return lambda: running.ask("CLIENT", "KILL", "TYPE", "pubsub")


@pytest.mark.needs("redis")
@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("disturbance", [restarts, *later(cuts)])
def test_a_server_that_is_lost_meanwhile_costs_closes_and_no_wrong_message(
    disturbance: Callable[[redis.Redis], Callable[[], object]],
    own_server: Own,
    request: pytest.FixtureRequest,
) -> None:
    """Connections that have moved are members still, and so are those that stay."""
    with redis.Redis() as running:
        server = own_server(
            GUNICORN_GTHREAD, options=(*TWO, *PATIENT), settings=on_redis(running, TIMEOUT=5.0)
        )
        for number in rounds(request, 10, 2):
            with Crowd(server, 40, "/grouped/", "/async-grouped/") as crowd:
                eventually(
                    lambda crowd=crowd: crowd.all(lambda each: each.answered > 0),
                    SLACK_S,
                    "all are members",
                )
                with publishers(server, "group=all"):
                    reload_while(server, disturbance(running), 0.2 * number)
                heard_by_all_that_are_open(server, crowd, number)
                assert crowd.ends() <= {None, 1012}
                assert_once_and_in_order(crowd)


def reload_while(server: Server, disturb: Callable[[], object], after: float) -> None:
    """Replace all workers, and disturb them from so many seconds later on."""
    old = server.workers()
    server.send_signal(signal.SIGHUP)
    time.sleep(after)
    for _ in range(3):
        disturb()
    eventually(lambda: not set(old) & set(server.workers()), SLACK_S, "the old workers are gone")
    eventually(lambda: len(server.workers()) == len(old), SLACK_S, "there are as many new ones")


def heard_by_all_that_are_open(server: Server, crowd: Crowd, round_number: int) -> None:
    """Publish until each conversation that has not ended has heard one of these messages."""
    numbers = itertools.count(1)
    name = f"last{round_number}"

    def has_heard_or_ended(each: Conversation) -> bool:
        return each.end is not None or any(text.startswith(name) for text in each.heard)

    def have_heard() -> bool:
        with contextlib.suppress(OSError):
            server.get(f"/publish/?group=all&text={name}.{next(numbers)}")
        return crowd.all(has_heard_or_ended)

    eventually(have_heard, SLACK_S, "all have heard it")
