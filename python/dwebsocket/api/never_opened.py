"""The connection of a handshake whose connection was never opened."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dwebsocket.api.waiting.loop_hub import Again

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dwebsocket import _core
    from dwebsocket.api.connection import By, FindHub, Message


class NeverOpened:
    """A closed connection, as after a client that vanished before it was open."""

    id = 0

    def as_member(self) -> None:
        """Returns None: this belongs to no group."""

    def pop(self, text_as_bytes: bool, /) -> Message | None:
        """Returns None: no message can come."""
        return None

    def owes_a_pause(self) -> bool:
        """Returns False: there is no message."""
        return False

    async def next_now(self) -> Message | None:
        """Returns None: no message can come."""
        return None

    def is_slow_to_send(self, message: Message, /) -> bool:
        """Returns False: nothing is sent."""
        return False

    def take(self, timeout: float | None, text_as_bytes: bool) -> Message | None:
        """Returns None at once: no message can come."""
        return None

    def take_coarse(self, time: float, text_as_bytes: bool, /) -> Message | None:
        """Returns None at once: no message can come."""
        return None

    def post(self, message: object, text_as_bytes: bool, sender: object, /) -> bool:
        """Returns False: nothing can be sent."""
        return False

    def send(
        self, message: Message, *, binary: bool | None = None, timeout: float | None = None
    ) -> bool:
        """Returns False: nothing can be sent."""
        return False

    def try_send(self, message: Message, *, binary: bool | None = None) -> bool | None:
        """Returns False: nothing can be sent."""
        return False

    def send_beyond(self, message: Message, *, binary: bool | None = None) -> bool | None:
        """Returns False: nothing can be sent."""
        return False

    def has_room(self) -> bool:
        """Returns True: nothing waits."""
        return True

    def close(self, code: int, reason: str) -> bool:
        """Returns False: it is closed already."""
        return False

    def half_close(self, code: int, reason: str) -> bool:
        """Returns False: it is closed already."""
        return False

    def waiting(self) -> tuple[int, bool]:
        """Returns no messages, and the end."""
        return 0, True

    def end(self) -> tuple[int, str, By] | None:
        """Returns 1006, as for a client that vanished: there was no close frame."""
        return 1006, "the WebSocket was never opened", "lost"

    def messages(self) -> tuple[int, int]:
        """Returns no messages, in either direction."""
        return 0, 0

    def traffic(self) -> tuple[int, int, int, int, int, int, int]:
        """Gives nothing, in either direction."""
        return 0, 0, 0, 0, 0, 0, 0

    def ended_for(self) -> float | None:
        """Returns infinity: it was never open."""
        return math.inf

    def next(self, find_hub: FindHub, /) -> Awaitable[Message]:
        """Returns an awaitable that raises ``StopAsyncIteration``."""
        return Again(self._no_message)

    async def _no_message(self) -> Message:
        raise StopAsyncIteration

    def watch_end(self, hub: _core.Hub, token: int) -> None:
        """Signals at once: the end has come."""
        hub.announce(token)

    def await_news(self, time: float) -> None:
        """Returns at once: the end has come."""

    def descriptor(self) -> int | None:
        """Returns None: there is nothing to select on."""
        return None

    def mark_end_read(self) -> None:
        """Does nothing: there is no descriptor."""

    def close_descriptor(self) -> None:
        """Does nothing: there is no descriptor."""

    def discard(self) -> None:
        """Does nothing: there are no messages to drop."""

    def ping(self, payload: bytes) -> bool:
        """Returns False: nothing can be sent."""
        return False

    def pong(self, payload: bytes) -> bool:
        """Returns False: nothing can be sent."""
        return False

    @property
    def latency(self) -> float | None:
        """None: no ping was answered."""
        return None

    def begin_beat(self, seconds: float) -> None:
        """Does nothing."""

    def begin_ping(self) -> _core.Ping | None:
        """Returns None: nothing can be sent."""
        return None

    def watch_pings(self, hub: _core.Hub, token: int) -> None:
        """Signals at once: the end has come."""
        hub.announce(token)

    def unwatch_pings(self, hub: _core.Hub, token: int) -> None:
        """Does nothing: no watch is kept."""

    def await_end(self, timeout: float | None) -> bool:
        """Returns True at once: the end has come."""
        return True

    def watch_inbox(self, hub: _core.Hub, token: int) -> None:
        """Does nothing: the end has come, so no caller waits."""

    def listen(self, hub: _core.Hub, token: int, /) -> bool:
        """Returns False: the end can be taken now."""
        return False

    def watch_outbox(self, hub: _core.Hub, token: int) -> None:
        """Does nothing: no room is needed, so no caller waits."""

    def unwatch(self, hub: _core.Hub, token: int) -> None:
        """Does nothing: no watch is kept."""
