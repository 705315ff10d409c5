"""The postgres backend when its server goes away, is silent, or ends connections."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

import psycopg
import pytest
from postgres_nodes import folder, nodes  # noqa: F401

from dwebsocket.groups.backends.postgres.link import Link
from support import postgres as database_server
from support.installed import psycopg2
from support.selection import later
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres_nodes import Nodes

pytestmark = pytest.mark.needs("postgresql")

OTHERS = (
    "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'dwebsocket %'"
)


def refused(answer: object) -> str:
    """Give the text of an answer that must be a refusal."""
    assert isinstance(answer, dict), answer
    assert answer["error"] == "GroupUnavailable"
    return str(answer["text"])


def test_restart(nodes: Nodes, folder: Path) -> None:
    """
    Publishers are refused while it is away, and nothing that was taken is lost or comes twice.

    Members stay; they get messages again soon, and the log has it once.
    """
    members = [nodes(), nodes()]
    for member in members:
        member("join", "room")
    publisher = nodes()
    publisher("send", "room", "before")
    for member in members:
        assert member("take", 1) == ["before"]
    with database_server.away(folder):
        text = refused(publisher("send", "room", "never"))
        assert text.startswith(f"groups of 'default' at {folder}:5432/postgres: ")
        assert refused(members[0]("send", "room", "never"))
        assert refused(nodes()("join", "room"))
        assert refused(nodes()("count", "room"))
    returned_at = time.monotonic()
    for member in members:
        eventually(lambda member=member: member("is_listening"))
    assert time.monotonic() - returned_at < 30
    publisher("send", "room", "after")
    for member in members:
        assert member("take_all", 1) == ["after"]
        assert [kind for kind, _ in member("reports")] == ["lost", "regained", "interrupted"]
        assert member("reports")[2][1] == ["room"]
        lost, regained = member("log")
        assert f"{folder}:5432/postgres: the server is lost: " in lost
        assert "regained" in regained
    assert publisher("count", "room") == 2


def test_member_that_joins_while_it_is_away(nodes: Nodes, folder: Path) -> None:
    """The handshake of a user waits for no server, and its connection hears it once it is back."""
    member, publisher = nodes(), nodes()
    with database_server.away(folder):
        member("hold_soon", "user")
        eventually(lambda: member("log"), what="it cannot listen")
        assert member("join_held", "user") == [True]
    eventually(lambda: member("is_listening"))
    publisher("send", "user", "hi")
    assert member("take", 1) == ["hi"]


def test_terminated_connections(nodes: Nodes) -> None:
    """Of one that listens and of one that publishes, over and over, while messages flow."""
    member, publisher, admin = nodes(), nodes(), nodes()
    member("join", "room")
    publisher("send", "room", "-1")
    assert member("take", 1) == ["-1"]
    publisher.begin("send_numbers", "room", 0, 1000)
    for _ in range(5):
        admin(
            "ask",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
            "backend_type = 'client backend' AND pid <> pg_backend_pid() "
            "AND application_name NOT LIKE 'dwebsocket %'",
        )
        pause(0.05)
    publisher.answer()
    # No number twice, none left out, in order: the member itself was connected all the time.
    assert member("take", 1000) == [str(number) for number in range(1000)]
    assert member("log") == []


def test_terminated_listener(nodes: Nodes) -> None:
    """It listens again at once, and says which groups may have missed something."""
    member, admin = nodes(), nodes()
    member("join", "room")
    for round_ in range(3):
        admin("ask", f"SELECT count(pg_terminate_backend(pid)) {OTHERS}")
        eventually(lambda number=3 * round_ + 3: len(member("reports")) == number)
        admin("send", "room", str(round_))
        assert member("take", 1) == [str(round_)]


@pytest.mark.parametrize(
    "library", [None, pytest.param("psycopg2", marks=pytest.mark.needs("psycopg2"))]
)
def test_an_earlier_error_is_not_the_reason(nodes: Nodes, library: str | None) -> None:
    """Why the server is lost: that of a query before has nothing to do with it."""
    on = {"OPTIONS": {"options": "-c search_path=pg_catalog"}}
    more = {"psycopg2": str(psycopg2())} if library else {}
    node, admin = nodes(on=on, HISTORY={"room": {}}, **more), nodes()
    assert "does not exist" in refused(node("history", "room"))
    admin("ask", f"SELECT count(pg_terminate_backend(pid)) {OTHERS}")
    lost = eventually(lambda: node("log"))[0]
    assert "does not exist" not in lost
    assert re.search("the server is lost: .*(terminat|closed)", lost)


@pytest.mark.parametrize(
    "library", ["psycopg", pytest.param("psycopg2", marks=pytest.mark.needs("psycopg2"))]
)
def test_server_that_sends_while_it_is_asked(
    folder: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither waits for the other one to read when each of them has more than a socket takes."""
    monkeypatch.syspath_prepend(psycopg2())
    driver = import_module(f"dwebsocket.compat.{library}").LIBRARY
    link = Link(driver, {"host": folder, "user": "postgres", "dbname": "postgres"}, 20.0)
    link.query("LISTEN backlog")
    call = "SELECT count(pg_notify('backlog', number || repeat('x', 7000))) "
    with psycopg.connect(f"host={folder} user=postgres", autocommit=True) as other:
        other.execute(f"{call} FROM generate_series(1, 1000) AS number")
    assert link.query(f"SELECT length('{'x' * 4 * 1024 * 1024}')") == [(str(4 * 1024 * 1024),)]
    found = 0
    while found < 1000:
        link.wait(20.0)
        while link.take() is not None:
            found += 1
    link.close()


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Stop processes for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may stop the server's processes")
class TestSilence:
    """A server that does not answer, with its connections open."""

    def test_publisher_is_refused_in_time(self, nodes: Nodes) -> None:
        """Also in a transaction, and in an event loop."""
        node = nodes(TIMEOUT=0.5)
        ((pid,),) = node("ask", "SELECT pg_backend_pid()")
        with stopped([pid]):
            began = time.monotonic()
            text = refused(node("send", "room", "never"))
            assert time.monotonic() - began < 30
            assert "no answer within 0.5 s" in text
        eventually(lambda: node("send", "room", "hi") == "sent")

    def test_django_checks_the_connection_first(self, nodes: Nodes, folder: Path) -> None:
        """As at each request with CONN_HEALTH_CHECKS; the check and what follows are limited."""
        on = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
        node = nodes(on=on, TIMEOUT=0.5)
        ((pid,),) = node("ask", "SELECT pg_backend_pid()")
        node("request_begins")
        main = int((folder / "data/postmaster.pid").read_text().split()[0])
        with stopped([pid, main]):
            assert "no answer within 0.5 s" in refused(node("send", "room", "never"))
        eventually(lambda: node("send", "room", "hi") == "sent")

    def test_in_a_transaction(self, nodes: Nodes) -> None:
        """The transaction is over, as with any error of the database."""
        node = nodes(TIMEOUT=0.5)
        ((pid,),) = node("ask", "SELECT pg_backend_pid()")
        with stopped([pid]):
            assert "no answer" in refused(node("send_in_transaction", "room", "commit", "never"))
        eventually(lambda: node("send", "room", "hi") == "sent")

    def test_waiting_for_a_lock(self, nodes: Nodes) -> None:
        """Such as one on the table, which a backup or an upgrade may hold."""
        node, other = nodes(TIMEOUT=0.5), nodes()
        eventually(lambda: node("send_large", "room", 10_000) == "sent")
        other("ask", "BEGIN")
        other("ask", "LOCK dwebsocket_message IN ACCESS EXCLUSIVE MODE")
        assert "no answer" in refused(node("send_large", "room", 10_000))
        other("ask", "ROLLBACK")
        eventually(lambda: node("send_large", "room", 10_000) == "sent")

    def test_listener_finds_out_by_itself(self, nodes: Nodes) -> None:
        """By a query every 5 seconds."""
        member, admin = nodes(TIMEOUT=2.0), nodes()
        eventually(lambda: member("join", "room") == [True])
        ((pid,),) = admin("ask", f"SELECT pid {OTHERS}")
        with stopped([pid]):
            eventually(lambda: len(member("reports")) >= 3)
            assert "no answer within 2 s" in member("log")[0]
            admin("send", "room", "hi")
            assert member("take", 1) == ["hi"]


def test_no_server_at_the_address(nodes: Nodes) -> None:
    """The error names it, and never the password."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        on = {"HOST": "127.0.0.1", "PORT": str(port), "PASSWORD": "s3cret"}
        node = nodes(on=on)
        for command in (("send", "room", "hi"), ("join", "room"), ("count", "room")):
            text = refused(node(*command))
            assert f"127.0.0.1:{port}/postgres" in text
            assert "s3cret" not in text


@pytest.mark.parametrize("options", [{}, {"connect_timeout": 600}], ids=str)
def test_server_that_accepts_and_is_silent(nodes: Nodes, options: dict[str, int]) -> None:
    """A connection attempt is limited, too. The C library takes two seconds at least."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        on = {"HOST": "127.0.0.1", "PORT": port, "OPTIONS": options}
        node = nodes(on=on, TIMEOUT=0.5)
        began = time.monotonic()
        assert refused(node("join", "room"))
        assert refused(node("send", "room", "hi"))
        assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "library", [None, pytest.param("psycopg2", marks=pytest.mark.needs("psycopg2"))]
)
def test_first_of_several_hosts_is_silent(nodes: Nodes, folder: Path, library: str | None) -> None:
    """Such as a machine that is off: the next one is tried, also where TIMEOUT is short."""
    more = {"psycopg2": str(psycopg2())} if library else {}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = f"{silent.getsockname()[1]},5432"
        node = nodes(on={"HOST": f"127.0.0.1,{folder}", "PORT": ports}, TIMEOUT=2.0, **more)
        eventually(lambda: node("join", "room") == [True])
        eventually(lambda: node("send", "room", "hi") == "sent")
        assert node("take", 1) == ["hi"]


@pytest.mark.parametrize(
    "location",
    ["postgresql://u:s3cret@[::1", *later("s3cret", "no_such_key=s3cret")],
)
def test_location_that_is_none(nodes: Nodes, location: str) -> None:
    """The error names the setting, and shows nothing of its value."""
    node = nodes(LOCATION=location)
    assert node("send", "room", "hi") == "sent"
    text = refused(node("join", "room"))
    assert "LOCATION" in text
    assert "s3cret" not in text


def test_location_is_for_listening(nodes: Nodes, folder: Path) -> None:
    """What it leaves out is taken from DATABASES. The next of several follows a failure."""
    node = nodes(LOCATION=["host=/nowhere", f"host={folder} application_name=mine"])
    assert refused(node("join", "room"))
    assert node("join", "room") == [True]
    node("send", "room", "hi")
    assert node("take", 1) == ["hi"]
