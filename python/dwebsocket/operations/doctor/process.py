"""
Servers that run on this machine, by the command lines in ``/proc``.

Only the user's own processes whose working directory or arguments refer to this project count.
Without ``/proc`` no server is found.
"""

from __future__ import annotations

import os
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings

from dwebsocket.compat.system import UNLIMITED, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROC = Path("/proc")

_SERVERS = (
    "gunicorn",
    "uwsgi",
    "uvicorn",
    "daphne",
    "hypercorn",
    "granian",
    "waitress-serve",
    "runserver_plus",
    "runserver",
)


@dataclass(frozen=True)
class Server:
    """
    A server that runs.

    Attributes:
        pid: Its first process.
        name: The server's name, with the worker class where there is one.
        graceful_s: How long it waits for a process that it ends, if its arguments set that.
    """

    pid: int
    name: str
    graceful_s: float | None


def of_site() -> Iterator[int]:
    """Returns the numbers of the processes that serve this project, of other users, too."""
    for pid in _all():
        with suppress(OSError):
            arguments = _arguments(pid)
            if recognise(pid, arguments) is not None and _is_ours(pid, arguments):
                yield pid


def refers_to_site(pid: int) -> bool:
    """Whether a process that this user can see has to do with this project."""
    try:
        return _is_ours(pid, _arguments(pid))
    except OSError:
        return False


def is_visible() -> bool:
    """Whether this system shows processes in a way that :func:`servers` knows."""
    return (PROC / "self/cmdline").exists()


def servers() -> Iterator[Server]:
    """Returns the servers of this project that run here."""
    seen: dict[int, Server] = {}
    parents: dict[int, int] = {}
    for pid in _all():
        try:
            arguments = _arguments(pid)
            if not _is_ours(pid, arguments):
                continue
            entry = PROC / str(pid)
            stat = (entry / "stat").read_text(errors="replace")
            parents[pid] = int(stat.rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
        except (OSError, ValueError):
            # It has ended, or this user may not read it.
            continue
        if (server := recognise(pid, arguments, variables)) is not None:
            seen[pid] = server
    for pid, server in sorted(seen.items()):
        if parents[pid] not in seen:
            yield server


def files(pid: int) -> tuple[int, int] | None:
    """
    Returns the soft and the hard limit of a process's descriptors; None if they are not known.
    """
    limits = text_of(PROC / str(pid) / "limits")
    found = re.search(r"^Max open files\s+(\d+|unlimited)\s+(\d+|unlimited)", limits, re.MULTILINE)
    if found is None:
        return None
    soft, hard = (UNLIMITED if n == "unlimited" else int(n) for n in found.groups())
    return soft, hard


def recognise(pid: int, arguments: Sequence[str], variables: Sequence[str] = ()) -> Server | None:
    """Returns the server that a command line starts, if any; ``variables`` are ``NAME=value``."""
    # The program, what `python` or `python -m` runs, or the command of a manage.py.
    named = {Path(argument).name for argument in arguments[:4]}
    program = next((name for name in _SERVERS if name in named), None)
    if program is None:
        return None
    if program != "gunicorn":
        return Server(pid, program, None)
    more = [
        value.partition("=")[2] for value in variables if value.startswith("GUNICORN_CMD_ARGS=")
    ]
    try:
        # Later ones win, and the command line wins over the environment.
        given = [*(shlex.split(more[0]) if more else ()), *arguments]
        threads = int(_option(given, "--threads") or 1)
        graceful = float(_option(given, "--graceful-timeout") or 30)
        timeout = float(_option(given, "-t", "--timeout") or 30)
    except ValueError:
        # Options of another program that names gunicorn, such as `screen -t web gunicorn`.
        return None
    worker = _option(given, "-k", "--worker-class") or "sync"
    if worker == "sync" and threads > 1:
        worker = "gthread"
    graceful_s = min(graceful, timeout / 2 or float("inf"))
    return Server(pid, f"gunicorn (worker class {worker})", graceful_s)


def _option(arguments: Sequence[str], *names: str) -> str | None:
    found = None
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            found = value if equals else "".join(arguments[index + 1 : index + 2])
    return found


def command(pid: int) -> str:
    """Returns the beginning of a process's command line."""
    try:
        return " ".join(_arguments(pid)[:3]).strip() or "?"
    except OSError:
        return "?"


def _all() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()] if is_visible() else []


def _arguments(pid: int) -> list[str]:
    return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]


def _is_ours(pid: int, arguments: Sequence[str]) -> bool:
    package = str(settings.ROOT_URLCONF).partition(".")[0]
    belongs = any(argument.partition(".")[0] == package for argument in arguments)
    return belongs or (PROC / str(pid) / "cwd").readlink() == Path(os.getcwd())
