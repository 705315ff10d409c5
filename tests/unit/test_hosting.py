"""`dwebsocket.servers.hosts` and `.asgi.hosting`: servers to whose processes connections move."""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import _core
from dwebsocket.api import callbacks
from dwebsocket.servers import hosts
from dwebsocket.servers.asgi import hosting
from dwebsocket.servers.asgi.closing import Served

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _nothing_is_noted() -> Iterator[None]:
    yield
    hosts.note(None)


def plan(server: str, **config: Any) -> tuple[float | None, bool, str | None]:
    """Give the time, whether the site goes on, and the heirs of a process that a signal ends."""
    found = hosting.shutdown_plan(server, SimpleNamespace(**config))(terminated=False)
    return found.timeout_s, found.goes_on, found.heirs


def test_a_process_alone_has_heirs_in_other_servers_only() -> None:
    """Its own server ends with it."""
    assert plan("uvicorn") == (None, False, "of others")
    assert plan("uvicorn", timeout_graceful_shutdown=7) == (7, False, "of others")
    assert plan("hypercorn", shutdown_timeout=60) == (60, False, "of others")
    assert plan("daphne") == (None, False, "of others")


def test_one_of_several_has_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it is worn out one that comes soon, as the site goes on."""
    monkeypatch.setattr(hosting, "_parent", lambda: 1)
    assert plan("uvicorn") == plan("hypercorn") == (None, False, "there")
    hosts.note(hosts.Host(1, None))  # type: ignore[arg-type]
    assert plan("uvicorn") == (None, True, "soon")
    monkeypatch.setattr(hosting, "_has_signal", True)
    assert plan("uvicorn") == (None, False, "there")
    event = asyncio.Event()
    monkeypatch.setattr(hosting, "_context", SimpleNamespace(terminate=event))
    assert plan("hypercorn") == (None, False, "there")
    event.set()
    assert plan("hypercorn") == (None, True, "soon")


def test_a_server_is_noted_until_it_stops_beside_others() -> None:
    """On the main thread: elsewhere it runs beside other things."""
    served, other = Served(), Served()

    async def begin() -> asyncio.AbstractEventLoop:
        assert not hosting.note("daphne", None, served, {})
        assert hosting.note("uvicorn", SimpleNamespace(), served, {"a": 1})
        return asyncio.get_running_loop()

    assert hosts.find() is None
    loop = asyncio.run(begin())
    found = hosts.find()
    assert found is not None
    assert (found.number, found.client.server) == (os.getpid(), "uvicorn")
    assert found.asgi == (loop, served.add, {"a": 1})
    hosts.forget(other.add)
    assert hosts.find() is found
    hosts.forget(served.add)
    assert hosts.find() is None


def test_a_server_ends_where_the_system_gives_no_thread(
    monkeypatch: pytest.MonkeyPatch, open_websocket: Any
) -> None:
    """Its connections are closed at once, and not within some seconds."""

    def refuse(delay: float, call: object) -> None:
        raise RuntimeError("can't start new thread")

    live, served = open_websocket(), Served()
    served.add(live.connection)
    monkeypatch.setattr(callbacks, "call_later", refuse)
    assert served.leave(1012, "restarting", 60, lambda _: False) == 60
    assert live.client.closing() == (1012, "restarting")


def test_a_copied_scope_has_the_same_connections() -> None:
    """hypercorn's middleware for sites behind a proxy copies each one, with all that is in it."""
    served = Served()
    served.add(_core.Connection.never_opened())
    scope = {"state": {Served.KEY: served}}
    assert Served.of(copy.deepcopy(scope)) is served


def test_a_server_on_another_thread_is_not_noted() -> None:
    """As one that a test starts."""
    seen: list[bool] = []

    async def begin() -> None:
        seen.append(hosting.note("uvicorn", SimpleNamespace(), None, {}))

    thread = threading.Thread(target=lambda: asyncio.run(begin()))
    thread.start()
    thread.join()
    assert seen == [False]
    assert not hosts.is_noted()
