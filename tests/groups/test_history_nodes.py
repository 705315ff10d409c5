"""The history of groups in several processes, which publish, come back, and are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from history_backends import SHARED_BACKENDS, HistoryEntry, history_entry, redis_server
from postgres_nodes import Nodes as DatabaseNodes
from postgres_nodes import folder
from test_local import Nodes, nodes

from support.installed import can_unshare
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from node_process import Node

__all__ = ["folder", "history_entry", "nodes", "redis_server"]

pytestmark = pytest.mark.extended("many processes come and go")

DAY_S = 24 * 60 * 60
HISTORY = {"room*": {"size": 100_000, "seconds": 300}}


@pytest.fixture(params=SHARED_BACKENDS)
def start(
    request: pytest.FixtureRequest, nodes: Nodes, history_entry: HistoryEntry
) -> Iterator[Callable[[], Node]]:
    """Start a process whose groups `room…` have a history."""
    if request.param == "postgres":
        others = DatabaseNodes(request.getfixturevalue("folder"))
        prefix = os.urandom(8).hex()
        yield lambda: others(HISTORY=HISTORY, PREFIX=prefix)
        others.end()
    else:
        entry = history_entry(request.param)
        yield lambda: nodes(**entry, HISTORY=HISTORY)


of_files = pytest.mark.parametrize("start", ["local"], indirect=True)


def file_of_group(nodes: Nodes) -> Path:
    """Give the file of the only group that has a message."""
    folder = nodes.sockets_folder() / "history"
    [path] = (path for path in folder.iterdir() if path.name != "epochs")
    return path


def numbered(start: int, *messages: str) -> list[str]:
    """Give messages as nodes tell them, from an offset on."""
    return [f"{offset} {message}" for offset, message in enumerate(messages, start)]


def test_every_process_has_one_numbering(start: Callable[[], Node]) -> None:
    """Whichever publishes, and whichever asks."""
    one, two = start(), start()
    one("send", "room", "first")
    two("send", "room", "second")
    assert one("history", "room") == two("history", "room") == ["first", "second"]
    assert one("position", "room") == two("position", "room")


def test_a_client_comes_back_to_another_process(start: Callable[[], Node]) -> None:
    """And gets what it has missed, and then what comes."""
    one, two = start(), start()
    begin = one("position", "room")
    one("send", "room", "one", "two")
    assert two("come_back", "room", begin) == numbered(1, "one", "two")
    one("send", "room", "three")
    assert two("take_numbered", 1) == numbered(3, "three")


def test_it_outlives_the_process_that_published(start: Callable[[], Node]) -> None:
    """While another one lives."""
    one, two = start(), start()
    begin = two("position", "room")
    one("send", "room", "said")
    one.kill()
    assert start()("come_back", "room", begin) == numbered(1, "said")
    assert two("history", "room") == ["said"]


def test_members_come_back_while_several_publish(start: Callable[[], Node]) -> None:
    """Each gets all messages, in one order, none twice."""
    publishers = [start() for _ in range(3)]
    comers = [start() for _ in range(2)]
    begin = comers[0]("position", "room")
    each = 1000
    for number, publisher in enumerate(publishers):
        publisher.begin("send", "room", *(f"{number}-{n}" for n in range(each)))
    found = []
    for comer in comers:
        missed = comer("come_back", "room", begin)
        found.append(missed + comer("take_numbered", len(publishers) * each - len(missed)))
    for publisher in publishers:
        assert publisher.answer() == "sent"
    assert found[0] == found[1]
    offsets = [int(message.partition(" ")[0]) for message in found[0]]
    assert offsets == list(range(1, len(publishers) * each + 1))
    for number in range(len(publishers)):
        own = [m for m in found[0] if m.partition(" ")[2].startswith(f"{number}-")]
        assert [m.rpartition("-")[2] for m in own] == [str(n) for n in range(each)]


def test_a_publisher_that_is_killed_leaves_no_gap(start: Callable[[], Node]) -> None:
    """What it has kept and not announced comes before the next message."""
    member, other = start(), start()
    member("come_back", "room", member("position", "room"))
    for _ in range(5):
        publisher = start()
        publisher.begin("send", "room", *(["x"] * 20_000))
        before = other("position", "room")
        eventually(lambda before=before: other("position", "room") != before)
        publisher.kill()
    other("send", "room", "the last")
    last = int(other("position", "room").rpartition("-")[2])
    found = member("take_numbered", last)
    assert [int(message.partition(" ")[0]) for message in found] == list(range(1, last + 1))
    assert found[-1] == f"{last} the last"


@of_files
def test_files_that_are_deleted(start: Callable[[], Node], nodes: Nodes) -> None:
    """Numbering starts anew; members are told, and get what is published then."""
    one, two = start(), start()
    two("come_back", "room", two("position", "room"))
    one("send", "room", "before")
    assert two("take_numbered", 1) == numbered(1, "before")
    epoch = one("position", "room").partition("-")[0]
    for path in (nodes.sockets_folder() / "history").iterdir():
        path.unlink()
    one("send", "room", "after")
    assert two("take_numbered", 2) == ["0 gap", *numbered(1, "after")]
    assert one("position", "room").partition("-")[0] != epoch


@of_files
@pytest.mark.parametrize("content", [b"", b"x", b"x" * 4096, b"dwshist1" * 512, b"dwshist2" * 512])
def test_files_that_are_broken(start: Callable[[], Node], nodes: Nodes, content: bytes) -> None:
    """Are begun anew."""
    one = start()
    one("send", "room", "before")
    for path in (nodes.sockets_folder() / "history").iterdir():
        path.write_bytes(content)
    one("send", "room", "after")
    assert one("history", "room") == ["after"]


@pytest.mark.parametrize(("seconds", "is_kept"), [(7 * DAY_S, True), (300, False)])
def test_a_group_that_is_quiet_for_two_days(nodes: Nodes, seconds: int, *, is_kept: bool) -> None:
    """Is kept for as long as its messages, and a day."""
    settings = {"HISTORY": {"room*": {"size": 10, "seconds": seconds}}}
    one = nodes(**settings)
    one("send", "room", "said")
    before = one("position", "room")
    path = file_of_group(nodes)
    os.utime(path, (time.time() - 2 * DAY_S,) * 2)
    # A process looks for such groups with its first message.
    two = nodes(**settings)
    two("send", "room-2", "of another group")
    assert two("history", "room") == (["said"] if is_kept else [])
    assert (two("position", "room") == before) is is_kept
    for node in (one, two):
        found = node("statistics")["history"]
        assert (found["bytes"] > 0, found["evicted"]) == (True, 0)


def test_bytes_of_a_process_that_only_reads(nodes: Nodes) -> None:
    """Are those of all processes, at the time of the question."""
    one, two = (nodes(HISTORY=HISTORY) for _ in range(2))
    assert two("history", "room") == []
    one("send", "room", "x" * 10_000)
    found = [node("statistics")["history"]["bytes"] for node in (one, two)]
    assert found[0] == found[1] > 10_000


@of_files
def test_groups_that_are_only_read_make_no_file(start: Callable[[], Node], nodes: Nodes) -> None:
    """Their position is the same in all processes, and their numbering begins there."""
    one, two = start(), start()
    begin = one("position", "room")
    assert begin == two("position", "room")
    folder = nodes.sockets_folder() / "history"
    assert [path.name for path in folder.iterdir()] == ["epochs"]
    two("send", "room", "said")
    assert one("come_back", "room", begin) == numbered(1, "said")


@of_files
def test_only_its_user_can_read_it(start: Callable[[], Node], nodes: Nodes) -> None:
    """As the sockets beside it."""
    start()("send", "room", "secret")
    folder = nodes.sockets_folder() / "history"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600] * 2


BEGINNING = """
import json, logging, os, sys, threading, time
from pathlib import Path
from django.conf import settings
settings.configure(
    SECRET_KEY="k" * 50 + sys.argv[1], INSTALLED_APPS=["dwebsocket"], LOGGING_CONFIG=None,
    WEBSOCKET_GROUPS={"default": {"RUNTIME_DIR": sys.argv[1], "HISTORY": {"*": {"size": 1000}}}},
)
import django
django.setup()
from dwebsocket import GroupUnavailable, group

logged = threading.Event()

class Printing(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        logged.set()

logging.basicConfig(handlers=[Printing(sys.stdout)], format="%(message)s")

# Until a line is there, and then for a second one.
def wait_for_log():
    logged.wait(60)
    time.sleep(1)
"""

FULL = """
group("room").count()
for number in range(100):
    group(f"room-{number % 10}").send("x" * 10_000)
wait_for_log()
"""

FULL_OF_OTHERS = """
def send(text):
    try:
        group("room").send(text)
    except GroupUnavailable:
        return "refused"
    return int(group("room").position().partition("-")[2])

def taken():
    files = Path(sys.argv[1]).glob("*/history/*")
    return sum(file.stat().st_blocks for file in files) * 512

filler, found = Path(sys.argv[1], "filler"), {}
position = group("room").position()
epoch = position.partition("-")[0]
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
found["full"] = [send("x") for _ in range(3)]
found["position"] = group("room").position() == position
os.truncate(filler, filler.stat().st_size - 64 * 1024)
found["small"] = send("x")
before = taken()
found["large"] = send("x" * 500_000)
found["taken"] = taken() - before
filler.unlink()
found["lifted"] = send("x" * 500_000)
found["epoch"] = group("room").position().startswith(epoch)
wait_for_log()
print(json.dumps(found))
"""


def output_on_small_disk(program: str, size: str, path: Path) -> list[str]:
    """Run a program whose RUNTIME_DIR has so much room. Give the lines that it prints."""
    mount = f'mount -t tmpfs -o size={size} none {path} && exec "$0" "$@"'
    command = [sys.executable, "-c", BEGINNING + program, str(path)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, *command],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(not can_unshare(), reason="no right to make a mount namespace")
def test_a_full_disk_is_logged_once(tmp_path: Path) -> None:
    """It is not WEBSOCKET_MAX_HISTORY that deletes messages there."""
    [line] = output_on_small_disk(FULL, "256k", tmp_path)
    assert f"the disk of {tmp_path}" in line
    assert "is full: older messages of the history are deleted" in line


@pytest.mark.skipif(not can_unshare(), reason="no right to make a mount namespace")
def test_a_disk_that_others_have_filled(tmp_path: Path) -> None:
    """A group that begins there is as it was, and a message that is refused takes no room."""
    *logged, found = output_on_small_disk(FULL_OF_OTHERS, "1m", tmp_path)
    assert json.loads(found) == {
        "full": ["refused"] * 3,
        "position": True,
        "small": 1,
        "large": "refused",
        "taken": 0,
        "lifted": 2,
        "epoch": True,
    }
    [line] = logged
    assert "is full: older messages of the history are deleted" in line
