"""
The bytes that ASGI connections buffer, and their limit; as ``src/engine/resources/budget.rs``.

There the server reads and writes, and its own buffers are counted only where it reveals them:
frames in the buffer of an asyncio transport are counted, unfinished messages are not.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any, Protocol

from dwebsocket import clock
from dwebsocket.compat.system import at_fork

#: Smaller changes are not passed on, so small messages cost nothing here.
STEP_BYTES = 4096
#: While the process is at its limit, only connections that hold less than this are read from.
SMALL_BYTES = 64 * 1024
# The memory that a queued message takes beside its payload.
_MESSAGE_BYTES = 256
# Time for a connection to release what it holds. Until then its share counts as released.
_GRACE_S = 2.0
# Seconds between two checks while connections release their bytes.
_PAUSE_S = 0.02


class Holder(Protocol):
    """A connection that buffers bytes."""

    def shed(self) -> None:
        """Closes with 1013, and drops the buffered bytes."""


def cost(messages: int, size: int) -> int:
    """Gives the memory that ``messages`` of ``size`` bytes in total take in a queue."""
    return size + messages * _MESSAGE_BYTES


class Share:
    """The bytes that one connection holds. To be used under its lock."""

    def __init__(self, budget: Budget, holder: Holder) -> None:
        """Begins with nothing."""
        self.held = 0
        self.is_shed = False
        self._budget = budget
        # The budget keeps the share, and with it this reference, until the callback has run.
        self.holder = weakref.ref(holder, self._give_back)

    @property
    def is_large(self) -> bool:
        """Whether reading from the connection pauses while the process is at its limit."""
        return self.held >= SMALL_BYTES

    def set(self, size: int) -> bool:
        """Notes the bytes held now. True when :meth:`Budget.relieve` has to be called."""
        is_step = abs(size - self.held) >= STEP_BYTES
        return (is_step or (not size and self.held > 0)) and self._budget.change(self, size)

    def _give_back(self, _: Any) -> None:
        self._budget.change(self, 0)


class Budget:
    """The bytes that all connections of a process may hold. Any thread may call it."""

    def __init__(self) -> None:
        """Begins without a limit."""
        self.limit: int | None = None
        self.held = 0
        # Reentrant: the garbage collector may call `Share._give_back` at any time.
        self._lock = threading.RLock()
        self._holders: set[Share] = set()
        # The loop that checks repeatedly until there is room again.
        self._relieving: asyncio.AbstractEventLoop | None = None

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.held >= self.limit

    def change(self, share: Share, size: int) -> bool:
        """Notes the size of a share. True when :meth:`relieve` has to be called."""
        with self._lock:
            self.held += size - share.held
            share.held = size
            (self._holders.add if size else self._holders.discard)(share)
            return self.is_full and not self._is_relieving()

    def relieve(self) -> None:
        """
        Closes the largest holders, in order, until the process is well below its limit again.

        To be called in a running loop, without any connection's lock.
        """
        with self._lock:
            if self._is_relieving() or not self.is_full:
                return
            self._relieving = loop = asyncio.get_running_loop()
        self._look(loop, [])

    def _is_relieving(self) -> bool:
        # A loop that was closed meanwhile makes no more checks.
        return self._relieving is not None and not self._relieving.is_closed()

    def _look(self, loop: asyncio.AbstractEventLoop, leaving: list[tuple[float, Share]]) -> None:
        now = clock.now()
        leaving = [(since, each) for since, each in leaving if each.held and now - since < _GRACE_S]
        with self._lock:
            excess = 0 if self.limit is None else self.held - self.limit // 8 * 7
            if excess <= 0:
                self._relieving = None
                return
            missing = excess - sum(each.held for _, each in leaving)
            holders = list(self._holders)
        left = [share for share in holders if not share.is_shed]
        left.sort(key=lambda share: share.held, reverse=True)
        for share in left:
            if missing <= 0:
                break
            missing -= share.held
            share.is_shed = True
            leaving.append((now, share))
            if (holder := share.holder()) is not None:
                holder.shed()
        loop.call_later(_PAUSE_S, self._look, loop, leaving)


#: That of this process.
process = Budget()


def _forget_parents_holders() -> None:
    process.__init__()  # type: ignore[misc]


at_fork(_forget_parents_holders)
