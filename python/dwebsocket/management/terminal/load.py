"""Many clients of one URL: how fast its site answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dwebsocket.client import aconnect
from dwebsocket.exceptions import ConnectionClosed, ConnectionFailed, SendTimeout, ShuttingDown

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.client import ClientConnection, ConnectOptions

# How often progress is told.
_TELL_S = 0.2
# How long the last answers may take.
_LAST_S = 5.0


@dataclass(frozen=True)
class Load:
    """
    The work of the clients. Times are in seconds.

    Attributes:
        url: Where to.
        clients: Their number.
        rate: Messages that each of them sends a second; 0 sends none.
        seconds: How long each of them sends.
        ramp: The time over which they are opened.
        message: Their message. Without answers only sending is measured.
        answers: Whether each message is answered by one, as by an echo.
        options: The options of :func:`dwebsocket.connect`.
    """

    url: str
    clients: int
    rate: float
    seconds: float
    ramp: float
    message: str | bytes
    answers: bool
    options: ConnectOptions


@dataclass
class Result:
    """The results so far."""

    opened: int = 0
    open: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    closes: Counter[int] = field(default_factory=Counter)
    handshakes: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures, times in milliseconds."""
        return {
            "opened": self.opened,
            "failures": dict(self.failures),
            "closes": {str(code): count for code, count in self.closes.items()},
            "sent": self.sent,
            "received": self.received,
            "received_per_second": round(self.received / self.seconds, 1) if self.seconds else 0.0,
            "handshake_ms": percentiles(self.handshakes),
            "answer_ms": percentiles(self.answers),
        }


def percentiles(seconds: list[float]) -> dict[str, float] | None:
    """Returns the median, the 90th and the 99th percentile and the maximum, in milliseconds."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
        for name, share in shares.items()
    }


async def run(plan: Load, result: Result, tell: Callable[[], None]) -> None:
    """Runs all clients to their end, and tells some times a second. Cancelling it closes them."""
    clients = {asyncio.ensure_future(_client(plan, n, result)) for n in range(plan.clients)}
    everyone = [*clients]
    begun_at = time.perf_counter()
    try:
        while clients:
            done, clients = await asyncio.wait(clients, timeout=_TELL_S)
            result.seconds = time.perf_counter() - begun_at
            tell()
            for client in done:
                client.result()
    finally:
        for client in everyone:
            client.cancel()
        # Failed ones, too: asyncio logs exceptions that nobody has looked at.
        await asyncio.gather(*everyone, return_exceptions=True)


async def _client(plan: Load, number: int, result: Result) -> None:
    await asyncio.sleep(plan.ramp * number / plan.clients)
    begun_at = time.perf_counter()
    try:
        websocket = await aconnect(plan.url, **plan.options)
    except (ConnectionFailed, ShuttingDown, OSError) as failure:
        result.failures[str(failure)] += 1
        return
    result.handshakes.append(time.perf_counter() - begun_at)
    result.opened += 1
    result.open += 1
    sent_at: list[float] = []
    is_answered = asyncio.Event()
    with websocket:
        reader = asyncio.ensure_future(_receive(websocket, sent_at, is_answered, result))
        try:
            await _send(plan, websocket, sent_at, result)
            if plan.answers and sent_at and not reader.done():
                is_answered.clear()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(is_answered.wait(), _LAST_S)
        finally:
            reader.cancel()
        if (code := websocket.close_code) is not None:
            result.closes[code] += 1
    result.open -= 1


async def _send(
    plan: Load, websocket: ClientConnection, sent_at: list[float], result: Result
) -> None:
    begun_at = time.perf_counter()
    if not plan.rate:
        await websocket.await_closed(plan.seconds)
        return
    for turn in range(max(1, round(plan.rate * plan.seconds))):
        # From the beginning, so that a late answer does not slow the rate.
        left = begun_at + turn / plan.rate - time.perf_counter()
        if left > 0 and await websocket.await_closed(left):
            return
        if plan.answers:
            sent_at.append(time.perf_counter())
        try:
            await websocket.asend(plan.message)
        except (ConnectionClosed, SendTimeout) as failure:
            result.failures[str(failure)] += 1
            return
        result.sent += 1


async def _receive(
    websocket: ClientConnection, sent_at: list[float], is_answered: asyncio.Event, result: Result
) -> None:
    try:
        async for _ in websocket:
            result.received += 1
            if sent_at:
                result.answers.append(time.perf_counter() - sent_at.pop(0))
            if not sent_at:
                is_answered.set()
    finally:
        # None can come any more.
        is_answered.set()
