"""
The local backend beside other users of the machine, who want its messages.

Two backends in one process are two nodes, as two processes of the project have them.
"""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from dwebsocket import _core
from dwebsocket.conf import group_settings
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups.backends import local
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[[Path], local.Backend]

pytestmark = pytest.mark.extended("other users of the machine come and go")

NOBODY = 65534


@pytest.fixture
def make() -> Iterator[Make]:
    """Make backends whose folder lies in another one; its groups `room…` have a history."""
    found: list[local.Backend] = []

    def made(parent: Path) -> local.Backend:
        entry = {"RUNTIME_DIR": parent, "HISTORY": {"room*": {}}}
        own = group_settings.read({"default": entry})["default"]
        found.append(local.Backend("default", own))
        return found[-1]

    yield made
    for each in found:
        each.stop()


def history(backend: local.Backend) -> list[str | bytes]:
    """Give what is kept of the group `room`."""
    page = backend.read_history("room", None, (100, 300.0))
    return [message for _, _, message, _ in page.rows]


def attempts(backend: local.Backend) -> list[Callable[[], object]]:
    """Give a call that reads from the files of the group `room`, and one that writes to them."""
    return [lambda: history(backend), lambda: backend.send("room", "more", [])]


def open_to_all(folder: Path) -> None:
    """Let every user enter."""
    folder.chmod(0o777)


def given_away(path: Path) -> None:
    """Give it to another user, as if that one had made it, with all that is in it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    for each in (path, *path.rglob("*")):
        os.chown(each, NOBODY, NOBODY)


def linked(folder: Path) -> None:
    """Put a link in its place."""
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def changes(folder: Path) -> dict[str, int]:
    """Give when each thing in a folder was changed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.resolve().rglob("*")}


def said(log: pytest.LogCaptureFixture, text: str) -> int:
    """Count the records with a text."""
    return sum(text in record.getMessage() for record in log.records)


@pytest.mark.parametrize("replaced", [given_away, open_to_all, linked])
def test_folder_that_is_replaced_while_it_is_used(
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    replaced: Callable[[Path], None],
) -> None:
    """
    Nothing is read from the foreign one, and nothing is written to it. The log says so once.

    Processes that are connected still hear each other.
    """
    caplog.set_level("INFO", "dwebsocket")
    one, two = make(tmp_path), make(tmp_path)
    mailbox = _core.Mailbox(1024, _core.Hub(), 1)
    one.add("hall", mailbox, b"k" * 16)
    two.send("room", "secret", [])
    assert history(one) == ["secret"]
    folder, forged = one.folder, tmp_path / "forged"
    forged.mkdir(0o700)
    shutil.copytree(folder / "history", forged / "history")
    shutil.rmtree(folder)
    forged.rename(folder)
    replaced(folder)
    before = changes(folder)
    assert len(before) == 3

    for attempt in attempts(one):
        with pytest.raises(GroupUnavailable, match=str(folder)):
            attempt()
    two.send("hall", "still here", [])
    assert eventually(mailbox.pop) == "still here"
    eventually(lambda: said(caplog, f"at {folder}: the folder is lost: {folder}") == 2)
    # As long as two looks at the folder take.
    pause(4.1)
    assert said(caplog, "is lost") == 2
    assert changes(folder) == before

    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    eventually(lambda: said(caplog, "the folder is regained") == 2)
    one.send("room", "anew", [])
    assert history(two) == ["anew"]


def test_folder_whose_parent_is_deleted(make: Make, tmp_path: Path) -> None:
    """The parent is not made."""
    parent = tmp_path / "parent"
    parent.mkdir()
    one = make(parent)
    one.send("room", "before", [])
    shutil.rmtree(parent)
    for attempt in attempts(one):
        with pytest.raises(GroupUnavailable, match=str(parent)):
            attempt()
    assert not parent.exists()


def test_folder_that_is_moved(make: Make, tmp_path: Path) -> None:
    """History goes to the new one, as the sockets do, in every process."""
    one, two = make(tmp_path), make(tmp_path)
    one.send("room", "before", [])
    assert history(two) == ["before"]
    one.folder.rename(tmp_path / "old")
    eventually(lambda: one.folder.is_dir() and len(list(one.folder.iterdir())) >= 2)
    one.send("room", "after", [])
    assert history(one) == history(two) == ["after"]


@pytest.mark.parametrize(
    "replaced",
    [
        lambda path: path.chmod(0o644),
        given_away,
        lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=["others may read it", "another user's", "a link", "a pipe"],
)
def test_file_that_is_not_only_this_users(
    make: Make, tmp_path: Path, replaced: Callable[[Path], None]
) -> None:
    """It is refused with its name."""
    one, late = make(tmp_path), make(tmp_path)
    one.send("room", "before", [])
    [path] = (path for path in (one.folder / "history").iterdir() if path.name != "epochs")
    replaced(path)
    for attempt in attempts(late):
        with pytest.raises(GroupUnavailable, match=f"{path.parent}: {path.name}"):
            attempt()


def test_file_that_is_damaged(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its group's numbering begins anew, and the log names the file."""
    one = make(tmp_path)
    one.send("room", "before", [])
    epoch, _ = one.read_history("room", None, (0, 0.0)).head
    [path] = (path for path in (one.folder / "history").iterdir() if path.name != "epochs")
    path.write_bytes(path.read_bytes()[:-1])
    one.send("room", "after", [])
    page = one.read_history("room", None, (100, 300.0))
    assert ([row[2] for row in page.rows], page.head[0] == epoch) == (["after"], False)
    eventually(lambda: said(caplog, f"{path} was damaged: the numbering of its group begins anew"))


def test_socket_of_another_user(make: Make, tmp_path: Path) -> None:
    """It is not connected to."""
    one = make(tmp_path)
    one.subscribe("hall")
    folder = os.open(one.folder, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as foreign:
        # A socket's address holds 107 bytes, fewer than that of the folder.
        foreign.bind(f"/proc/self/fd/{folder}/{'0' * 16}")
        os.close(folder)
        given_away(one.folder / ("0" * 16))
        foreign.listen()
        late = make(tmp_path)
        late.subscribe("hall")
        assert late.node.peers() == 1
