"""The local backend: processes of one machine that share groups without a server."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from node_process import Node

from dwebsocket import _core
from dwebsocket.api.waiting.steps import arun
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends
from dwebsocket.groups.backends import local
from support.server import descriptors, thread_count
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

NODE = Path(__file__).with_name("local_node.py")


class Nodes:
    """All processes of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Node] = []

    def __call__(self, secret_key: str = "secret", **settings: Any) -> Node:
        """Start one."""
        groups = {"default": {**settings, "RUNTIME_DIR": str(self.folder)}}
        node = Node(NODE, [groups, secret_key])
        self.all.append(node)
        return node

    def sockets(self) -> list[str]:
        """Give the names in the folders of sockets."""
        return sorted(path.name for path in self.folder.glob("dwebsocket-*/*"))

    def sockets_folder(self) -> Path:
        """Give the one folder of sockets."""
        [folder] = self.folder.glob("dwebsocket-*")
        return folder


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Start processes that share a folder, and end them."""
    found = Nodes(tmp_path)
    yield found
    for node in found.all:
        node.clean_up()


def test_every_process_gets_what_any_of_them_publishes(nodes: Nodes) -> None:
    """Also one that has no members, and one that has just started."""
    one, two = nodes(), nodes()
    assert one("join", "room") is two("join", "room") is True
    publisher = nodes()
    texts = [str(number) for number in range(1000)]
    assert publisher("send", "room", *texts) == "sent"
    assert one("take", 1000) == two("take", 1000) == texts
    one("send", "room", "from one")
    assert one("take", 1) == two("take", 1) == ["from one"]


def test_events_and_evictions_reach_every_process(nodes: Nodes) -> None:
    """In their order among messages of the same process."""
    member, publisher = nodes(), nodes()
    member("join", "room")
    assert member("sit_down", "room", "mine")
    publisher("pass_events", "room", 2)
    assert member("take", 2) == ['{"room":"mine","event":0}', '{"room":"mine","event":1}']
    publisher("evict", "room")
    publisher("send", "room", "behind")
    [behind] = member("take", 1)
    assert behind == '{"room":"mine","position":null,"data":"behind"}'
    eventually(lambda: publisher("count", "room") == 1)


def test_members_are_counted_in_all_processes(nodes: Nodes) -> None:
    """Also by a process that starts later; a killed process has none any more."""
    one, two = nodes(), nodes()
    one("join", "room")
    two("join", "room")
    eventually(lambda: one("count", "room") == 2)
    late = nodes()
    eventually(lambda: late("count", "room") == 2)
    two("leave", "room")
    eventually(lambda: late("count", "room") == 1)
    two("join", "room")
    eventually(lambda: late("count", "room") == 2)
    two.kill()
    eventually(lambda: late("count", "room") == one("count", "room") == 1, within=5)


def test_after_leaving_nothing_comes(nodes: Nodes) -> None:
    """And after joining again, what is published then."""
    one, two = nodes(), nodes()
    one("join", "other room")
    one("join", "room")
    one("leave", "room")
    two("send", "room", "missed")
    two("send", "other room", "what was sent before has arrived")
    one("take", 1)
    one("join", "room")
    two("send", "room", "seen")
    assert one("take", 1) == ["seen"]


def test_a_large_message_of_a_process_that_ends_at_once(nodes: Nodes) -> None:
    """It ends when the others have its messages, though they are more than sockets hold."""
    member = nodes()
    member("join", "room")
    nodes(TIMEOUT=60.0).begin("send_and_exit", "room", 4 * 1024 * 1024, 3)
    assert member("take", 3) == [str(4 * 1024 * 1024)] * 3


@pytest.mark.parametrize("size", [16 * 1024 * 1024])
def test_a_message_of_16_mib(nodes: Nodes, size: int) -> None:
    """Arrives whole."""
    one, two = nodes(), nodes()
    one("join", "room")
    two("send_large", "room", size)
    assert one("take", 1) == [str(size)]


@pytest.mark.parametrize("other", [{"secret_key": "another"}, {"PREFIX": "staging"}])
def test_other_installations_never_meet(nodes: Nodes, other: dict[str, str]) -> None:
    """With another SECRET_KEY, or another PREFIX."""
    one, two = nodes(), nodes(**other)
    one("join", "room")
    two("join", "room")
    two("send", "room", "for two")
    one("send", "room", "for one")
    assert one("take", 1) == ["for one"]
    assert two("take", 1) == ["for two"]
    assert one("count", "room") == 1


@pytest.mark.every("starts a dozen processes, one after the other")
def test_a_killed_process_leaves_nothing_that_the_next_start_does_not_clean(nodes: Nodes) -> None:
    """The socket of a process that ends by itself is gone at once."""
    one = nodes()
    one("join", "room")
    for _ in range(10):
        killed = nodes()
        killed("join", "room")
        killed.kill()
    # That of the last one stays until the next start, unless `one` looks before.
    assert len(nodes.sockets()) <= 2
    last = nodes()
    last("join", "room")
    assert len(nodes.sockets()) == 2
    last.end()
    assert len(nodes.sockets()) == 1
    one("send", "room", "still here")
    assert one("take", 1) == ["still here"]


def test_a_process_that_ends_without_a_word_is_forgotten(nodes: Nodes) -> None:
    """One that is killed may refuse no connection yet when its own have ended."""
    one = nodes()
    one("join", "room")
    folder = os.open(nodes.sockets_folder(), os.O_PATH)
    with socket.socket(socket.AF_UNIX) as ending:
        # A socket's address holds 107 bytes, fewer than that of the folder.
        ending.bind(f"/proc/self/fd/{folder}/{'0' * 16}")
        os.close(folder)
        ending.listen()
        eventually(lambda: one("peers") == 1)
    eventually(lambda: one("peers") == 0)
    eventually(lambda: len(nodes.sockets()) == 1)


@pytest.mark.every("starts hundreds of processes")
@pytest.mark.parametrize("times", [200, pytest.param(1000, marks=pytest.mark.every("a minute"))])
def test_many_starts_and_kills_leave_nothing(nodes: Nodes, times: int) -> None:
    """Neither in the folder, nor descriptors, threads or members in a process that lives on."""
    neighbour, forking = nodes(), nodes()
    pid = neighbour.process.pid
    neighbour("join", "room")

    def come_and_go(times: int) -> None:
        assert forking("start_and_kill", "room", times) == times
        eventually(lambda: neighbour("count", "room") == 1, what="their members are gone")
        eventually(lambda: neighbour("peers") == 0, what="their connections are gone")

    come_and_go(20)
    before = len(descriptors(pid)), thread_count(pid)
    memory = resident_bytes(pid)
    come_and_go(times)
    eventually(lambda: (len(descriptors(pid)), thread_count(pid)) == before)
    # That of the last one stays until the next start, unless the neighbour looks before.
    assert len(nodes.sockets()) <= 2
    assert resident_bytes(pid) - memory < 8 * 1024 * 1024
    last = nodes()
    last("join", "room")
    assert len(nodes.sockets()) == 2
    last("send", "room", "still here")
    assert neighbour("take", 1) == ["still here"]


def resident_bytes(pid: int) -> int:
    """Give the memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_stopped_process_holds_up_no_other(nodes: Nodes) -> None:
    """Neither one that publishes nor one that starts; it gets all when it goes on."""
    one, stopped = nodes(), nodes()
    one("join", "room")
    stopped("join", "room")
    stopped.process.send_signal(signal.SIGSTOP)
    texts = ["x" * 900 + str(number) for number in range(2000)]
    assert one("send", "room", *texts) == "sent"
    assert one("take", 2000) == texts
    late = nodes()
    assert late("join", "room") is True
    stopped.process.send_signal(signal.SIGCONT)
    assert stopped("take", 2000) == texts
    stopped("send", "room", "awake")
    assert late("take", 1) == ["awake"]


def is_sent(node: Node, name: str, size: int) -> bool:
    """
    Whether a message was published: not while a process takes nothing, for some seconds.

    The node makes it itself: reading it would take memory that a test measures.
    """
    return node("send_large", name, size) == "sent"


@pytest.mark.extended("fills memory")
def test_processes_that_take_nothing_cost_64_mib_together(nodes: Nodes) -> None:
    """Publishing fails for some seconds; then they are dropped, and all is given back."""
    one, stopped = nodes(TIMEOUT=0.1), [nodes(), nodes()]
    for node in (one, *stopped):
        node("join", "hall")
    eventually(lambda: one("peers") == 2)
    for node in stopped:
        node.process.send_signal(signal.SIGSTOP)
    before = resident_bytes(one.process.pid)
    assert one("fill", "room", 2**20) >= 62
    assert resident_bytes(one.process.pid) - before < 80 * 2**20

    def is_given_back() -> bool:
        return is_sent(one, "room", 2**20) and resident_bytes(one.process.pid) - before < 8 * 2**20

    eventually(is_given_back)


@pytest.mark.extended("fills memory")
def test_one_that_was_dropped_comes_back_and_knows_that_it_missed_something(nodes: Nodes) -> None:
    """It gets the messages of a history, and is told of the gap in other groups."""
    history = {"HISTORY": {"kept": {"size": 10_000, "seconds": 300}}}
    one, stopped = nodes(TIMEOUT=0.1, **history), nodes(**history)
    one("join", "hall")
    stopped("join", "hall")
    position = stopped("position", "kept")
    stopped("come_back", "kept", position)
    stopped("note_interruptions")
    eventually(lambda: one("peers") == 1)
    stopped.process.send_signal(signal.SIGSTOP)
    one("fill", "room", 2**20)
    eventually(lambda: is_sent(one, "room", 2**20))
    for number in (1, 2, 3):
        one("send", "kept", f"kept {number}")
    one("send", "hall", "is lost")
    stopped.process.send_signal(signal.SIGCONT)
    eventually(lambda: stopped("interruptions") == ["hall"])
    assert stopped("take_numbered", 3) == [f"{number} kept {number}" for number in (1, 2, 3)]
    eventually(lambda: one("peers") == stopped("peers") == 1)
    one("send", "hall", "again")
    stopped("send", "hall", "and back")
    assert sorted(stopped("take", 2)) == ["again", "and back"]
    assert sorted(one("take", 3)) == ["again", "and back", "is lost"]


def test_the_folder_is_made_anew_when_it_is_deleted(nodes: Nodes) -> None:
    """Processes that are connected stay so, and new ones find them."""
    one, two = nodes(), nodes()
    one("join", "room")
    two("join", "room")
    shutil.rmtree(nodes.sockets_folder())
    one("send", "room", "meanwhile")
    assert one("take", 1) == two("take", 1) == ["meanwhile"]
    eventually(lambda: len(nodes.sockets()) == 2)
    late = nodes()
    late("join", "room")
    late("send", "room", "late")
    assert one("take", 1) == two("take", 1) == late("take", 1) == ["late"]


def test_a_forked_child_publishes_and_holds_nothing_of_its_parent(nodes: Nodes) -> None:
    """When the parent is killed the others see that, though its child lives."""
    parent, other = nodes(), nodes()
    parent("join", "room")
    other("join", "room")
    child = parent("fork_and_send", "room", "from the child")
    try:
        assert other("take", 1) == parent("take", 1) == ["from the child"]
        assert other("peers") == 2
        parent.kill()
        eventually(lambda: other("count", "room") == 1, within=5)
        eventually(lambda: other("peers") == 1)
    finally:
        os.kill(child, signal.SIGKILL)


@contextmanager
def replaced_by(folder: Path, what: str) -> Iterator[None]:
    """Put something else in the place of the folder of sockets."""
    shutil.rmtree(folder)
    if what == "a link":
        elsewhere = folder.parent / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        folder.symlink_to(elsewhere)
    elif what == "a file":
        folder.write_text("foreign")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    yield


@pytest.mark.parametrize("what", ["a link", "a file", "a folder that others may enter"])
def test_foreign_things_in_the_place_of_the_folder_are_refused(nodes: Nodes, what: str) -> None:
    """With the path in the error; nothing is followed, and nothing is sent."""
    first = nodes()
    first("join", "room")
    first.end()
    folder = nodes.sockets_folder()
    with replaced_by(folder, what):
        refused = nodes()
        for answer in (refused("send", "room", "hi"), refused("join", "room")):
            assert answer["error"] == "GroupUnavailable"
            assert str(folder) in answer["text"]
        assert list((folder.parent / "elsewhere").glob("*")) == []


def test_bytes_that_no_node_sends_end_that_connection_only(nodes: Nodes) -> None:
    """A broken process of the same user cannot disturb the others."""
    one, two = nodes(), nodes()
    one("join", "room")
    two("join", "room")
    noises = (b"", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000, b"\0\0\0\2\2\0")
    folder = os.open(nodes.sockets_folder(), os.O_RDONLY)
    for name in nodes.sockets():
        for noise in noises:
            with socket.socket(socket.AF_UNIX) as broken:
                # The whole path is longer than a socket's address may be.
                broken.connect(f"/proc/self/fd/{folder}/{name}")
                with suppress(BrokenPipeError):
                    broken.sendall(noise)
    os.close(folder)
    one("send", "room", "fine")
    assert one("take", 1) == two("take", 1) == ["fine"]
    assert one("peers") == two("peers") == 1


def test_nothing_is_opened_before_the_first_use(nodes: Nodes) -> None:
    """A process that uses no group has no socket."""
    nodes()
    pause(0.2)
    assert nodes.sockets() == []


CALLS: dict[str, Callable[[local.Backend], Awaitable[object]]] = {
    "subscribe": lambda backend: backend.asubscribe("room"),
    "send": lambda backend: backend.asend("room", "message", []),
    "close": lambda backend: backend.aclose("room", 1000, ""),
    "count": lambda backend: backend.acount("room"),
    "members": lambda backend: arun(backend.gathering("room")),
    "history": lambda backend: backend.aread_history("room", None, (10, 60.0)),
    "catch up": lambda backend: backend.acatch_up("room"),
    "subscribe soon": lambda backend: asyncio.sleep(0, backend.subscribe_soon("room")),
}


@pytest.mark.parametrize("name", CALLS)
def test_event_loop_goes_on_while_the_process_meets_the_others(
    override: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the first call, which may wait for other processes for half a second."""
    entry = {"BACKEND": "dwebsocket.groups.local", "RUNTIME_DIR": str(tmp_path)}
    entry |= {"HISTORY": {"room": {"size": 10}}}
    override(WEBSOCKET_GROUPS={"default": entry})
    release = threading.Event()
    start = local.Backend._start

    def start_late(backend: local.Backend) -> Any:
        assert release.wait(10), "the event loop waits"
        return start(backend)

    monkeypatch.setattr(local.Backend, "_start", start_late)

    async def main() -> None:
        backend = backends.backend("default")
        assert isinstance(backend, local.Backend)
        call = asyncio.ensure_future(CALLS[name](backend))
        await asyncio.sleep(0)
        release.set()
        await call
        assert await asyncio.to_thread(lambda: backend.node) is not None
        backend.stop()

    with backends.replaced(backends.make):
        asyncio.run(main())


@pytest.fixture
def held(override: Callable[..., None], tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Hold the history of the group `room`, as a stopped process may; the call gives it back."""
    entry = {"BACKEND": "dwebsocket.groups.local", "RUNTIME_DIR": str(tmp_path), "TIMEOUT": 20}
    override(WEBSOCKET_GROUPS={"default": entry | {"HISTORY": {"room": {}}}})
    with backends.replaced(backends.make), ExitStack() as files:
        backend = backends.backend("default")
        assert isinstance(backend, local.Backend)
        backend.send("room", "before", [])
        for path in (backend.folder / "history").iterdir():
            fcntl.flock(files.enter_context(path.open("rb")), fcntl.LOCK_EX)
        yield files.close
        backend.stop()


async def join_room(backend: local.Backend) -> object:
    """Make a mailbox a member behind the first message."""
    mailbox = _core.Mailbox(1024, _core.Hub(), 1)
    epoch, _ = (await backend.aread_history("room", None, (0, 0.0))).head
    return await backend.ajoin_at("room", mailbox, b"k" * 16, (epoch, 1), numbered=False)


@pytest.mark.parametrize("call", [CALLS["send"], CALLS["history"], join_room])
def test_event_loop_goes_on_while_another_process_holds_the_history(
    held: Callable[[], None], call: Callable[[local.Backend], Awaitable[object]]
) -> None:
    """The call is made when that gives it back."""

    async def main() -> None:
        backend = backends.backend("default")
        assert isinstance(backend, local.Backend)
        waiting = asyncio.ensure_future(call(backend))
        await asyncio.sleep(0.05)
        held()
        await waiting

    asyncio.run(main())


def test_sync_calls_in_an_event_loop_do_not_wait_for_a_history_that_is_held(
    held: Callable[[], None],
) -> None:
    """They fail."""

    async def main() -> None:
        backend = backends.backend("default")
        with pytest.raises(GroupUnavailable, match="another process holds"):
            backend.send("room", "message", [])

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10
