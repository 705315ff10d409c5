"""Calls that one thread makes, one after the other, as long as there are any."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

from dwebsocket.compat import unpatched

_log = logging.getLogger("dwebsocket")


class WorkQueue:
    """A queue whose thread starts with the first call and ends after the last. For any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = unpatched.lock()
        self._waiting: OrderedDict[tuple[Any, ...], None] = OrderedDict()
        # Held as long as there is a thread.
        self._working = unpatched.lock()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_working(self) -> bool:
        """Whether there is a thread."""
        return self._working.locked()

    def add(self, *calls: tuple[Any, ...], or_here: bool = False) -> None:
        """
        Has calls made soon: each is a function and its arguments, and waits but once.

        Raises:
            RuntimeError: The system gives no thread; the next one that it gives makes the calls.
                With ``or_here`` this one makes all that wait.
        """
        with self._lock:
            self._waiting.update(dict.fromkeys(calls))
            if not (self._waiting and self._working.acquire(blocking=False)):
                return
        try:
            unpatched.start_code(self._name, self._work)
        except RuntimeError:
            if not or_here:
                self._working.release()
                raise
            self._work()

    def wait(self, timeout: float) -> None:
        """Waits for the end of its thread, on one of ``start_code``: so many seconds at most."""
        if unpatched.acquire(self._working, timeout):
            self._working.release()

    def _work(self) -> None:
        while (found := self._take()) is not None:
            try:
                found[0](*found[1:])
            except Exception:
                # Others wait. An exception that ends a green thread ends this one.
                _log.exception("The thread %s could not make a call", self._name)
            # Drop the arguments now, not only when the next call comes.
            del found

    def _take(self) -> tuple[Any, ...] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popitem(last=False)[0]
            # From here on another thread may start.
            self._working.release()
            return None
