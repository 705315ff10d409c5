"""The postgres backend: processes that share groups through the project's own database."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from postgres_nodes import folder, nodes  # noqa: F401

from support.waiting import eventually

if TYPE_CHECKING:
    from postgres_nodes import Nodes

pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.xdist_group("groups postgres")]

MIB = 1024 * 1024


def test_every_process_gets_what_any_of_them_publishes(nodes: Nodes) -> None:
    """In order, also from one that has no members, and one that has just started."""
    one, two = nodes(), nodes()
    assert one("join", "room") == two("join", "room") == [True]
    texts = [f"nr. {number} ä€🦀" for number in range(300)]
    publisher = nodes()
    assert publisher("send", "room", *texts) == "sent"
    assert one("take", 300) == two("take", 300) == texts
    one("send", "room", "from one", "to all")
    assert one("take", 2) == two("take", 2) == ["from one", "to all"]
    assert publisher("is_listening") is False


def test_nothing_comes_that_was_published_while_a_member_was_away(nodes: Nodes) -> None:
    """However soon it joins again."""
    node = nodes()
    assert node("join", "room") == [True]
    assert node("join_again", "room", 300) == "joined"
    node("send", "room", "hi")
    assert node("take", 1) == ["hi"]


def test_only_members_of_the_group_get_it(nodes: Nodes) -> None:
    """Groups of other names, and projects with another secret or prefix, are apart."""
    here, other_secret, other_prefix = nodes(), nodes(secret="other"), nodes(PREFIX="staging")
    for node in (here, other_secret, other_prefix):
        node("join", "room", "lobby")
    here("send", "room", "room")
    here("send", "nobody's", "nobody")
    other_secret("send", "lobby", "secret")
    other_prefix("send", "lobby", "prefix")
    here("send", "lobby", "lobby")
    assert here("take_all", 2) == ["room", "lobby"]
    assert other_secret("take_all", 1) == ["secret"]
    assert other_prefix("take_all", 1) == ["prefix"]


@pytest.mark.parametrize("call", ["send", "send_in_task", "send_in_thread"])
def test_from_threads_and_tasks(nodes: Nodes, call: str) -> None:
    """A publisher is what Django is: the connection of its thread counts."""
    node = nodes()
    assert node("join_in_task", "room") is True
    assert node(call, "room", "hi") == "sent"
    assert node("take", 1) == ["hi"]


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_in_patched_processes(nodes: Nodes, library: str) -> None:
    """The thread that listens is the system's; calls that wait are green threads'."""
    node, other = nodes(patched=library), nodes()
    assert node("join", "room") == other("join", "room") == [True]
    node("send", "room", "green")
    node("send_large", "room", 50_000)
    assert node("take", 2) == other("take", 2) == ["green", "bytes 50000"]
    assert node("count", "room") == 2


class TestTransactions:
    """Publishing is part of the project's transaction."""

    def test_leaves_with_the_commit(self, nodes: Nodes) -> None:
        """Not before, and equal messages as often as they were sent."""
        node = nodes()
        node("join", "room")
        assert node("send_in_transaction", "room", "commit", "same", "same", "other") == []
        assert node("take", 3) == ["same", "same", "other"]

    def test_does_not_leave_with_a_rollback(self, nodes: Nodes) -> None:
        """Nothing of it."""
        node = nodes()
        node("join", "room")
        assert node("send_in_transaction", "room", "rollback", "never") == []
        node("send", "room", "after")
        assert node("take_all", 1) == ["after"]

    def test_in_manual_mode(self, nodes: Nodes) -> None:
        """With `commit()`, and what `on_commit` has sent then needs no second one."""
        node, other = nodes(HISTORY={"kept-*": {}}), nodes()
        for name in ("room", "kept-room"):
            node("join", name)
            assert node("send_in_manual_mode", name, "at once", "on commit") == []
            assert node("take", 2) == ["at once", "on commit"]
        other("join", "room")
        assert other("send_in_manual_mode", "room", "large" * 4000, "on commit") == []
        assert other("take", 2) == ["str 20000", "on commit"]

    def test_a_lost_connection_is_told(self, nodes: Nodes) -> None:
        """With the cause: no other connection could take the transaction's place."""
        node = nodes()
        node("join", "room")
        answer = node("send_and_be_terminated", "room", "never")
        assert answer["error"] == "GroupUnavailable"
        assert answer["cause"] == "OperationalError"
        node("send", "room", "after")
        assert node("take_all", 1) == ["after"]

    def test_outside_one_a_dead_connection_is_replaced(self, nodes: Nodes) -> None:
        """Once, and the message comes once."""
        node = nodes()
        node("join", "room")
        node("terminate_own")
        assert node("send", "room", "hi") == "sent"
        assert node("take_all", 1) == ["hi"]


@pytest.mark.parametrize("message", ["short", "long " * 3000], ids=["short", "long"])
def test_an_answer_that_is_lost(nodes: Nodes, message: str) -> None:
    """The message is published again, on another connection, and comes once all the same."""
    node = nodes()
    node("join", "room")
    expected = [message if len(message) < 1000 else f"str {len(message)}"]
    assert node("send_without_an_answer", "room", message, "once") == "sent"
    assert node("take_all", 1) == expected
    answer = node("send_without_an_answer", "room", message, "always")
    assert answer["error"] == "GroupUnavailable"
    assert node("take_all", 1) == expected
    node("send", "room", "after")
    assert node("take", 1) == ["after"]


class TestLongMessages:
    """What does not fit into NOTIFY."""

    def test_pass_through_the_table_in_order(self, nodes: Nodes) -> None:
        """With the short ones before and behind them."""
        node, other = nodes(), nodes()
        node("join", "room")
        other("join", "room")
        sizes = [10_000, 5_000, 6_000, 2 * MIB, 100_000]
        node("send_large", "room", *sizes)
        node("send", "room", "end")
        kinds = ["bytes", "str"]
        expected = [f"{kinds[number % 2]} {size}" for number, size in enumerate(sizes)]
        assert node("take", 6) == other("take", 6) == [*expected, "end"]

    def test_of_any_size_around_the_limit(self, nodes: Nodes) -> None:
        """No size is too long for one way and too short for the other."""
        node = nodes()
        node("join", "room")
        sizes = [*range(5_800, 6_000, 4), 7_996, 7_998, 8_000, 8_002]
        node("send_large", "room", *sizes)
        kinds = ["bytes", "str"]
        expected = [f"{kinds[number % 2]} {size}" for number, size in enumerate(sizes)]
        assert node("take", len(sizes)) == expected

    def test_of_16_mib(self, nodes: Nodes) -> None:
        """The largest that the engine takes."""
        node = nodes()
        node("join", "room")
        assert node("send_large", "room", 16 * MIB) == "sent"
        assert node("take", 1) == [f"bytes {16 * MIB}"]

    def test_are_not_sent_without_the_table(self, nodes: Nodes) -> None:
        """The error says what to do, and the connection stays usable, in a transaction, too."""
        node = nodes(on={"OPTIONS": {"options": "-c search_path=pg_catalog"}})
        answer = node("send_large", "room", 10_000)
        assert answer["error"] == "GroupUnavailable"
        assert "manage.py migrate" in answer["text"]
        assert node("send", "room", "short") == "sent"

    def test_rows_do_not_stay(self, nodes: Nodes) -> None:
        """A purge deletes those whose minute is over, and only them."""
        from dwebsocket.groups.backends.postgres import table

        node = nodes()
        node("ask", "DELETE FROM dwebsocket_message")
        node("join", "room")
        node("send_large", "room", 10_000, 10_000)
        node("ask", table.PURGE)
        assert node("ask", "SELECT count(*) FROM dwebsocket_message") == [[2]]
        node("ask", "UPDATE dwebsocket_message SET expires_at = expires_at - interval '1 minute'")
        node("send_large", "room", 10_000)
        node("ask", table.PURGE)
        assert node("ask", "SELECT count(*) FROM dwebsocket_message") == [[1]]

    def test_many_rows_go_in_parts(self, nodes: Nodes) -> None:
        """A purge of a GiB would take longer than it may, and would never end."""
        from dwebsocket.groups.backends.postgres import table

        node = nodes()
        node("ask", "DELETE FROM dwebsocket_message")
        node(
            "ask",
            "INSERT INTO dwebsocket_message "
            f"VALUES (1, repeat('x', {130 * MIB}), now()), (2, '', now())",
        )
        for left in (1, 0):
            node("ask", table.PURGE)
            assert node("ask", "SELECT count(*) FROM dwebsocket_message") == [[left]]

    def test_many_hold_up_nobody_who_asks(self, nodes: Nodes) -> None:
        """A process that is behind reads a history all the same, as a client that joins needs."""
        node = nodes(HISTORY={"kept": {}})
        node("join", "room")
        node("long_messages_without_end")
        node("send_large", "room", 10_000)
        assert node("take", 3) == ["bytes 10000"] * 3
        assert node("history", "kept") == []

    def test_one_that_another_transaction_has_overtaken(self, nodes: Nodes) -> None:
        """As may happen where statements are isolated: it is sent again, outside a transaction."""
        node = nodes()
        node("join", "room")
        node(
            "ask",
            "CREATE SEQUENCE attempt; CREATE FUNCTION overtake() RETURNS trigger LANGUAGE plpgsql "
            "AS $$BEGIN IF nextval('attempt') < 3 THEN RAISE EXCEPTION 'overtaken' "
            "USING ERRCODE = 'serialization_failure'; END IF; RETURN NEW; END$$; "
            "CREATE TRIGGER overtake BEFORE INSERT ON dwebsocket_message "
            "FOR EACH ROW EXECUTE FUNCTION overtake()",
        )
        try:
            assert node("send_large", "room", 10_000) == "sent"
            assert node("take_all", 1) == ["bytes 10000"]
        finally:
            nodes()("ask", "DROP FUNCTION overtake CASCADE; DROP SEQUENCE attempt")

    def test_a_purge_that_takes_too_long(self, nodes: Nodes) -> None:
        """Ends, and costs the project nothing."""
        node = nodes(TIMEOUT=1.0)
        node("ask", "INSERT INTO dwebsocket_message VALUES (1, '', now())")
        node(
            "ask",
            "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM pg_sleep(600); RETURN OLD; END$$; "
            "CREATE TRIGGER stall BEFORE DELETE ON dwebsocket_message "
            "FOR EACH ROW EXECUTE FUNCTION stall()",
        )
        try:
            assert node("send_large", "room", 10_000) == "sent"
            assert node("ask", "SELECT 1") == [[1]]
        finally:
            admin = nodes()
            # The server's process does not notice that its client has gone.
            admin(
                "ask",
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE wait_event = 'PgSleep'",
            )
            admin("ask", "DROP FUNCTION stall CASCADE; DELETE FROM dwebsocket_message")


class TestCount:
    """The members in all processes."""

    def test_is_that_of_all(self, nodes: Nodes) -> None:
        """Asked by any of them, also by one that has no members."""
        one, two, other = nodes(), nodes(), nodes(secret="other")
        for node in (one, two, other):
            node("join", "room", "lobby")
        asking = nodes()
        assert asking("count", "room") == 2
        assert one("count_in_task", "lobby") == 2
        assert asking("count", "empty") == 0
        assert other("count", "room") == 1

    def test_a_killed_process_has_none(self, nodes: Nodes) -> None:
        """As soon as the server has seen its connection end."""
        one, two = nodes(), nodes()
        one("join", "room")
        two("join", "room")
        assert one("count", "room") == 2
        two.kill()
        eventually(lambda: one("count", "room") == 1, within=5)

    def test_one_that_is_stopped_is_left_out(self, nodes: Nodes) -> None:
        """And holds nobody up for longer than the timeout."""
        one, two = nodes(TIMEOUT=16.0), nodes()
        one("join", "room")
        two("join", "room")
        two.process.send_signal(signal.SIGSTOP)
        # Its report of a moment ago counts until then.
        eventually(lambda: one("count", "room") == 1)
        two.process.send_signal(signal.SIGCONT)
        eventually(lambda: one("count", "room") == 2)


class TestForks:
    """A forked child is a process of its own."""

    def test_child_publishes_while_the_parent_listens(self, nodes: Nodes) -> None:
        """On a connection of its own; the parent's, and what it listens on, stay usable."""
        node = nodes()
        node("join", "room")
        node("send", "room", "parent")
        child = node("fork_and_send", "room", "child")
        try:
            assert sorted(node("take", 2)) == ["child", "parent"]
            node("send", "room", "parent again")
            assert node("take", 1) == ["parent again"]
            assert node("ask", "SELECT 1") == [[1]]
        finally:
            os.kill(child, signal.SIGKILL)

    def test_child_listens_itself(self, nodes: Nodes) -> None:
        """And its parent does not notice."""
        node = nodes()
        node("join", "room")
        assert node("fork_and_join", "room", "hi") == '[[true], ["hi"]]'
        assert node("take", 1) == ["hi"]
        assert node("log") == []

    def test_child_of_a_killed_process_keeps_none_of_its_members(self, nodes: Nodes) -> None:
        """The child has a copy of every descriptor, and closes that of the connection."""
        node, other = nodes(), nodes()
        node("join", "room")
        other("join", "room")
        child = node("fork_and_send", "elsewhere", "child")
        try:
            node.kill()
            eventually(lambda: other("count", "room") == 1, within=5)
            # Without the answer of a process that the server takes for alive it takes the timeout.
            assert other("ask", MARKED) == [[1]]
        finally:
            os.kill(child, signal.SIGKILL)


MARKED = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dwebsocket %'"


def test_nothing_is_opened_before_the_first_use(nodes: Nodes) -> None:
    """Neither a connection nor a thread; and a process that only publishes does not listen."""
    node = nodes()
    assert "dwebsocket-groups" not in node("threads")
    node("send", "room", "hi")
    assert "dwebsocket-groups" not in node("threads")
    node("join", "room")
    assert "dwebsocket-groups" in node("threads")


def test_session_of_the_project_stays_as_it_is(nodes: Nodes) -> None:
    """The time limit is not one of the server's."""
    node = nodes()
    node("set", 12345)
    node("send", "room", "hi")
    assert node("ask", "SHOW statement_timeout") == [["12345ms"]]
    assert node("ask", "SHOW lock_timeout") == [["0"]]
