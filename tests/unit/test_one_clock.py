"""All times of settings and of calls are measured by one clock, which a test can step."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_servers_asgi import Wire, in_loop, until

import dwebsocket
from dwebsocket import _core, accept_websocket
from dwebsocket.runners import loop, thread
from dwebsocket.testing import Clock
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from visit import Serve

PACKAGE = Path(dwebsocket.__file__).parent

# The code that reads the system's clock, and the reason: times that no setting and no call sets.
ON_THE_SYSTEMS_CLOCK = {
    "api/helpers.py": "how long a view's end waits for its helpers",
    "api/receiving.py": "whether a view polls without a pause",
    "channels/node.py": "what a process that ends has left",
    "client/reconnecting.py": "how long a connection to another server has lived",
    "telemetry/clock.py": "it is the clock",
    "groups/backends/postgres/backend.py": "how long the database may take",
    "groups/backends/postgres/counting.py": "how old a number may be that the database gave",
    "groups/backends/postgres/deadline.py": "how long the database may take",
    "groups/backends/postgres/link.py": "how long the database may take",
    "groups/backends/postgres/listener.py": "when the database is asked whether it still listens",
    "groups/backends/postgres/problems.py": "how long the database may take",
    "groups/backends/postgres/publishing.py": "how long the database may take",
    "groups/backends/redis/__init__.py": "how long a server may take",
    "api/waiting/engine_calls.py": "how long a server may take",
    "handover/crossing.py": "what a process that ends has left",
    "handover/deputies.py": "how long ago another process saw something",
    "handover/leaving.py": "what a process that ends has left",
    "handover/places.py": "how long another process may take",
    "management/commands/websocket_stats.py": "how often it looks",
    "operations/survey.py": "how long other processes may take",
    "runners/shutdown.py": "what a process that ends has left",
    "runners/__init__.py": "what a process that ends has left",
    "runners/application_threads.py": "how long one application has a thread",
    "runners/green.py": "what a process that ends has left",
    "runners/green_loops.py": "turns of green threads",
    "runners/loop.py": "what a process that ends has left",
    "runners/handler.py": "how long a method takes, and a connection's end waits for callbacks",
    "runners/handler_threads.py": "how long a thread stays without work, and a process's end",
    "runners/view.py": "how long a view's end waits for callbacks",
    "servers/tls_pump.py": "how long the last bytes of TLS may take",
    "management/terminal/conversation.py": "how long a server has been silent for one who types",
    "management/terminal/load.py": "what is measured",
    "management/terminal/recording.py": "when a message came",
    "compat/unpatched.py": "how long a green thread waits for one of the system",
    "api/waiting/green.py": "turns of green threads, and until databases are given back",
}


@pytest.fixture(autouse=True)
def _engine(open_websocket: Callable[..., Any]) -> None:
    """The clock is the engine's: before there is one there is nothing to step."""
    live = open_websocket()
    live.websocket.close()
    live.client.vanish()
    eventually(lambda: _core.open_connections() == 0, what="the connection is given back")


def test_system_clock_is_read_where_it_is_meant() -> None:
    """A new use is either a time of a setting, for `clock.now()`, or is named above."""
    using = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "monotonic()" in path.read_text()
        and not path.is_relative_to(PACKAGE / "testing")
        and not path.is_relative_to(PACKAGE / "operations" / "doctor")
    }
    assert using <= ON_THE_SYSTEMS_CLOCK.keys()


@pytest.mark.parametrize("as_async", [False, True])
def test_handshake_timeout(visit: Serve, override: Callable[..., None], *, as_async: bool) -> None:
    """`WEBSOCKET_HANDSHAKE_TIMEOUT`: a view that has not decided when its time has passed."""
    override(WEBSOCKET_HANDSHAKE_TIMEOUT=100)
    answered = threading.Event()

    @accept_websocket(accept=False)
    def view(request: Any) -> None:
        Clock().advance(101)
        answered.wait(60)

    @accept_websocket(accept=False)
    async def aview(request: Any) -> None:
        await Clock().aadvance(101)
        await asyncio.to_thread(answered.wait, 60)

    made = visit(aview if as_async else view)
    assert made.response.status_code == 503
    answered.set()
    assert thread.join(10)
    assert loop.join(10)


@in_loop
async def test_rate_timeout_under_asgi() -> None:
    """`WEBSOCKET_RATE_TIMEOUT`."""
    wire = Wire(max_messages_per_second=1, rate_timeout=10)
    for _ in range(1000):
        wire.put("x")
    await until(lambda: wire.received > 1)
    # It goes on as soon as it may: a pause of half a second would be forgiven.
    while not wire.connection.end():
        await Clock().aadvance(0.2)
    assert wire.connection.end() == (1008, "too many messages or bytes a second", "local")
    wire.disconnect(1008)
    await wire.serving


@in_loop
async def test_close_timeout_under_asgi() -> None:
    """`WEBSOCKET_CLOSE_TIMEOUT`: a client that does not answer."""
    wire = Wire(close_timeout=100)
    wire.websocket.close()
    await until(lambda: len(wire.sent) == 2)
    await Clock().aadvance(101)
    await wire.serving


@in_loop
async def test_drain_under_asgi() -> None:
    """`WEBSOCKET_DRAIN`: the last client is closed when the window is over."""
    wires = [Wire() for _ in range(3)]
    assert _core.drain(1012, "restarting", 100) == 100
    await Clock().aadvance(101)
    await until(lambda: all(wire.connection.end() for wire in wires))
    for wire in wires:
        wire.disconnect(1012)
        await wire.serving
    _core.reopen()


@in_loop
async def test_time_since_the_end_under_asgi() -> None:
    """The time after which a sender gets the report of the end again."""
    wire = Wire()
    wire.disconnect()
    await until(lambda: wire.connection.end())
    await Clock().aadvance(100)
    assert (wire.connection.ended_for() or 0) >= 100
    await wire.serving


def test_drain_that_takes_too_long(visit: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout of `drain()`, beside a view that does not end."""
    monkeypatch.setattr("dwebsocket._core.drain", lambda *_: 0.0)
    leave = threading.Event()
    returned: list[bool] = []

    @accept_websocket
    def stays(request: Any) -> None:
        leave.wait(100)

    made = visit(stays).serve()
    drain = threading.Thread(target=lambda: returned.append(dwebsocket.drain(0, timeout=100)))
    drain.start()

    def has_returned() -> bool:
        Clock().advance(50)
        return bool(returned)

    eventually(has_returned, what="drain() returns")
    assert returned == [False]
    drain.join(10)
    leave.set()
    made.client.closing()
