"""
Reloads of gunicorn with connections that survive them: no client notices.

Each client sends on and on, in pieces, and checks each byte of what comes back.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from handover.conversations import Crowd, Visitors, rounds
from project.settings import MIDDLEWARE
from support.raw_peer import TEXT, RawPeer, build_frame
from support.server import (
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    Kind,
    Response,
    Server,
    children_of,
    is_running,
)
from support.waiting import eventually

Own = Callable[..., Server]

SETTINGS = {
    "ROOT_URLCONF": "project.moving_urls",
    "INSTALLED_APPS": [
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "dwebsocket",
    ],
    "WEBSOCKET_GROUPS": {"default": {"BACKEND": "dwebsocket.groups.process"}},
}
PATHS = ("/counting/", "/async-counting/", "/mixed-counting/")
# A new master begins with the path of its program, which with `python -m` is in gunicorn's folder.
GUNICORN_SCRIPT = Kind(
    "gunicorn-script",
    "asgi",
    (
        *("{bin}/gunicorn", "{module}.wsgi:application", "--bind", "127.0.0.1:{port}"),
        *("--log-level", "warning", "--worker-class", "gthread", "--threads", "2"),
    ),
    programs=("gunicorn",),
)
SLACK_S = 120
# A new worker may take long to start on a busy machine, and the old one waits for it.
PATIENT = ("--timeout", "300", "--graceful-timeout", "100")
TWO = ("--workers", "2", *PATIENT)


def hears(worker: int) -> bool:
    """Whether a worker handles signals itself: before, those of its master's are lost on it."""
    status = Path(f"/proc/{worker}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    # The master catches SIGHUP, and workers do not.
    return not caught & 1 << (signal.SIGHUP - 1)


def reload(server: Server) -> None:
    """Replace all workers, and wait until the old ones are gone."""
    old = server.workers()
    eventually(lambda: all(map(hears, old)), SLACK_S, "all have begun")
    server.send_signal(signal.SIGHUP)
    eventually(lambda: not any(map(is_running, old)), SLACK_S, "the old workers are gone")
    eventually(lambda: len(server.workers()) == len(old), SLACK_S, "there are as many new ones")


def assert_calm(server: Server) -> None:
    """The log holds no traceback, and nothing was reported."""
    assert server.stderr() == ""


def assert_all_talk_on(crowd: Crowd) -> None:
    """No connection has ended, and each has further answers."""
    assert crowd.ends() == {None}
    before = {id(each): each.answered for each in crowd.conversations}
    eventually(
        lambda: crowd.all(lambda each: each.answered > before[id(each)] + 3), SLACK_S, "all talk"
    )
    assert crowd.ends() == {None}


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("kind", [GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT], ids=str)
def test_no_client_notices_reloads(
    kind: Kind, own_server: Own, request: pytest.FixtureRequest
) -> None:
    """No close, no message lost, repeated or out of order, in either direction."""
    server = own_server(kind, options=TWO, settings=SETTINGS)
    with Crowd(server, 24, *PATHS) as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 3), SLACK_S, "all talk")
        for number in rounds(request, 5, 2):
            reload(server)
            eventually(
                lambda number=number: crowd.all(lambda each: each.resumed >= number),
                SLACK_S,
                "all were resumed",
            )
        assert crowd.ends() == {None}
        assert all(
            set(each.processes[-1:]) <= set(server.workers()) for each in crowd.conversations
        )
    assert "disconnect 1012" not in server.stdout()
    assert_calm(server)


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, GUNICORN_GEVENT], ids=str)
def test_workers_of_a_project_that_the_master_has_loaded_go_on(
    kind: Kind, own_server: Own, tmp_path: Path
) -> None:
    """With ``--preload``, before they have WebSockets of their own. A hook of the project stays."""
    config = tmp_path / "gunicorn.py"
    patching = "from gevent import monkey; monkey.patch_all()\n" * (kind == GUNICORN_GEVENT)
    hook = "def post_worker_init(worker):\n    print('initialized', flush=True)\n"
    config.write_text(patching + hook)
    options = ("--preload", "--config", str(config), *TWO)
    server = own_server(kind, options=options, settings=SETTINGS)
    with Crowd(server, 6, *PATHS) as crowd:
        reload(server)
        eventually(lambda: crowd.all(lambda each: each.resumed > 0), SLACK_S, "all were resumed")
        assert crowd.ends() == {None}
    assert server.stdout().count("initialized") == 4
    assert_calm(server)


@pytest.mark.parametrize("kind", [GUNICORN_SYNC, GUNICORN_GTHREAD], ids=str)
def test_a_handshake_that_wears_its_worker_out_moves(kind: Kind, own_server: Own) -> None:
    """The worker begins to leave while it answers: its last client is no other one's."""
    options = ("--workers", "2", "--max-requests", "1", *PATIENT)
    server = own_server(kind, options=options, settings=SETTINGS)
    for _ in range(5):
        with RawPeer.open(server, "/counting/") as client:
            eventually(lambda client=client: talk(client, "here")[2] > 0, SLACK_S, "it was resumed")


@pytest.mark.extended("workers take seven seconds to begin")
def test_workers_that_begin_slowly_are_waited_for(own_server: Own, tmp_path: Path) -> None:
    """The second one is worn out while the one that follows the first still begins."""
    config = tmp_path / "gunicorn.py"
    config.write_text("import time\n\ndef post_fork(server, worker):\n    time.sleep(7)\n")
    options = ("--workers", "2", "--max-requests", "1", "--config", str(config), *PATIENT)
    server = own_server(GUNICORN_GTHREAD, options=options, settings=SETTINGS)
    eventually(lambda: len(heirs_of(server, server.pid)) == 2, SLACK_S, "two serve")
    for _ in range(2):
        with RawPeer.open(server, "/counting/") as client:
            eventually(lambda client=client: talk(client, "here")[2] > 0, SLACK_S, "it was resumed")
    assert_calm(server)


def test_workers_that_die_at_a_reload_are_not_waited_for(own_server: Own, tmp_path: Path) -> None:
    """gunicorn begins no other one before the only old one has ended: pages wait."""
    config, hold = tmp_path / "gunicorn.py", tmp_path / "hold"
    config.write_text(
        "import os, time\n\n"
        "def post_fork(server, worker):\n"
        f"    while os.path.exists({str(hold)!r}):\n"
        "        time.sleep(0.1)\n"
    )
    options = ("--config", str(config), "--timeout", "2000", "--graceful-timeout", "900")
    server = own_server(GUNICORN_GTHREAD, options=options, settings=SETTINGS)
    with RawPeer.open(server, "/counting/") as client:
        talk(client, "here")
        old = server.worker
        hold.touch()
        server.send_signal(signal.SIGHUP)
        marks = "dwebsocket-*-h*/*.leaves"
        eventually(lambda: [*server.folder.glob(marks)], SLACK_S, "the old one leaves")
        (new,) = set(server.workers()) - {old}
        hold.unlink()
        os.kill(new, signal.SIGKILL)
        assert client.read_to_eof().code == 1012
    assert server.get("/status/", timeout=60).status == 200
    assert "no other process took them in time" in server.stderr()


def test_no_name_is_left_of_processes_that_have_ended(own_server: Own) -> None:
    """Without any WebSocket: each reload would add the names of all workers."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SETTINGS)

    def names() -> list[str]:
        return [each.name for each in server.folder.glob("dwebsocket-*-h*/*")]

    eventually(lambda: len(names()) == 2, SLACK_S, "both listen")
    reload(server)
    eventually(lambda: len(names()) == 2, SLACK_S, "the new ones listen, and no others")
    server.send_signal(signal.SIGTERM)
    eventually(lambda: not server.is_running(), SLACK_S, "it has ended")
    assert names() == []


def test_one_worker_less(own_server: Own) -> None:
    """By ``TTOU``: those that stay go on with its connections."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SETTINGS)
    with Crowd(server, 6, *PATHS) as crowd:
        eventually(lambda: all(map(hears, server.workers())), SLACK_S, "all have begun")
        server.send_signal(signal.SIGTTOU)
        eventually(lambda: len(server.workers()) == 1, SLACK_S, "one is gone")
        stays = server.workers()
        eventually(
            lambda: crowd.all(lambda each: each.processes[-1:] == stays), SLACK_S, "all are there"
        )
        assert crowd.ends() == {None}
    assert_calm(server)


def test_the_doctor_names_the_processes_that_can_inherit(own_server: Own) -> None:
    """Both workers, and no other one."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SETTINGS)

    def heirs() -> list[int]:
        done = subprocess.run(
            [sys.executable, "-m", "django", "websocket_doctor", "--json"],
            cwd=server.cwd,
            env=server.env,
            capture_output=True,
            check=False,
        )
        found = {each["id"]: each["what"] for each in json.loads(done.stdout)["findings"]}
        return sorted(map(int, re.findall(r"(\d+) \(", found["handover.processes"])))

    eventually(lambda: heirs() == sorted(server.workers()), SLACK_S, "both listen")


def talk(peer: RawPeer, text: str) -> tuple[int, int, int]:
    """Send a text, and give its number, the process that answers, and how often it moved."""
    peer.send_text(text)
    number, process, resumed = map(int, peer.read_message().split())
    assert peer.read_message() == text.encode()
    return number, process, resumed


def test_a_thread_of_the_old_process_is_told_that_it_is_over(own_server: Own) -> None:
    """Its client has all that was accepted; then ``send`` raises, and never returns False."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    with RawPeer.open(server, "/pumped/") as client:
        client.send_text("pump")
        assert client.read_message() == b"0"
        reload(server)
        end = eventually(
            lambda: re.search(r"raised (\d+) 1012", server.stdout()), SLACK_S, "its end"
        )
        client.send_text("here")
        for number in range(1, int(end[1])):
            assert client.read_message() == str(number).encode()
        assert client.read_message().startswith(b"1 ")
    assert_calm(server)


def test_ticks_go_on_in_their_time(own_server: Own) -> None:
    """None is lost or sent twice."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    with RawPeer.open(server, "/ticking/") as client:
        for number in range(1, 4):
            assert client.read_message() == f"tick {number}".encode()
        reload(server)
        for number in range(4, 8):
            assert client.read_message() == f"tick {number}".encode()
    assert_calm(server)


def test_an_exception_of_resumed_closes_with_1011(own_server: Own) -> None:
    """As one of any other method."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    with RawPeer.open(server, "/failing/") as client:
        talk(client, "here")
        reload(server)
        assert client.read_to_eof().code == 1011
    assert "ValueError: not here" in server.stderr()


def test_other_handlers_and_states_are_closed_with_1012_and_named_once(own_server: Own) -> None:
    """A handler that does not survive needs no warning."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    paths = ("/staying/", "/bad-state/", "/bad-state/", "/counting/")
    clients = [RawPeer.open(server, path) for path in paths]
    for client in clients:
        talk(client, "here")
    reload(server)
    assert [client.read_to_eof().code for client in clients[:3]] == [1012] * 3
    assert talk(clients[3], "there")[2] == 1
    for client in clients:
        client.close()
    (line,) = server.stderr().splitlines()
    assert "BadState" in line
    assert "JSON cannot represent its state" in line


def test_a_state_that_fails_costs_its_own_connection_alone(own_server: Own) -> None:
    """By a value of the project's that raises when it is compared. The log has its exception."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    with (
        RawPeer.open(server, "/raising-state/") as failing,
        RawPeer.open(server, "/slow/") as other,
    ):
        talk(failing, "here")
        reload(server)
        assert failing.read_to_eof().code == 1012
        other.send_text("0")
        assert other.read_message().endswith(b" 1")
    assert "ValueError: no comparison" in server.stderr()


def test_slow_calls_keep_no_other_connection_from_moving(own_server: Own) -> None:
    """However many they are, and however much longer than the grace they take."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(RawPeer.open(server, "/async-slow/")) for _ in range(20)]
        for client in slow:
            client.send_text("1000")
            assert client.read_message().startswith(b"1 ")
            assert client.read_message() == b"begun"
        others = [stack.enter_context(RawPeer.open(server, "/counting/")) for _ in range(6)]
        old = server.worker
        server.send_signal(signal.SIGHUP)
        for client in others:
            eventually(lambda client=client: talk(client, "here")[2] > 0, SLACK_S, "it was resumed")
        assert is_running(old)


def test_half_messages_keep_no_other_connection_from_moving(own_server: Own) -> None:
    """A client in the middle of a compressed message gets 1012, while others move."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    compressing = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    with contextlib.ExitStack() as stack:

        def open_all(count: int, headers: dict[str, str]) -> list[RawPeer]:
            return [
                stack.enter_context(RawPeer.open(server, "/counting/", headers=headers))
                for _ in range(count)
            ]

        halves, others = open_all(40, compressing), open_all(6, {})
        for client in halves:
            client.send(build_frame(TEXT, bytes([0xF2, 0x48]), rsv=4, length=7))
        for client in others:
            talk(client, "here")
        reload(server)
        for client in others:
            assert talk(client, "here")[2] == 1
        assert {client.read_to_eof().code for client in halves} == {1012}
    assert "its client was in the middle of a compressed message" in server.stderr()


def test_middleware_meets_the_request_as_the_server_gave_it(own_server: Own) -> None:
    """Not what it has made of it before: the address would be one that the client has made up."""
    middleware = ["project.moving_views.from_proxy"]
    settings = {**SETTINGS, "MIDDLEWARE": middleware}
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=settings)
    forwarded = {"X-Forwarded-For": "6.6.6.6, 10.0.0.7"}
    with RawPeer.open(server, "/shop/addressed/", headers=forwarded) as client:
        facts = []
        for number in range(3):
            if number:
                reload(server)
            client.send_text("go")
            facts.append(json.loads(client.read_message()))
    assert facts[0][:4] == ["10.0.0.7", "/addressed/", "shop", "Żółć"]
    assert facts[1:] == facts[:1] * 2
    assert_calm(server)


def test_one_of_another_version_is_closed_with_1012(own_server: Own, tmp_path: Path) -> None:
    """Its code would not understand its state."""
    file = tmp_path / "version"
    file.write_text("1")
    env = {"PROJECT_VERSION_FILE": str(file)}
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS, env=env)
    with RawPeer.open(server, "/counting/") as client:
        talk(client, "here")
        reload(server)
        assert talk(client, "there")[2] == 1
        file.write_text("2")
        reload(server)
        assert client.read_to_eof().code == 1012
    assert "disconnect 1012" in server.stdout()
    (line,) = server.stderr().splitlines()
    assert "Counting are closed with 1012" in line
    assert "its version is '2' now, not '1'" in line


def test_one_whose_session_has_another_key_since_its_handshake_moves(
    own_server: Own, tmp_path: Path
) -> None:
    """After `SECRET_KEY` was replaced Django renews the key of an older session."""
    old = own_server(GUNICORN_GTHREAD, settings={**SETTINGS, "SECRET_KEY": "of before"})
    cookies = old.get("/sign-in/?name=ada").cookies()
    database = Path(shutil.copy(old.database, tmp_path))
    server = own_server(
        GUNICORN_GTHREAD,
        options=PATIENT,
        database=database,
        settings={**SETTINGS, "SECRET_KEY": "of now", "SECRET_KEY_FALLBACKS": ["of before"]},
    )
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with Crowd(server, 1, "/counting/", Cookie=cookie) as crowd:
        reload(server)
        eventually(lambda: crowd.all(lambda each: each.resumed == 1), SLACK_S, "it was resumed")
    assert_calm(server)


def test_clients_have_their_answers_while_the_new_process_imports_the_project(
    own_server: Own, tmp_path: Path
) -> None:
    """Its views may take seconds: nobody stands still before it is ready."""
    hold, begun = tmp_path / "hold", tmp_path / "hold.begun"
    settings = {**SETTINGS, "ROOT_URLCONF": "project.slow_urls"}
    env = {"PROJECT_HOLD_FILE": str(hold)}
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=settings, env=env)
    with RawPeer.open(server, "/counting/") as client:
        old = server.worker
        hold.touch()
        server.send_signal(signal.SIGHUP)
        eventually(begun.exists, SLACK_S, "it imports the URLs")
        # An heir that stands still is given up after ten seconds, and the client goes on then.
        client.sock.settimeout(8)
        for _ in range(10):
            time.sleep(0.05)
            assert talk(client, "still here")[1] == old
        client.sock.settimeout(SLACK_S)
        hold.unlink()
        eventually(lambda: talk(client, "moved?")[1] != old, SLACK_S, "it has moved")
    assert_calm(server)


def test_one_whose_user_has_signed_out_is_closed_with_4401(own_server: Own) -> None:
    """The session's row is gone, by SQL, of which nobody was told."""
    settings = {**SETTINGS, "WEBSOCKET_AUTH_RECHECK": 10_000}
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=settings)
    cookies = server.get("/sign-in/?name=ada").cookies()
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with RawPeer.open(server, "/counting/", headers={"Cookie": cookie}) as client:
        talk(client, "here")
        with sqlite3.connect(server.database) as database:
            database.execute("DELETE FROM django_session")
        database.close()
        reload(server)
        assert client.read_to_eof().code == 4401


@pytest.mark.parametrize(
    ("then", "signs_in", "signs_out", "code"),
    [
        ("anonymous", False, False, 1012),
        ("401", False, False, 1012),
        # The session has the same user, and says nothing else.
        ("401", True, False, 1012),
        ("anonymous", True, True, 4401),
        ("401", True, True, 4401),
    ],
)
def test_a_token_that_has_ended_signs_nobody_out(
    own_server: Own, tmp_path: Path, *, then: str, signs_in: bool, signs_out: bool, code: int
) -> None:
    """Pages come back with a fresh one after 1012, and give up after 4401."""
    file = tmp_path / "version"
    file.write_text("1")
    # Above the own one code may ask for the session's user.
    middleware = [*MIDDLEWARE, "project.moving_views.session_first", "project.moving_views.tokens"]
    settings = {**SETTINGS, "MIDDLEWARE": middleware, "WEBSOCKET_AUTH_RECHECK": 10_000}
    env = {"PROJECT_VERSION_FILE": str(file)}
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=settings, env=env)
    cookies = server.get("/sign-in/?name=ada").cookies() if signs_in else {}
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    path = f"/asked/x/?token=ada&then={then}"
    with RawPeer.open(server, path, headers={"Cookie": cookie} if cookie else {}) as client:
        client.send_text("here")
        assert json.loads(client.read_message())["process"] == server.worker
        file.write_text("tokens ended")
        if signs_out:
            with sqlite3.connect(server.database) as database:
                database.execute("DELETE FROM django_session")
            database.close()
        reload(server)
        assert client.read_to_eof().code == code
    assert ("are closed with 1012 and not handed over: " in server.stderr()) == (code == 1012)


def test_an_answer_of_other_middleware_signs_nobody_out(own_server: Own, tmp_path: Path) -> None:
    """Such as a maintenance page: pages give up after 4401, and come back after 1012."""
    file = tmp_path / "version"
    file.write_text("1")
    middleware = ["project.moving_views.maintenance", *MIDDLEWARE]
    settings = {**SETTINGS, "MIDDLEWARE": middleware}
    env = {"PROJECT_VERSION_FILE": str(file)}
    options = ("--timeout", "300", "--graceful-timeout", "5")
    server = own_server(GUNICORN_GTHREAD, options=options, settings=settings, env=env)
    cookies = server.get("/sign-in/?name=ada").cookies()
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    with RawPeer.open(server, "/counting/", headers={"Cookie": cookie}) as client:
        talk(client, "here")
        file.write_text("maintenance")
        reload(server)
        assert client.read_to_eof().code == 1012


def test_a_call_that_runs_ends_first(own_server: Own) -> None:
    """And no message behind it is lost."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    with RawPeer.open(server, "/slow/") as client:
        for seconds in ("2", "0"):
            client.send_text(seconds)
        assert client.read_message().startswith(b"1 ")
        old = server.worker
        reload(server)
        assert client.read_message() == b"begun"
        facts = []
        for text in (b"2", b"begun", b"0"):
            facts.append([int(each) for each in client.read_message().split()])
            assert client.read_message() == text
        # The new process may come when the first call has ended.
        assert [number for number, _, _ in facts] == [2, 3, 4]
        assert facts[0][1] == old
        assert facts[1][1] == facts[2][1]
        client.send_text("0")
        for number, text in ((5, b"begun"), (6, b"0")):
            facts.append([int(each) for each in client.read_message().split()])
            assert facts[-1] == [number, server.worker, 1]
            assert client.read_message() == text
    assert_calm(server)


def test_those_that_leave_meanwhile_do_not_keep_the_old_process(own_server: Own) -> None:
    """It ends when the last one has moved, long before its grace is over."""
    options = ("--workers", "2", "--timeout", "600", "--graceful-timeout", "500")
    server = own_server(GUNICORN_GTHREAD, options=options, settings=SETTINGS)
    with Crowd(server, 4, *PATHS) as crowd:
        visitors = Visitors(server, "/counting/")
        try:
            for _ in range(2):
                reload(server)
        finally:
            visitors.stop()
        assert crowd.ends() == {None}
    assert "Traceback" not in server.stderr()


def heirs_of(server: Server, master: int) -> set[int]:
    """Give the workers of a master that wait for connections of others."""
    found = server.folder.glob(f"dwebsocket-*-h*/*-{master}-*")
    return {int(path.name.split("-")[1]) for path in found} & set(children_of(master))


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, GUNICORN_GEVENT], ids=str)
def test_workers_that_are_worn_out_give_to_the_others(kind: Kind, own_server: Own) -> None:
    """By ``--max-requests``, one after the other."""
    server = own_server(kind, options=(*TWO, "--max-requests", "20"), settings=SETTINGS)
    ask = functools.partial(server.get, "/status/", timeout=60)
    with Crowd(server, 6, *PATHS) as crowd, ThreadPoolExecutor(100) as pool:
        answers: list[Future[Response]] = []
        for _ in range(2):
            eventually(lambda: len(heirs_of(server, server.pid)) == 2, SLACK_S, "two serve")
            worker, other = server.workers()
            # All pages go to the one. Otherwise both may be worn out at once.
            os.kill(other, signal.SIGSTOP)
            try:
                while worker in heirs_of(server, server.pid):
                    answers.append(pool.submit(ask))
                    wait(answers[-1:], timeout=1)
            finally:
                os.kill(other, signal.SIGCONT)
            eventually(lambda worker=worker: not is_running(worker), SLACK_S, "it is gone")
        assert {each.result().status for each in answers} == {200}
        eventually(lambda: crowd.all(lambda each: each.resumed > 0), SLACK_S, "all were resumed")
        assert_all_talk_on(crowd)


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, GUNICORN_GEVENT], ids=str)
def test_workers_that_are_worn_out_at_once_do_not_wait_for_each_other(
    kind: Kind, own_server: Own
) -> None:
    """Neither pages nor clients stand still until the grace of gunicorn has passed."""
    server = own_server(kind, options=(*TWO, "--max-requests", "20"), settings=SETTINGS)
    ask = functools.partial(server.get, "/status/", timeout=60)
    with Crowd(server, 12, *PATHS) as crowd, ThreadPoolExecutor(60) as pool:
        eventually(lambda: len(heirs_of(server, server.pid)) == 2, SLACK_S, "two serve")
        answers = [pool.submit(ask) for _ in range(60)]
        assert {each.result().status for each in answers} == {200}
        assert crowd.ends() <= {None, 1012}


def test_workers_that_are_ended_together_do_not_wait_for_each_other(own_server: Own) -> None:
    """By hand, each by SIGTERM: gunicorn replaces a worker after its end only."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SETTINGS)
    with Crowd(server, 12, *PATHS) as crowd:
        eventually(lambda: len(heirs_of(server, server.pid)) == 2, SLACK_S, "two serve")
        old = server.workers()
        for worker in old:
            os.kill(worker, signal.SIGTERM)
        assert server.get("/status/", timeout=60).status == 200
        eventually(lambda: not any(map(is_running, old)), SLACK_S, "the old ones are gone")
        assert crowd.ends() <= {None, 1012}


def end_heir_meanwhile(server: Server) -> None:
    """Replace all workers, end a new one as soon as it has a connection: no client notices."""
    with Crowd(server, 48, *PATHS) as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 0), SLACK_S, "all talk")
        old = server.workers()
        server.send_signal(signal.SIGHUP)
        heirs = eventually(
            lambda: {each.processes[-1] for each in crowd.conversations} - set(old),
            SLACK_S,
            "one has moved",
        )
        ended = [*old, heirs.pop()]
        os.kill(ended[-1], signal.SIGTERM)
        eventually(lambda: not any(map(is_running, ended)), SLACK_S, "they are gone")
        assert_all_talk_on(crowd)


@pytest.mark.parametrize(
    "kind",
    [
        GUNICORN_GTHREAD,
        pytest.param(GUNICORN_GEVENT, marks=pytest.mark.every("much like the one with threads")),
    ],
    ids=str,
)
def test_a_new_worker_that_is_ended_gives_on_what_it_is_given(kind: Kind, own_server: Own) -> None:
    """Also what comes when it has begun to leave."""
    server = own_server(kind, options=TWO, settings=SETTINGS)
    end_heir_meanwhile(server)
    assert_calm(server)


def test_the_only_worker_that_is_ended_by_hand_waits_for_nobody(own_server: Own) -> None:
    """None comes before its end."""
    server = own_server(GUNICORN_GTHREAD, options=PATIENT, settings=SETTINGS)
    with RawPeer.open(server, "/counting/") as client:
        talk(client, "here")
        os.kill(server.worker, signal.SIGTERM)
        assert client.read_to_eof().code == 1012
    assert server.get("/status/", timeout=60).status == 200


def test_the_end_of_the_whole_site_comes_at_once(own_server: Own) -> None:
    """With 1001, as before."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SETTINGS)
    with RawPeer.open(server, "/counting/") as client:
        talk(client, "here")
        server.send_signal(signal.SIGTERM)
        assert client.read_to_eof().code == 1001
        server.wait(10)


def test_so_it_does_where_a_worker_hears_of_it_first(own_server: Own) -> None:
    """systemd sends SIGTERM to each process, unless ``KillMode`` says otherwise."""
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=SETTINGS)
    with RawPeer.open(server, "/counting/") as client:
        _, worker, _ = talk(client, "here")
        # The master hears of it last.
        os.kill(server.pid, signal.SIGSTOP)
        for each in (*server.workers(), server.pid):
            os.kill(each, signal.SIGTERM)
        time.sleep(1)
        assert is_running(worker)
        os.kill(server.pid, signal.SIGCONT)
        assert client.read_to_eof().code == 1001
        server.wait(SLACK_S)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (GUNICORN_GTHREAD, signal.SIGQUIT),
        (GUNICORN_SYNC, signal.SIGINT),
        (GUNICORN_GEVENT, signal.SIGQUIT),
    ],
    ids=str,
)
def test_a_worker_that_waits_for_a_new_one_can_be_ended_quickly(
    kind: Kind, number: signal.Signals, own_server: Own, tmp_path: Path
) -> None:
    """Its handler of that signal raises SystemExit in the midst of its end."""
    hold, begun = tmp_path / "hold", tmp_path / "hold.begun"
    settings = {**SETTINGS, "ROOT_URLCONF": "project.slow_urls"}
    env = {"PROJECT_HOLD_FILE": str(hold)}
    server = own_server(kind, options=PATIENT, settings=settings, env=env)
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(RawPeer.open(server, "/counting/")) for _ in range(12)]
        for client in clients:
            talk(client, "here")
        old = server.worker
        hold.touch()
        server.send_signal(signal.SIGHUP)
        eventually(begun.exists, SLACK_S, "the new one imports the URLs")
        eventually(
            lambda: [*server.folder.glob(f"dwebsocket-*-h*/{old}-*.leaves")], SLACK_S, "it waits"
        )
        began_at = time.monotonic()
        os.kill(old, number)
        assert {client.read_to_eof().code for client in clients} == {1012}
        # An heir that does not answer is given up after ten seconds.
        assert time.monotonic() - began_at < 8
    assert "Traceback" not in server.stderr()


def upgrade(server: Server) -> tuple[list[int], int]:
    """Have a master begin a new one (``USR2``). Give the old workers, and the new master."""
    old = server.workers()
    server.send_signal(signal.SIGUSR2)
    (master,) = eventually(lambda: set(server.workers()) - set(old), SLACK_S, "a new master")
    eventually(lambda: len(heirs_of(server, master)) == 2, SLACK_S, "its workers")
    return old, master


def test_a_new_master_goes_on(own_server: Own) -> None:
    """After ``USR2``, when the old one is ended."""
    server = own_server(GUNICORN_SCRIPT, options=TWO, settings=SETTINGS)
    with Crowd(server, 12, *PATHS) as crowd:
        old, master = upgrade(server)
        server.send_signal(signal.SIGTERM)
        eventually(lambda: not any(map(is_running, old)), SLACK_S, "the old workers are gone")
        server.wait(SLACK_S)
        assert_all_talk_on(crowd)
        assert {each.processes[-1] for each in crowd.conversations} <= set(children_of(master))
    assert "disconnect 1012" not in server.stdout()
    assert_calm(server)


def test_a_new_master_goes_on_while_the_old_one_is_there(own_server: Own) -> None:
    """After ``USR2`` and ``WINCH``, which ends the workers of a daemon: no other ones come."""
    server = own_server(GUNICORN_SCRIPT, options=TWO, settings=SETTINGS)
    with Crowd(server, 12, *PATHS) as crowd:
        old, master = upgrade(server)
        began_at = time.monotonic()
        for worker in old:
            os.kill(worker, signal.SIGTERM)
        eventually(lambda: not any(map(is_running, old)), SLACK_S, "the old workers are gone")
        # Half of the grace of `PATIENT`.
        assert time.monotonic() - began_at < 45
        assert_all_talk_on(crowd)
        assert {each.processes[-1] for each in crowd.conversations} <= set(children_of(master))


def test_without_the_setting_nothing_moves(own_server: Own) -> None:
    """Clients get 1012, and no worker listens for others."""
    settings = {**SETTINGS, "WEBSOCKET_HANDOVER": False}
    server = own_server(GUNICORN_GTHREAD, options=TWO, settings=settings)
    with RawPeer.open(server, "/counting/") as client:
        talk(client, "here")
        assert [path.name for path in server.folder.glob("dwebsocket-*-h*")] == []
        reload(server)
        assert client.read_to_eof().code == 1012


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize("victim", ["giver", "heir"])
@pytest.mark.parametrize(
    "kind",
    [
        GUNICORN_GTHREAD,
        pytest.param(GUNICORN_GEVENT, marks=pytest.mark.every("much like the one with threads")),
    ],
    ids=str,
)
def test_a_worker_that_is_killed_meanwhile_costs_a_close_and_no_wrong_message(
    kind: Kind, victim: str, own_server: Own, request: pytest.FixtureRequest
) -> None:
    """At a random moment. Who was moved, or not yet, talks on."""
    server = own_server(kind, options=TWO, settings=SETTINGS)
    pause = random.Random(victim)
    for _ in rounds(request, 10, 3):
        with Crowd(server, 30, *PATHS) as crowd:
            kill_one_meanwhile(server, crowd, victim, pause.uniform(0, 1))
        eventually(lambda: len(server.workers()) == 2, SLACK_S, "two serve")
        eventually(lambda: server.get("/status/").status == 200, SLACK_S, "they do")
    assert "Traceback" not in server.stderr()


def kill_one_meanwhile(server: Server, crowd: Crowd, victim: str, after: float) -> None:
    """Replace all workers, and kill one of the old or the new ones, after so many seconds."""
    eventually(lambda: crowd.all(lambda each: each.answered > 0), SLACK_S, "all talk")
    old = server.workers()
    server.send_signal(signal.SIGHUP)
    if victim == "heir":
        eventually(lambda: len(server.workers()) > len(old), SLACK_S, "there is a new one")
    time.sleep(after)
    found = old if victim == "giver" else [*set(server.workers()) - set(old)]
    for each in found[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    eventually(lambda: not any(map(is_running, old)), SLACK_S, "the old workers are gone")
    assert crowd.ends() <= {None, 1012, 1006}
    wanted = {each: each.answered + 3 for each in crowd.conversations if each.end is None}
    eventually(
        lambda: all(
            each.end in (1012, 1006) or each.answered > count for each, count in wanted.items()
        ),
        SLACK_S,
        "the others talk on",
    )
    assert crowd.ends() <= {None, 1012, 1006}
