"""
A time limit for what Django's connection does, without changing anything in its session.

When the time is up the socket is shut down. The library then ends the call with an error, whatever
it waits for: a lock, a server that has stopped, a network that has lost it. The server itself rolls
back an open transaction.
"""

from __future__ import annotations

import math
import os
import socket
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dwebsocket.api import callbacks
from dwebsocket.compat import unpatched
from dwebsocket.compat.socket import system
from dwebsocket.compat.system import monotonic, renew_at_fork
from dwebsocket.groups.backends.postgres import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper

# The C library takes whole seconds, and makes two of one.
_SHORTEST_CONNECT_S = 2


class Watchdog:
    """
    Makes calls when the time of something is up that has not ended before.

    Beginning and ending cost no system call: there is one timer, for the earliest of all times.
    """

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._calls: dict[object, tuple[float, Callable[[], None]]] = {}
        # The time of the next look; None without one.
        self._looks_at: float | None = None

    def begin(self, key: object, ends_at: float, call: Callable[[], None]) -> None:
        """
        Calls ``call`` at ``ends_at``, on a thread that must not sleep, unless :meth:`end` comes.

        Raises:
            RuntimeError: The system gives no thread.
        """
        with self._lock:
            self._calls[key] = (ends_at, call)
            is_first = self._looks_at is None or ends_at < self._looks_at
            if is_first:
                self._looks_at = ends_at
        if is_first:
            try:
                callbacks.call_later(ends_at - monotonic(), self._end_overdue)
            except RuntimeError:
                with self._lock:
                    self._looks_at = None
                raise

    def end(self, key: object) -> None:
        """Forgets it."""
        with self._lock:
            self._calls.pop(key, None)

    def _end_overdue(self) -> None:
        now = monotonic()
        with self._lock:
            over = [key for key, (ends_at, _) in self._calls.items() if ends_at <= now]
            calls = [self._calls.pop(key)[1] for key in over]
            next_at = min((ends_at for ends_at, _ in self._calls.values()), default=None)
            self._looks_at = next_at
        for call in calls:
            call()
        if next_at is not None:
            callbacks.call_later(next_at - now, self._end_overdue)


_watchdog = Watchdog()


class Deadline:
    """The time that one publish may take, with all that it has to do."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        #: Whether the time was up.
        self.is_over = False
        self._ends_at = monotonic() + seconds

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(0.0, self._ends_at - monotonic())

    def on(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[None]:
        """Shuts the open connection down when the time is up in the block."""
        return self._on(connection.connection)

    @contextmanager
    def _on(self, raw: Any) -> Iterator[None]:
        try:
            copy = os.dup(raw.fileno())
        except Exception:
            # Closed, or of a class that has no descriptor: then the server's own limits hold.
            yield
            return
        shared = system.socket(socket.AF_INET, socket.SOCK_STREAM, 0, copy)
        lock = unpatched.lock()

        def shut_down() -> None:
            with lock, suppress(OSError):
                if shared.fileno() >= 0:
                    self.is_over = True
                    shared.shutdown(socket.SHUT_RDWR)

        watchdog = _watchdog
        try:
            with suppress(RuntimeError):
                watchdog.begin(shared, self._ends_at, shut_down)
            yield
        finally:
            watchdog.end(shared)
            with lock:
                shared.close()

    @contextmanager
    def on_connecting(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """
        Limits the time of a new connection, and of the first queries of Django and the project on
        it: a pooler answers only while it has a server. A pool has its own limit.

        Each of several hosts has two seconds at least: one of them may be off.
        """
        connect = connection.get_new_connection
        with ExitStack() as stack:

            def limited(found: dict[str, Any]) -> Any:
                hosts = parameters.hosts(found)
                seconds = max(_SHORTEST_CONNECT_S, math.ceil(self.left / hosts))
                if hosts > 1:
                    self._ends_at = max(self._ends_at, monotonic() + hosts * seconds)
                # The project's own, in OPTIONS, may be a longer one; 0 is none.
                own = str(found.get("connect_timeout", ""))
                if own.isdecimal() and int(own):
                    seconds = min(seconds, int(own))
                raw = connect({**found, "connect_timeout": seconds})
                stack.enter_context(self._on(raw))
                return raw

            own = vars(connection)
            own["get_new_connection"] = limited
            try:
                yield
            finally:
                del own["get_new_connection"]


renew_at_fork(globals(), _watchdog=Watchdog)
