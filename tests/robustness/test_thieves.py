"""
Signing out, while a thief with a stolen cookie comes back all the time.

However close to the sign-out the thief's handshakes are: in bounded time no WebSocket of the old
session is open. In the process of the sign-out it needs no look at the clock; others look again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from support.raw_peer import CLOSE, RawPeer, handshake_request
from support.selection import later
from support.server import (
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    UVICORN,
    Kind,
    Server,
)
from support.users import sign_in
from support.waiting import eventually

pytestmark = pytest.mark.extended("tries many times")

Own = Callable[..., Server]

TRIALS = 6
THIEVES = 4
# How many each of them opens at most.
SOCKETS = 30


class Thief:
    """Opens WebSockets with a stolen cookie until it is refused."""

    def __init__(self, server: Server, path: str, cookie: dict[str, str]) -> None:
        self._server = server
        self._request = handshake_request(path, server.host, headers=cookie)
        self.peers: list[RawPeer] = []
        self._thread = threading.Thread(target=self._steal)
        self._thread.start()

    def _steal(self) -> None:
        while len(self.peers) < SOCKETS:
            peer = RawPeer(self._server.address)
            peer.send(self._request)
            if peer.read_response().status != 101:
                peer.close()
                return
            self.peers.append(peer)

    def is_in(self) -> bool:
        """Whether it has opened one."""
        return bool(self.peers)

    def codes(self) -> set[int | None]:
        """Wait until it gives up and all of its WebSockets have ended; return how they did."""
        self._thread.join()
        return {peer.read_frame().code for peer in self.peers}

    def leave(self) -> None:
        """Give up whatever is left."""
        self._thread.join()
        for peer in self.peers:
            peer.close()


@contextlib.contextmanager
def thieves(server: Server, path: str, cookie: dict[str, str]) -> Iterator[list[Thief]]:
    """Set some thieves on; each is in when the block begins."""
    gang = [Thief(server, path, cookie) for _ in range(THIEVES)]
    try:
        eventually(lambda: all(thief.is_in() for thief in gang), within=30, what="thieves are in")
        yield gang
    finally:
        for thief in gang:
            thief.leave()


def settings(*, atomic: bool, **more: object) -> dict[str, object]:
    """Return the settings of a site whose requests are transactions, or not."""
    return {
        "WEBSOCKET_MAX_CONNECTIONS_PER_USER": None,
        "PROJECT_ATOMIC_REQUESTS": atomic,
        **more,
    }


@pytest.mark.parametrize(
    ("path", "atomic"),
    [
        *later(("/log-out/", False)),
        *later(("/account/audited_log_out/", False)),
        ("/account/audited_log_out/", True),
        ("/account/changes_password/", True),
        *later(("/log-in/somebody-else/", True)),
    ],
    ids=["logout", "slow logout", "logout in a transaction", "password", "other login"],
)
@pytest.mark.parametrize(
    ("kind", "options"),
    [(GUNICORN_GTHREAD, ("--threads", "8")), (GUNICORN_GEVENT, ()), (UVICORN, ())],
    ids=["gthread", "gevent", "uvicorn"],
)
def test_cannot_be_outrun(
    own_server: Own, kind: Kind, options: tuple[str, ...], path: str, *, atomic: bool
) -> None:
    """The thief's WebSockets are closed, those from before as well as those opened meanwhile."""
    server = own_server(kind, options=options, settings=settings(atomic=atomic))
    for trial in range(TRIALS):
        mine = sign_in(server, f"mia-{trial}")
        # gevent runs no async views for users.
        is_async = trial % 2 and kind is not GUNICORN_GEVENT
        view = "/account/async_private/" if is_async else "/account/private/"
        with thieves(server, view, mine) as gang:
            assert server.get(path, mine).status == 200
            assert [thief.codes() for thief in gang] == [{4401}] * THIEVES


@pytest.mark.parametrize("path", ["/log-out/", *later("/account/changes_password/")])
def test_other_processes_hear_of_it(own_server: Own, path: str) -> None:
    """A worker that has not signed the user out itself finds that out in time."""
    server = own_server(
        GUNICORN_SYNC,
        options=("--workers", "3"),
        settings=settings(atomic=False, WEBSOCKET_AUTH_RECHECK=1),
    )
    for trial in range(TRIALS):
        mine = sign_in(server, f"mia-{trial}")
        with thieves(server, "/account/private/", mine) as gang:
            assert server.get(path, mine).status == 200
            assert [thief.codes() for thief in gang] == [{4401}] * THIEVES


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN], ids=str)
def test_view_that_saves_its_session(own_server: Own, kind: Kind) -> None:
    """It ends after the transaction of the sign-out, whose lock it would wait for otherwise."""
    server = own_server(kind, settings=settings(atomic=True))

    def view_runs() -> bool:
        return any("counts_in_session" in name for name in server.status()["threads"])

    for trial in range(TRIALS):
        mine = sign_in(server, f"mia-{trial}")
        with contextlib.ExitStack() as stack:
            peers = [
                stack.enter_context(
                    RawPeer.open(server, "/account/counts_in_session/", headers=mine)
                )
                for _ in range(3)
            ]
            eventually(view_runs, within=30, what="a view runs")
            assert server.get("/account/audited_log_out/", mine).status == 200
            for peer in peers:
                frame = peer.read_frame()
                assert (frame.opcode, frame.code) == (CLOSE, 4401)
        # SQLite refuses a transaction that has read when another one commits before it writes:
        # the next user is made when no view saves its session any more.
        eventually(lambda: not view_runs(), within=30, what="the views have ended")
    with server.quiet():
        assert server.get("/status/").status == 200
