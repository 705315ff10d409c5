"""Groups: which processes share them now, and what keeps others out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends
from dwebsocket.groups.backends import local
from dwebsocket.operations.doctor import Finding, error, fine, process, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.groups.backends.contract import Backend

PROC = Path("/proc")
# Files and variables by which container engines mark a container.
_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_VARIABLE = "container"


def examine() -> Iterator[Finding]:
    """Looks at each backend of ``WEBSOCKET_GROUPS``; the local one is joined for a moment."""
    for alias in list(conf.get_or("GROUPS", otherwise=())):
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
        names = ", ".join(
            # The system gives no number to a process of another container.
            f"{number} ({process.command(number)})" if number else "one in another container"
            for number in processes
        )
        yield fine("groups.processes", f"{backend.alias!r}: these processes share groups: {names}.")
    else:
        yield fine(
            "groups.processes",
            f"{backend.alias!r}: no other process shares groups in {backend.folder} now.",
        )
    if backend.is_of_copy:
        yield fine(
            "groups.copy",
            f"{backend.alias!r}: {local.VARIABLE} moves the folder to {backend.folder}. Processes "
            "without this variable do not share these groups.",
        )
    else:
        yield from _apart(backend)
    if _VARIABLE in os.environ or any(mark.exists() for mark in _MARKS):
        yield fine(
            "groups.container",
            f"{backend.alias!r}: this is a container, and processes of another container or of its "
            "host do not share groups with it. Where they have to, use a backend with a server, or "
            "a RUNTIME_DIR that all containers mount, with one user.",
        )


def _apart(backend: local.Backend) -> Iterator[Finding]:
    """Compares with the other processes of the site: users, keys, folders, namespaces."""
    own, folder = backend.folder.name, backend.folder
    used: dict[int, list[local.Use]] = {}
    for use in local.uses():
        used.setdefault(use.pid, []).append(use)
    found = {pid for pid in used if process.refers_to_site(pid)}
    found |= {pid for pid, uses in used.items() if any(own.endswith(use.key) for use in uses)}
    for pid in sorted(found | set(process.of_site()) - {os.getpid()}):
        uses = used.get(pid, [])
        if any(use.is_of(backend.folder) for use in uses):
            continue
        if (difference := _difference(own, pid, uses)) is not None:
            why, cure = difference
            yield warning(
                "groups.apart",
                f"{backend.alias!r}: process {pid} ({process.command(pid)}) does not share the "
                f"groups of {folder}: {why}.",
                cure,
            )


def _difference(own: str, pid: int, uses: list[local.Use]) -> tuple[str, str] | None:
    """Says why a process does not meet us, and the cure. None: it has not used groups so far."""
    _, user, version, key = own.split("-")
    try:
        owner = (PROC / str(pid)).stat().st_uid
    except OSError:
        return None
    if str(owner) != user:
        return f"it runs as user {owner}, and this one as {user}", "Run both as one user."
    if _differ(pid, "pid"):
        return (
            "it runs in another container, or this one does",
            "Use Redis or PostgreSQL for groups, or a RUNTIME_DIR that both containers mount.",
        )
    if not uses:
        return _private(pid)
    if not any(use.version == version for use in uses):
        return "it has another version of dwebsocket2", "Restart it, with the version of this one."
    if not any(use.key == key for use in uses):
        return (
            "it has another key",
            "Give both the same SECRET_KEY, and the same PREFIX in WEBSOCKET_GROUPS.",
        )
    return _private(pid) or (
        "its folder is another one",
        "Give both the same RUNTIME_DIR in WEBSOCKET_GROUPS, and the same environment variable "
        f"{local.VARIABLE}, or neither.",
    )


def _private(pid: int) -> tuple[str, str] | None:
    if not _differ(pid, "mnt"):
        return None
    return (
        "it sees other folders, as a service with PrivateTmp=yes does",
        "Set RUNTIME_DIR in WEBSOCKET_GROUPS to a folder that both see, such as that of "
        "RuntimeDirectory= in its unit, or PrivateTmp=no.",
    )


def _differ(pid: int, namespace: str) -> bool:
    """Whether a process has another namespace of a kind, as far as this user may know that."""
    try:
        links = [os.readlink(PROC / each / "ns" / namespace) for each in ("self", str(pid))]
    except OSError:
        return False
    return links[0] != links[1]


def _server(backend: Backend) -> Iterator[Finding]:
    problems = backend.problems(deploy=True)
    for problem in problems:
        yield error("groups.server", problem, "Start the server, or correct WEBSOCKET_GROUPS.")
    if not problems:
        where = f" at {backend.address}" if backend.address else ""
        yield fine("groups.server", f"{backend.alias!r}: the backend{where} can be used.")
