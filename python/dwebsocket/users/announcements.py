"""
Sign-outs: a process tells all others of those that it sees, over the default backend of groups.

An announcement is a hint: it names users and sessions that have changed, and each process that has
WebSockets of them asks its own database. So one that is late, of another site, or sent once more
closes nobody who is signed in. What is announced is authenticated as any message of a group.

A process that may have missed some looks all its users up (:mod:`dwebsocket.users.recheck`). No
database knows the calls of :func:`close_user`, so the process asks the others to repeat theirs.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import secrets
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dwebsocket import _core
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.compat.work_queue import WorkQueue
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends, names
from dwebsocket.groups.backends.contract import at_exit
from dwebsocket.request import database
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.api.waiting.waiter import Waiter
    from dwebsocket.groups.backends.contract import Backend

    Act = Callable[[Backend], None]
    #: A user or a session that has changed: one of :data:`KINDS`, and a name.
    Hint = tuple[str, str]

_log = logging.getLogger("dwebsocket")

#: The group of the announcements.
GROUP = f"{names.OWN}sign-outs"
_KEY_BYTES = 16
# Announcements that wait for one process. When more come, each of its users is checked in time.
_CAPACITY = 1024 * 1024
# Seconds for which a message may be on its way to the members of a moment ago.
_ON_THE_WAY_S = 0.1
# Users and sessions in one announcement, whose text then fits into a NOTIFY of PostgreSQL.
_MOST = 50
# Users and sessions that wait to be announced. The oldest of more are found in time, as all are.
_MOST_WAITING = 100_000
# For so many seconds, and of so many users at most, it is known that their WebSockets were closed.
_LATELY_S, _MOST_LATELY = 600.0, 1000
#: The kinds of hints, and under which kind of key the register has their names: of users as
#: :func:`dwebsocket.request.worlds.user_key` returns them, of users whose realm is not known their
#: primary keys, and of sessions what :func:`dwebsocket.users.registry.digest` returns.
KINDS = {"users": "user", "anywhere": "user of any realm", "sessions": "session"}
# Seconds that the end of the process waits for announcements to leave.
_EXIT_S = 5.0
_UNSAID = "A sign-out could not be announced to other processes"
_UNHEARD = "Sign-outs in other processes may not be heard here"

# This process, which needs no announcements of its own.
_own_key = secrets.token_bytes(_KEY_BYTES)


class Close(NamedTuple):
    """A user whose WebSockets were closed, ``age`` seconds ago: as :func:`close_user` takes it."""

    user: str
    code: int
    reason: str
    age: float


class Announcement(NamedTuple):
    """
    What another process says.

    Attributes:
        hints: Users and sessions that have changed.
        closes: What this process may have missed.
        asks: Whether the other one asks for those of this process.
    """

    hints: list[Hint]
    closes: list[Close]
    asks: bool


def read(text: str | bytes) -> Announcement:
    """Returns an announcement; an empty one for what is none."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    said = found if isinstance(found, dict) else {}
    hints = [
        (kind, name) for kind in KINDS for name in _listed(said, kind) if isinstance(name, str)
    ]
    closes = []
    for each in _listed(said, "closes"):
        match each:
            case [str(user), int(code), str(reason), int(age) | float(age)]:
                closes.append(Close(user, code, reason, age))
    return Announcement(hints, closes, asks=said.get("asks") is True)


def _listed(said: dict[str, Any], key: str) -> list[Any]:
    listed = said.get(key)
    return listed if isinstance(listed, list) else []


def announce(hint: Hint) -> None:
    """Sends a hint to all other processes. Never waits, never raises; any thread may call it."""
    _hints.append(hint)
    _soon(_publish_hints)


def close_user(user: str, code: int, reason: str) -> None:
    """Closes a user's WebSockets in all other processes. Never waits, never raises."""
    _lately.append((clock.now(), (user, code, reason)))
    _soon(lambda backend: _close(backend, Close(user, code, reason, 0.0)))


def repeat() -> None:
    """Says again what another process may have missed. Never waits, never raises."""
    global _is_asked
    # All others may ask at once, and each hears the answer to any of them.
    if _lately and not _is_asked:
        _is_asked = True
        _soon(_publish_closes)


def catch_up() -> None:
    """Says what could not be said, or may not have been heard. Never waits, never raises."""
    if _hints:
        _soon(_publish_hints)
    repeat()


def ask() -> None:
    """Asks other processes to :func:`repeat`. Never waits, never raises."""
    _soon(lambda backend: _say(backend, {"asks": True}))


# Announcements that wait to be sent.
_hints: deque[Hint] = deque(maxlen=_MOST_WAITING)
# What :func:`close_user` was called with, and when.
_lately: deque[tuple[float, tuple[str, int, str]]] = deque(maxlen=_MOST_LATELY)
# Whether somebody has asked for them, and waits.
_is_asked = False


def _close(backend: Backend, close: Close) -> None:
    backend.close(names.of_user_key(close.user), close.code, close.reason)
    # WebSockets with rooms are no members of that group; those of older versions hear of it only.
    _say(backend, {"closes": [close]})


def _say(backend: Backend, said: dict[str, Any]) -> None:
    """Sends an announcement to all other processes, as :func:`read` takes it."""
    backend.send(GROUP, json.dumps(said), [_own_key])


def _publish_hints(backend: Backend) -> None:
    """Publishes all hints, those of other threads, too: they may find none afterwards."""
    found: dict[Hint, None] = {}
    with suppress(IndexError):
        while True:
            found[_hints.popleft()] = None
    named = list(found)
    try:
        while named:
            kinds: dict[str, list[str]] = {}
            for kind, name in named[:_MOST]:
                kinds.setdefault(kind, []).append(name)
            _say(backend, kinds)
            del named[:_MOST]
    except GroupUnavailable:
        # For the next time, which is when the backend is there again, at the latest.
        _hints.extend(named)
        raise


def _publish_closes(backend: Backend) -> None:
    """Publishes which users' WebSockets were closed lately."""
    global _is_asked
    # A later question needs another answer: its process may not hear this one.
    _is_asked = False
    now = clock.now()
    lately = [Close(*who, now - at) for at, who in _lately.copy()]
    closes = [each for each in lately if each.age < _LATELY_S]
    for first in range(0, len(closes), _MOST):
        _say(backend, {"closes": closes[first : first + _MOST]})


def _soon(call: Act, failure: str = _UNSAID) -> None:
    """Has ``call`` made on a thread that may wait; ``failure`` is logged when it fails."""
    try:
        backend = backends.backend(DEFAULT)
        if backend.waits:
            _queue.add((_try_on_thread, backend, call, failure))
            _finish_at_exit(os.getpid())
        else:
            _try(backend, call, failure)
    except Exception:
        _log.exception(failure)


@functools.cache
def _finish_at_exit(process: int) -> None:
    """Lets a command that has signed somebody out end when that is announced."""
    at_exit(lambda: _queue.wait(_EXIT_S))


def _try(backend: Backend, call: Act, failure: str) -> None:
    try:
        call(backend)
    except GroupUnavailable as error:
        _log.warning("%s: %s", failure, error)
    except Exception:
        _log.exception(failure)


def _try_on_thread(*args: Any) -> None:
    _try(*args)
    if not _queue:
        # The thread will not need its connections to a database soon.
        database.release_idle()


def _new_queue() -> WorkQueue:
    return WorkQueue("dwebsocket-announce")


# Calls that wait for a server.
_queue = _new_queue()


class Listener:
    """Receives what other processes announce. Any thread may use it."""

    def __init__(self, receive: Callable[[Announcement], object]) -> None:
        """
        Begins without listening.

        Args:
            receive: Called with each announcement, on the process's thread for
                callbacks or in the hub of green threads. It must not wait.
        """
        self._receive = receive
        self._lock = unpatched.lock()
        # None when it is to stop.
        self._waiter: Waiter | None = None
        # Whether a waiter will call `_on_arrival`.
        self._is_expected = False
        self._mailbox: _core.Mailbox | None = None
        self._wake: Callable[[], object] = bool
        # How often it has subscribed, and the number of these that the backend has confirmed.
        self._subscriptions = self._confirmed = 0

    @property
    def hears(self) -> bool:
        """Whether it hears what is announced from now on, as long as the backend is reached."""
        is_subscribed = self._confirmed == self._subscriptions
        return is_subscribed and self._mailbox is not None and self._waiter is not None

    def start(self, waiter: Waiter) -> None:
        """
        Listens from now on, with the kind of thread that ``waiter`` belongs to.

        Raises:
            RuntimeError: The system gives no thread.
        """
        if self._waiter is not None:
            return
        with self._lock:
            self._waiter = waiter
            is_expected, self._is_expected = self._is_expected, True
        if is_expected:
            return
        self._subscriptions += 1
        _soon(functools.partial(self._subscribe, self._subscriptions), _UNHEARD)
        try:
            self._expect(waiter)
        except BaseException:
            # The next call begins anew.
            with self._lock:
                self._waiter, self._is_expected = None, False
            raise

    def _subscribe(self, number: int, backend: Backend) -> None:
        backend.subscribe(GROUP)
        self._confirmed = number

    def stop(self) -> None:
        """Ends listening. Never waits, and may run in the garbage collector."""
        self._waiter = None
        self._wake()

    def watch_end(self, hub: _core.Hub, token: int) -> None:
        """Announces ``token`` once something has come."""
        backend = backends.backend(DEFAULT)
        mailbox = _core.Mailbox(_CAPACITY, hub, token)
        backend.join(GROUP, mailbox, _own_key)
        before, self._mailbox = self._mailbox, mailbox
        self._wake = lambda: hub.announce(token)
        if before is not None:
            self._take(before)
            # A message that was sent before the new one joined may still be on its way. What comes
            # to both is heard twice, which costs a question.
            waiter = self._waiter
            if waiter is None:
                before.end()
            else:
                waiter.call_later(_ON_THE_WAY_S, lambda: self._leave(before))

    def _on_arrival(self) -> None:
        with self._lock:
            waiter, mailbox = self._waiter, self._mailbox
            self._is_expected = waiter is not None
            if waiter is None:
                # Under the lock: from here on another thread may start anew.
                self._mailbox, self._wake = None, bool
        if waiter is None:
            if mailbox is not None:
                mailbox.end()
            if mailbox is not None and self._waiter is None:
                backends.backend(DEFAULT).unsubscribe_if_unused(GROUP)
            return
        if mailbox is not None:
            self._take(mailbox)
        self._expect(waiter)

    def _expect(self, waiter: Waiter) -> None:
        waiter.at_end(self, self._on_arrival)  # type: ignore[arg-type]
        if self._waiter is None:
            # The message has closed the last user: `stop` has woken nobody.
            self._wake()

    def _leave(self, mailbox: _core.Mailbox) -> None:
        self._take(mailbox)
        mailbox.end()

    def _take(self, mailbox: _core.Mailbox) -> None:
        while (text := mailbox.pop()) is not None:
            self._receive(read(text))


renew_at_fork(
    globals(),
    _own_key=lambda: secrets.token_bytes(_KEY_BYTES),
    # The parent announces its own.
    _hints=lambda: deque(maxlen=_MOST_WAITING),
    _lately=lambda: deque(maxlen=_MOST_LATELY),
    _is_asked=bool,
    _queue=_new_queue,
)
