"""Joining several groups over a server: one round trip, all of them or none."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import path

from dwebsocket import GroupUnavailable, accept_websocket
from dwebsocket.groups import backends
from dwebsocket.groups.backends import redis
from dwebsocket.testing import WebSocketClient
from support.redis import Redis, settings
from support.relay import Relay
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.websocket import WebSocket

    Override = Callable[..., None]

pytestmark = pytest.mark.needs("redis")

NAMES = [f"room-{number}" for number in range(30)]


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """A server."""
    with Redis() as found:
        yield found


@pytest.fixture
def relay(server: Redis, override: Override) -> Iterator[Relay]:
    """A relay to the server, for groups of the default backend, which is connected."""
    with Relay(server.port) as found:
        location = f"redis://127.0.0.1:{found.port}/0"
        override(WEBSOCKET_GROUPS={"default": settings(location, TIMEOUT=30)})
        with backends.replaced(redis.Backend):
            backends.backend("default").hold("connected")
            yield found


def by_join(open_websocket: Callable[..., Any], override: Override) -> None:
    """Join groups by a call in a thread."""
    websocket: WebSocket = open_websocket().websocket
    assert websocket.join(*NAMES) is None
    assert websocket.groups == set(NAMES)


def by_ajoin(open_websocket: Callable[..., Any], override: Override) -> None:
    """Join groups by a call in a task."""
    websocket: WebSocket = open_websocket().websocket
    assert asyncio.run(websocket.ajoin(*NAMES)) is None
    assert websocket.groups == set(NAMES)


def by_decorator(open_websocket: Callable[..., Any], override: Override) -> None:
    """Join groups as the connection opens."""

    @accept_websocket(groups=NAMES)
    def view(request: Any) -> None:
        request.websocket.send_json(sorted(request.websocket.groups))

    override(ROOT_URLCONF=(path("", view),), MIDDLEWARE=[])
    with WebSocketClient().websocket("/") as opened:
        assert opened.receive_json() == sorted(NAMES)


@pytest.mark.parametrize("join", [by_join, by_ajoin, by_decorator])
def test_the_server_is_asked_for_all_of_them_before_it_answers(
    server: Redis,
    relay: Relay,
    open_websocket: Callable[..., Any],
    override: Override,
    join: Callable[..., None],
) -> None:
    """So many groups take as long as one."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            join(open_websocket, override)
        except BaseException as error:
            failures.append(error)

    # No answer comes back from here on.
    relay.is_open.clear()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        eventually(lambda: server.channels() >= set(NAMES), what="all are subscribed to")
        assert thread.is_alive()
    finally:
        relay.is_open.set()
        thread.join(60)
    assert failures == []


@pytest.mark.parametrize("is_async", [False, True])
def test_one_that_is_refused(
    server: Redis, override: Override, open_websocket: Callable[..., Any], is_async: bool
) -> None:
    """None of them is joined, and no subscription stays; what was joined before does."""
    server.ask("ACL", "SETUSER", "web", "reset", "on", ">pw", "+@all", "&*:room-[0-8]")
    location = f"redis://web:pw@127.0.0.1:{server.port}/0"
    override(WEBSOCKET_GROUPS={"default": settings(location)})
    with backends.replaced(redis.Backend):
        websocket: WebSocket = open_websocket().websocket
        websocket.join("room-0")

        def join(*names: str) -> None:
            if is_async:
                asyncio.run(websocket.ajoin(*names))
            else:
                websocket.join(*names)

        def subscribed() -> set[str]:
            return server.channels() & set(NAMES)

        with pytest.raises(GroupUnavailable, match="NOPERM"):
            join(*NAMES[:10])
        assert websocket.groups == {"room-0"}
        eventually(lambda: subscribed() == {"room-0"}, what="the others are given back")
        websocket.leave("room-0")
        eventually(lambda: subscribed() == set(), what="it is left")
