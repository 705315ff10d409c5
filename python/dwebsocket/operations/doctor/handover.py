"""Handovers: which processes can go on with each other's WebSockets, and what keeps others out."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf
from dwebsocket.compat.system import NO_TAKEOVER, since_boot
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.groups import backends
from dwebsocket.groups.backends import local
from dwebsocket.handover import meeting, places
from dwebsocket.operations.doctor import Finding, fine, process, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def examine() -> Iterator[Finding]:
    """Looks at the folder where processes meet; each that listens there is asked for a moment."""
    try:
        is_on = bool(conf.get("HANDOVER"))
        moving = {alias: backends.backend(alias) for alias in conf.get("GROUPS")}
    except ImproperlyConfigured:
        # A system check reports it, or the finding about groups.
        return
    if NO_TAKEOVER:
        return
    if not is_on:
        yield fine(
            "handover.off",
            "WEBSOCKET_HANDOVER is off: when a process ends, its WebSockets are closed with 1012, "
            "those of handlers that survive, too. True lets them move to another process.",
        )
        return
    try:
        folder = meeting.Folder()
    except OSError as problem:
        yield warning(
            "handover.folder",
            f"No WebSocket can move to another process: {problem}.",
            "Remove what is in its place, or set RUNTIME_DIR in WEBSOCKET_GROUPS to a folder of "
            "this user.",
        )
        return
    try:
        yield from _heirs(folder)
    finally:
        folder.close()
    if moving[DEFAULT].settings.runtime_dir or local.VARIABLE not in os.environ:
        # Otherwise it is a copy of the site, which is apart on purpose.
        yield from _apart(folder.path)
    for alias, backend in moving.items():
        if places.kind_of(backend) is None:
            yield fine(
                "handover.groups",
                f"{alias!r}: WebSockets in groups of {backend.settings.backend} do not move to "
                "another process: they are closed with 1012 when theirs ends. Those in groups of "
                "the package's own backends move.",
            )


def _heirs(folder: meeting.Folder) -> Iterator[Finding]:
    found: list[str] = []
    for name, connection in folder.connect(folder.others()):
        connection.close()
        born_at, pid, _ = meeting.parts_of(name)
        age = timedelta(seconds=max(0, int(since_boot() - born_at)))
        command = process.command(pid) if pid > 0 else "in another container"
        found.append(f"{abs(pid)} ({command}, for {age})")
    if not found:
        yield fine(
            "handover.processes",
            f"No process listens in {folder.path} now for WebSockets of others: none of this site "
            "runs as this user, none has begun, or its server is none of those that hand over.",
        )
    else:
        more = "" if len(found) > 1 else " Until another one starts, nobody can take its own."
        yield fine(
            "handover.processes",
            "These processes can go on with each other's WebSockets, the first ones rather: "
            f"{', '.join(found)}.{more}",
        )


def _apart(own: Path) -> Iterator[Finding]:
    """Looks for processes of the site that meet in other folders."""
    found: dict[tuple[str, str], dict[int, str]] = {}
    for use in local.uses(meeting.NAME):
        if process.refers_to_site(use.pid) and not use.is_of(own):
            of_reason = found.setdefault(_difference(own.name, use), {})
            of_reason[use.pid] = f"{use.pid} ({process.command(use.pid)})"
    for (why, cure), named in found.items():
        yield warning(
            "handover.apart",
            "These processes cannot go on with WebSockets of those above, nor the other way "
            f"round: {', '.join(named.values())}. {why}.",
            cure,
        )


def _difference(own: str, use: local.Use) -> tuple[str, str]:
    """Returns why a process does not meet those of the folder ``own``, and the cure."""
    _, user, version, key = own.split("-")
    if use.key != key:
        return (
            f"They have {meeting.OTHER_KEY}",
            "Give all the same. Where the settings make a SECRET_KEY anew in each process, as with "
            "get_random_secret_key(), let them read one that stays.",
        )
    if use.version != version.removeprefix("h"):
        return (
            "They have another version of dwebsocket2",
            "Restart them, with the version of this one.",
        )
    if use.user != user:
        return f"They run as user {use.user}, and this one as {user}", "Run all as one user."
    return (
        "Their folder is another one",
        "Give all the same RUNTIME_DIR in WEBSOCKET_GROUPS, and the same environment variable "
        f"{local.VARIABLE}, or neither. A service with PrivateTmp=yes sees a folder of its own.",
    )
