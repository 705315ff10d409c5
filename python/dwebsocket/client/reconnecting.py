"""One connection after the other, to the same server."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from dwebsocket.client.dialing import open_now, open_soon
from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import ConnectionFailed, HandshakeRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dwebsocket.client.connection import ClientConnection
    from dwebsocket.client.options import Target

_log = logging.getLogger("dwebsocket.client")

# The first back-off and the longest one. Each is twice the one before; of each a random part is
# slept, so that clients of a server that was restarted do not all come back at once.
_FIRST_S, _LONGEST_S = 1.0, 60.0
# A connection that has lived for so long was a good one: the next back-off is the first again.
_GOOD_AFTER_S = 5.0
# Refusals that may be over soon. Any other is an answer, and ends the iteration.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
# Steps of a failure that is the same the next time: something is set up wrongly.
_LASTING = frozenset({"certificate", "http", "handshake"})


class Backoff:
    """The pauses between attempts."""

    def __init__(self) -> None:
        self._next = _FIRST_S

    def pause(self, *, at_least: float = 0.0) -> float:
        """Returns the seconds to sleep before the next attempt."""
        pause = random.uniform(0, self._next)  # noqa: S311
        self._next = min(2 * self._next, _LONGEST_S)
        return max(pause, min(at_least, _LONGEST_S))

    def succeed(self, lived: float) -> None:
        """Notes that a connection has lived for some seconds."""
        if lived >= _GOOD_AFTER_S:
            self._next = _FIRST_S


def _pause_after(failure: OSError, backoff: Backoff, target: Target) -> float:
    """Returns the seconds to sleep after a failure; raises it when it will not pass."""
    at_least = 0.0
    if isinstance(failure, HandshakeRefused):
        if failure.status not in _PASSING:
            raise failure
        at_least = _seconds(failure.headers.get("Retry-After", ""))
    elif isinstance(failure, ConnectionFailed) and failure.step in _LASTING:
        raise failure
    pause = backoff.pause(at_least=at_least)
    _log.info("%s: %s; next attempt in %.1f s", target, failure, pause)
    return pause


def _seconds(retry_after: str) -> float:
    """Returns the seconds of a ``Retry-After`` (section 10.2.3 of RFC 9110); 0 for junk."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


class Reconnecting:
    """
    Connections to one server, one after the other, for ``for``.

    Each pass of the loop gets a new connection, which is closed when the pass ends. An attempt that
    fails is repeated after a pause, up to a minute, of random length; a server may ask for a longer
    one by ``Retry-After``. Functions among URL, headers and subprotocols are called anew at each
    attempt. The loop ends by ``break``, or by an exception: one of its body, one of these functions
    other than ``OSError``, a :class:`~dwebsocket.HandshakeRefused` that will not pass, such as 403
    or 404, or a :class:`~dwebsocket.ConnectionFailed` because the server is another one: its
    certificate is not trusted, or it does not speak WebSocket.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    def __iter__(self) -> Iterator[ClientConnection]:
        backoff = Backoff()
        while True:
            try:
                connection = open_now(self._target)
            except OSError as failure:
                time.sleep(_pause_after(failure, backoff, self._target))
                continue
            opened_at = monotonic()
            with connection:
                yield connection
            backoff.succeed(monotonic() - opened_at)
            time.sleep(backoff.pause())


class AsyncReconnecting:
    """
    Connections to one server, one after the other, for ``async for``: see :class:`Reconnecting`.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        backoff = Backoff()
        while True:
            try:
                connection = await open_soon(self._target)
            except OSError as failure:
                await asyncio.sleep(_pause_after(failure, backoff, self._target))
                continue
            opened_at = monotonic()
            with connection:
                yield connection
            backoff.succeed(monotonic() - opened_at)
            await asyncio.sleep(backoff.pause())
