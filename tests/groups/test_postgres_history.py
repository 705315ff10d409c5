"""The history of groups in PostgreSQL: numbers, transactions, lost data."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from postgres_nodes import folder, nodes  # noqa: F401

from support import postgres as database_server
from support.installed import psycopg2
from support.pgbouncer import pgbouncer
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from node_process import Node
    from postgres_nodes import Nodes

    Start = Callable[..., Node]

pytestmark = pytest.mark.needs("postgresql")

LISTENING = (
    "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'dwebsocket %'"
)
ROWS = "SELECT count(*) FROM dwebsocket_history"
EMPTY = "TRUNCATE dwebsocket_history, dwebsocket_numbering"
#: What members get in place of messages that are lost.
GAP = "0 gap"


@pytest.fixture
def start(nodes: Nodes) -> Start:
    """Start processes of one project whose groups `room…` have a history."""
    prefix = os.urandom(8).hex()

    def start(**options: Any) -> Node:
        history = {"room*": {"size": 100_000, "seconds": 300}}
        return nodes(**{"PREFIX": prefix, "HISTORY": history, **options})

    return start


def come_back(node: Node, name: str = "room") -> None:
    """Make a process a member, which gets messages with their numbers."""
    assert node("come_back", name, node("position", name)) == []


def numbered(first: int, *messages: str) -> list[str]:
    """Give messages as nodes tell them, from an offset on."""
    return [f"{offset} {message}" for offset, message in enumerate(messages, first)]


def interrupted(node: Node) -> list[list[str]]:
    """Give the groups of which a process was told that members may have missed messages."""
    return [names for kind, names in node("reports") if kind == "interrupted"]


class TestTransactions:
    """A message has a number when its transaction commits."""

    def test_what_is_rolled_back_never_had_one(self, start: Start) -> None:
        """And leaves no gap; nor does what a savepoint takes back."""
        one, two = start(), start()
        come_back(two)
        one("send_in_transaction", "room", "rollback", "never", "never")
        one("send_in_transaction", "room", "commit", "a", "b")
        one("begin")
        one("send_in_transaction", "room", "rollback", "never")
        one("send", "room", "c")
        assert one("history", "room") == ["a", "b"]
        one("commit")
        assert two("take_numbered", 3) == numbered(1, "a", "b", "c")
        assert one("history", "room") == ["a", "b", "c"]

    def test_a_long_one_holds_nobody_up(self, start: Start) -> None:
        """The order of numbers is that of commits, on all members and in the history."""
        long, quick, member = start(), start(), start()
        come_back(member)
        long("begin")
        long("send", "room", "published first")
        quick("send_in_transaction", "room", "commit", "committed first")
        quick("send", "room", "committed second")
        long("commit")
        expected = ["committed first", "committed second", "published first"]
        assert member("take_numbered", 3) == numbered(1, *expected)
        assert quick("history", "room") == expected

    def test_several_groups_in_any_order(self, start: Start) -> None:
        """Transactions that publish to the same groups in other orders do not lock each other."""
        publishers, member = [start() for _ in range(3)], start()
        names = ["room1", "room2", "room3"]
        count = 60
        for number, publisher in enumerate(publishers):
            publisher.begin("send_in_transactions", names[number:] + names[:number], count)
        assert [publisher.answer() for publisher in publishers] == ["sent"] * 3
        for name in names:
            assert len(member("history", name)) == 3 * count
            assert member("position", name).endswith(f"-{3 * count}")

    def test_rows_that_others_have_locked(self, start: Start) -> None:
        """
        Numbering comes behind the checks of the project's own foreign keys.

        One transaction waits at its commit for a row that another has locked, which publishes and
        commits meanwhile: were the first one numbered before, they would wait for each other.
        """
        one, two = start(), start()
        one("ask", "CREATE TABLE parent (id int PRIMARY KEY)")
        one("ask", "INSERT INTO parent VALUES (1)")
        one(
            "ask",
            "CREATE TABLE child (id int REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        )
        one("begin")
        one("send", "room", "one")
        one("ask", "INSERT INTO child VALUES (1)")
        two("begin")
        two("ask", "SELECT * FROM parent WHERE id = 1 FOR UPDATE")
        two("send", "room", "two")
        one.begin("commit")
        eventually(
            lambda: two("ask", "SELECT count(*) FROM pg_locks WHERE NOT granted") == [[1]],
            what="the first one waits",
        )
        assert two("commit") == "committed"
        assert one.answer() == "committed"
        assert two("history", "room") == ["two", "one"]

    def test_constraints_that_are_checked_at_once(self, start: Start) -> None:
        """Have it numbered at once; the order is still that of commits."""
        one, two = start(), start()
        one("begin")
        one("ask", "SET CONSTRAINTS ALL IMMEDIATE")
        one("send", "room", "one")
        two.begin("send", "room", "two")
        eventually(
            lambda: one("ask", "SELECT count(*) FROM pg_locks WHERE NOT granted") == [[1]],
            what="the second one waits",
        )
        one("commit")
        assert two.answer() == "sent"
        assert two("history", "room") == ["one", "two"]

    def test_no_longer_than_the_timeout(self, start: Start) -> None:
        """
        Outside of a transaction a publisher waits for the others' commits, and then gives up.

        The server may still take a message whose publisher has given up: when the other commits
        before it has noticed.
        """
        one, two = start(), start(TIMEOUT=1.0)
        one("begin")
        one("ask", "SET CONSTRAINTS ALL IMMEDIATE")
        one("send", "room", "one")
        began_at = time.monotonic()
        refused = two("send", "room", "two")
        assert refused["error"] == "GroupUnavailable"
        assert "no answer within 1 s" in refused["text"]
        assert time.monotonic() - began_at < 20
        one("commit")
        assert one("send", "room", "again") == "sent"
        assert one("history", "room") in (["one", "again"], ["one", "two", "again"])

    @pytest.mark.every("as serializable statements")
    def test_repeatable_read(self, start: Start) -> None:
        """A transaction that others have overtaken fails, as with any row that both change."""
        one, two = start(), start()
        one("send", "room", "before")
        one("begin", "REPEATABLE READ")
        one("send", "room", "never")
        two("send", "room", "meanwhile")
        failed = one("commit")
        assert failed["error"] == "OperationalError"
        assert "could not serialize access" in failed["text"]
        one("begin", "REPEATABLE READ")
        one("send", "room", "repeated")
        assert one("commit") == "committed"
        assert one("history", "room") == ["before", "meanwhile", "repeated"]

    def test_statements_that_are_serializable(self, start: Start) -> None:
        """Outside of a transaction they are repeated when another one was quicker."""
        on = {"OPTIONS": {"options": "-c default_transaction_isolation=serializable"}}
        publishers, count = [start(on=on) for _ in range(3)], 30
        for publisher in publishers:
            publisher.begin("send", "room", *["x"] * count)
        assert [publisher.answer() for publisher in publishers] == ["sent"] * 3
        assert publishers[0]("position", "room").endswith(f"-{3 * count}")

    def test_a_publisher_that_is_killed_in_one(self, start: Start) -> None:
        """Leaves nothing, and no lock."""
        one, two = start(), start()
        one("begin")
        one("ask", "SET CONSTRAINTS ALL IMMEDIATE")
        one("send", "room", "never")
        one.kill()
        two("send", "room", "next")
        assert two("history", "room") == ["next"]
        assert two("position", "room").endswith("-1")

    def test_an_answer_that_is_lost(self, start: Start) -> None:
        """The message that is published again is kept once."""
        one, member = start(), start()
        come_back(member)
        one("send_without_an_answer", "room", "once", "once")
        one("send", "room", "next")
        assert member("take_numbered", 2) == numbered(1, "once", "next")


class TestKept:
    """What is in the tables."""

    def test_nothing_for_other_groups(self, start: Start) -> None:
        """They are published as without a history."""
        node = start()
        node("ask", EMPTY)
        node("join", "hall")
        node("send", "hall", "x")
        assert node("take", 1) == ["x"]
        assert node("ask", ROWS) == [[0]]

    def test_no_more_than_wanted(self, start: Start) -> None:
        """About so many; a read gives no more."""
        node = start(HISTORY={"room": {"size": 10}})
        node("ask", EMPTY)
        node("send", "room", *map(str, range(300)))
        assert node("history", "room") == [str(number) for number in range(290, 300)]
        assert node("ask", ROWS)[0][0] <= 10 + 16

    def test_old_messages_go(self, start: Start) -> None:
        """While the group is in use, and when it is not any more."""
        node = start(HISTORY={"room": {"size": 10_000, "seconds": 0.05}, "other": {}})
        node("ask", EMPTY)

        def are_some_gone() -> bool:
            node("send", "room", *["x"] * 16)
            last = int(node("position", "room").rpartition("-")[2])
            return bool(node("ask", ROWS)[0][0] < last)

        eventually(are_some_gone)
        # Another process, which purges when it begins to publish.
        eventually(lambda: node("history", "room") == [])
        start()("send", "room other", "kept")
        eventually(lambda: node("ask", ROWS) == [[1]], what="they are purged")

    def test_a_numbering_outlives_its_messages(self, start: Start) -> None:
        """By a day; then a new one begins."""
        node = start(HISTORY={"room": {"seconds": 0.01}})
        node("ask", EMPTY)
        node("send", "room", "x")
        before = node("position", "room")
        left = "SELECT extract(epoch FROM expires_at - now()) / 3600 FROM dwebsocket_numbering"
        [[hours]] = node("ask", f"SELECT floor(({left}))::int")
        assert hours in (24, 25)
        node("ask", "UPDATE dwebsocket_numbering SET expires_at = now() + interval '1 hour'")
        assert node("position", "room") == before
        [[hours]] = node("ask", f"SELECT ceil(({left}))::int")
        assert hours == 24
        node("ask", "UPDATE dwebsocket_numbering SET expires_at = now() - interval '1 hour'")
        start()("send", "room other", "purges")
        eventually(lambda: node("position", "room")[:16] != before[:16])

    @pytest.mark.parametrize(
        "library", [None, pytest.param("psycopg2", marks=pytest.mark.needs("psycopg2"))]
    )
    def test_members_are_use(self, start: Start, library: str | None) -> None:
        """A group that is quiet keeps its numbering while it has members."""
        node = start(**({"psycopg2": str(psycopg2())} if library else {}))
        node("ask", EMPTY)
        come_back(node)
        node("ask", "UPDATE dwebsocket_numbering SET expires_at = now() + interval '1 hour'")
        node("hour_passes")
        left = "SELECT expires_at > now() + interval '20 hours' FROM dwebsocket_numbering"
        eventually(lambda: node("ask", left) == [[True]])

    def test_long_messages(self, start: Start) -> None:
        """Are announced, and read where there are members; a long answer comes in parts."""
        one, member = start(), start()
        begin = member("position", "room")
        come_back(member)
        sizes = [5000, 9000, 900_000, 2_000_000, 100]
        one("send_large", "room", *sizes)
        found = member("take", len(sizes))
        # Each is JSON around base64, or around text.
        lengths = [int(text.split()[1]) if text.startswith("str ") else 100 for text in found]
        assert [length >= size for length, size in zip(lengths, sizes, strict=True)] == [True] * 5
        other = start()
        missed = other("come_back", "room", begin)
        assert [text.partition(" ")[0] for text in missed] == ["1", "2", "3", "4", "5"]

    def test_names_of_any_kind(self, start: Start) -> None:
        """The longest, too, with a message that is announced only."""
        node = start(HISTORY={"*": {}})
        for name in ["röom'; DROP TABLE dwebsocket_history; --", "\U0001f600" * 200]:
            come_back(node, name)
            node("send", name, "x" * 7000, "y")
            assert node("take", 1)[0].startswith("str ")
            assert node("take_numbered", 1) == ["2 y"]

    def test_projects_do_not_meet(self, start: Start) -> None:
        """Those with another SECRET_KEY or PREFIX have groups of their own."""
        start()("send", "room", "secret")
        assert start(secret="another")("history", "room") == []
        assert start(PREFIX="another")("history", "room") == []

    def test_what_others_write_is_no_message(self, start: Start) -> None:
        """Its seal is wrong, whether it was changed or copied from another group."""
        node = start()
        node("ask", EMPTY)
        node("send", "room1", "of another group")
        node("send", "room2", "changed", "moved")
        sealed = (
            "(SELECT content FROM dwebsocket_history WHERE number = 1 AND group_key <> h.group_key)"
        )
        node("ask", f"UPDATE dwebsocket_history AS h SET content = {sealed} WHERE number = 1")
        node("ask", "UPDATE dwebsocket_history SET content = 'x' WHERE number = 2")
        assert node("history", "room2") == node("history", "room1") == []

    def test_without_the_tables(self, nodes: Nodes) -> None:
        """The errors and the doctor name the command."""
        on = {"OPTIONS": {"options": "-c search_path=pg_catalog"}}
        node = nodes(on=on, HISTORY={"room": {}})
        for refused in (node("send", "room", "x"), node("history", "room")):
            assert refused["error"] == "GroupUnavailable"
            assert "dwebsocket" in refused["text"]
        assert "manage.py migrate" in node("send", "room", "x")["text"]
        node("send", "hall", "x")
        problems = node("problems")
        assert [re.findall("no table for ([^.]+)", text)[0] for text in problems] == [
            "messages of more than about 5,900 bytes",
            "the history of groups",
        ]

    def test_tables_that_go_away(self, start: Start) -> None:
        """The errors name the command then, too."""
        node = start()
        node("send", "room", "before")
        node("send_large", "hall", 10_000)
        node("ask", "SELECT set_config('search_path', 'pg_catalog', false)")
        for refused in (node("send", "room", "x"), node("send_large", "hall", 10_000)):
            assert "manage.py migrate" in refused["text"]
        node("ask", "SELECT set_config('search_path', 'public', false)")
        node("send", "room", "after")
        assert node("history", "room") == ["before", "after"]

    def test_migrating_there_and_back(self, nodes: Nodes) -> None:
        """Leaves nothing."""
        node = nodes()
        found = "SELECT count(*) FROM pg_class WHERE relname LIKE 'dwebsocket_history%'"
        try:
            node("manage", "migrate", "dwebsocket_postgres", "0001", "--verbosity", "0")
            assert node("ask", found) == [[0]]
            functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'dwebsocket_%'"
            assert node("ask", functions) == [[0]]
        finally:
            node("manage", "migrate", "--verbosity", "0")
        assert node("ask", found)[0][0] > 0


class TestOutage:
    """A server, or a connection, that is away for a while."""

    def test_members_get_what_they_missed(self, start: Start) -> None:
        """In order, nothing twice, and no signal says otherwise; others are told."""
        member, other = start(), start()
        come_back(member)
        member("join", "hall")
        other("send", "room", "before")
        for number in range(5):
            other("ask", f"SELECT count(pg_terminate_backend(pid)) {LISTENING}")
            other("send", "room", *(f"{number}-{n}" for n in range(20)))
        expected = ["before", *(f"{number}-{n}" for number in range(5) for n in range(20))]
        assert member("take_numbered", 101) == numbered(1, *expected)
        assert ["hall"] in interrupted(member)
        assert not [names for names in interrupted(member) if "room" in names]

    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_restart(self, start: Start, folder: Path, mode: str) -> None:
        """What was kept outlives one, but not a crash, which begins new numberings."""
        member, other = start(), start()
        come_back(member)
        other("send", "room", "before")
        assert member("take_numbered", 1) == numbered(1, "before")
        position = other("position", "room")
        with database_server.away(folder, mode):
            for refused in (other("send", "room", "never"), other("history", "room")):
                assert refused["error"] == "GroupUnavailable"
        eventually(lambda: other("send", "room", "after") == "sent")
        is_kept = mode == "fast"
        after = numbered(2, "after") if is_kept else [GAP, *numbered(1, "after")]
        assert member("take_numbered", len(after)) == after
        assert (other("position", "room")[:16] == position[:16]) is is_kept
        reported = [] if is_kept else [["room"]]
        eventually(lambda: interrupted(member) == reported, what="the signal is sent")

    def test_tables_that_are_emptied(self, start: Start) -> None:
        """Begin a new numbering; members are told at once, and get what is published then."""
        member, other = start(), start()
        member("probe_never")
        come_back(member)
        other("send", "room", "before")
        assert member("take_numbered", 1) == numbered(1, "before")
        epoch = other("position", "room")[:16]
        other("ask", EMPTY)
        other("send", "room", "after")
        assert member("take_numbered", 2) == [GAP, *numbered(1, "after")]
        assert other("position", "room")[:16] != epoch
        eventually(lambda: ["room"] in interrupted(member))

    def test_messages_that_are_deleted(self, start: Start) -> None:
        """Are missing: a client that comes back gets none behind the gap by mistake."""
        node = start()
        begin = node("position", "room")
        node("send", "room", "1", "2", "3", "4")
        node("ask", "DELETE FROM dwebsocket_history WHERE number IN (1, 3)")
        assert node("history", "room") == ["4"]
        assert start()("come_back", "room", begin) == numbered(4, "4")


class TestSetUps:
    """Other libraries, poolers, event loops."""

    @pytest.mark.needs("psycopg2")
    @pytest.mark.parametrize("patched", [None, "gevent", "eventlet"])
    def test_psycopg2(self, start: Start, patched: str | None) -> None:
        """Does the same, also in patched processes."""
        one, two = start(psycopg2=str(psycopg2()), patched=patched), start()
        begin = one("position", "room")
        two("send", "room", "one")
        assert one("come_back", "room", begin) == numbered(1, "one")
        one("send_in_transaction", "room", "rollback", "never")
        one("send_in_transaction", "room", "commit", "ä€")
        one("send_large", "room", 9000)
        one("send", "room", "last")
        assert one("take_numbered", 1) == numbered(2, "ä€")
        assert one("take", 1)[0].startswith("str ")
        assert one("take_numbered", 1) == numbered(4, "last")

    @pytest.mark.needs("pgbouncer")
    def test_a_pooler(self, start: Start, folder: Path) -> None:
        """By transactions, with a LOCATION past it."""
        with pgbouncer(folder, "transaction") as pooler:
            node, other = start(on={"HOST": str(pooler)}, LOCATION=f"host={folder}"), start()
            come_back(node)
            node("send_in_transaction", "room", "commit", "a")
            other("send", "room", "b")
            node("send", "room", "c")
            assert node("take_numbered", 3) == numbered(1, "a", "b", "c")
            node.end()

    @pytest.mark.every("as other backends")
    def test_event_loops(self, start: Start) -> None:
        """The async calls do the same."""
        one, two = start(), start()
        begin = one("position", "room")
        two("send_in_task", "room", "a", "b")
        assert one("come_back_in_task", "room", begin) == numbered(1, "a", "b")
        two("send_in_task", "room", "c")
        assert one("take_numbered", 1) == numbered(3, "c")
