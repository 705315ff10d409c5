"""
The bytes that ASGI connections buffer, and their limit; as ``src/engine/resources/budget.rs``.

There the server reads and writes, and its own buffers are counted only where it reveals them:
frames in the buffer of an asyncio transport are counted, unfinished messages are not.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextlib import suppress
from typing import Any, Protocol

from dwebsocket.api.waiting.loop_hub import LoopEvent
from dwebsocket.compat.system import at_fork
from dwebsocket.telemetry import clock

#: Smaller changes are not passed on, so small messages cost nothing here.
STEP_BYTES = 4096
#: While the process is at its limit, only connections that hold less than this are read from.
SMALL_BYTES = 64 * 1024
# The memory that a queued message takes beside its payload.
_MESSAGE_BYTES = 256
# Time for a connection to release what it holds. Until then its share counts as released.
_GRACE_S = 2.0


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
        # The loop that closes holders until there is room again, those that it has closed, with the
        # times, and whether it is to look at them.
        self._relieving: asyncio.AbstractEventLoop | None = None
        self._leaving: list[tuple[float, Share]] = []
        self._is_look_due = False
        # Of readers that wait until the limit is not reached.
        self._waiting: weakref.WeakSet[LoopEvent] = weakref.WeakSet()

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.limit is not None and self.held >= self.limit

    def change(self, share: Share, size: int) -> bool:
        """Notes the size of a share. True when :meth:`relieve` has to be called."""
        with self._lock:
            more = size - share.held
            self.held += more
            share.held = size
            (self._holders.add if size else self._holders.discard)(share)
            if more < 0:
                self._on_release()
            return self.is_full and not self._is_relieving()

    def room(self) -> LoopEvent:
        """Gives an event of the running loop: it is set when the limit may not be reached."""
        event = LoopEvent()
        with self._lock:
            self._waiting.add(event)
        return event

    def _on_release(self) -> None:
        if self._waiting and not self.is_full:
            for event in list(self._waiting):
                event.set()
            self._waiting.clear()
        if self._relieving is not None and not self._is_look_due:
            self._is_look_due = True
            # A loop that was closed meanwhile makes no more checks.
            with suppress(RuntimeError):
                self._relieving.call_soon_threadsafe(self._look, self._relieving)

    def relieve(self) -> None:
        """
        Closes the largest holders, in order, until the process is well below its limit again.

        To be called in a running loop, without any connection's lock.
        """
        with self._lock:
            if self._is_relieving() or not self.is_full:
                return
            self._relieving = loop = asyncio.get_running_loop()
            self._leaving, self._is_look_due = [], False
        self._look(loop)

    def _is_relieving(self) -> bool:
        # A loop that was closed meanwhile makes no more checks.
        return self._relieving is not None and not self._relieving.is_closed()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes more holders, if those that are leaving do not hold enough."""
        now = clock.now()
        with self._lock:
            if self._relieving is not loop:
                return
            self._is_look_due = False
            leaving = self._leaving = [
                (since, each)
                for since, each in self._leaving
                if each.held and now - since < _GRACE_S
            ]
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
            loop.call_later(_GRACE_S, self._look, loop)
            if (holder := share.holder()) is not None:
                holder.shed()


#: That of this process.
process = Budget()


def _forget_parents_holders() -> None:
    process.__init__()  # type: ignore[misc]


at_fork(_forget_parents_holders)
