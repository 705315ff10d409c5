"""The client in processes of its own: green threads, forks, and the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from support.far_server import far_server
from support.programs import EVENTLET, GEVENT, run
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.sync.server import ServerConnection

pytestmark = pytest.mark.extended("many processes come and go")

GREEN = """
import sys
{patch}
import dwebsocket
from dwebsocket import connect

ticks = []
def tick():
    for _ in range(20):
        ticks.append(1)
        sleep(0.001)

def talk(number):
    with connect(sys.argv[1]) as websocket:
        for turn in range(20):
            websocket.send(f"{{number}} {{turn}}")
            assert websocket.receive(20) == f"{{number}} {{turn}}"
        assert websocket.ping() > 0
        websocket.send(bytes(1 << 20))
        assert websocket.receive(20) == bytes(1 << 20)
        before = len(ticks)
        other = spawn(tick)
        # Others run while this one waits: it would wait in vain if they did not.
        try:
            websocket.receive(5)
        except dwebsocket.ReceiveTimeout:
            assert len(ticks) > before

threads = [spawn(talk, number) for number in range(10)]
for thread in threads:
    wait(thread)
print(len(ticks))
"""


@pytest.mark.parametrize("patch", [GEVENT, EVENTLET], ids=["gevent", "eventlet"])
def test_green_threads_share_a_thread(patch: str) -> None:
    """Each waits without stopping the others."""
    with far_server() as url:
        done = run(GREEN.format(patch=patch), url)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == "200\n"


FORK = """
import os, sys
from dwebsocket import ConnectionClosed, connect

websocket = connect(sys.argv[1])
websocket.send("parent")
assert websocket.receive(20) == "parent"
if (child := os.fork()) == 0:
    code = 1
    try:
        assert websocket.closed and "parent" in websocket.close_reason
        try:
            websocket.send("lost")
        except ConnectionClosed:
            with connect(sys.argv[1]) as own:
                own.send("child")
                assert own.receive(20) == "child"
            code = 0
    finally:
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
websocket.send("still here")
assert websocket.receive(20) == "still here"
"""


def test_a_forked_child_opens_its_own() -> None:
    """Its parent's connection is closed for it, and goes on for the parent."""
    with far_server() as url:
        done = run(FORK, url)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [
        ("pass", 1001, 0),
        ("sys.exit(3)", 1001, 3),
        ("websocket.close(4000)", 4000, 0),
        ("os._exit(0)", 1006, 0),
    ],
)
def test_the_end_of_the_process(end: str, code: int, status: int) -> None:
    """The server is told, and the process needs no settings and ends at once."""
    codes: list[int | None] = []
    is_over = threading.Event()

    def note(connection: ServerConnection) -> None:
        connection.send("open")
        with pytest.raises(ConnectionClosed):
            connection.recv()
        codes.append(connection.close_code)
        is_over.set()

    program = (
        "import os, sys; from dwebsocket import connect; websocket = connect(sys.argv[1]);"
        f"assert websocket.receive(20) == 'open'; {end}"
    )
    with far_server(note) as url:
        done = run(program, url)
        assert is_over.wait(20)
    assert (done.returncode, done.stderr) == (status, "")
    assert codes == [code]


# Both the parent and the child register what is called at their end.
MULTIPROCESSING = """
import multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from dwebsocket import connect

def work(url):
    global websocket, pool
    websocket = connect(url)
    assert websocket.receive(20) == "open"
    pool = ThreadPoolExecutor(1)
    pool.submit(websocket.send, "from a pool")
    Thread(target=later).start()

def later():
    pool.shutdown()
    websocket.send("from a thread")

if __name__ == "__main__":
    with connect(sys.argv[1]) as own:
        assert own.receive(20) == "open"
    child = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=(sys.argv[1],))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_end_of_a_child_of_multiprocessing(method: str, tmp_path: Path) -> None:
    """The server is told, and gets what threads have sent after the child's own function."""
    ends: list[tuple[int | None, list[str | bytes]]] = []

    def note(connection: ServerConnection) -> None:
        connection.send("open")
        messages = list(connection)
        ends.append((connection.close_code, messages))

    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)
    with far_server(note) as url:
        done = run(
            f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')", url, method
        )
        eventually(lambda: len(ends) == 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert ends == [(1000, []), (1001, ["from a pool", "from a thread"])]
