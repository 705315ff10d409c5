"""runserver: for a moment no process of the site is there, so nothing survives a change of code."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from handover.test_gunicorn import SETTINGS, SLACK_S, talk
from support.raw_peer import RawPeer
from support.server import RUNSERVER_RELOADING, TESTS
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server import Server

# Less than a process would wait for another one.
QUICK_S = 8


def test_connections_are_closed_with_1012_and_soon(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    """As those of handlers that do not survive, and no heir is waited for."""
    shutil.copytree(TESTS / "project", tmp_path / "project")
    server = own_server(RUNSERVER_RELOADING, cwd=tmp_path, settings=SETTINGS)
    (child,) = server.workers()
    with RawPeer.open(server, "/counting/") as client:
        talk(client, "here")
        assert [path.name for path in server.folder.glob("dwebsocket-*-h*")] == []
        changed = tmp_path / "project" / "moving_views.py"

        def is_noticed() -> bool:
            # Again and again: Django may not watch yet.
            changed.write_text(changed.read_text() + "\n# changed\n")
            return client.is_readable(5)

        eventually(is_noticed, SLACK_S, "the change is noticed")
        assert client.read_to_eof().code == 1012
        eventually(lambda: child not in server.workers(), QUICK_S, "the old process is gone")
    eventually(lambda: server.workers() not in ([], [child]), SLACK_S, "a new process")
