"""The groups of one process: their members, and what is sent to them."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.without_engine.handshake import may_send_close_code
from dwebsocket.compat.without_engine.missing import unavailable

if TYPE_CHECKING:
    from dwebsocket.compat.without_engine.mailbox import Mailbox

_POLICIES = {
    "close": "dropped_newest",
    "drop_newest": "dropped_newest",
    "drop_oldest": "dropped_oldest",
    "latest": "dropped_for_latest",
}
_EVENTS = ("published", "failed", "unreadable", "lost", "regained", "restarted")
_MAX_REASON_BYTES = 123


class _InOneProcess:
    """Has no calls for other processes, nor for the history."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return unavailable("The exchange of groups with other processes")


class Groups(_InOneProcess):
    """The groups of one backend, whose members are mailboxes. Any thread may use it."""

    def __init__(self, when_full: str, key: bytes | None = None) -> None:
        """
        Makes a registry without groups; ``key`` is for envelopes, of which there are none here.

        Raises:
            ValueError: An unknown policy.
        """
        if when_full not in _POLICIES:
            raise ValueError(f"no policy {when_full!r}")
        self._when_full = when_full
        # Reentrant: the garbage collector may end a membership at any time.
        self._lock = threading.RLock()
        # By the group's name, the members with their keys.
        self._members: dict[str, dict[Mailbox, bytes]] = {}
        self._counters: Counter[str] = Counter()
        # None for the end of them.
        self._notices: queue.SimpleQueue[tuple[str, list[str]] | None] = queue.SimpleQueue()

    def join(self, name: str, member: Mailbox, id: bytes) -> bool | None:
        """Makes a member; true for the group's first one, None when the member is over."""
        with self._lock:
            if (memberships := member.memberships) is None:
                return None
            memberships.add(self)
            members = self._members.setdefault(name, {})
            is_first = not members
            members.setdefault(member, id)
            if member.memberships is None:
                # It has ended meanwhile, perhaps before it was known here.
                self._leave(name, member)
                return None
            return is_first

    def leave(self, name: str, member: Mailbox) -> bool | None:
        """Ends a membership; true when it was the group's last one, None without one."""
        with self._lock:
            return self._leave(name, member)

    def forget(self, member: Mailbox) -> None:
        """Ends all memberships of one that has ended."""
        with self._lock:
            for name in list(self._members):
                self._leave(name, member)

    def _leave(self, name: str, member: Mailbox) -> bool | None:
        members = self._members.get(name, {})
        if members.pop(member, None) is None:
            return None
        if not members:
            del self._members[name]
        return not members

    def is_member(self, name: str, member: Mailbox) -> bool:
        """Whether it is a member of a group."""
        return member in self._members.get(name, ())

    def names_of(self, member: Mailbox) -> list[str]:
        """Returns the names of a member's groups."""
        with self._lock:
            return [name for name, members in self._members.items() if member in members]

    def count(self, name: str) -> int:
        """Returns the number of members of a group."""
        return len(self._members.get(name, ()))

    def counts(self) -> list[tuple[str, int]]:
        """Returns all groups with members, and their numbers."""
        with self._lock:
            return [(name, len(members)) for name, members in self._members.items()]

    def publish(self, name: str, message: str | bytes, exclude: list[bytes], /) -> None:
        """Sends a message to the members, but for those with the keys in ``exclude``."""
        size = len(message.encode() if isinstance(message, str) else message)
        # Under the lock: two messages come to all members in the same order.
        with self._lock:
            self._counters["published"] += 1
            for member, key in list(self._members.get(name, {}).items()):
                if key not in exclude:
                    self._hand(name, member, message, size)

    def _hand(self, name: str, member: Mailbox, message: str | bytes, size: int) -> None:
        handed = member.put(message, size, self._when_full)
        self._counters["delivered"] += handed.delivered
        self._counters[_POLICIES[self._when_full]] += handed.dropped
        self._counters["closed"] += handed.closed
        if (handed.dropped or handed.closed) and self._notices.empty():
            self._notices.put(("slow", [name]))

    def close(self, name: str, code: int, reason: str) -> None:
        """
        Closes the members, after what was published before.

        Raises:
            ValueError: A code that must not be sent, or a reason that does not fit.
        """
        if not may_send_close_code(code):
            raise ValueError(f"close code {code} must not be sent")
        if len(reason.encode()) > _MAX_REASON_BYTES:
            raise ValueError(f"at most {_MAX_REASON_BYTES} bytes of a reason fit a close frame")
        with self._lock:
            members = list(self._members.get(name, ()))
        for member in members:
            member.close(code, reason)

    def note(self, event: str) -> None:
        """
        Counts an event.

        Raises:
            ValueError: An unknown one.
        """
        if event not in _EVENTS:
            raise ValueError(f"no event {event!r}")
        with self._lock:
            self._counters[event] += 1

    def statistics(self) -> dict[str, int]:
        """Returns the counters of messages."""
        return {"published": 0, "delivered": 0, **self._counters}

    def recorded_names(self) -> list[str]:
        """Returns the groups with a history: none."""
        return []

    def take_notice(self, timeout: float | None) -> tuple[str, list[str]] | None:
        """
        Sleeps until there is an event for the log, and gives its kind and its texts.

        None after ``timeout`` seconds, and when :meth:`end_notices` was called.
        """
        try:
            notice = self._notices.get(timeout=timeout)
        except queue.Empty:
            return None
        if notice is None:
            self.end_notices()
        return notice

    def end_notices(self) -> None:
        """Lets :meth:`take_notice` sleep no more."""
        self._notices.put(None)


class LocalNode(_InOneProcess):
    """This process, which shares its groups with no other one."""

    def __init__(self, path: object, user: int, groups: Groups, presence: object) -> None:
        """Opens nothing."""
        self._groups = groups
        self.publish, self.count = groups.publish, groups.count

    def close(self, name: str, code: int, reason: str) -> None:
        """Closes the members; raises as :meth:`Groups.close`."""
        self._groups.close(name, code, reason)

    def peers(self) -> int:
        """Returns the number of other processes."""
        return 0

    def processes(self) -> list[int]:
        """Returns the numbers of the other processes: none."""
        return []

    def stop(self, timeout: float) -> None:
        """Does nothing."""


class Presence:
    """The users that are present in groups: none, since no connection can be."""

    def __init__(self, groups: Groups) -> None:
        """Begins without users."""

    def enter(self, *_: Any) -> Any:
        """
        Fails.

        Raises:
            UnsupportedServer: Always.
        """
        return unavailable("Presence in groups")()

    def tells(self, name: str, key: str) -> bool:
        """Whether this process tells that a user has joined."""
        return True

    def leave(self, name: str, object: object) -> None:
        """Does nothing: the connection is not present."""

    def members(self, name: str) -> list[Any]:
        """Returns the users that are present."""
        return []

    def take_departed(self) -> list[Any]:
        """Returns the users that have left."""
        return []
