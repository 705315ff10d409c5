"""The doctor about handovers: who can go on with whose WebSockets."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from dwebsocket.groups.backends import local
from dwebsocket.handover import meeting, places
from dwebsocket.operations.doctor import Level, handover, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dwebsocket.operations.doctor import Finding

    Override = Callable[..., None]

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
RUNTIME_DIR = "WEBSOCKET_RUNTIME_DIR"
# Since the machine was booted.
NOW_S = 10_000.0


@pytest.fixture(autouse=True)
def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: Override) -> None:
    """A folder of its own, and no other process of the site."""
    monkeypatch.delenv(RUNTIME_DIR)
    monkeypatch.setattr(local, "uses", lambda _: iter(()))
    monkeypatch.setattr(handover, "since_boot", lambda: NOW_S)
    override(WEBSOCKET_GROUPS={"default": {"RUNTIME_DIR": str(tmp_path)}})


def findings() -> dict[str, Finding]:
    """Give what it finds, by names."""
    found = {finding.id: finding for finding in handover.examine()}
    for finding in found.values():
        assert bool(finding.fix) == (finding.level is not Level.FINE), finding
    return found


@pytest.fixture
def listen() -> Iterator[Callable[[int, float], None]]:
    """Have processes listen."""
    folder, sockets = meeting.Folder(), []

    def listen_(pid: int, age: float) -> None:
        sockets.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        name = f"{int((NOW_S - age) * 1e9):020}-{pid}-1-{meeting._container()}"
        sockets[-1].bind(folder._address(name))
        sockets[-1].listen()

    yield listen_
    folder.close()
    for each in sockets:
        each.close()


def test_those_that_listen_are_named_the_youngest_first(
    listen: Callable[[int, float], None],
) -> None:
    """With their command, and for how long they have."""
    listen(os.getppid(), 100)
    listen(1, 7300)
    (name, found) = findings().popitem()
    assert (name, found.level) == ("handover.processes", Level.FINE)
    words = [f"{os.getppid()} ({process.command(os.getppid())}, for 0:01:4", "1 (", "2:01:4"]
    places = [found.what.index(word) for word in words]
    assert places == sorted(places)


def test_one_alone_has_no_heir_before_another_one_starts(
    listen: Callable[[int, float], None],
) -> None:
    """It is said."""
    listen(1, 5)
    assert "Until another one starts, nobody" in findings()["handover.processes"].what


def test_what_else_is_in_the_folder_is_none_of_them(
    listen: Callable[[int, float], None],
) -> None:
    """Its name does not matter."""
    for name in ("notes", "1-2", "-1-2-3"):
        (meeting.folder() / name).touch()
    listen(1, 5)
    assert "1 (" in findings()["handover.processes"].what


def test_none_listens(tmp_path: Path) -> None:
    """The folder is named."""
    found = findings()["handover.processes"]
    assert found.what.startswith(f"No process listens in {tmp_path}")


def test_it_is_off(override: Override) -> None:
    """Nothing else is said then."""
    override(WEBSOCKET_HANDOVER=False)
    assert set(findings()) == {"handover.off"}


def test_invalid_settings_are_for_the_system_checks(override: Override) -> None:
    """No finding, and no exception."""
    override(WEBSOCKET_HANDOVER="maybe")
    assert findings() == {}
    override(WEBSOCKET_HANDOVER=True, WEBSOCKET_GROUPS={"default": {"BACKEND": "no.module"}})
    assert findings() == {}


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """With the reason and the cure."""
    meeting.folder().mkdir(0o755)
    meeting.folder().chmod(0o755)
    (found,) = findings().values()
    assert (found.id, found.level) == ("handover.folder", Level.WARNING)
    assert f"{tmp_path}" in found.what
    assert "RUNTIME_DIR" in found.fix


def test_backends_whose_groups_do_not_move(
    override: Override, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by its alias."""
    kinds = {"dwebsocket.groups.process": "process"}
    monkeypatch.setattr(places, "kind_of", lambda each: kinds.get(each.settings.backend))
    entries = {
        "default": {"BACKEND": "dwebsocket.groups.process", "RUNTIME_DIR": str(tmp_path)},
        "far": {"BACKEND": "dwebsocket.groups.redis", "LOCATION": "redis://127.0.0.1:1"},
    }
    override(WEBSOCKET_GROUPS=entries)
    (found,) = (each for each in handover.examine() if each.id == "handover.groups")
    assert found.what.startswith("'far': WebSockets in groups of dwebsocket.groups.redis")


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({}, "RUNTIME_DIR"),
        ({"key": "0123"}, "get_random_secret_key()"),
        ({"version": "999"}, "Restart them"),
        ({"user": "999"}, "as one user"),
    ],
)
def test_processes_of_the_site_that_meet_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, str], cure: str
) -> None:
    """All with one reason are one finding; processes of other sites are none."""
    found = meeting.NAME.search(str(meeting.folder()))
    assert found is not None
    parts = dict(zip(("user", "version", "key"), found.groups(), strict=True))
    meeting.folder().mkdir(0o700)
    here = local.Use(4, str(meeting.folder()), **parts)
    there = [local.Use(pid, str(tmp_path), **{**parts, **changes}) for pid in (1, 2, 2, 3)]
    monkeypatch.setattr(local, "uses", lambda path: iter([here, *there] if path else ()))
    monkeypatch.setattr(process, "refers_to_site", lambda pid: pid != 3)
    found = findings()["handover.apart"]
    assert found.level is Level.WARNING
    assert found.what.count("2 (") == found.what.count("1 (") == 1
    assert "3 (" not in found.what
    assert "4 (" not in found.what
    assert cure in found.fix


def test_a_copy_of_the_site_is_apart_on_purpose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, override: Override
) -> None:
    """By a variable of the environment."""
    override(WEBSOCKET_GROUPS={})
    monkeypatch.setenv(RUNTIME_DIR, str(tmp_path))
    use = local.Use(1, str(tmp_path), "0", "1", "0123")
    monkeypatch.setattr(local, "uses", lambda _: iter([use]))
    monkeypatch.setattr(process, "refers_to_site", lambda _: True)
    assert set(findings()) == {"handover.processes"}
