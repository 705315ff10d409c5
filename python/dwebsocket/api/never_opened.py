"""The connection of a handshake that led to none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dwebsocket.waiting.loop_hub import Again

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dwebsocket import _core
    from dwebsocket.connection import By, FindHub, Message


class NeverOpened:
    """A connection that is closed, as by a client that vanished before it was open."""

    id = 0

    def pop(self, text_as_bytes: bool, /) -> Message | None:
        """Nothing comes."""
        return None

    def owes_a_pause(self) -> bool:
        """Nothing is there."""
        return False

    async def next_now(self) -> Message | None:
        """Nothing comes."""
        return None

    def is_slow_to_send(self, message: Message, /) -> bool:
        """Nothing goes."""
        return False

    def take(self, timeout: float | None, text_as_bytes: bool) -> Message | None:
        """Nothing comes."""
        return None

    def take_coarse(self, time: float, text_as_bytes: bool, /) -> Message | None:
        """Nothing comes."""
        return None

    def post(self, message: object, text_as_bytes: bool, sender: object, /) -> bool:
        """Nothing goes."""
        return False

    def send(
        self, message: Message, *, binary: bool | None = None, patience: float | None = None
    ) -> bool:
        """Nothing goes."""
        return False

    def try_send(self, message: Message, *, binary: bool | None = None) -> bool | None:
        """Nothing goes."""
        return False

    def close(self, code: int, reason: str) -> bool:
        """It is closed."""
        return False

    def waiting(self) -> tuple[int, bool]:
        """The end has come."""
        return 0, True

    def end(self) -> tuple[int, str, By] | None:
        """No close frame was ever sent."""
        return 1006, "the WebSocket was never opened", "lost"

    def ended_for(self) -> float | None:
        """For ever."""
        return math.inf

    def next(self, find_hub: FindHub, /) -> Awaitable[Message]:
        """The end has come."""
        return Again(self._no_message)

    async def _no_message(self) -> Message:
        raise StopAsyncIteration

    def watch_end(self, hub: _core.Hub, token: int) -> None:
        """The end has come."""
        hub.announce(token)

    def await_news(self, time: float) -> None:
        """The end has come."""

    def descriptor(self) -> int | None:
        """There is nothing to select on."""
        return None

    def mark_end_read(self) -> None:
        """There is nothing to select on."""

    def close_descriptor(self) -> None:
        """There is nothing to select on."""

    def discard(self) -> None:
        """There is nothing to drop."""

    def ping(self, payload: bytes) -> bool:
        """Nothing goes."""
        return False

    def pong(self, payload: bytes) -> bool:
        """Nothing goes."""
        return False

    @property
    def latency(self) -> float | None:
        """Nothing went."""
        return None

    def begin_ping(self) -> _core.Ping | None:
        """Nothing goes."""
        return None

    def watch_pings(self, hub: _core.Hub, token: int) -> None:
        """The end has come."""
        hub.announce(token)

    def unwatch_pings(self, hub: _core.Hub, token: int) -> None:
        """There is nothing to take back."""

    def await_end(self, timeout: float | None) -> bool:
        """It has come."""
        return True

    def watch_inbox(self, hub: _core.Hub, token: int) -> None:
        """Does nothing: the end has come, so no caller waits."""

    def listen(self, hub: _core.Hub, token: int, /) -> bool:
        """The end has come."""
        return False

    def watch_outbox(self, hub: _core.Hub, token: int) -> None:
        """Does nothing: no room is needed, so no caller waits."""

    def unwatch(self, hub: _core.Hub, token: int) -> None:
        """There is nothing to take back."""
