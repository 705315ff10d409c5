"""The interface of connections: of the engine's, and of objects that stand for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from dwebsocket import _core

    Message = str | bytes
    By = Literal["local", "peer", "lost"]
    FindHub = Callable[[], tuple[_core.Hub, asyncio.AbstractEventLoop]]


def refused_code(code: int) -> ValueError:
    """Returns the error of a close code that must not be sent (RFC 6455 section 7.4)."""
    return ValueError(f"close code {code} must not be sent: use 1000-1003, 1007-1014 or 3000-4999")


class Connection(Protocol):
    """One WebSocket. Any thread may call any method at any time."""

    @property
    def id(self) -> int:
        """As :attr:`dwebsocket._core.Connection.id`."""

    def as_member(self) -> _core.Connection | _core.Mailbox | None:
        """Returns the member that this is in groups; None for one that was never opened."""

    def pop(self, text_as_bytes: bool, /) -> Message | None:
        """As :meth:`dwebsocket._core.Connection.pop`."""

    def owes_a_pause(self) -> bool:
        """As :meth:`dwebsocket._core.Connection.owes_a_pause`."""

    def take(self, timeout: float | None, text_as_bytes: bool) -> Message | None:
        """As :meth:`dwebsocket._core.Connection.take`."""

    def take_coarse(self, time: float, text_as_bytes: bool, /) -> Message | None:
        """As :meth:`dwebsocket._core.Connection.take_coarse`."""

    def post(self, message: object, text_as_bytes: bool, sender: object, /) -> bool:
        """As :meth:`dwebsocket._core.Connection.post`."""

    def send(
        self, message: Message, *, binary: bool | None = None, timeout: float | None = None
    ) -> bool:
        """
        As :meth:`dwebsocket._core.Connection.send`.

        Raises:
            SendTimeout: There was no room within ``timeout`` seconds.
        """

    def try_send(self, message: Message, *, binary: bool | None = None) -> bool | None:
        """As :meth:`dwebsocket._core.Connection.try_send`."""

    def send_beyond(self, message: Message, *, binary: bool | None = None) -> bool | None:
        """As :meth:`dwebsocket._core.Connection.send_beyond`."""

    def has_room(self) -> bool:
        """As :meth:`dwebsocket._core.Connection.has_room`."""

    def close(self, code: int, reason: str) -> bool:
        """
        As :meth:`dwebsocket._core.Connection.close`.

        Raises:
            ValueError: A code that must not be sent, or a reason that does not fit.
        """

    def half_close(self, code: int, reason: str) -> bool:
        """As :meth:`dwebsocket._core.Connection.half_close`; raises as :meth:`close`."""

    def waiting(self) -> tuple[int, bool]:
        """As :meth:`dwebsocket._core.Connection.waiting`."""

    def end(self) -> tuple[int, str, By] | None:
        """As :meth:`dwebsocket._core.Connection.end`."""

    def ended_for(self) -> float | None:
        """As :meth:`dwebsocket._core.Connection.ended_for`."""

    def messages(self) -> tuple[int, int]:
        """As :meth:`dwebsocket._core.Connection.messages`."""

    def traffic(self) -> tuple[int, int, int, int, int, int, int]:
        """As :meth:`dwebsocket._core.Connection.traffic`."""

    def watch_end(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket._core.Connection.watch_end`."""

    def await_news(self, time: float) -> None:
        """As :meth:`dwebsocket._core.Connection.await_news`."""

    def descriptor(self) -> int | None:
        """
        As :meth:`dwebsocket._core.Connection.descriptor`.

        Raises:
            OSError: The process has no descriptor left.
        """

    def mark_end_read(self) -> None:
        """As :meth:`dwebsocket._core.Connection.mark_end_read`."""

    def close_descriptor(self) -> None:
        """As :meth:`dwebsocket._core.Connection.close_descriptor`."""

    def discard(self) -> None:
        """As :meth:`dwebsocket._core.Connection.discard`."""

    def ping(self, payload: bytes) -> bool:
        """As :meth:`dwebsocket._core.Connection.ping`."""

    def pong(self, payload: bytes) -> bool:
        """As :meth:`dwebsocket._core.Connection.pong`."""

    @property
    def latency(self) -> float | None:
        """As :attr:`dwebsocket._core.Connection.latency`."""

    def begin_beat(self, seconds: float) -> None:
        """As :meth:`dwebsocket._core.Connection.begin_beat`."""

    def begin_ping(self) -> _core.Ping | None:
        """
        As :meth:`dwebsocket._core.Connection.begin_ping`.

        Raises:
            UnsupportedServer: This server sends no pings of an application.
        """

    def watch_pings(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket._core.Connection.watch_pings`."""

    def unwatch_pings(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket._core.Connection.unwatch_pings`."""

    def await_end(self, timeout: float | None) -> bool:
        """As :meth:`dwebsocket._core.Connection.await_end`."""

    def next_now(self) -> Awaitable[Message | None]:
        """As :meth:`dwebsocket._core.Connection.next_now`."""

    def is_slow_to_send(self, message: Message, /) -> bool:
        """As :meth:`dwebsocket._core.Connection.is_slow_to_send`."""

    def next(self, find_hub: FindHub, /) -> Awaitable[Message]:
        """As :meth:`dwebsocket._core.Connection.next`."""

    def watch_inbox(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket._core.Connection.watch_inbox`."""

    def listen(self, hub: _core.Hub, token: int, /) -> bool:
        """As :meth:`dwebsocket._core.Connection.listen`."""

    def watch_outbox(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket._core.Connection.watch_outbox`."""

    def unwatch(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket._core.Connection.unwatch`."""
