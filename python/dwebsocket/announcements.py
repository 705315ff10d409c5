"""
Sign-outs that one process sees and all others have to know, over the default backend of groups.

An announcement names a user or a session and what has changed. A process that has users listens.
What is announced is authenticated as any message of a group; at most it makes a process look
whether its users are signed in, or close WebSockets.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import TYPE_CHECKING, Any

from dwebsocket import _core, unpatched
from dwebsocket.compat.system import at_fork
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.group_settings import DEFAULT
from dwebsocket.groups import backends, names

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.backend import Backend
    from dwebsocket.waiting.waiter import Waiter

_log = logging.getLogger("dwebsocket")

_GROUP = f"{names.OWN}sign-outs"
_KEY_BYTES = 16
# Announcements that wait for one process. When more come, each of its users is checked in time.
_CAPACITY = 1024 * 1024

# This process, which needs no announcements of its own.
_own_key = secrets.token_bytes(_KEY_BYTES)


def announce(change: dict[str, Any]) -> None:
    """Tells all other processes of a change. Never waits, never raises; any thread may call it."""
    text = json.dumps(change)
    _soon(lambda backend: backend.send(_GROUP, text, [_own_key]))


def close_user(user: Any, code: int, reason: str) -> None:
    """
    Closes a user's WebSockets in all other processes. Never waits, never raises.

    Args:
        user: The primary key.
        code: The close code.
        reason: The close reason.
    """
    _soon(lambda backend: backend.close(names.of_user(user), code, reason))


def _soon(publish: Callable[[Backend], None]) -> None:
    try:
        backend = backends.backend(DEFAULT)
        if backend.waits:
            unpatched.start_thread("dwebsocket-announce", lambda: _publish(backend, publish))
        else:
            _publish(backend, publish)
    except Exception:
        _log.exception("A sign-out could not be announced to other processes")


def _publish(backend: Backend, publish: Callable[[Backend], None]) -> None:
    try:
        publish(backend)
    except GroupUnavailable as error:
        _log.warning("A sign-out could not be announced to other processes: %s", error)


class Listener:
    """Receives what other processes announce. Any thread may use it."""

    def __init__(self, receive: Callable[[dict[str, Any]], object]) -> None:
        """
        Begins without listening.

        Args:
            receive: Called with each announcement, on the process's thread for callbacks or in the
                hub of green threads. It must not wait.
        """
        self._receive = receive
        self._lock = unpatched.lock()
        # None when it is to stop.
        self._waiter: Waiter | None = None
        # Whether a waiter will call `_on_arrival`.
        self._is_expected = False
        self._mailbox: _core.Mailbox | None = None
        self._wake: Callable[[], object] = bool

    def start(self, waiter: Waiter) -> None:
        """Listens from now on, with the kind of thread that ``waiter`` belongs to."""
        if self._waiter is not None:
            return
        with self._lock:
            self._waiter = waiter
            is_expected, self._is_expected = self._is_expected, True
        if is_expected:
            return
        backends.backend(DEFAULT).subscribe_soon(_GROUP)
        waiter.at_end(self, self._on_arrival)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Ends listening. Never waits, and may run in the garbage collector."""
        self._waiter = None
        self._wake()

    def watch_end(self, hub: _core.Hub, token: int) -> None:
        """As a connection's: announces ``token`` once something has come."""
        backend = backends.backend(DEFAULT)
        mailbox = _core.Mailbox(_CAPACITY, hub, token)
        backend.join(_GROUP, mailbox, _own_key)
        before, self._mailbox = self._mailbox, mailbox
        self._wake = lambda: hub.announce(token)
        if before is not None:
            # The new one is a member already, so nothing is missed between the two.
            self._take(before)
            before.end()

    def _on_arrival(self) -> None:
        with self._lock:
            waiter, mailbox = self._waiter, self._mailbox
            self._is_expected = waiter is not None
        if waiter is None:
            self._mailbox, self._wake = None, bool
            if mailbox is not None:
                mailbox.end()
                backends.backend(DEFAULT).unsubscribe_if_unused(_GROUP)
            return
        if mailbox is not None:
            self._take(mailbox)
        waiter.at_end(self, self._on_arrival)  # type: ignore[arg-type]

    def _take(self, mailbox: _core.Mailbox) -> None:
        while (text := mailbox.pop()) is not None:
            try:
                change = json.loads(text)
            except ValueError:
                continue
            if isinstance(change, dict):
                self._receive(change)


def _become_another_process() -> None:
    global _own_key
    _own_key = secrets.token_bytes(_KEY_BYTES)


at_fork(_become_another_process)
