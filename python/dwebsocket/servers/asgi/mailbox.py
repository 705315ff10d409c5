"""Messages of groups for a connection on an ASGI server: from the mailbox to its outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket import _core

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.api.waiting.loop_hub import LoopHub

    Message = str | bytes

# Bytes that are moved to the outbox at a time. Messages that wait in the mailbox are subject to the
# policy for slow members.
_AT_ONCE_BYTES = 64 * 1024


class GroupMailbox:
    """
    The mailbox of one connection, and the move of its messages.

    Attributes:
        member: The engine's part of it, which groups know.
    """

    def __init__(self, hub: LoopHub, capacity: int, on_arrival: Callable[[], None]) -> None:
        """
        Makes an empty one. Any thread may.

        Args:
            hub: The hub of the server's loop.
            capacity: Bytes that may wait.
            on_arrival: Called in the loop when something has come into the empty mailbox.
        """
        self._hub = hub
        self._token = hub.call_on(on_arrival)
        self.member = _core.Mailbox(capacity, hub.core, self._token)

    def take(self) -> list[Message]:
        """Takes the next messages, about as many bytes as may be moved at once."""
        messages: list[Message] = []
        size = 0
        while size < _AT_ONCE_BYTES and (message := self.member.pop()) is not None:
            messages.append(message)
            size += len(message)
        return messages

    def end(self) -> None:
        """Leaves all groups, for good."""
        self.member.end()
        self._hub.forget(self._token)
