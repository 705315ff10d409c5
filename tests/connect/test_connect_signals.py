"""Signals of a process whose main thread waits in a call of the client."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from support.far_server import far_server
from support.hostile import accepting
from support.programs import EVENTLET, GEVENT, run
from support.selection import later

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.extended("many processes come and go")

# The other thread sends the signals when the main one sleeps: a frame that stays where it is.
WATCH = """
import json, os, signal, socket, sys, threading, time
from dwebsocket import connect

def sleeps():
    frame = sys._current_frames()[threading.main_thread().ident]
    return (frame.f_code, frame.f_lasti) if "/dwebsocket/" in frame.f_code.co_filename else None

def wait_for_sleep():
    before = None
    while (now := sleeps()) is None or now != before:
        before = now
        time.sleep(0.2)
"""
PROGRAM = f"""
{WATCH}
url, call = sys.argv[1:3]
handled, delays = threading.Event(), []

def signals():
    wait_for_sleep()
    for turn in range(5):
        handled.clear()
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGALRM)
        handled.wait()
        delays.append(time.monotonic() - began)
    wait_for_sleep()
    delays.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGALRM, lambda *_: handled.set())
threading.Thread(target=signals, daemon=True).start()
try:
    if call == "connect":
        connect(url, open_timeout=60)
    websocket = connect(url, send_timeout=60, ping_interval=None)
    match call:
        case "receive":
            websocket.receive()
        case "receive with a timeout":
            websocket.receive(timeout=60)
        case "for":
            for message in websocket:
                pass
        case "wait_closed":
            websocket.wait_closed()
        case "wait_closed with a timeout":
            websocket.wait_closed(60)
        case "ping":
            websocket.ping(timeout=60)
        case "send":
            while True:
                websocket.send(os.urandom(1 << 20))
        case "reconnect":
            for websocket in connect(url, reconnect=True, open_timeout=60):
                websocket.receive()
except KeyboardInterrupt:
    delays[-1] = time.monotonic() - delays[-1]
    print(json.dumps(delays))
    # Its server answers no close.
    os._exit(0)
"""


@contextlib.contextmanager
def silent_server(*, accepts: bool) -> Iterator[str]:
    """Run a server that answers a handshake, or not even that, and then reads no byte."""
    listener = socket.create_server(("127.0.0.1", 0))
    clients: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                if accepts:
                    client.sendall(accepting(client.recv(65536)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)
        for client in clients:
            client.close()


CALLS = [
    *("receive", "wait_closed", "send", "connect"),
    *later("receive with a timeout", "for", "wait_closed with a timeout", "ping", "reconnect"),
]


@pytest.mark.parametrize("call", CALLS)
def test_the_main_thread_handles_signals_while_it_waits(call: str) -> None:
    """Within 100 ms. A handler that returns lets the wait go on, Ctrl-C ends it."""
    with silent_server(accepts=call != "connect") as url:
        done = run(PROGRAM, url, call)
    assert (done.returncode, done.stderr) == (0, "")
    delays = json.loads(done.stdout)
    assert len(delays) == 6
    # Not all of them: the machine may be busy with something else for a while.
    assert min(delays) < 0.1
    assert max(delays) < 5


@pytest.mark.parametrize("call", ["receive", "send", "connect"])
@pytest.mark.parametrize("patch", [GEVENT, EVENTLET], ids=["gevent", "eventlet"])
def test_the_main_green_thread_handles_signals_while_it_waits(patch: str, call: str) -> None:
    """Ctrl-C ends its wait, too."""
    program = f"""
import os, sys
{patch}
import subprocess
from dwebsocket import connect

subprocess.Popen(["sh", "-c", f"sleep 2; kill -INT {{os.getpid()}}"])
try:
    websocket = connect(sys.argv[1], send_timeout=60, open_timeout=60)
    while sys.argv[2] == "send":
        websocket.send(os.urandom(1 << 20))
    websocket.receive()
except KeyboardInterrupt:
    os._exit(7)
"""
    with silent_server(accepts=call != "connect") as url:
        # The report of gevent goes to the error output.
        assert run(program, url, call).returncode == 7


INTERRUPT = f"""
{WATCH}
class Interrupted(Exception):
    pass

def interrupt(*_):
    raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
"""
# Python knows of the signal when `pthread_kill` returns, and the message comes a moment later.
RECEIVE = f"""
{INTERRUPT}
def signals():
    for turn in range(10):
        turns.acquire()
        wait_for_sleep()
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
        websocket.send(str(turn))

turns = threading.Semaphore(0)
websocket = connect(sys.argv[1])
threading.Thread(target=signals, daemon=True).start()
for turn in range(10):
    turns.release()
    try:
        websocket.receive(timeout=60)
    except Interrupted:
        pass
    else:
        raise SystemExit("the handler has not run")
    assert websocket.receive(timeout=20) == str(turn)
"""


def test_a_handler_that_raises_loses_no_message() -> None:
    """The next call gives what has come just before the handler ran."""
    with far_server() as url:
        done = run(RECEIVE, url)
    assert (done.returncode, done.stderr) == (0, "")


SEND = f"""
{INTERRUPT}
from websockets.sync.server import serve

def handle(connection):
    reading.wait()
    heard.extend(message[0] for message in connection)
    is_over.set()

def signals():
    wait_for_sleep()
    signal.pthread_kill(threading.get_ident(), signal.SIGALRM)
    reading.set()

reading, is_over, heard, sent = threading.Event(), threading.Event(), [], 0
server = serve(handle, "127.0.0.1", 0, compression=None)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.socket.getsockname()[1]
websocket = connect(f"ws://127.0.0.1:{{port}}/", send_timeout=60, compression=False)
threading.Thread(target=signals, daemon=True).start()
try:
    while True:
        websocket.send(bytes([sent]) + bytes(1 << 19))
        sent += 1
except Interrupted:
    websocket.close()
is_over.wait(60)
print(heard == list(range(sent)))
os._exit(0)
"""


def test_a_handler_that_raises_ends_a_send_that_has_not_begun() -> None:
    """Its message is not sent, even if there was room just before the handler ran."""
    done = run(SEND)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "True\n")


CONNECT = f"""
{WATCH}
from dwebsocket.client.dialing import exchange
from dwebsocket.client.options import dialer_for

def serve():
    client, _ = listener.accept()
    client.settimeout(20)
    client.recv(65536)
    wait_for_sleep()
    os.kill(os.getpid(), signal.SIGINT)
    print(client.recv(65536))

listener = socket.create_server(("127.0.0.1", 0))
server = threading.Thread(target=serve)
server.start()
url = f"ws://127.0.0.1:{{listener.getsockname()[1]}}/"
try:
    if sys.argv[1] == "connect":
        connect(url, open_timeout=60)
    # The client of the test kit.
    exchange(dialer_for(url, {{"open_timeout": 60}}), b"GET / HTTP/1.1\\r\\n\\r\\n")
except KeyboardInterrupt as error:
    kept = error
server.join()
"""


@pytest.mark.parametrize("call", ["connect", "exchange"])
def test_an_opening_that_is_interrupted_is_given_up(call: str) -> None:
    """At once, though a shell keeps the exception with all its frames."""
    done = run(CONNECT, call)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "b''\n")


HANDLER_SENDS = """
import os, signal, sys, threading, time
from dwebsocket import connect

websocket = connect(sys.argv[1])
signal.signal(signal.SIGALRM, lambda *_: websocket.send("from the handler"))
signal.setitimer(signal.ITIMER_REAL, 0.2)
assert websocket.receive(timeout=60) == "from the handler"
"""


def test_a_handler_may_use_the_connection_that_its_thread_waits_for() -> None:
    """The wait goes on, and gets what the handler caused."""
    with far_server() as url:
        done = run(HANDLER_SENDS, url)
    assert (done.returncode, done.stderr) == (0, "")


HANDLER_IN_SEND = """
import os, signal, sys
from dwebsocket import ConnectionClosed, connect

websocket = connect(sys.argv[1], send_timeout=60)
seen = []

def act(*_):
    # More than fits: so it waits within the wait, too.
    signal.signal(signal.SIGALRM, lambda *_: websocket.close(4000))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        while True:
            websocket.send(os.urandom(1 << 20).hex())
    except ConnectionClosed as closed:
        seen.append(closed.code)

signal.signal(signal.SIGALRM, act)
signal.setitimer(signal.ITIMER_REAL, 1)
try:
    while True:
        websocket.send(os.urandom(1 << 20).hex())
except ConnectionClosed as closed:
    seen.append(closed.code)
print(seen)
sys.stdout.flush()
os._exit(0)
"""


def test_a_handler_may_send_and_close_while_its_thread_waits_for_room() -> None:
    """No lock is held meanwhile, though messages are compressed with those before."""

    def sleep(connection: Any) -> None:
        is_over.wait(60)

    is_over = threading.Event()
    with far_server(sleep, max_queue=1) as url:
        done = run(HANDLER_IN_SEND, url)
        is_over.set()
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[4000, 4000]\n")


def test_a_handler_that_exits_ends_the_process() -> None:
    """SIGTERM, as containers send it; the server is told."""
    program = """
import os, signal, sys, threading
from dwebsocket import connect
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
with connect(sys.argv[1]) as websocket:
    websocket.receive()
"""
    with far_server() as url:
        done = run(program, url)
    assert (done.returncode, done.stderr) == (3, "")


OTHER_THREADS = """
import resource, sys, threading
from dwebsocket import ReceiveTimeout, connect

def sleep(websocket):
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    try:
        websocket.receive(timeout=2)
    except ReceiveTimeout:
        times_woken.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)

times_woken = []
with connect(sys.argv[1], ping_interval=None) as websocket:
    thread = threading.Thread(target=sleep, args=(websocket,))
    thread.start()
    thread.join()
print(times_woken[0])
"""


def test_other_threads_sleep_through() -> None:
    """Signals concern the main thread alone: no other one wakes for them."""
    with far_server() as url:
        done = run(OTHER_THREADS, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 10


FORKED = """
import os, signal, sys, threading
from dwebsocket import ReceiveTimeout, connect

def fork():
    with connect(sys.argv[1]) as websocket:
        try:
            websocket.receive(timeout=0.1)
        except ReceiveTimeout:
            pass
    if (child := os.fork()) == 0:
        websocket = connect(sys.argv[1])
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            websocket.receive(timeout=60)
        except ZeroDivisionError:
            os._exit(7)
        os._exit(1)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

statuses = []
signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
thread = threading.Thread(target=fork)
thread.start()
thread.join()
print(statuses)
"""


def test_a_thread_that_forks_is_the_main_one_of_the_child() -> None:
    """The child's handlers run on it, as Python has it."""
    with far_server() as url:
        done = run(FORKED, url)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[7]\n")
