"""Connections that move where an agent such as Sentry's has patched Django's handlers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from handover.test_asgi_moves import UVICORN_IN_GUNICORN, UVICORN_TWO
from handover.test_gunicorn import PATIENT, SETTINGS, SLACK_S, assert_calm, reload
from project.settings import MIDDLEWARE
from support.raw_peer import RawPeer
from support.server import GUNICORN_GTHREAD, Kind, Server
from support.waiting import eventually

Own = Callable[..., Server]

AGENT = {
    **SETTINGS,
    "ROOT_URLCONF": "project.agent",
    "INSTALLED_APPS": ["project.agent", *SETTINGS["INSTALLED_APPS"]],
    "MIDDLEWARE": ["project.agent.leaves", *MIDDLEWARE],
}
PATHS = ("/told/", "/async-told/")


def told(client: RawPeer) -> tuple[int, list[Any], list[str], int]:
    """Have a connection tell its process, what the agent has, what middleware left, the cache."""
    client.send_text("?")
    process, agent, left, cache = json.loads(client.read_message())
    return process, agent, left, cache


@pytest.mark.parametrize("kind", [GUNICORN_GTHREAD, UVICORN_TWO, UVICORN_IN_GUNICORN], ids=str)
def test_each_connection_has_its_own_request_of_an_agent(kind: Kind, own_server: Own) -> None:
    """Before the move and after it: one that has ended with the handshake, and of no other one."""
    server = own_server(kind, options=PATIENT if kind is GUNICORN_GTHREAD else (), settings=AGENT)
    names = [f"{number}" for number in range(6)]
    with contextlib.ExitStack() as stack:
        clients = {
            name: stack.enter_context(RawPeer.open(server, f"{path}?name={name}"))
            for name, path in zip(names, PATHS * 3, strict=True)
        }

        def agents() -> dict[str, list[Any]]:
            return {name: told(client)[1] for name, client in clients.items()}

        own = {name: [f"name={name}", 101, True] for name in names}
        # The server may tell the agent of the end a moment later.
        eventually(lambda: agents() == own, SLACK_S, "each has its own")
        old = {told(client)[0] for client in clients.values()}
        reload(server)
        assert agents() == own
        after = [told(client) for client in clients.values()]
        assert old.isdisjoint(process for process, *_ in after)
        # A server's thread would have those of its earlier requests.
        assert [left for *_, left, _ in after] == [[name] for name in names]
        if kind is GUNICORN_GTHREAD:
            # As of a server's thread: a cache may have a connection.
            assert len({cache for *_, cache in after}) == 1
    assert_calm(server)
