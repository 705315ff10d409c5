"""A PostgreSQL server for the tests: Debian's, in a folder of its own, on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from support.forked import run_django
from support.installed import postgresql
from support.namespace import NETWORK
from support.shared import shared_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Switches off what makes a server slow and is of no use in a test.
OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


@contextlib.contextmanager
def postgres(max_connections: int = 100, addresses: Sequence[str] = ()) -> Iterator[Path]:
    """
    Run a server and give the folder of its socket; the user `postgres` needs no password.

    It listens on `addresses`, too, where every host of :mod:`support.namespace` needs none either.
    It never runs as root: then its package's own user does. Tests that ask for one are marked
    `needs("postgresql")`.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if (user := _user()) is not None:
        shutil.chown(folder, user)
    # Every user may reach the socket.
    folder.chmod(0o755)

    try:
        # Takes a tenth of the time of `initdb`.
        subprocess.run(["cp", "-a", _new_data(), folder / "data"], check=True, timeout=60)
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"max_connections = {max_connections}\n")
            settings.write(f"listen_addresses = '{','.join(addresses)}'\n")
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NETWORK} trust\n")
        _start(folder)
        try:
            yield folder
        finally:
            _stop(folder)
    finally:
        shutil.rmtree(folder)


def entry(folder: Path, **options: Any) -> dict[str, Any]:
    """Give an entry of DATABASES for the server of a folder."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": str(folder),
        **options,
    }


@contextlib.contextmanager
def database(alias: str, entry: dict[str, Any]) -> Iterator[None]:
    """Add a database to those of this process, with the package's tables in it."""
    from asgiref.sync import sync_to_async
    from django.db import connections
    from django.db.migrations.state import ProjectState

    import dwebsocket.groups.postgres.migrations as package

    def forget() -> None:
        connections[alias].close()
        # Else a later database of that alias would be looked for at this one's address.
        del connections[alias]

    entries = {"default": connections.settings["default"], alias: entry}
    connections.settings[alias] = connections.configure_settings(entries)[alias]
    try:
        names = sorted(module.name for module in iter_modules(package.__path__))
        state = ProjectState()
        with connections[alias].schema_editor() as editor:
            for name in names:
                if not name.startswith("_"):
                    module = import_module(f"{package.__name__}.{name}")
                    state = module.Migration(name, "dwebsocket_postgres").apply(state, editor)
        yield
    finally:
        forget()
        # The thread of asgiref has its own.
        asyncio.run(sync_to_async(forget)())
        connections.settings.pop(alias)


@contextlib.contextmanager
def counter(folder: Path) -> Iterator[Callable[[], int]]:
    """Give a function that counts the connections of others."""
    import psycopg

    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(f"host={folder} user=postgres", autocommit=True) as connection:

        def count() -> int:
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])

        yield count


def migrate(settings: dict[str, Any]) -> None:
    """Make the test project's tables, with these in place of its settings."""
    done = run_django("migrate", "--verbosity", "0", settings=settings)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def away(folder: Path, mode: str = "immediate") -> Iterator[None]:
    """Take the server of a folder down for a while. `immediate` is as a crash, `fast` is not."""
    # A crash is to lose no table that a test has just made: commits do not wait for the disk here.
    _run(folder, "psql", "-q", "-h", str(folder), "-U", "postgres", "-c", "CHECKPOINT")
    _stop(folder, mode)
    try:
        yield
    finally:
        _start(folder)


def _new_data() -> Path:
    """Give the files of a server that has not run yet; they stay until this run of tests ends."""
    shared = shared_folder()
    # Every user may come through.
    shared.chmod(0o755)
    folder = shared / "postgres"
    with (shared / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            made = Path(tempfile.mkdtemp(prefix="postgres-", dir=shared))
            if (user := _user()) is not None:
                shutil.chown(made, user)
            _run(
                *(made, "initdb", "--no-sync", "-A", "trust", "-U", "postgres"),
                *("-E", "UTF8", "--locale", "C"),
            )
            made.rename(folder)
    return folder / "data"


def _start(folder: Path) -> None:
    options = f"{OPTIONS} -c unix_socket_directories={folder}"
    _run(folder, "pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")


def _stop(folder: Path, mode: str = "immediate") -> None:
    _run(folder, "pg_ctl", "-w", "-m", mode, "stop")


def _run(folder: Path, program: str, *arguments: str) -> None:
    where = postgresql()
    assert where is not None
    subprocess.run(
        [where / program, *arguments],
        check=True,
        user=_user(),
        env={**os.environ, "PGDATA": str(folder / "data")},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )


def _user() -> str | None:
    return "postgres" if os.getuid() == 0 else None
