"""The redis backend: what it asks of the server, and what happens when that fails."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from dwebsocket import _core
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import reports
from support.redis import Redis
from support.redis_backend import Member, backend, publish_as_stranger, send, until_it_works
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("redis")


@pytest.fixture(scope="module")
def running() -> Iterator[Redis]:
    """A server that no test stops."""
    with Redis() as redis:
        yield redis


@pytest.fixture
def server() -> Iterator[Redis]:
    """A server of the test alone."""
    with Redis() as redis:
        yield redis


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log, from level INFO on."""
    caplog.set_level(logging.INFO, "dwebsocket")
    return caplog


def logged(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Give the levels and the texts of the log."""
    return [
        (record.levelname, record.getMessage())
        for record in log.records
        if record.name == "dwebsocket"
    ]


# -- connections and subscriptions -----------------------------------------------------------------


def test_nothing_is_opened_before_the_first_use(server: Redis) -> None:
    """Then there are two connections, whatever is published and joined."""
    made = backend(server.url)
    assert server.clients() == []
    send(made, "room", "x")
    member = Member(made, "a", "b", "c")
    for name in "abc":
        send(made, name, name)
        assert member.receive() == name
    assert [client["resp"] for client in server.clients()] == ["3", "3"]


def test_subscribes_to_groups_with_members_only(server: Redis) -> None:
    """The last member takes the subscription with it, however it ends."""
    made = backend(server.url)
    first, second = Member(made, "a", "b"), Member(made, "b")
    assert server.channels() == {"a", "b"}
    first.leave("b")
    first.leave("a")
    eventually(lambda: server.channels() == {"b"}, what="a is left")
    second.mailbox.end()
    eventually(lambda: server.channels() == set(), what="b is left")


def test_a_subscription_has_another_number_after_each_gap(server: Redis) -> None:
    """And the same one whoever comes and goes, so long as nothing can be missed."""
    made = backend(server.url)
    assert made.subscription("room") == 0
    member = Member(made, "room")
    first = made.subscription("room")
    assert first > 0
    member.leave("room")
    assert made.subscription("room") == first
    Member(made, "other").leave("other")
    member = Member(made, "room")
    assert made.subscription("room") == first
    server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    eventually(lambda: made.subscription("room") not in (0, first), what="there is another one")
    with server.away():
        eventually(lambda: made.subscription("room") == 0, what="nothing comes")


def test_a_marker_is_no_message(running: Redis) -> None:
    """No member gets it, and nothing counts it."""
    made = backend(running.url)
    member = Member(made, "room")
    marker = made.groups.encode_markers("room", [os.urandom(16), os.urandom(16)])
    made.publish_all([("room", marker)])
    send(made, "room", "x")
    assert member.receive() == "x"
    assert member.nothing()
    counts = {name: count for name, count in made.groups.statistics().items() if count}
    assert counts == {"published": 1, "delivered": 1}


def test_a_join_while_the_last_member_leaves(running: Redis) -> None:
    """Keeps the subscription: what is published after the join arrives."""
    made = backend(running.url)
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            Member(made, "room").leave("room")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for number in range(200):
            member = Member(made, "room")
            send(made, "room", f"{number}")
            assert member.receive() == f"{number}"
            member.leave("room")
    finally:
        stop.set()
        thread.join()
    eventually(lambda: "room" not in running.channels(), what="the room is left")


def test_many_memberships_at_once(running: Redis) -> None:
    """The subscriptions of many tasks go to the server together."""
    made = backend(running.url)
    member = Member(made)
    names = [f"many-{number}" for number in range(20_000)]

    async def join() -> None:
        joins = (made.aadd(name, member.mailbox, member.key) for name in names)
        assert all(await asyncio.gather(*joins))

    asyncio.run(join())
    for name in (names[0], names[-1]):
        send(made, name, name)
        assert member.receive() == name
    member.mailbox.end()
    eventually(lambda: not running.channels() & set(names), what="all are left")


@pytest.mark.parametrize(
    ("location", "secret_key", "prefix"),
    [("redis://127.0.0.1:{port}/1", "secret", ""), ("", "another", ""), ("", "secret", "another")],
    ids=["database", "secret", "prefix"],
)
def test_strangers(running: Redis, location: str, secret_key: str, prefix: str) -> None:
    """A project with another database, secret or prefix is not heard."""
    own = backend(running.url)
    location = location.format(port=running.port) or running.url
    stranger = backend(location, secret_key, PREFIX=prefix)
    ours, theirs = Member(own, "room"), Member(stranger, "room")
    send(own, "room", "ours")
    send(stranger, "room", "theirs")
    assert (ours.receive(), theirs.receive()) == ("ours", "theirs")
    send(own, "room", "end")
    assert ours.receive() == "end"
    assert theirs.nothing()
    eventually(lambda: (own.count("room"), stranger.count("room")) == (1, 1))


# -- the server is away ----------------------------------------------------------------------------


def test_a_server_that_is_away(server: Redis, log: pytest.LogCaptureFixture) -> None:
    """Every call says so; members get nothing, and all of it again when the server is back."""
    made = backend(server.url.replace("//", "//:hunter2@"))
    server.ask("CONFIG", "SET", "requirepass", "hunter2")
    member = Member(made, "room")
    with server.away():
        eventually(lambda: made.core.status()[0][0], what="it is noticed")
        for call in (
            lambda: send(made, "room", "never"),
            lambda: made.count("room"),
            lambda: Member(made, "other"),
        ):
            began = time.monotonic()
            with pytest.raises(GroupUnavailable) as caught:
                call()
            # At once: no attempt to connect is waited for.
            assert time.monotonic() - began < made.settings.timeout
            text = str(caught.value)
            assert f"groups of 'default' at redis://127.0.0.1:{server.port}/0: " in text
            # The first call may find the connection that has just ended.
            assert re.search("Connection re(fused|set)", text), text
            assert "hunter2" not in text
    until_it_works(lambda: send(made, "elsewhere", "x"))
    eventually(lambda: server.channels() == {"room"}, what="the subscription is back")
    send(made, "room", "again")
    assert member.receive() == "again"
    eventually(lambda: len(logged(log)) >= 2, what="it is logged")
    where = f"Groups of 'default' at redis://127.0.0.1:{server.port}/0: "
    (lost, regained) = logged(log)
    assert lost[0] == "WARNING"
    assert lost[1].startswith(f"{where}the server is lost: ")
    assert regained == ("INFO", f"{where}the server is regained")


def test_a_server_that_was_never_there() -> None:
    """Is awaited for one attempt, and then no more."""
    with Redis() as server:
        address = server.url
    made = backend(address)
    for _ in range(3):
        with pytest.raises(GroupUnavailable, match="Connection refused"):
            send(made, "room", "x")
        with pytest.raises(GroupUnavailable, match="Connection refused"):
            made.count("room")


def test_reports_of_an_outage(
    server: Redis, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each comes once; the groups are named whose members may have missed something."""
    interrupted: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(reports, "note_interrupted", lambda *what: interrupted.append(what))
    made = backend(server.url)
    kept, left = Member(made, "kept"), Member(made, "left")
    for _ in range(2):
        interrupted.clear()
        log.clear()
        with server.away():
            eventually(lambda: made.core.status()[0][0], what="it is noticed")
            left.mailbox.end()
        eventually(lambda: server.channels() == {"kept"}, what="the subscription is back")
        until_it_works(lambda: send(made, "kept", "x"))
        assert kept.receive() == "x"
        eventually(lambda: interrupted, what="all is reported")
        assert interrupted == [("default", ["kept"])]
        assert [record.__dict__["event"] for record in log.records] == [
            "groups.lost",
            "groups.regained",
        ]


def test_a_connection_that_the_server_closes(server: Redis, log: pytest.LogCaptureFixture) -> None:
    """Is opened again at once; publishers wait for it, members stay."""
    made = backend(server.url)
    member = Member(made, "room")
    for kind in ("pubsub", "normal"):
        before = made.core.status()[0][1]
        server.ask("CLIENT", "KILL", "TYPE", kind)
        eventually(lambda: made.core.status()[0][1] > before, what="it is noticed")  # noqa: B023
        eventually(lambda: server.channels() == {"room"}, what="the subscription is back")
        until_it_works(lambda: send(made, "room", kind))  # noqa: B023
        assert member.receive() == kind
    eventually(lambda: len(logged(log)) == 4, what="each was lost and regained")


def test_a_message_under_way_when_the_connection_of_subscriptions_is_lost(server: Redis) -> None:
    """Gets its reply: it came over the other connection, which lives."""
    made = backend(server.url)
    Member(made, "room")
    until_it_works(lambda: send(made, "room", "first"))
    eventually(lambda: server.channels() == {"room"}, what="both are connected")
    server.ask("CLIENT", "PAUSE", 10_000, "WRITE")
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(send, made, "room", "second")
        eventually(lambda: "blocked_clients:1" in server.ask("INFO", "clients"), what="it waits")
        assert server.ask("CLIENT", "KILL", "TYPE", "pubsub") == "1"
        server.ask("CLIENT", "UNPAUSE")
        sending.result(60)
    until_it_works(lambda: send(made, "room", "third"))


def test_a_frozen_server(server: Redis) -> None:
    """Publishers get the exception in time; a short pause loses no message of others."""
    member, made = Member(backend(server.url), "room"), backend(server.url, TIMEOUT=0.5)
    until_it_works(lambda: send(made, "other", "x"))
    server.freeze()
    began = time.monotonic()
    with pytest.raises(GroupUnavailable, match=r"no reply within 0\.5 s"):
        send(made, "room", "late")
    with pytest.raises(GroupUnavailable, match=r"no reply within 0\.5 s"):
        asyncio.run(made.asend("room", "late, too", []))
    with pytest.raises(GroupUnavailable, match=r"no reply within 0\.5 s"):
        made.count("room")
    assert time.monotonic() - began >= 1.5
    server.thaw()
    until_it_works(lambda: send(made, "room", "in time"))
    got = [member.receive()]
    while got[-1] != "in time":
        got.append(member.receive())
    # What was published while it was frozen may arrive, in order.
    assert got in (["late", "late, too", "in time"], ["late", "in time"], ["in time"])


def test_a_silent_server_is_found(server: Redis, log: pytest.LogCaptureFixture) -> None:
    """By a PING every five seconds, also when nothing is published."""
    made = backend(server.url)
    member = Member(made, "room")
    server.freeze()
    try:
        for _ in range(3):
            _core.step_clock(5)
        eventually(lambda: made.core.status()[0][1] == 1, what="it is noticed")
    finally:
        server.thaw()
    eventually(lambda: len(logged(log)) == 2, what="it is regained")
    until_it_works(lambda: send(made, "room", "x"))
    assert member.receive() == "x"


# -- strangers on the server -----------------------------------------------------------------------


def test_what_others_publish_on_a_channel_is_ignored(server: Redis) -> None:
    """Whatever it is: messages carry a seal that needs the project's key."""
    made, other = backend(server.url), backend(server.url, "another secret")
    member = Member(made, "room", "other room")
    channels = server.ask("PUBSUB", "CHANNELS").splitlines()
    (room,) = [channel for channel in channels if channel.endswith(":room")]
    (other_room,) = [channel for channel in channels if channel.endswith(":other room")]
    genuine = made.groups.encode("room", "genuine", [])
    forged = [
        b"",
        b"x",
        b"\0" * 16,
        b"\xff" * 1000,
        other.groups.encode("room", "forged", []),
        genuine[:-1],
        genuine + b"x",
        made.groups.encode("other room", "of another group", []),
    ]
    for payload in forged:
        publish_as_stranger(server, room, payload)
    publish_as_stranger(server, other_room, genuine)
    for name in ("room", "other room"):
        send(made, name, f"to {name}")
        assert member.receive() == f"to {name}"
    assert member.nothing()
    eventually(lambda: made.count("room") == 1)


# -- logging in ------------------------------------------------------------------------------------


def test_a_unix_socket(running: Redis) -> None:
    """In place of a port."""
    made = backend(f"unix://{running.socket}?db=3")
    member = Member(made, "room")
    send(made, "room", "x")
    assert member.receive() == "x"
    assert made.address == f"unix://{running.socket}?db=3"


def test_a_user_with_few_rights(server: Redis) -> None:
    """Needs those that the documentation names, and no more."""
    rights = "+publish +subscribe +unsubscribe +ping +select"
    server.ask(
        *("ACL", "SETUSER", "web", "on", ">s cret#1", "resetchannels", "&dwebsocket:*"),
        *("-@all", *rights.split()),
    )
    made = backend(f"redis://web:s%20cret%231@127.0.0.1:{server.port}/2")
    member = Member(made, "room")
    send(made, "room", "x")
    assert member.receive() == "x"
    eventually(lambda: made.count("room") == 1)


@pytest.mark.parametrize(
    ("rights", "what"),
    [("+subscribe &*", "publish"), ("+publish &*", "subscribe"), ("+@pubsub &other:*", "channel")],
)
def test_a_user_without_a_right(server: Redis, rights: str, what: str) -> None:
    """The exception has the server's words; nothing hangs, and other groups go on."""
    server.ask("ACL", "SETUSER", "web", "on", ">pw", "-@all", "resetchannels", *rights.split())
    made = backend(f"redis://web:pw@127.0.0.1:{server.port}/0")

    def join_and_send() -> str | bytes:
        member = Member(made, "room")
        send(made, "room", "x")
        return member.receive()

    with pytest.raises(GroupUnavailable, match=f"NOPERM.*{what}"):
        join_and_send()
    server.ask("ACL", "SETUSER", "web", "+@all", "allchannels")
    assert until_it_works(join_and_send) == "x"


def test_a_subscription_that_was_refused(server: Redis, log: pytest.LogCaptureFixture) -> None:
    """Is logged when no call waits for it, and asked for again; others go on meanwhile."""
    server.ask("ACL", "SETUSER", "web", "on", ">pw", "-@all", "resetchannels", "+subscribe")
    server.ask("ACL", "SETUSER", "web", "+unsubscribe", "+ping", "&*:granted", "+publish")
    made = backend(f"redis://web:pw@127.0.0.1:{server.port}/0")
    member = Member(made, "granted")
    made.hold_soon("room")
    eventually(lambda: "NOPERM" in log.text, what="it is logged")
    send(made, "granted", "x")
    assert member.receive() == "x"
    server.ask("ACL", "SETUSER", "web", "allchannels")
    _core.step_clock(5)
    eventually(lambda: server.channels() == {"granted", "room"}, what="it is there")
    eventually(lambda: len(logged(log)) == 2, what="the end is logged, too")


@pytest.mark.parametrize("login", [":wrong@", "nobody:hunter2@", ""])
def test_a_wrong_password(login: str) -> None:
    """Is said, but not shown."""
    with Redis("--requirepass", "hunter2", password="hunter2") as server:
        made = backend(f"redis://{login}127.0.0.1:{server.port}/0")
        with pytest.raises(GroupUnavailable, match=r"WRONGPASS|NOAUTH|[Aa]uthenticat") as caught:
            send(made, "room", "x")
        assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
        assert "hunter2" not in str(caught.value)


# -- processes -------------------------------------------------------------------------------------


def test_a_child_keeps_no_connection_of_its_parent(server: Redis) -> None:
    """The server sees that the parent has ended, although the child lives on."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            member = Member(backend(server.url), "room")
            child = os.fork()
            if child == 0:
                os.write(write, b"%d\n" % os.getpid())
            pause(60)
            member.nothing()
        finally:
            os._exit(1)
    child = int(os.read(read, 20))
    try:
        assert server.channels() == {"room"}
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        eventually(lambda: server.channels() == set(), what="the parent is gone")
        made = backend(server.url)
        assert made.count("room") == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(read)
        os.close(write)


def test_calls_after_the_engine_has_ended(server: Redis) -> None:
    """Fail at once: nobody is there any more who would send them."""
    pid = os.fork()
    if pid == 0:
        at_once = 0
        try:
            made = backend(server.url, TIMEOUT=3.0)
            send(made, "room", "x")
            _core.shut_down(1001, "", 0.0)
            for call in (
                lambda: send(made, "room", "x"),
                lambda: made.count("room"),
                lambda: Member(made, "room"),
            ):
                try:
                    call()
                except GroupUnavailable as error:
                    at_once += "no reply within" not in str(error)
        finally:
            os._exit(at_once)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_a_frozen_process_is_not_waited_for(server: Redis) -> None:
    """One that answers no question is not counted."""
    pid = os.fork()
    if pid == 0:
        try:
            member = Member(backend(server.url), "room")
            pause(60)
            member.nothing()
        finally:
            os._exit(1)
    made = backend(server.url)
    member = Member(made, "room")
    try:
        eventually(lambda: made.count("room") == 2, what="both are counted")
        os.kill(pid, signal.SIGSTOP)
        # Until then it answers.
        os.waitpid(pid, os.WUNTRACED)
        eventually(lambda: made.count("room") == 1)
        send(made, "room", "x")
        assert member.receive() == "x"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
