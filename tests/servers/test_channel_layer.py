"""Consumers of several workers, which reach each other by our channel layer: no other server."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from test_channels_page import SITE, apply, diffs

from support.raw_peer import RawPeer
from support.server import GUNICORN_GEVENT, GUNICORN_GTHREAD, Kind, Server, thread_names
from support.waiting import eventually
from support.workers import ENGINE

if TYPE_CHECKING:
    from pathlib import Path

MEMORY = "channels.layers.InMemoryChannelLayer"
OURS = "dwebsocket.channels.ChannelLayer"


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, GUNICORN_GEVENT], ids=str)
def test_chat(kind: Kind, tmp_path: Path) -> None:
    """The documentation's chat, its consumers as views: what one visitor says, all hear."""
    folder = tmp_path / "site"
    shutil.copytree(SITE, folder)
    apply(diffs()[0], folder)
    settings = folder / "mysite" / "settings.py"
    settings.write_text(settings.read_text().replace(MEMORY, OURS))
    env = {"MYSITE_DB": str(tmp_path / "db.sqlite3")}
    options = ("--workers", "3")
    with Server(
        kind, cwd=folder, module="mysite", env=env, probe="/chat/lobby/", options=options
    ) as server:
        origin = {"Origin": server.url("", "http").rstrip("/")}
        visitors: list[RawPeer] = []

        def are_on_all_workers() -> bool:
            visitors.append(RawPeer.open(server, "/ws/chat/layer/", headers=origin))
            return all(thread_names(pid).count(ENGINE) == 1 for pid in server.workers())

        eventually(are_on_all_workers, 60)
        for number, visitor in enumerate(visitors):
            visitor.send_text(json.dumps({"message": f"I am {number}"}))
            for each in visitors:
                assert json.loads(each.read_message()) == {"message": f"I am {number}"}
        for visitor in visitors:
            visitor.close()
        assert "Traceback" not in server.stderr()
