"""Groups: which processes share them now, and what keeps others out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf
from dwebsocket.doctor.finding import error, fine
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends, local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.doctor.finding import Finding
    from dwebsocket.groups.backend import Backend

PROC = Path("/proc")
# Files and variables by which container engines mark a container.
_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_VARIABLE = "container"


def examine() -> Iterator[Finding]:
    """Looks at each backend of ``WEBSOCKET_GROUPS``; the local one is joined for a moment."""
    try:
        aliases = list(conf.get("GROUPS"))
    except ImproperlyConfigured:
        # A system check reports it.
        return
    for alias in aliases:
        try:
            backend = backends.backend(alias)
        except ImproperlyConfigured as problem:
            yield error("groups.backend", str(problem), "Correct WEBSOCKET_GROUPS.")
            continue
        if isinstance(backend, local.Backend):
            yield from _local(backend)
        else:
            yield from _server(backend)


def _local(backend: local.Backend) -> Iterator[Finding]:
    try:
        processes = backend.processes()
    except GroupUnavailable as problem:
        yield error(
            "groups.folder",
            str(problem),
            "Remove what is in its place, or set RUNTIME_DIR in WEBSOCKET_GROUPS to a folder of "
            "this user.",
        )
        return
    if processes:
        names = ", ".join(f"{number} ({_command(number)})" for number in processes)
        yield fine("groups.processes", f"{backend.alias!r}: these processes share groups: {names}.")
    else:
        yield fine(
            "groups.processes",
            f"{backend.alias!r}: no other process shares groups in {backend.folder} now.",
        )
    if not (backend.settings.runtime_dir or os.environ.get("XDG_RUNTIME_DIR")):
        yield fine(
            "groups.parent",
            f"{backend.alias!r}: the folder is {backend.folder}. A process that has "
            "XDG_RUNTIME_DIR uses another one, unless RUNTIME_DIR is set.",
        )
    if _is_container():
        yield fine(
            "groups.container",
            f"{backend.alias!r}: this is a container, and processes of another container or of its "
            "host do not share groups with it. Where they have to, use a backend with a server, or "
            "a RUNTIME_DIR that all containers mount, with one user.",
        )


def _server(backend: Backend) -> Iterator[Finding]:
    problems = backend.problems(deploy=True)
    for problem in problems:
        yield error("groups.server", problem, "Start the server, or correct WEBSOCKET_GROUPS.")
    if not problems:
        where = f" at {backend.address}" if backend.address else ""
        yield fine("groups.server", f"{backend.alias!r}: the backend{where} can be used.")


def _command(number: int) -> str:
    """Gives the beginning of a process's command line."""
    try:
        words = (PROC / str(number) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return b" ".join(words[:3]).decode(errors="replace").strip() or "?"


def _is_container() -> bool:
    return _VARIABLE in os.environ or any(mark.exists() for mark in _MARKS)
