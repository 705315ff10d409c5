"""How long methods of handlers take, among the statistics."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from visit import handshake

from dwebsocket import WebSocketHandler, statistics
from dwebsocket.telemetry import durations
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from visit import Visit

SLOW_S = 0.06


@pytest.fixture(autouse=True)
def _begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """No times of other tests."""
    monkeypatch.setattr(durations, "of_handlers", durations.Histogram())


class Slow(WebSocketHandler):
    """Takes its time with each message."""

    def receive(self, message: Any) -> None:
        time.sleep(SLOW_S)
        self.websocket.send("done")


class Awaiting(WebSocketHandler):
    """Awaits something for each message."""

    async def receive(self, message: Any) -> None:
        await asyncio.sleep(SLOW_S)
        await self.websocket.asend("done")


@pytest.mark.parametrize("handler", [Slow, Awaiting])
def test_methods_of_handlers_are_timed(
    visit: Callable[..., Visit], handler: type[WebSocketHandler]
) -> None:
    """Each call counts, in the bucket of the time that it took."""
    made = visit(handler.as_view(), environ=handshake()).serve()
    for _ in range(3):
        made.client.send("go")
        assert made.client.frame().data == b"done"
    # A call of another kind may be as slow on a machine with much to do.
    eventually(lambda: slow_ones() >= 3)
    assert statistics()["handlers"]["seconds"] >= 3 * SLOW_S


def slow_ones() -> int:
    """The number of calls that took as long as the handlers sleep."""
    buckets = statistics()["handlers"]["buckets"]
    return sum(number for bound, number in buckets.items() if float(bound) > SLOW_S)
