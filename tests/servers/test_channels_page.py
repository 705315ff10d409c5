"""The diffs of docs/channels.md: a project of Channels, switched over step by step."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from support.raw_peer import RawPeer
from support.selection import later
from support.server import GUNICORN_GEVENT, GUNICORN_GTHREAD, RUNSERVER, UVICORN, Kind, Server
from support.wsgi_kinds import UWSGI_HTTP_SOCKET

TESTS = Path(__file__).resolve().parent.parent
SITE = TESTS / "channels_site"
PAGE = TESTS.parent / "docs" / "channels.md"
STEPS = ["Move nothing", "Move a consumer's address", "Move a consumer", "Move all"]


def diffs() -> list[str]:
    """Give the page's diffs."""
    return re.findall(r"^```diff\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def apply(diff: str, folder: Path) -> None:
    """Apply a diff without line numbers: each file is one piece, which is found by its lines."""
    parts = re.split(r"^--- a/.*\n\+\+\+ b/(.*)\n", diff, flags=re.MULTILINE)
    for name, lines in zip(parts[1::2], parts[2::2], strict=True):
        path = folder / name
        pairs = [(line[:1], line[1:]) for line in lines.splitlines()]
        old = "".join(f"{text}\n" for sign, text in pairs if sign != "+")
        new = "".join(f"{text}\n" for sign, text in pairs if sign != "-")
        assert path.read_text().count(old) == 1, f"{name} has no such piece:\n{old}"
        path.write_text(path.read_text().replace(old, new))


def test_there_is_a_diff_for_each_step() -> None:
    """Their headings are those of the page."""
    headings = re.findall(r"^## (Move .*)$", PAGE.read_text(), re.MULTILINE)
    assert (headings, len(diffs())) == (STEPS, len(STEPS))


@pytest.mark.extended("sets a site up for each step and server")
@pytest.mark.parametrize("step", range(1, 5), ids=STEPS)
@pytest.mark.parametrize(
    "kind",
    [GUNICORN_GTHREAD, UVICORN, *later(RUNSERVER, GUNICORN_GEVENT, UWSGI_HTTP_SOCKET)],
    ids=str,
)
def test_chat(kind: Kind, step: int, tmp_path: Path) -> None:
    """Two visitors of a room hear each other, those of another room do not; pages are served."""
    folder = tmp_path / "site"
    shutil.copytree(SITE, folder)
    for diff in diffs()[:step]:
        apply(diff, folder)
    env = {"MYSITE_DB": str(tmp_path / "db.sqlite3")}
    with Server(kind, cwd=folder, module="mysite", env=env, probe="/chat/lobby/") as server:
        origin = {"Origin": server.url("", "http").rstrip("/")}

        def enter(room: str) -> RawPeer:
            return RawPeer.open(server, f"/ws/chat/{room}/", headers=origin)

        def say(peer: RawPeer, text: str) -> None:
            peer.send_text(json.dumps({"message": text}))

        with enter("lobby") as ada, enter("lobby") as grace, enter("attic") as other:
            for peer, name in ((ada, "ada"), (grace, "grace")):
                say(peer, f"I am {name}")
                for each in (ada, grace):
                    assert json.loads(each.read_message()) == {"message": f"I am {name}"}
            say(other, "nobody here")
            assert json.loads(other.read_message()) == {"message": "nobody here"}
        assert server.get("/chat/lobby/").body == b"This is lobby."
        assert server.get("/nothing/").status == 404
