"""`group_statistics()`: what a process has published and delivered, on every backend."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from postgres_nodes import folder, nodes  # noqa: F401

from dwebsocket import GroupUnavailable, _core, conf, group, group_statistics
from dwebsocket.groups import backends
from dwebsocket.groups.backends import local, node, process, redis
from dwebsocket.operations import survey
from support.redis import Redis, settings
from support.redis_backend import publish_forged, until_it_works
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from memory_backend import Switchboard
    from postgres_nodes import Nodes

    from dwebsocket.groups.backends.contract import Backend

    Override = Callable[..., None]

NOTHING = {
    "published": 0,
    "failed": 0,
    "delivered": 0,
    "dropped": {"drop_newest": 0, "drop_oldest": 0, "latest": 0, "unreadable": 0},
    "closed": 0,
    "lost": 0,
    "regained": 0,
    "restarted": 0,
    "apart": 0,
    "lag": None,
    "history": None,
}
KEY = b"k" * 16


def counted(**counts: Any) -> dict[str, Any]:
    """Give the counters of a process in which nothing else has happened."""
    return {**NOTHING, **counts}


def member(*names: str, capacity: int = 1000) -> _core.Mailbox:
    """Give a member of groups of the default backend that reads nothing."""
    mailbox = _core.Mailbox(capacity, _core.Hub(), 1)
    for name in names:
        assert backends.backend("default").add(name, mailbox, KEY)
    return mailbox


def statistics() -> dict[str, Any]:
    """Give the counters of the default backend."""
    return {**group_statistics()["default"]}


def eventually_counted(**counts: Any) -> None:
    """Wait until these counters have these values."""
    eventually(lambda: counts.items() <= statistics().items(), what=f"{counts}")


class TestInOneProcess:
    """The process backend, and what holds for all."""

    def test_a_backend_that_was_not_used_is_there_and_stays_unused(
        self, override: Override
    ) -> None:
        """With zeros, by its alias."""
        override(WEBSOCKET_GROUPS={name: {"BACKEND": "x.y"} for name in ("default", "other")})
        assert group_statistics() == {"default": NOTHING, "other": NOTHING}
        assert backends.made("default") is backends.made("other") is None

    def test_messages_and_deliveries(self) -> None:
        """A message counts once, a delivery for each member."""
        opened = [member("room"), member("room"), member("other")]
        group("room").send("a")
        asyncio.run(group("room").asend("b"))
        group("nobody").send("c")
        eventually_counted(delivered=4)
        assert statistics() == counted(published=3, delivered=4)
        del opened

    def test_questions_of_one_process_to_others(self) -> None:
        """They are no messages of the site, whether they are answered or fail."""
        backend = backends.backend("default")
        asked = [survey.GROUP, node._group(b"\x1f")]
        opened = member(*asked, "room")
        for name in (*asked, "room"):
            backend.send(name, "?", [])
        eventually_counted(delivered=1)
        assert statistics() == counted(published=1, delivered=1)
        backend.groups.note("failed", asked[0])
        assert statistics()["failed"] == 0
        del opened

    @pytest.mark.parametrize("event", ["delivered", "closed", "dropped_newest", "other"])
    def test_an_event_that_the_engine_counts_itself(self, event: str) -> None:
        """Nothing else may note it."""
        with pytest.raises(ValueError, match=event):
            backends.backend("default").groups.note(event)
        assert statistics() == counted()

    @pytest.mark.parametrize(
        ("slow", "counts"),
        [
            ("drop_newest", {"delivered": 1, "dropped": {"drop_newest": 4}}),
            ("drop_oldest", {"delivered": 5, "dropped": {"drop_oldest": 4}}),
            ("latest", {"delivered": 5, "dropped": {"latest": 4}}),
        ],
    )
    def test_a_slow_member(self, override: Override, slow: str, counts: dict[str, Any]) -> None:
        """What it misses counts under the policy's name."""
        backend = {"BACKEND": "dwebsocket.groups.process", "SLOW": slow}
        override(WEBSOCKET_GROUPS={"default": backend})
        opened = member("room", capacity=10)
        for number in range(5):
            group("room").send(f"message {number}")
        dropped = {**NOTHING["dropped"], **counts.get("dropped", {})}  # type: ignore[dict-item]
        eventually_counted(**{**counts, "dropped": dropped})
        assert statistics() == counted(published=5, **{**counts, "dropped": dropped})
        del opened

    def test_a_slow_member_that_is_closed(self) -> None:
        """Counts once, with what was delivered before."""

        def is_handed_over() -> bool:
            return statistics()["delivered"] + 1 >= statistics()["published"]

        client, server = socket.socketpair()
        options = conf.Options.current(conf.overrides("test", {"send_buffer": 100}))
        permit = _core.Permit.claim(None)
        assert permit is not None
        with client, server:
            opened = _core.adopt(os.dup(server.fileno()), b"", b"", permit, options.for_engine)
            assert backends.backend("default").add("room", opened, KEY)
            # More than the socket and the buffer take.
            while opened.end() is None:
                group("room").send("x" * 100_000)
                # It may end while the next message is on its way, which nobody gets then.
                eventually(lambda: opened.end() is not None or is_handed_over())
            eventually_counted(closed=1)
        found = statistics()
        assert found["delivered"] < found["published"]
        assert found == counted(
            published=found["published"], delivered=found["delivered"], closed=1
        )

    @pytest.mark.parametrize("kind", ["process", "local"])
    def test_what_is_kept(self, override: Override, tmp_path: Path, kind: str) -> None:
        """Its bytes, and the messages that the limit has cost. Backends share the limit."""
        entry = {
            "BACKEND": f"dwebsocket.groups.{kind}",
            "RUNTIME_DIR": str(tmp_path),
            "HISTORY": {"room-*": {}},
        }
        limit = 512 * 1024
        override(
            WEBSOCKET_GROUPS={"default": entry, "other": {**entry, "PREFIX": "other"}},
            WEBSOCKET_MAX_HISTORY=2 * limit,
        )
        with backends.replaced(backends.make):
            group("hall").send("x")
            assert statistics()["history"] is None
            group("room-1").send("x")
            found = statistics()["history"]
            assert (found["bytes"] > 0, found["evicted"]) == (True, 0)
            for number in range(10):
                # Fifteen blocks of the disk, with what is beside it.
                group(f"room-{number}").send("x" * 60_000)
                assert statistics()["history"]["bytes"] <= limit
            assert 0 < statistics()["history"]["evicted"] < 5

    @pytest.mark.parametrize("call", ["send", "asend"])
    def test_more_than_the_engine_takes(self, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        """Counts as published and failed."""
        permit = _core.Permit.claim(None)
        assert permit is not None
        monkeypatch.setattr(
            process.Backend, "_publish", lambda *_, **__: _core.wait_for_none_open()
        )
        monkeypatch.setattr(process.clock, "now", iter(range(100)).__next__)

        async def main() -> None:
            sent = getattr(group("room"), call)("x")
            if sent is not None:
                await sent

        with pytest.raises(GroupUnavailable):
            asyncio.run(main())
        permit.release()
        assert statistics() == counted(published=1, failed=1)

    def test_a_child_begins_anew(self) -> None:
        """Its parent's messages are not its own."""
        group("room").send("x")
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, json.dumps(statistics()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert json.loads(os.read(read, 10_000)) == NOTHING
        assert statistics() == counted(published=1)
        os.close(read)
        os.close(write)


class TestABackendOfOthers:
    """Needs nothing for it."""

    @pytest.mark.parametrize("call", ["send", "asend"])
    def test_failures(self, switchboard: Switchboard, call: str) -> None:
        """Are among those that were published."""
        switchboard.broken.add("away")

        async def main(name: str) -> None:
            await asyncio.to_thread(group(name).send, "x") if call == "send" else await group(
                name
            ).asend("x")

        opened = member("room")
        asyncio.run(main("room"))
        with pytest.raises(GroupUnavailable):
            asyncio.run(main("away"))
        eventually_counted(delivered=1)
        assert statistics() == counted(published=2, failed=1, delivered=1)
        del opened

    def test_what_is_no_envelope(self, switchboard: Switchboard) -> None:
        """Is counted as dropped."""
        opened = member("room")
        [backend] = switchboard.subscribers["room"]
        assert not backend.deliver("room", b"noise")
        assert statistics() == counted(dropped={**NOTHING["dropped"], "unreadable": 1})  # type: ignore[dict-item]
        del opened


def use(override: Override, make: Callable[..., Backend], entry: dict[str, Any]) -> Any:
    """Use another backend for the rest of a `with` block."""
    override(WEBSOCKET_GROUPS={"default": entry})
    return backends.replaced(make)


class TestLocal:
    """Processes of one machine."""

    def test_counts(self, override: Override, tmp_path: Path) -> None:
        """As in one process; there is no server, and no lag."""
        with use(override, local.Backend, {"RUNTIME_DIR": str(tmp_path), "PREFIX": "counts"}):
            opened = member("room")
            group("room").send("x")
            eventually_counted(delivered=1)
            assert statistics() == counted(published=1, delivered=1)
            del opened

    @pytest.mark.parametrize("is_async", [False, True])
    def test_a_folder_that_cannot_be_used(
        self, override: Override, tmp_path: Path, is_async: bool
    ) -> None:
        """Is a failure of each message."""
        (tmp_path / "file").touch()
        with use(override, local.Backend, {"RUNTIME_DIR": str(tmp_path / "file")}):
            with pytest.raises(GroupUnavailable):
                async_to_sync(group("room").asend)("x") if is_async else group("room").send("x")
            assert statistics() == counted(published=1, failed=1)


@pytest.mark.needs("redis")
class TestRedis:
    """With a server of its own."""

    def test_counts(self, override: Override) -> None:
        """The lag is that of a PING; losses count; what strangers publish is dropped."""
        with Redis() as server, use(override, redis.Backend, settings(server.url)):
            assert statistics() == NOTHING
            opened = member("room")
            group("room").send("x")
            eventually_counted(delivered=1)
            eventually(lambda: statistics()["lag"] is not None, what="the first PING is answered")
            assert 0 < statistics()["lag"] < 60
            found = statistics()
            assert found == counted(published=1, delivered=1, lag=found["lag"])
            publish_forged(server, "room", b"noise")
            eventually(lambda: statistics()["dropped"]["unreadable"] == 1, what="it is dropped")
            # A question and its answers are no messages of strangers.
            eventually(lambda: group("room").count() == 1)
            assert statistics()["dropped"]["unreadable"] == 1
            with server.away():
                eventually_counted(lost=1, regained=0, lag=None)
                with pytest.raises(GroupUnavailable):
                    group("room").send("x")
            # The connection that publishes may be back before the one that subscribes.
            eventually_counted(lost=1, regained=1)
            until_it_works(lambda: group("room").send("again"))
            eventually_counted(delivered=2)
            found = statistics()
            assert found["failed"] >= 1
            assert found["published"] == 2 + found["failed"]
            del opened


@pytest.mark.needs("postgresql")
@pytest.mark.xdist_group("groups postgres")
class TestPostgres:
    """In a process of its own."""

    def test_counts(self, nodes: Nodes) -> None:
        """The lag is that of a query on the connection that listens; its losses count."""
        node, admin = nodes(), nodes()
        assert node("statistics") == NOTHING
        node("join", "room")
        node("send", "room", "x")
        node("send_large", "room", 50_000)
        node("take", 2)
        eventually(lambda: node("statistics")["delivered"] == 2, what="both are counted")
        found = node("statistics")
        assert 0 < found["lag"] < 60
        assert found == counted(published=2, delivered=2, lag=found["lag"])
        content = base64.b64encode(b"\0\4roomnoise").decode()
        admin("ask", f"SELECT 1 FROM (SELECT pg_notify('{node('channel')}', 'mx.{content}')) AS x")
        eventually(lambda: node("statistics")["dropped"]["unreadable"] == 1, what="it is dropped")
        admin(
            "ask",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
            "application_name LIKE 'dwebsocket %'",
        )
        eventually(lambda: node("statistics")["regained"] == 1, what="it listens again")
        node("send", "room", "again")
        node("take", 1)
        eventually(lambda: node("statistics")["delivered"] == 3, what="it is counted")
        found = node("statistics")
        assert (found["published"], found["delivered"], found["lost"]) == (3, 3, 1)
        assert found["lag"] > 0

    def test_failures(self, nodes: Nodes) -> None:
        """Are those that have raised."""
        node = nodes()
        node("join", "room")
        assert node("send_and_be_terminated", "room", "never")["error"] == "GroupUnavailable"
        found = node("statistics")
        assert (found["published"], found["failed"], found["delivered"]) == (1, 1, 0)
