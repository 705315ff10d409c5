"""The local backend beside other users of the machine, who want its messages."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pytest
from test_local import Nodes, nodes

from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["nodes"]

SETTINGS = {"HISTORY": {"room*": {"size": 100, "seconds": 300}}}
NOBODY = 65534


def open_to_all(folder: Path) -> None:
    """Let every user enter."""
    folder.chmod(0o777)


def given_away(folder: Path) -> None:
    """Give it to another user, as if that one had made it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)


def linked(folder: Path) -> None:
    """Put a link in its place."""
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def changes(folder: Path) -> dict[str, int]:
    """Give when each thing in a folder was changed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.resolve().rglob("*")}


def assert_refused(answer: Any, path: Path) -> None:
    """The call failed, and names the path."""
    assert answer["error"] == "GroupUnavailable"
    assert str(path) in answer["text"]


@pytest.mark.parametrize("made", [given_away, open_to_all, linked])
def test_folder_that_is_replaced_while_it_is_used(
    nodes: Nodes, made: Callable[[Path], None]
) -> None:
    """
    Nothing is read from the foreign one, and nothing is written to it.

    The first process to notice says so, once; connected processes still hear each other.
    """
    one, two = nodes(**SETTINGS), nodes(**SETTINGS)
    one("join", "hall")
    two("send", "room", "secret")
    folder = nodes.sockets_folder()
    forged = nodes.folder / "forged"
    forged.mkdir(0o700)
    shutil.copytree(folder / "history", forged / "history")
    shutil.rmtree(folder)
    forged.rename(folder)
    made(folder)
    before = changes(folder)
    assert len(before) == 2

    assert_refused(one("history", "room"), folder)
    assert_refused(one("send", "room", "more"), folder)
    two("send", "hall", "still here")
    assert one("take", 1) == ["still here"]
    eventually(lambda: one("statistics")["lost"] == 1)
    # As long as two looks at the folder take.
    pause(4.1)
    assert one("statistics")["lost"] == 1
    assert changes(folder) == before

    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    eventually(lambda: one("statistics")["regained"] == two("statistics")["regained"] == 1)
    one("send", "room", "anew")
    assert two("history", "room") == ["anew"]


def test_folder_whose_parent_is_deleted(nodes: Nodes, tmp_path: Path) -> None:
    """No parent is made: nobody knows whose it should be."""
    nodes.folder = tmp_path / "parent"
    nodes.folder.mkdir()
    one = nodes(**SETTINGS)
    one("send", "room", "before")
    shutil.rmtree(nodes.folder)
    assert_refused(one("send", "room", "after"), nodes.folder)
    assert not nodes.folder.exists()


def test_folder_that_is_moved(nodes: Nodes) -> None:
    """History goes to the new one, as the sockets do, in every process."""
    one, two = nodes(**SETTINGS), nodes(**SETTINGS)
    one("send", "room", "before")
    assert two("history", "room") == ["before"]
    nodes.sockets_folder().rename(nodes.folder / "old")
    eventually(lambda: len(nodes.sockets()) >= 2)
    one("send", "room", "after")
    assert two("history", "room") == one("history", "room") == ["after"]


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
def test_file_that_is_not_only_this_users(nodes: Nodes, replaced: Callable[[Path], None]) -> None:
    """It is refused with its name, and untouched."""
    nodes(**SETTINGS)("send", "room", "before")
    folder = nodes.sockets_folder() / "history"
    [path] = folder.iterdir()
    replaced(path)
    late = nodes(**SETTINGS)
    for answer in (late("history", "room"), late("send", "room", "after")):
        assert_refused(answer, folder)
        assert path.name in answer["text"]


def test_socket_of_another_user(nodes: Nodes) -> None:
    """It is not connected to."""
    one = nodes()
    one("join", "room")
    folder = os.open(nodes.sockets_folder(), os.O_PATH)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(f"/proc/self/fd/{folder}/{'0' * 16}")
        given_away(nodes.sockets_folder() / ("0" * 16))
        os.close(folder)
        foreign.listen()
        late = nodes()
        late("join", "room")
        assert late("peers") == 1
