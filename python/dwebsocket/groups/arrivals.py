"""
Messages from other processes: one thread takes them, whatever event loops the process has.

A thread, because such messages belong to no loop: channels are made in one, read in another, and
filled while none runs (``async_to_sync``). It sleeps in the engine, without the GIL.
"""

from __future__ import annotations

import itertools
import logging
import os
from functools import partial
from typing import TYPE_CHECKING
from weakref import finalize, ref

from dwebsocket import _core
from dwebsocket.compat import unpatched
from dwebsocket.exceptions import GroupUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.backends.contract import Backend

_log = logging.getLogger("dwebsocket")
# Bytes that one group's messages may take until the thread has them. What has no room is dropped:
# counted and logged by the engine, as for a WebSocket that is slow.
_CAPACITY = 64 * 1024 * 1024


class Arrivals:
    """
    The thread, which starts with the first mailbox. Any thread may use it.

    Args:
        about: What the messages are about, for the thread's name and for the log.
    """

    def __init__(self, about: str) -> None:
        self.about = about
        self._lock = unpatched.lock()
        self._hub: _core.Hub | None = None
        self._tokens = itertools.count(1)
        self._takers: dict[int, Callable[[], None]] = {}
        #: They end the subscriptions of an object that is collected, to which they must not refer.
        #: The thread has them, too.
        self.ends: dict[int, Callable[[], None]] = {}

    def enter(self, take: Callable[[], None]) -> tuple[_core.Hub, int]:
        """Has the thread call ``take`` whenever the token that this returns is announced."""
        with self._lock:
            if self._hub is None:
                hub = _core.Hub(for_threads=True)
                self._start(hub)
                self._hub = hub
            token = next(self._tokens)
            self._takers[token] = take
            return self._hub, token

    def leave(self, token: int) -> None:
        """Ends the calls for a token."""
        self._takers.pop(token, None)
        self.ends.pop(token, None)

    def close(self) -> None:
        """Ends the thread."""
        if self._hub is not None:
            self._hub.close()

    def take(self, token: int) -> None:
        """Calls what belongs to a token. On the thread."""
        if (taker := self._takers.get(token)) is not None:
            taker()

    def _start(self, hub: _core.Hub) -> None:
        # The thread does not keep this object alive; it ends with it.
        name = f"dwebsocket-{self.about}"
        work = unpatched.lasting(name, _worker(hub, ref(self), self.ends))
        unpatched.start_thread(name, work)
        finalize(self, _close, hub, os.getpid()).atexit = False


def _worker(
    hub: _core.Hub, weak: ref[Arrivals], ends: dict[int, Callable[[], None]]
) -> Callable[[], None]:
    def work() -> None:
        turn = None
        while (found := hub.next(turn)) is not None:
            token, turn, _ = found
            if (arrivals := weak()) is None:
                break
            unpatched.call_code(partial(arrivals.take, token))
            del arrivals
        # Here, as the garbage collector runs anywhere, also below locks of the backend.
        if weak() is None:
            for end in ends.values():
                unpatched.call_code(end)

    return work


def _close(hub: _core.Hub, process: int) -> None:
    # In a forked child the engine's locks may be held by a thread that is not there.
    if os.getpid() == process:
        hub.close()


def _end(backend: Backend, name: str, mailbox: _core.Mailbox) -> None:
    backend.discard(name, mailbox)
    mailbox.end()


class Subscription:
    """
    This process as a member of one group of the backend.

    Args:
        name: The group.
        key: By what others can exclude it.
        take: Called on the thread with each message. What it raises is logged.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        backend: Backend,
        name: str,
        key: bytes,
        take: Callable[[str | bytes], None],
    ) -> None:
        self._arrivals = arrivals
        self._backend = backend
        self._name = name
        self._key = key
        self._take = take
        self._is_up = False
        with backend.starting():
            hub, self._token = arrivals.enter(self._take_all)
        # `group(…).close()` closes WebSockets, and nothing else.
        self._mailbox = _core.Mailbox(_CAPACITY, hub, self._token)

    def start(self) -> None:
        """
        Subscribes, unless that was done: what is published afterwards comes here.

        Raises:
            GroupUnavailable: The backend cannot be reached.
        """
        if not self._is_up:
            self._backend.add(self._name, self._mailbox, self._key)
            self._is_up = True
            self._end_when_collected()

    async def astart(self) -> None:
        """Starts as :meth:`start`, and raises the same, without blocking the event loop."""
        if not self._is_up:
            # Several tasks may do so at once: it is the same member.
            await self._backend.aadd(self._name, self._mailbox, self._key)
            self._is_up = True
            self._end_when_collected()

    def _end_when_collected(self) -> None:
        # Else other processes would wait for the answers of a member that nobody has any more.
        end = partial(_end, self._backend, self._name, self._mailbox)
        self._arrivals.ends[self._token] = end

    def end(self) -> None:
        """Unsubscribes. Never waits."""
        _end(self._backend, self._name, self._mailbox)
        self._arrivals.leave(self._token)

    def _take_all(self) -> None:
        while (message := self._mailbox.pop()) is not None:
            try:
                self._take(message)
            except GroupUnavailable as error:
                about = self._arrivals.about
                _log.warning("Other processes cannot be told of %s: %s", about, error)
            except Exception:
                # Other messages wait after it.
                _log.exception("A message for %s could not be taken", self._arrivals.about)
