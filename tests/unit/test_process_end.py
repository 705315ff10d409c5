"""The events of the process that the engine has to know: forks and the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import autoreload
from peer import HEAD, Client

from dwebsocket import _core, runners
from dwebsocket.runners import loop, shutdown, thread
from dwebsocket.servers import tls_pump
from dwebsocket.servers.contract import unknown_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).resolve().parent.parent

# Gives the engine the socket of a descriptor.
ADOPT = """
from dwebsocket import _core

def adopt(number):
    return _core.adopt(
        number, b"", b"HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n", _core.Permit.claim(None),
        _core.Settings(
            max_message_bytes=100, max_frame_bytes=None, max_fragments=9, messages_per_second=None,
            receive_buffer_bytes=100, bytes_per_second=None, rate_timeout=None, ping_interval=None,
            ping_timeout=None, send_buffer_bytes=100, send_timeout=None, close_timeout=1,
        ),
    )
"""


# A process with one WebSocket on descriptor 3 and a view on each kind of thread, which both wait
# for the end of it and say so.
PROGRAM = (
    ADOPT
    + """
import asyncio, contextvars, os, signal, socket, sys, threading
from django.conf import settings
settings.configure()
from dwebsocket import WebSocket, _core, conf
from dwebsocket.runners import shutdown
from dwebsocket.runners import loop, thread

# A machine with much to do.
shutdown._GRACE_S = 60
shutdown.begin(dies_of_sigterm=True)
number = int(sys.argv[1])
connection = adopt(number)
websocket = WebSocket()
websocket._attach(connection, conf.Options.current({}), None)

def view():
    assert websocket.wait() is None
    os.write(1, b"view: %d\\n" % websocket.close_code)

async def aview():
    assert [message async for message in websocket] == []
    os.write(1, b"async view: %d\\n" % websocket.close_code)

thread.run("view", view)
loop.run("async view", aview, contextvars.copy_context())
os.write(1, b"open\\n")
EXIT
"""
)


# A process that ends while another thread still finds out how to close the connections.
BUSY = """
import os, signal, threading
from django.conf import settings
settings.configure()
from dwebsocket.runners import shutdown
from dwebsocket.servers.contract import ShutdownPlan

signal.signal(signal.SIGTERM, lambda *_: None)
is_busy = threading.Event()

def depart(*, terminated):
    if threading.current_thread() is not threading.main_thread():
        is_busy.set()
        while True:
            os.listdir("/")
    return ShutdownPlan(timeout_s=1)

shutdown.begin(dies_of_sigterm=False, shutdown_plan=lambda: depart)
os.kill(os.getpid(), signal.SIGTERM)
assert is_busy.wait(30)
"""


# A process with one WebSocket on descriptor 3, which says how many threads its engine has.
THREADS = """
import sys, time
from pathlib import Path
from django.conf import settings
settings.configure(WEBSOCKET_ENGINE_THREADS=3)
from dwebsocket import _core, conf
from dwebsocket.runners import shutdown

shutdown.begin(dies_of_sigterm=False)
connection = _core.adopt(
    int(sys.argv[1]), b"", b"HTTP/1.1 101 Switching Protocols\\r\\n\\r\\n",
    _core.Permit.claim(None), conf.Options.current({}).for_engine,
)
# A thread gets its name once it runs.
deadline = time.monotonic() + 30
count = 0
while count < 3 and time.monotonic() < deadline:
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    count = names.count("dwebsocket\\n")
print(count)
"""


# A server on a thread, whose main thread ends after the first WebSocket.
MAIN_ENDED = """
import os, signal, threading
from django.conf import settings
settings.configure()
from dwebsocket.compat.threading import before_pools_end
from dwebsocket.runners import shutdown

# The hook of the first call runs last.
before_pools_end(lambda: os.write(1, b"closed\\n"))
shutdown.begin(dies_of_sigterm=True)
HANDLER
threading.Thread(target=threading.Event().wait).start()
"""


# SIGTERM in a forked child, before dwebsocket's own at-fork hooks or after them.
FORKED = """
import os, signal, sys, threading
from django.conf import settings
settings.configure()

def end(when):
    if when in sys.argv:
        os.kill(os.getpid(), signal.SIGTERM)

os.register_at_fork(after_in_child=lambda: end("early"))
from dwebsocket.runners import shutdown

shutdown.begin(dies_of_sigterm=True)
HANDLER
child = os.fork()
if child == 0:
    end("late")
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
# The parent waits for it as before.
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(60)
"""


# A process that ignores SIGTERM, under a server that would leave it to its default action, or not.
IGNORING = """
import os, signal, sys
from django.conf import settings
settings.configure()
from dwebsocket import _core
from dwebsocket.runners import shutdown
from dwebsocket.servers.contract import ShutdownPlan

signal.signal(signal.SIGTERM, signal.SIG_IGN)
plan = ShutdownPlan(timeout_s=1)
dies = sys.argv[1] == "True"
shutdown.begin(dies_of_sigterm=dies, shutdown_plan=lambda: lambda *, terminated: plan)
os.kill(os.getpid(), signal.SIGTERM)
print(_core.is_terminated())
"""


# SIGTERM when the thread that is to handle it cannot be started so many times.
REFUSED = """
import _thread, os, signal, sys, threading
from dwebsocket import _core

left = int(sys.argv[1])

def start():
    global left
    left -= 1
    if left >= 0:
        raise RuntimeError("can't start new thread")
    _thread.start_new_thread(_core.die_of_sigterm, ())

_core.on_terminate(start)
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait()
"""

# A server in C whose handlers of signals exit. The kernel sends the signal when bytes reach the
# client: it interrupts the main thread while that writes them, with the connection's lock held.
ABRUPT = (
    ADOPT
    + """
import ctypes, fcntl, os, signal, sys, threading
from django.conf import settings
settings.configure()
from dwebsocket import _core
from dwebsocket.runners import shutdown
from dwebsocket.servers.contract import ShutdownPlan, Exit

heirs = sys.argv.pop()
libc = ctypes.CDLL(None)
for number in (signal.SIGINT, signal.SIGTERM):
    libc.signal(number, libc.exit)
shutdown_plans = {
    0: ShutdownPlan(timeout_s=0, goes_on=True, heirs=heirs or None),
    signal.SIGHUP: ShutdownPlan(timeout_s=0, goes_on=True),
    signal.SIGINT: ShutdownPlan(timeout_s=0),
    signal.SIGTERM: ShutdownPlan(timeout_s=0, goes_on=True),
}
how = Exit(lambda function: None, shutdown_plans, frozenset({signal.SIGINT, signal.SIGTERM}))
# A machine with much to do.
shutdown._GRACE_S = 60
shutdown.begin(dies_of_sigterm=False, at_exit=how)
ours, theirs, number = map(int, sys.argv[1:])
flags = fcntl.fcntl(theirs, fcntl.F_GETFL)
if number:
    fcntl.fcntl(theirs, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(theirs, fcntl.F_SETSIG, number)
    fcntl.fcntl(theirs, fcntl.F_SETFL, flags | os.O_ASYNC)
connection = adopt(ours)
fcntl.fcntl(theirs, fcntl.F_SETFL, flags)
os.close(theirs)
if number:
    threading.Event().wait()
"""
)

# Signals come all the time, also while it exits, and much is on its way to the client.
TICKING = """
connection.send(bytes(1 << 25))
sys.closed_at_last = open(1, "wb", buffering=0)
libc.signal(signal.SIGALRM, libc.abs)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
"""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Any]]]:
    """A shutdown of a process that has just begun, and its calls to the engine."""
    calls: list[Any] = []
    monkeypatch.setattr(shutdown, "before_pools_end", lambda call: calls.append("at exit"))
    monkeypatch.setattr(_core, "on_terminate", lambda start: calls.append("on SIGTERM"))

    def drain(code: int, reason: str, window: float) -> float:
        calls.append((code, reason, window))
        return window

    monkeypatch.setattr(_core, "drain", drain)
    monkeypatch.setattr(_core, "shut_down", lambda *how: None)
    yield (life := shutdown._Shutdown()), calls
    autoreload.file_changed.disconnect(life._on_file_changed)


def begin(life: Any, *, dies_of_sigterm: bool = False) -> None:
    """Begin as with the first connection of a server that nothing is known of."""
    life.begin(dies_of_sigterm=dies_of_sigterm, shutdown_plan=unknown_plan, at_exit=None)


def test_nothing_before_the_first_connection(fresh: Any) -> None:
    """A process without WebSockets ends as it always did."""
    assert fresh[1] == []


def test_watches_once(fresh: Any) -> None:
    """However many connections there are."""
    life, calls = fresh
    for _ in range(3):
        begin(life)
    assert calls == ["at exit"]


@pytest.mark.parametrize(
    ("dies", "handler", "expected"),
    [
        (True, signal.SIG_DFL, ["on SIGTERM", "at exit"]),
        (False, signal.SIG_DFL, ["at exit"]),
        (True, lambda *_: None, ["at exit"]),
    ],
)
def test_signal_is_ours_only_without_another_handler(
    fresh: Any, dies: bool, handler: Any, expected: list[str]
) -> None:
    """A server that handles SIGTERM goes on doing so."""
    life, calls = fresh
    before = signal.signal(signal.SIGTERM, handler)
    try:
        begin(life, dies_of_sigterm=dies)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert calls == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (None, (1001, "going away", 0.0)),
        ("views.py", (1012, "restarting", 0.0)),
        ("page.html", (1001, "going away", 0.0)),
    ],
)
def test_clients_can_tell_a_reload_from_an_end(
    fresh: Any, changed: str | None, expected: Any
) -> None:
    """1012 asks them to come back."""
    life, calls = fresh
    begin(life)
    if changed is not None:
        autoreload.file_changed.send(sender=None, file_path=Path(changed))
    life._close_at_exit()
    assert calls == ["at exit", expected]


def test_forked_child_begins_anew(fresh: Any) -> None:
    """It watches again with its own first connection."""
    life, calls = fresh
    begin(life)
    life.after_fork_in_child()
    begin(life)
    assert calls == ["at exit", "at exit"]


def test_closing_takes_bounded_time(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that do not end are given up; both kinds share one deadline."""
    life, _ = fresh
    waited: list[float] = []

    def never(timeout: float) -> bool:
        waited.append(timeout)
        return False

    monkeypatch.setattr(thread, "join", never)
    monkeypatch.setattr(loop, "join", never)
    life._close_at_exit()
    assert len(waited) == 2
    assert all(timeout <= 1.0 for timeout in waited)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("step", ["leave", "begin", "join moves", "join views"])
def test_a_signal_between_two_steps_keeps_no_connection_from_its_close(
    fresh: Any, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    """Such as gunicorn's QUIT, whose handler raises wherever a worker waits."""
    life, _ = fresh
    done: list[Any] = []

    def of(name: str) -> Callable[..., float]:
        def call(*given: Any) -> float:
            done.append(name)
            if name == step:
                raise error
            return 0.0

        return call

    class Mover(shutdown.Mover):
        def begin(self, *_: Any) -> None:
            of("begin")()

        def hurry(self) -> None:
            of("hurry")()

        def join(self, timeout: float) -> None:
            of("join moves" if timeout > 60 else "join hurried")()

    monkeypatch.setattr(shutdown, "mover", Mover())
    monkeypatch.setattr(_core, "drain", of("leave"))
    monkeypatch.setattr(runners, "join", of("join views"))
    monkeypatch.setattr(_core, "shut_down", lambda code, _, grace: done.append((code, grace > 0)))
    monkeypatch.setattr(tls_pump, "settle", of("settle"))
    with contextlib.nullcontext() if error is SystemExit else pytest.raises(error):
        life._exit()
    before = ["begin", "leave", "join moves", "join views"]
    before = before[: before.index(step) + 1]
    hurried = [] if step == "join views" else ["hurry", "join hurried", "join views"]
    assert done == [*before, *hurried, (1001, True), "settle"]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("sys.exit(3)", 3),
        ("threading.Event().wait()", -signal.SIGTERM),
    ],
    ids=["exit", "SIGTERM"],
)
def test_process_closes_its_connections(ending: str, status: int) -> None:
    """Client and views learn of the end, it is quick, and there is no traceback."""
    theirs, ours = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("EXIT", ending), str(ours.fileno())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[ours.fileno()],
        # Bytes that `readline` reads ahead would be hidden from `communicate`.
        bufsize=0,
    )
    ours.close()
    client = Client(theirs)
    assert theirs.recv(len(HEAD), socket.MSG_WAITALL) == HEAD
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    if status < 0:
        process.terminate()
    assert client.closing() == (1001, "going away")
    assert client.frame() is None
    client.vanish()
    out, err = process.communicate(timeout=60)
    assert (sorted(out.splitlines()), err) == ([b"async view: 1001", b"view: 1001"], b"")
    assert process.returncode == status


def test_engine_has_as_many_threads_as_the_setting_says() -> None:
    """The number is set before the first connection."""
    theirs, ours = socket.socketpair()
    command = [sys.executable, "-c", THREADS, str(ours.fileno())]
    done = subprocess.run(command, capture_output=True, timeout=60, pass_fds=[ours.fileno()])
    ours.close()
    theirs.close()
    assert (done.stdout, done.stderr) == (b"3\n", b"")


@pytest.mark.parametrize(
    "refusals", [2, pytest.param(10**9, marks=pytest.mark.every("it waits for seconds"), id="all")]
)
def test_sigterm_while_the_system_gives_no_thread(refusals: int) -> None:
    """It is handled as soon as there is one; where there is none for long, the process ends."""
    command = [sys.executable, "-c", REFUSED, str(refusals)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")
    # Not the line of the program, which is shown above it by Python 3.15.
    assert done.stderr.count(b"RuntimeError: can't start new thread") == 1


def test_interpreter_that_ends_during_the_closing() -> None:
    """It cuts its threads off, as ever, and ends with status 0 and no output."""
    done = subprocess.run([sys.executable, "-c", BUSY], stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("handler", "status"),
    [("", -signal.SIGTERM), ("signal.signal(signal.SIGTERM, lambda *_: os._exit(7))", 7)],
    ids=["default", "the project's"],
)
def test_sigterm_after_the_end_of_the_main_thread(handler: str, status: int) -> None:
    """A server's threads keep the process, and the signal ends it as without WebSockets."""
    program = MAIN_ENDED.replace("HANDLER", handler)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"closed\n"
        process.terminate()
        assert process.wait(10) == status
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize(
    ("handler", "status"),
    [
        ("", -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(7))", 7),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", 0),
    ],
    ids=["default", "the project's", "ignored"],
)
def test_sigterm_to_a_forked_child(handler: str, status: int, when: str) -> None:
    """It does what it does in a process without WebSockets, from the first moment."""
    program = FORKED.replace("HANDLER", handler)
    command = [sys.executable, "-c", program, when]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"%d\n" % status
        if status:
            assert process.wait(60) == status
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("dies_of_sigterm", [True, False])
def test_a_process_that_ignores_sigterm_goes_on(*, dies_of_sigterm: bool) -> None:
    """As without WebSockets: the shell that has started it said so."""
    command = [sys.executable, "-c", IGNORING, str(dies_of_sigterm)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"False\n")


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(0, 0, 1012), (signal.SIGINT, signal.SIGINT, 1001), (signal.SIGTERM, signal.SIGTERM, 1012)],
)
@pytest.mark.skipif(not hasattr(fcntl, "F_SETSIG"), reason="only Linux chooses the signal")
def test_exit_within_a_signal_handler(number: int, status: int, code: int) -> None:
    """The write that the signal interrupts does not block the exit: it ends before."""
    theirs, ours = socket.socketpair()
    both = [ours.fileno(), theirs.fileno()]
    process = subprocess.Popen(
        [sys.executable, "-c", ABRUPT, *map(str, [*both, int(number)]), ""],
        stderr=subprocess.PIPE,
        pass_fds=both,
    )
    ours.close()
    client = Client(theirs)
    assert theirs.recv(len(HEAD), socket.MSG_WAITALL) == HEAD
    assert client.closing()[0] == code
    client.vanish()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, b"")


def test_signals_do_not_cut_an_exit_short() -> None:
    """Such as a second one, whose handler returns: the client is waited for all the same."""
    theirs, ours = socket.socketpair()
    # So small that the message takes longer than all of the exit that waits for nobody.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    both = [ours.fileno(), theirs.fileno()]
    command = [sys.executable, "-c", ABRUPT + TICKING, *map(str, [*both, 0]), ""]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, pass_fds=both, **pipes)
    ours.close()
    client = Client(theirs)
    assert theirs.recv(len(HEAD), socket.MSG_WAITALL) == HEAD
    assert process.stdout is not None
    # From here on there is no interpreter any more.
    assert process.stdout.read() == b""
    message = client.frame()
    assert message is not None
    assert len(message.data) == 1 << 25
    assert client.closing()[0] == 1012
    client.vanish()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")


def test_exit_whose_hook_closes_is_left_to_that() -> None:
    """The hook comes later in the exit. Here there is none: no close frame comes."""
    theirs, ours = socket.socketpair()
    both = [ours.fileno(), theirs.fileno()]
    command = [sys.executable, "-c", ABRUPT, *map(str, [*both, 0]), "there"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, pass_fds=both)
    ours.close()
    assert theirs.recv(len(HEAD), socket.MSG_WAITALL) == HEAD
    assert theirs.recv(100) == b""
    theirs.close()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_fork_leaves_the_parents_connection_alone(open_websocket: Callable[..., Any]) -> None:
    """For the child it is over; the parent's client notices nothing, not even the child's end."""
    live = open_websocket()
    ws = live.websocket
    child = os.fork()
    if child == 0:
        status = 1
        try:
            end = (ws.closed, ws.close_code, ws.wait(), ws.send("from the child"))
            ws.close(4000)
            status = 0 if end == (True, 1006, None, False) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    live.client.send("still here")
    assert ws.wait(10) == b"still here"
    assert ws.send("yes")
    assert live.client.receive() == "yes"
    assert not ws.closed
