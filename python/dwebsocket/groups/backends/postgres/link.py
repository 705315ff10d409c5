"""A connection to PostgreSQL for a thread of ours, which waits without the library's help."""

from __future__ import annotations

import os
import selectors
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from dwebsocket.compat import unpatched
from dwebsocket.compat.postgresql import Lost
from dwebsocket.compat.system import monotonic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.compat.postgresql import Driver, Library, Need

# A server that is sending reads nothing until we have read: the libraries do so when they cannot
# write.
_EVENTS = {"read": selectors.EVENT_READ, "write": selectors.EVENT_READ | selectors.EVENT_WRITE}


class Link:
    """
    One connection. For one thread of ``unpatched.start_code``, apart from :meth:`leave`.

    Args:
        timeout: The seconds for which the server may be silent while it is asked.
        wake_up: A descriptor that ends :meth:`wait` when it is readable.
    """

    def __init__(
        self,
        library: Library,
        parameters: Mapping[str, object],
        timeout: float,
        wake_up: int | None = None,
    ) -> None:
        """
        Connects.

        Raises:
            Lost: There is no connection within the timeout.
        """
        self._timeout = timeout
        self._process = os.getpid()
        self._wake_up = wake_up
        # The descriptor, and what a forked child recognises it by.
        self._registered: tuple[int, tuple[int, int]] | None = None
        self._need: Need | None = None
        self._notifications: deque[tuple[str, str]] = deque()
        self._driver: Driver = library.open(parameters)
        # One for the socket alone, while the server is asked; and one for both descriptors.
        self._alone, self._both = unpatched.selector(), unpatched.selector()
        deadline = monotonic() + timeout
        try:
            while (need := self._driver.connect()) is not None:
                self._sleep(need, deadline)
                # The library may go on with another socket.
                self._unregister()
            self._register("read")
            self._both.register(self._driver.fileno(), selectors.EVENT_READ)
            if wake_up is not None:
                self._both.register(wake_up, selectors.EVENT_READ)
        except BaseException:
            self.close()
            raise

    def query(self, sql: str) -> list[tuple[str | None, ...]]:
        """
        Returns the rows of a query. Notifications that come meanwhile are kept.

        Raises:
            Lost: The connection is lost, or the server was silent for too long.
            QueryFailed: The server has refused it.
        """
        self._driver.begin(sql)
        while (need := self._driver.go_on()) is not None:
            # The time begins anew with each piece of a large row.
            self._sleep(need, monotonic() + self._timeout)
        self._keep_notifications()
        return self._driver.rows()

    def take(self) -> tuple[str, str] | None:
        """Takes the oldest notification that has come: its channel and its payload."""
        return self._notifications.popleft() if self._notifications else None

    @property
    def waiting(self) -> int:
        """How many notifications have come that were not taken yet."""
        return len(self._notifications)

    def wait(self, timeout: float) -> None:
        """
        Sleeps until something has come, or there is a wake-up.

        Raises:
            Lost: The connection is lost.
        """
        ready = unpatched.select(self._both, max(0.0, timeout))
        if any(key.fd != self._wake_up for key, _ in ready):
            self._driver.take_in()
            self._keep_notifications()

    def close(self) -> None:
        """Closes it, unless it is that of the parent of this process."""
        if os.getpid() != self._process:
            return
        self._unregister()
        self._both.close()
        self._alone.close()
        self._driver.close()

    def leave(self) -> None:
        """
        Closes the descriptor in a forked child, without a word to the server.

        As long as it is open anywhere, the server takes a parent that was killed for alive.
        """
        if self._registered is not None:
            descriptor, identity = self._registered
            with suppress(OSError):
                if _identity(descriptor) == identity:
                    os.close(descriptor)

    def _keep_notifications(self) -> None:
        self._notifications.extend(self._driver.notifications())

    def _sleep(self, need: Need, deadline: float) -> None:
        """Sleeps until the socket is ready."""
        self._register(need)
        left = deadline - monotonic()
        if left <= 0 or not unpatched.select(self._alone, left):
            raise Lost(f"no answer within {self._timeout:g} s")

    def _register(self, need: Need) -> None:
        if self._registered is None:
            descriptor = self._driver.fileno()
            self._alone.register(descriptor, _EVENTS[need])
            self._registered = (descriptor, _identity(descriptor))
        elif need != self._need:
            self._alone.modify(self._registered[0], _EVENTS[need])
        self._need = need

    def _unregister(self) -> None:
        if self._registered is not None:
            # The library may have closed it.
            with suppress(KeyError, ValueError, OSError):
                self._alone.unregister(self._registered[0])
            self._registered = None


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
