"""The messages of groups for one member, as ``src/engine/groups/mailbox.rs``."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from dwebsocket.compat.without_engine.hub import Hub

_TOO_SLOW = (1013, "too slow")


class Handed(NamedTuple):
    """The outcome of one message for one member."""

    delivered: int = 0
    dropped: int = 0
    closed: int = 0


class Membership(Protocol):
    """The groups of one backend."""

    def forget(self, member: Mailbox) -> None:
        """Ends all memberships of one that has ended."""


class Mailbox:
    """A bounded queue, whose token is announced when something comes into it while it is empty."""

    def __init__(self, capacity: int, hub: Hub, token: int, *, is_closable: bool = True) -> None:
        """Makes an empty one, for ``capacity`` bytes."""
        self._capacity = capacity
        self._hub = hub
        self._token = token
        self._is_closable = is_closable
        # Reentrant: the garbage collector may end it at any time.
        self._lock = threading.RLock()
        self._messages: deque[tuple[str | bytes, int]] = deque()
        self._bytes = 0
        self._close: tuple[int, str] | None = None
        #: The groups that know this member; None once it has ended.
        self.memberships: set[Membership] | None = set()

    def pop(self) -> str | bytes | None:
        """Takes the oldest message."""
        with self._lock:
            if not self._messages:
                return None
            message, size = self._messages.popleft()
            self._bytes -= size
            return message

    def close_frame(self) -> tuple[int, str] | None:
        """Returns the code and the reason to close with, once all messages were taken."""
        with self._lock:
            return None if self._messages else self._close

    def end(self) -> None:
        """Leaves all groups, for good."""
        memberships, self.memberships = self.memberships, None
        for each in list(memberships or ()):
            each.forget(self)
        with self._lock:
            self._messages.clear()
            self._bytes = 0

    def put(self, message: str | bytes, size: int, when_full: str) -> Handed:
        """Takes a message of a group, by the policy of its backend."""
        with self._lock:
            if self._close is not None:
                return Handed()
            was_empty = not self._messages
            dropped = self._make_room(size, when_full)
            if dropped is not None:
                self._messages.append((message, size))
                self._bytes += size
                handed = Handed(delivered=1, dropped=dropped)
            elif when_full == "close" and self._is_closable:
                self._close = _TOO_SLOW
                self._messages.clear()
                self._bytes = 0
                handed = Handed(closed=1)
            else:
                return Handed(dropped=1)
        if was_empty:
            self._hub.announce(self._token)
        return handed

    def close(self, code: int, reason: str) -> None:
        """Has its connection closed, after the messages that wait."""
        with self._lock:
            if not self._is_closable or self._close is not None:
                return
            self._close = (code, reason)
            was_empty = not self._messages
        if was_empty:
            self._hub.announce(self._token)

    def _make_room(self, size: int, when_full: str) -> int | None:
        """Returns the number of messages that were dropped for one; None when it has no room."""
        dropped = 0
        while self._messages and self._bytes + size > self._capacity:
            if when_full in ("close", "drop_newest"):
                return None
            if when_full == "latest":
                dropped += len(self._messages)
                self._messages.clear()
                self._bytes = 0
            else:
                dropped += 1
                self._bytes -= self._messages.popleft()[1]
        return dropped
