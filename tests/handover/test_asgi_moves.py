"""
ASGI servers with several processes, and several servers of one project: no client notices.

Each client sends on and on, in pieces, and checks each byte of what comes back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handover.conversations import Crowd, rounds
from handover.test_gunicorn import (
    PATHS,
    PATIENT,
    SETTINGS,
    SLACK_S,
    assert_calm,
    end_heir_meanwhile,
    heirs_of,
    reload,
    talk,
)
from project.settings import MIDDLEWARE
from support.raw_peer import RawPeer
from support.server import ASGI, GUNICORN_GEVENT, GUNICORN_GTHREAD, UVICORN, Kind, Server
from support.waiting import eventually

Own = Callable[..., Server]

_KINDS = {kind.name: kind for kind in ASGI}


def _several(kind: Kind, *options: str) -> Kind:
    """The same server with two processes below the one that is started."""
    return dataclasses.replace(
        kind,
        name=f"{kind.name}-workers",
        options=(*kind.options, *options),
        alone=False,
        worker_title="spawn_main",
    )


# The started process keeps an old one where the new one is not ready in 5 s, unless told otherwise.
_TWO = ("--workers", "2", "--timeout-worker-healthcheck", "120")
UVICORN_TWO = _several(UVICORN, *_TWO)
UVICORN_OWN_PROTOCOL = _several(_KINDS["uvicorn-dwebsocket"], *_TWO)
HYPERCORN_TWO = _several(
    dataclasses.replace(
        _KINDS["hypercorn"],
        options=tuple(each for each in _KINDS["hypercorn"].options if each not in ("-w", "0")),
    ),
    *("-w", "2"),
)
_IN_GUNICORN = tuple(
    "uvicorn_worker.UvicornWorker" if option == "asgi" else option
    for option in _KINDS["gunicorn-asgi"].options
)
UVICORN_IN_GUNICORN = dataclasses.replace(
    _KINDS["gunicorn-asgi"],
    name="gunicorn-uvicorn-worker",
    options=(*_IN_GUNICORN, "--workers", "2", *PATIENT),
)


def reloads(kind: Kind) -> Any:
    """A kind whose reload is much like that of the first one."""
    return pytest.param(kind, marks=pytest.mark.every("much like uvicorn by itself"))


@pytest.mark.extended("many reloads under load")
@pytest.mark.parametrize(
    "kind",
    [UVICORN_TWO, reloads(UVICORN_OWN_PROTOCOL), reloads(UVICORN_IN_GUNICORN)],
    ids=str,
)
def test_no_client_notices_reloads(
    kind: Kind, own_server: Own, request: pytest.FixtureRequest
) -> None:
    """No close, no message lost, repeated or out of order, in either direction."""
    server = own_server(kind, settings=SETTINGS)
    with Crowd(server, 24, *PATHS) as crowd:
        eventually(lambda: crowd.all(lambda each: each.answered > 3), SLACK_S, "all talk")
        for number in rounds(request, 4, 2):
            reload(server)
            eventually(
                lambda number=number: crowd.all(lambda each: each.resumed >= number),
                SLACK_S,
                "all were resumed",
            )
        assert crowd.ends() == {None}
        # The first workers of a reload may be replaced themselves.
        eventually(
            lambda: crowd.all(lambda each: set(each.processes[-1:]) <= set(server.workers())),
            SLACK_S,
            "all are in workers that stay",
        )
    assert "disconnect 1001" not in server.stdout()
    assert "disconnect 1012" not in server.stdout()
    assert_calm(server)


@pytest.mark.parametrize("kind", [UVICORN_IN_GUNICORN], ids=str)
def test_a_new_process_that_is_ended_gives_on_what_it_is_given(kind: Kind, own_server: Own) -> None:
    """Its loop waits for none, so they come when it has begun to leave."""
    end_heir_meanwhile(own_server(kind, settings=SETTINGS))


def test_async_middleware_runs_in_the_loop_of_the_new_server(own_server: Own) -> None:
    """Its clients of Redis and the like are bound to a loop: another one would spoil them."""
    middleware = ["project.moving_views.of_the_loop", *MIDDLEWARE]
    server = own_server(UVICORN_TWO, settings={**SETTINGS, "MIDDLEWARE": middleware})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawPeer.open(server, path)) for path in PATHS]
        for client in clients:
            talk(client, "here")
        reload(server)
        for client in clients:
            # The first workers of a reload may be replaced themselves.
            assert talk(client, "moved")[2] >= 1
        assert server.get("/status/").status == 200
    assert_calm(server)


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, GUNICORN_GEVENT, UVICORN_IN_GUNICORN], ids=str)
def test_users_that_were_looked_up_leave_no_connection_to_a_database(
    kind: Kind, own_server: Own, tmp_path: Path
) -> None:
    """Each offer may have a thread of its own: a large move would take all that a database has."""
    config = tmp_path / "gunicorn.py"
    # Else it would close some of them, sooner or later.
    config.write_text("import gc\n\ngc.disable()\n")
    server = own_server(kind, options=("--config", str(config), *PATIENT), settings=SETTINGS)
    cookies = server.get("/sign-in/?name=ada").cookies()
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}

    def open_databases(worker: int) -> int:
        found = [os.readlink(each) for each in Path(f"/proc/{worker}/fd").iterdir()]
        return found.count(str(server.database))

    with contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(RawPeer.open(server, "/counting/", headers=headers))
            for _ in range(8)
        ]
        reload(server)
        workers = {talk(peer, "moved")[1] for peer in peers}
        assert workers <= set(server.workers())
        for worker in workers:
            eventually(lambda worker=worker: not open_databases(worker), SLACK_S, "all are closed")


def wear_one_out(server: Server) -> None:
    """Ask for pages over one connection, which one process has, until it takes no more."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SLACK_S)
    with contextlib.closing(client), contextlib.suppress(OSError, http.client.HTTPException):
        client.connect()
        # Else it would go on with another process after an answer that closes the connection.
        client.auto_open = 0
        for _ in range(1000):
            client.request("GET", "/status/")
            client.getresponse().read()


@pytest.mark.extended("many requests")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (UVICORN_TWO, ("--limit-max-requests", "200")),
        (HYPERCORN_TWO, ("--max-requests", "200")),
    ],
    ids=str,
)
def test_a_process_that_is_worn_out_gives_to_the_other(
    kind: Kind, options: tuple[str, ...], own_server: Own
) -> None:
    """It ends by itself."""
    server = own_server(kind, options=options, settings=SETTINGS)
    eventually(lambda: len(heirs_of(server, server.pid)) == 2, SLACK_S, "two serve")
    with Crowd(server, 24, *PATHS) as crowd:
        old = set(server.workers())
        wear_one_out(server)
        eventually(lambda: not old <= set(server.workers()), SLACK_S, "a process has ended")
        gone = old - set(server.workers())
        eventually(
            lambda: any(each.resumed for each in crowd.conversations), SLACK_S, "clients have moved"
        )
        before = {id(each): each.answered for each in crowd.conversations}
        eventually(
            lambda: crowd.all(lambda each: each.answered > before[id(each)] + 3),
            SLACK_S,
            "all talk",
        )
        assert not gone.intersection(each.processes[-1] for each in crowd.conversations)
        assert crowd.ends() == {None}


@pytest.mark.parametrize("kind", [UVICORN_TWO, HYPERCORN_TWO], ids=str)
def test_the_end_of_the_whole_site_comes_at_once(kind: Kind, own_server: Own) -> None:
    """With 1001, as before."""
    server = own_server(kind, settings=SETTINGS)
    eventually(lambda: len(server.workers()) == 2, SLACK_S, "two serve")
    clients = [RawPeer.open(server, "/counting/") for _ in range(6)]
    for client in clients:
        talk(client, "here")
    server.send_signal(signal.SIGTERM)
    assert {client.read_to_eof().code for client in clients} == {1001}
    server.wait(SLACK_S)
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 1012), (signal.SIGTERM, 1001)], ids=["reload", "end"]
)
def test_clients_that_the_server_keeps_are_told_whether_others_serve_on(
    number: int, code: int, own_server: Own
) -> None:
    """Their ``send`` leads to no server: it is known by its lifespan."""
    options = tuple(
        option.replace("{module}.asgi", "project.wrapped_asgi")
        for option in UVICORN_IN_GUNICORN.options
    )
    server = own_server(dataclasses.replace(UVICORN_IN_GUNICORN, options=options))
    clients = [RawPeer.open(server, path) for path in ("/echo/", "/async-echo/") * 2]
    for client in clients:
        client.send_text("here")
        assert client.read_message() == b"here"
    server.send_signal(number)
    assert [client.read_to_eof().code for client in clients] == [code] * 4
    for client in clients:
        client.close()


def ask(peer: RawPeer) -> dict[str, Any]:
    """Have a handler tell what its request says."""
    peer.send_text("?")
    found: dict[str, Any] = json.loads(peer.read_message())
    return found


@pytest.mark.parametrize(
    ("old", "new", "same_kind"),
    [
        (UVICORN, UVICORN, True),
        (GUNICORN_GTHREAD, GUNICORN_GTHREAD, False),
        (GUNICORN_GTHREAD, UVICORN, False),
        (UVICORN, GUNICORN_GTHREAD, False),
        (_KINDS["hypercorn"], UVICORN, True),
    ],
    ids=str,
)
def test_another_server_of_the_project_goes_on(
    old: Kind, new: Kind, same_kind: bool, own_server: Own, tmp_path: Path
) -> None:
    """Each handler has the request as its own server makes it, and lives in that server's loop."""
    # The path of a socket may be no longer.
    env = {"WEBSOCKET_RUNTIME_DIR": str(tmp_path)}
    options = {kind: PATIENT if kind is GUNICORN_GTHREAD else () for kind in (old, new)}
    leaving = own_server(old, options=options[old], settings=SETTINGS, env=env)
    headers = {"X-Own": "caf\xe9", "Cookie": "a=1; b=2"}
    names = ("asked", "async-asked")
    clients = [
        RawPeer.open(leaving, f"/{name}/caf%C3%A9%20%E2%9C%93/?q=%C3%A9&q=2", headers=headers)
        for name in names
    ]
    before = [ask(client) for client in clients]
    coming = own_server(new, options=options[new], settings=SETTINGS, env=env)
    leaving.send_signal(signal.SIGTERM)
    eventually(
        lambda: [ask(client)["process"] for client in clients] == coming.workers() * 2,
        SLACK_S,
        "the other server goes on",
    )
    leaving.wait(SLACK_S)
    after = [ask(client) for client in clients]
    assert [facts.pop("kind") for facts in after] == [
        "WSGIRequest" if new is GUNICORN_GTHREAD else "ASGIRequest"
    ] * 2
    assert [facts.pop("is_main") for facts in after] == [False, new is UVICORN]
    for one, other in zip(before, after, strict=True):
        one.pop("is_main")
        other.pop("process")
        assert one.pop("process") == leaving.pid or not same_kind
        assert one.pop("kind") in ("WSGIRequest", "ASGIRequest")
        assert other == one
    for client in clients:
        client.close()


def test_without_another_server_the_end_comes_at_once(own_server: Own) -> None:
    """With 1001, as before."""
    server = own_server(UVICORN, settings=SETTINGS)
    with RawPeer.open(server, "/counting/") as client:
        talk(client, "here")
        server.send_signal(signal.SIGTERM)
        assert client.read_to_eof().code == 1001
        server.wait(SLACK_S)
