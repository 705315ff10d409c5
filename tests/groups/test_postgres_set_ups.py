"""The postgres backend with poolers, the older library, other databases, and what checks say."""

# Fixtures are imported.
# ruff: noqa: F811

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from postgres_nodes import NODE, folder, nodes  # noqa: F401

from support import postgres
from support.installed import psycopg2
from support.pgbouncer import POOL_SIZE, pgbouncer
from support.selection import later
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres_nodes import Nodes

pytestmark = pytest.mark.needs("postgresql")


@pytest.mark.needs("psycopg2")
class TestPsycopg2:
    """The older library, which Django uses where the newer one is not installed."""

    @pytest.mark.parametrize("patched", [None, "gevent", "eventlet"])
    def test_does_the_same(self, nodes: Nodes, patched: str | None) -> None:
        """Also in patched processes."""
        node, other = nodes(psycopg2=str(psycopg2()), patched=patched), nodes()
        assert node("join", "room") == other("join", "room") == [True]
        node("send", "room", "hi", "ä€")
        node("send_large", "room", 100_000)
        assert node("take", 3) == other("take", 3) == ["hi", "ä€", "bytes 100000"]
        assert node("count", "room") == other("count", "room") == 2
        assert node("send_in_transaction", "room", "rollback", "never") == []
        assert node("send_in_transaction", "room", "commit", "same", "same") == []
        assert node("take_all", 2) == ["same", "same"]

    @pytest.mark.every("as the newer library")
    def test_listens_again(self, nodes: Nodes) -> None:
        """When the server has ended the connection."""
        node, admin = nodes(psycopg2=str(psycopg2())), nodes()
        node("join", "room")
        node("send", "room", "before")
        assert node("take", 1) == ["before"]
        admin(
            "ask",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
            "backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        eventually(lambda: len(node("reports")) == 3)
        node("send", "room", "after")
        assert node("take", 1) == ["after"]

    def test_a_crash_of_the_server(self, nodes: Nodes, folder: Path) -> None:
        """A publisher's connection is dead, which the library does not say at once."""
        node = nodes(psycopg2=str(psycopg2()))
        assert node("send", "room", "before") == "sent"
        with postgres.away(folder):
            pass
        assert node("send", "room", "after") == "sent"

    def test_forks(self, nodes: Nodes) -> None:
        """The parent's connections stay as they are."""
        node = nodes(psycopg2=str(psycopg2()))
        node("join", "room")
        node("send", "room", "parent")
        assert node("fork_and_join", "room", "hi") == '[[true], ["hi"]]'
        node("send", "room", "again")
        assert node("take", 3) == ["parent", "hi", "again"]
        assert node("log") == []

    def test_refuses(self, nodes: Nodes) -> None:
        """As the newer one, and shows no password."""
        node = nodes(psycopg2=str(psycopg2()), LOCATION="s3cret", on={"PASSWORD": "s3cret"})
        answer = node("join", "room")
        assert answer["error"] == "GroupUnavailable"
        assert "s3cret" not in answer["text"]


class TestDoctor:
    """What `problems(deploy=True)` says."""

    def test_nothing_where_all_is_well(self, nodes: Nodes) -> None:
        """Whoever is asked."""
        assert nodes()("problems") == []

    @pytest.mark.needs("pgbouncer")
    def test_a_pooler_that_swallows_listen(self, nodes: Nodes, folder: Path) -> None:
        """Is found, and a LOCATION past it helps."""
        with pgbouncer(folder, "transaction") as pooler:
            on = {"HOST": str(pooler)}
            (problem,) = nodes(on=on, TIMEOUT=10.0)("problems")
            assert "pooler" in problem
            assert "LOCATION" in problem
            node = nodes(on=on, LOCATION=f"host={folder}")
            assert node("problems") == []
            node("join", "room")
            node("send", "room", "hi")
            node("send_large", "room", 10_000)
            assert node("take", 2) == ["hi", "bytes 10000"]
            assert node("count", "room") == 1

    @pytest.mark.needs("pgbouncer")
    def test_a_pooler_that_does_not(self, nodes: Nodes, folder: Path) -> None:
        """One connection of the client is one of the server: that works."""
        with pgbouncer(folder, "session") as pooler:
            node = nodes(on={"HOST": str(pooler)})
            assert node("problems") == []
            node("join", "room")
            node("send", "room", "hi")
            assert node("take", 1) == ["hi"]
            assert node("count", "room") == 1

    def test_no_table(self, nodes: Nodes) -> None:
        """Long messages need it."""
        (problem,) = nodes(on={"OPTIONS": {"options": "-c search_path=pg_catalog"}})("problems")
        assert "migrate" in problem

    def test_no_server(self, nodes: Nodes) -> None:
        """It says where it looked."""
        (problem,) = nodes(on={"HOST": "/nowhere", "PASSWORD": "s3cret"})("problems")
        assert "/nowhere:5432/postgres" in problem
        assert "s3cret" not in problem


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize(
    "library", [None, pytest.param("psycopg2", marks=pytest.mark.needs("psycopg2"))]
)
def test_a_pooler_without_a_free_connection(
    nodes: Nodes, folder: Path, library: str | None
) -> None:
    """It takes a client, and then is silent: what Django asks at first has the limit, too."""
    import psycopg

    more = {"psycopg2": str(psycopg2())} if library else {}
    with pgbouncer(folder, "transaction") as pooler, contextlib.ExitStack() as others:
        node = nodes(on={"HOST": str(pooler), "TIME_ZONE": "Asia/Tokyo"}, TIMEOUT=0.5, **more)
        for _ in range(POOL_SIZE):
            other = others.enter_context(psycopg.connect(f"host={pooler} user=postgres"))
            other.execute("SELECT 1")
        answer = node("send", "room", "never")
        assert answer["error"] == "GroupUnavailable"
        assert "no answer within 0.5 s" in answer["text"]
        others.close()
        eventually(lambda: node("send", "room", "hi") == "sent")
        assert node("ask", "SELECT current_setting('TimeZone')") == [["Asia/Tokyo"]]


def test_pool_of_django(nodes: Nodes) -> None:
    """Connections that come from a pool go back to it."""
    node = nodes(on={"OPTIONS": {"pool": {"min_size": 0, "max_size": 2}}})
    node("join", "room")
    node("send", "room", "hi")
    node("terminate_own")
    node("send", "room", "again")
    assert node("take", 2) == ["hi", "again"]
    assert node("send_in_transaction", "room", "commit", "committed") == []
    assert node("take", 1) == ["committed"]


def test_pool_with_dead_connections(nodes: Nodes) -> None:
    """Such as after a restart of the server: it has one that works, in the end."""
    node, admin = nodes(on={"OPTIONS": {"pool": {"min_size": 3, "max_size": 3}}}), nodes()
    assert node("send", "room", "hi") == "sent"
    # The connection goes back to the pool.
    node("request_begins")
    ended = (
        "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    eventually(lambda: admin("ask", f"SELECT count(*) {ended}") == [[3]])
    admin("ask", f"SELECT count(pg_terminate_backend(pid)) {ended}")
    eventually(lambda: admin("ask", f"SELECT count(*) {ended}") == [[0]])
    assert node("send", "room", "again") == "sent"


@pytest.mark.parametrize(
    "options",
    [
        {"server_side_binding": True, "prepare_threshold": 1},
        *later({"isolation_level": 4}, {"assume_role": "postgres"}),
    ],
    ids=str,
)
def test_options_of_django(nodes: Nodes, options: dict[str, Any]) -> None:
    """Whatever a project's connections are like."""
    node = nodes(on={"OPTIONS": options})
    node("join", "room")
    for _ in range(3):
        node("send", "room", "same", "same")
    node("send_large", "room", 10_000, 10_000)
    assert node("take", 8) == ["same"] * 6 + ["bytes 10000", "str 10000"]


@contextlib.contextmanager
def own_database(nodes: Nodes, name: str) -> Iterator[dict[str, Any]]:
    """Make a database without any tables; give what names it."""
    import psycopg

    with psycopg.connect(f"host={nodes.folder} user=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield {"NAME": name}
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


class TestManagement:
    """Checks and migrations."""

    def test_nothing_to_say(self, nodes: Nodes) -> None:
        """Where all is well; and the models and the migration agree."""
        node = nodes()
        for command in (["check"], ["makemigrations", "--check", "--dry-run"]):
            assert "exit" not in node("manage", *command)
        said = node("manage", "check", "--deploy")
        assert "dwebsocket." not in said

    def test_database_that_is_not_postgresql(self, nodes: Nodes) -> None:
        """An error, before anything is connected; the migration does nothing there."""
        sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        node = nodes(on=sqlite)
        assert "dwebsocket.E006" in node("manage", "check")
        said = node("manage", "migrate", "--skip-checks")
        assert "OK" in said
        assert node("ask", "SELECT count(*) FROM sqlite_master WHERE name LIKE '%message%'") == [
            [0]
        ]

    def test_database_that_does_not_exist(self, nodes: Nodes) -> None:
        """The alias is named."""
        node = nodes(DATABASE="other")
        said = node("manage", "check")
        assert "dwebsocket.E006" in said
        assert "'other'" in said
        assert node("send", "room", "hi")["error"] == "ImproperlyConfigured"

    def test_location_that_is_none(self, nodes: Nodes) -> None:
        """And its value, which may have a password, is not shown."""
        said = nodes(LOCATION="s3cret")("manage", "check")
        assert "dwebsocket.E006" in said
        assert "s3cret" not in said

    def test_deployed_without_the_table(self, nodes: Nodes) -> None:
        """An error that names the command."""
        node = nodes(on={"OPTIONS": {"options": "-c search_path=pg_catalog"}})
        assert "exit" not in node("manage", "check")
        said = node("manage", "check", "--deploy")
        assert "dwebsocket.E006" in said
        assert "manage.py migrate" in said

    def test_deployed_without_the_server(self, nodes: Nodes) -> None:
        """An error."""
        said = nodes(on={"HOST": "/nowhere"})("manage", "check", "--deploy")
        assert "dwebsocket.E006" in said
        assert "/nowhere" in said

    def test_migration_can_be_reverted(self, nodes: Nodes) -> None:
        """And applied again."""
        node = nodes()
        node("manage", "migrate", "dwebsocket_postgres", "zero")
        assert "manage.py migrate" in node("send_large", "room", 10_000)["text"]
        node("manage", "migrate", "dwebsocket_postgres")
        assert node("send_large", "room", 10_000) == "sent"

    def test_project_without_this_backend_gets_no_tables(self, nodes: Nodes) -> None:
        """Nor functions, though its database is PostgreSQL and it has the package's app."""
        with own_database(nodes, "without") as on:
            node = nodes(on=on, apps=["dwebsocket"])
            node("manage", "migrate")
            found = "SELECT count(*) FROM pg_class WHERE relname LIKE 'dwebsocket%'"
            assert node("ask", found) == [[0]]
            found = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'dwebsocket%'"
            assert node("ask", found) == [[0]]
            assert "dwebsocket.groups.postgres" in node("send_large", "room", 10_000)["text"]
            assert "dwebsocket.groups.postgres" in node("manage", "check", "--deploy")

    def test_installation_from_before_keeps_its_tables(self, nodes: Nodes) -> None:
        """Those that the package's app made: as they are, and behind the new app, too."""
        with own_database(nodes, "before") as on:
            history = {"HISTORY": {"room": {}}}
            nodes(on=on)("manage", "migrate")
            old = nodes(on=on, apps=["dwebsocket"], **history)
            old("ask", "DELETE FROM django_migrations WHERE app = 'dwebsocket_postgres'")
            assert old("send", "room", "one") == "sent"
            old("manage", "migrate")
            assert "exit" not in old("manage", "check")
            assert old("history", "room") == ["one"]
            new = nodes(on=on, **history)
            assert "OK" in new("manage", "migrate")
            assert new("send", "room", "two") == "sent"
            assert new("history", "room") == ["one", "two"]


@pytest.mark.parametrize("method", ["fork", *later("spawn", "forkserver")])
def test_pools_of_processes(nodes: Nodes, folder: Path, method: str) -> None:
    """Each process of a pool of `multiprocessing` publishes on a connection of its own."""
    member = nodes()
    member("join", "room")
    options = {
        "databases": {"default": postgres.entry(folder)},
        "groups": {"default": {"BACKEND": "dwebsocket.groups.postgres", "TIMEOUT": 20.0}},
    }
    script = NODE.with_name("postgres_pool.py")
    subprocess.run([sys.executable, script, json.dumps(options), method], check=True, timeout=100)
    assert sorted(member("take", 9)) == sorted(["parent", *map(str, range(8))])
