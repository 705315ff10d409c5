"""uWSGI with several workers: no client notices where some of them serve on."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from handover.conversations import Crowd, rounds
from handover.test_gunicorn import PATHS, SETTINGS, SLACK_S, talk
from support.raw_peer import RawPeer
from support.server import Kind, Response, Server, is_running
from support.waiting import eventually
from support.wsgi_kinds import UWSGI_HTTP_SOCKET, UWSGI_LAZY

pytestmark = pytest.mark.extended("concerns uWSGI only")

Own = Callable[..., Server]

TWO = ("--processes", "2")
TOUCHED = "{folder}/touched"


def reload_in_turn(server: Server) -> None:
    """Replace one worker after the other."""
    old, done = server.workers(), server.stderr().count("chain reloading complete")
    (server.folder / "touched").write_text(str(time.time()))
    eventually(
        lambda: server.stderr().count("chain reloading complete") > done, SLACK_S, "all are new"
    )
    eventually(lambda: len(server.workers()) == len(old), SLACK_S, "there are as many")
    assert not set(old) & set(server.workers())


def assert_calm(server: Server) -> None:
    """The log holds no traceback, no crash and no warning of ours."""
    log = server.stderr()
    words = ("Traceback", "Segmentation", "panicked", "Fatal", "NO MERCY", "DAMN", "dwebsocket:")
    for word in words:
        assert word not in log, log


@pytest.mark.parametrize("kind", [UWSGI_HTTP_SOCKET, UWSGI_LAZY], ids=str)
def test_no_client_notices_a_chain_of_reloads(
    kind: Kind, own_server: Own, request: pytest.FixtureRequest
) -> None:
    """No close, no message lost, repeated or out of order, in either direction."""
    server = own_server(kind, options=(*TWO, "--touch-chain-reload", TOUCHED), settings=SETTINGS)
    eventually(lambda: len(server.workers()) == 2, SLACK_S, "two serve")
    with Crowd(server, 24, *PATHS) as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 3), SLACK_S, "all talk")
        for number in rounds(request, 4, 2):
            reload_in_turn(server)
            eventually(
                lambda number=number: crowd.all(lambda each: each.resumed >= number),
                SLACK_S,
                "all were resumed",
            )
        assert crowd.ends() == {None}
    assert "disconnect 1012" not in server.stderr() + server.stdout()
    assert_calm(server)


def test_a_worker_that_is_worn_out_gives_to_the_other(own_server: Own) -> None:
    """By ``--max-requests``."""
    options = (*TWO, "--max-requests", "60", "--max-requests-delta", "40")
    server = own_server(
        UWSGI_HTTP_SOCKET, options=(*options, "--min-worker-lifetime", "0"), settings=SETTINGS
    )
    eventually(lambda: len(server.workers()) == 2, SLACK_S, "two serve")
    ask = functools.partial(server.get, "/status/", timeout=60)
    with (
        Crowd(server, 24, *PATHS, comes_at_once=True) as crowd,
        ThreadPoolExecutor(100) as pool,
    ):
        old = set(server.workers())
        eventually(lambda: crowd.all(lambda each: each.answered > 0), SLACK_S, "all talk")
        assert {each.processes[0] for each in crowd.conversations} == old, "each serves some"
        answers: list[Future[Response]] = []

        def is_worn_out() -> bool:
            # No page more: the other one would be worn out, too, while the first gives.
            if "The work of process" in server.stderr():
                return True
            # A page may be the worker's last, and wait until its clients have moved.
            answers.append(pool.submit(ask))
            wait(answers[-1:], timeout=1)
            return False

        eventually(is_worn_out, SLACK_S, "a worker is worn out")
        eventually(lambda: not old <= set(server.workers()), SLACK_S, "it has ended")
        assert {each.result().status for each in answers} == {200}
        before = {id(each): each.answered for each in crowd.conversations}
        eventually(
            lambda: crowd.all(lambda each: each.answered > before[id(each)] + 3),
            SLACK_S,
            "all talk",
        )
        assert sum(each.resumed for each in crowd.conversations) > 0
        assert crowd.ends() == {None}
    assert_calm(server)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 1012), (signal.SIGTERM, 1001)], ids=["HUP", "TERM"]
)
def test_where_all_workers_end_nobody_waits(number: int, code: int, own_server: Own) -> None:
    """A reload of the whole instance, and its end: with the codes as before."""
    server = own_server(
        UWSGI_HTTP_SOCKET, options=(*TWO, "--touch-chain-reload", TOUCHED), settings=SETTINGS
    )
    eventually(lambda: len(server.workers()) == 2, SLACK_S, "two serve")
    clients = [RawPeer.open(server, "/counting/") for _ in range(6)]
    for client in clients:
        talk(client, "here")
    old = server.workers()
    server.send_signal(number)
    assert {client.read_to_eof().code for client in clients} == {code}
    eventually(lambda: not any(map(is_running, old)), SLACK_S, "the workers are gone")
    for client in clients:
        client.close()
    assert_calm(server)
