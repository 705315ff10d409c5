"""`connect(url, reconnect=True)`: one connection after the other."""

from __future__ import annotations

import asyncio
import logging
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from dwebsocket import ConnectionFailed, HandshakeRefused, aconnect, connect
from dwebsocket.client import reconnecting
from support.far_server import far_server
from support.hostile import Hostile, accepting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.server import ServerConnection


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of some milliseconds."""
    monkeypatch.setattr(reconnecting, "_FIRST_S", 0.001)
    monkeypatch.setattr(reconnecting, "_LONGEST_S", 0.01)


def greet(connection: ServerConnection) -> None:
    """Send one message and close."""
    connection.send("hello")


def flaky(request: bytes) -> Iterator[bytes]:
    """Refuse twice, then accept, then refuse for good."""
    FLAKY.append(request)
    match len(FLAKY):
        case 1:
            yield b"HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"
        case 2:
            yield b""
        case 3:
            yield accepting(request) + b"\x81\x02hi"
        case _:
            yield b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


FLAKY: list[bytes] = []


def test_each_pass_has_a_connection_of_its_own() -> None:
    """Which is closed behind it."""
    with far_server(greet) as url:
        seen = []
        for websocket in connect(url, reconnect=True):
            assert list(websocket) == ["hello"]
            seen.append(websocket)
            if len(seen) == 3:
                break
    assert len({id(websocket) for websocket in seen}) == 3
    assert all(websocket.closed for websocket in seen)


def test_a_pass_that_ends_early_closes_its_connection() -> None:
    """By `break`, too."""
    with far_server() as url:
        for websocket in connect(url, reconnect=True):
            assert not websocket.closed
            break
        assert websocket.close_code in (1000, 1001)


def test_what_will_pass_is_tried_again_and_what_will_not_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A busy server and a lost answer pass; 403 does not."""
    FLAKY.clear()
    caplog.set_level(logging.INFO, "dwebsocket.client")
    received = []
    with Hostile(flaky) as server, pytest.raises(HandshakeRefused) as refused:
        received.extend(chain.from_iterable(connect(server.url(), reconnect=True)))
    assert refused.value.status == 403
    assert received == ["hi"]
    assert len(FLAKY) == 4
    texts = [record.getMessage() for record in caplog.records]
    assert "refused the WebSocket with 503 Busy; next attempt in 0.0 s" in texts[0]
    assert "hung up before its answer was complete" in texts[1]


def test_in_a_loop() -> None:
    """The same, with `async for`."""

    async def main(url: str) -> int:
        passes = 0
        async for websocket in aconnect(url, reconnect=True):
            assert [message async for message in websocket] == ["hello"]
            passes += 1
            if passes == 3:
                return passes
        raise AssertionError

    with far_server(greet) as url:
        assert asyncio.run(asyncio.wait_for(main(url), 60)) == 3

    async def refused(url: str) -> None:
        async for _ in aconnect(url, reconnect=True):
            pass

    FLAKY[:] = [b""] * 3
    with Hostile(flaky) as server, pytest.raises(HandshakeRefused):
        asyncio.run(asyncio.wait_for(refused(server.url()), 60))


def test_an_exception_of_the_body_ends_it() -> None:
    """And is not swallowed."""

    def body(url: str) -> None:
        for _ in connect(url, reconnect=True):
            raise ZeroDivisionError

    with far_server() as url, pytest.raises(ZeroDivisionError):
        body(url)


def test_pauses_grow_at_random_and_begin_again_after_a_good_connection() -> None:
    """A connection that ends at once is no good one: a server that crashes is left in peace."""
    backoff = reconnecting.Backoff()
    highest = 0.001
    for _ in range(10):
        assert 0 <= backoff.pause() <= highest
        backoff.succeed(lived=0.1)
        highest = min(2 * highest, 0.01)
    assert highest == 0.01
    backoff.succeed(lived=5)
    assert backoff.pause() <= 0.001
    # What the server asks for counts, up to the longest pause.
    assert backoff.pause(at_least=100) == 0.01


def test_failures_of_the_network_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, until the server is there."""
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(reconnecting.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        list(connect("ws://127.0.0.1:1/", reconnect=True))
    assert len(pauses) == 5
    assert issubclass(HandshakeRefused, ConnectionFailed)
