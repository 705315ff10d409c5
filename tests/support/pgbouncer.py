"""A pooler in front of a PostgreSQL server of the tests: Debian's pgbouncer."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The connections that it has for the clients of a database.
POOL_SIZE = 5
SETTINGS = """
[databases]
postgres = host={server} port=5432 dbname=postgres user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 5432
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = options
logfile = {folder}/log
pidfile = {folder}/pid
"""


def listens(address: Path) -> bool:
    """Whether connections are taken there; the file is made a moment before."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(address))
        return True
    return False


@contextlib.contextmanager
def pgbouncer(server: Path, mode: str) -> Iterator[Path]:
    """
    Run one in front of the server with a socket in that folder, and give the folder of its own.

    `mode` is transaction or session. Tests that ask for one are marked `needs("pgbouncer")`.
    """
    folder = Path(tempfile.mkdtemp(prefix="pgb-"))
    settings = folder / "settings.ini"
    settings.write_text(SETTINGS.format(server=server, folder=folder, mode=mode, size=POOL_SIZE))
    user = "postgres" if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    folder.chmod(0o755)
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    process = subprocess.Popen(
        [program, "-q", settings],
        user=user,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: listens(folder / ".s.PGSQL.5432"), what="the pooler listens")
        yield folder
    finally:
        process.kill()
        process.wait(60)
        shutil.rmtree(folder)
