"""
The threads on which handlers' sync methods run: a few for all connections.

They wait for the engine together, by one :class:`dwebsocket._core.Hub`. It keeps few of them awake,
and wakes another one when a call takes long. When all are busy the *lanes* have turns; each class
of handlers has one, so slow calls hold up those of their own class. They start when the first
handler needs them, and end with the last one.
"""

from __future__ import annotations

import functools
import itertools
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dwebsocket import _core, conf
from dwebsocket.api import sending
from dwebsocket.api.waiting.long_calls import Call
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.request import database
from dwebsocket.runners.green_hub import GreenHub

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from dwebsocket._core import Connection

T = TypeVar("T")

_log = logging.getLogger("dwebsocket")

_NAME = "dwebsocket-handler"
# Seconds before a thread that has failed goes on.
_PAUSE_S = 0.1
# The bits of a token below its lane, as the engine knows them.
_NUMBER_BITS = 40
_LANES = 1 << 22


class Job(Protocol):
    """Something that has turns on the threads."""

    def _run_turn(self) -> None:
        """Has a turn on this thread. Raises nothing."""


class TurnExecutor(ABC):
    """Where the sync methods of handlers run: on threads, or on the green threads of a hub."""

    exits: tuple[type[BaseException], ...] = ()
    # The hub that has the tokens; None where there are none.
    _hub: _core.Hub | None = None

    @abstractmethod
    def enter(self, job: Job, lane: int = 0) -> int:
        """
        Returns a new token for a job. Each token that :meth:`leave` has not ended is one user.

        Args:
            lane: The number of those whose jobs it shares turns with.

        Raises:
            RuntimeError: The system gives no thread.
        """

    def announce(self, token: int) -> None:
        """Has the job of ``token`` have a turn. Any thread may call it."""
        if (hub := self._hub) is not None:
            hub.announce(token)

    def listen(self, connection: Connection, token: int) -> None:
        """Has the job have a turn when its connection has a message or the end, perhaps now."""
        hub = self._hub
        if hub is not None and not connection.listen(hub, token):
            hub.announce(token)

    def rouse(self, connection: Connection, token: int) -> None:
        """Has a job that listens have a turn now. Does nothing to one that does not."""
        if (hub := self._hub) is not None:
            connection.rouse(hub, token)

    def unlisten(self, connection: Connection, token: int) -> bool:
        """Takes :meth:`listen` back; false when the turn has come, or the job does not listen."""
        return (hub := self._hub) is not None and connection.unlisten(hub, token)

    @abstractmethod
    def leave(self, token: int) -> None:
        """Ends a job's turns."""


class _CallJob:
    """One call that another thread waits for."""

    __slots__ = ("_call", "_threads", "token")

    def __init__(self, call: Call[Any], threads: HandlerThreads) -> None:
        self._call = call
        self._threads = threads
        self.token = 0

    def _run_turn(self) -> None:
        self._threads.leave(self.token)
        self._call()


class HandlerThreads(TurnExecutor):
    """The threads of the process. Any thread may use it."""

    _name = _NAME

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._jobs: dict[int, Job] = {}
        # The users that call something on the threads now and then.
        self._holders = 0
        self._tokens = itertools.count(1)
        self._begun = 0
        self._alive = 0
        # Whether a thread was started that has not come to wait for work: it is help enough.
        self._is_starting = False
        # Whether the system has refused the last one.
        self._is_refused = False

    @property
    def are_alive(self) -> bool:
        """Whether one of the threads has not ended."""
        return self._alive > 0

    def enter(self, job: Job, lane: int = 0) -> int:
        """Returns a job's token. The first user starts the threads."""
        with self._lock:
            token = lane % _LANES << _NUMBER_BITS | next(self._tokens)
            self._jobs[token] = job
            if self._hub is None:
                # Waiting for the engine's would hold up all green threads.
                is_green = unpatched.is_code_green()
                hub: Any = GreenHub() if is_green else _core.Hub(for_threads=True)
                try:
                    self._start(hub)
                except BaseException:
                    del self._jobs[token]
                    raise
                self._hub = hub
        return token

    def leave(self, token: int) -> None:
        """Ends a job's turns. Without users the threads end."""
        with self._lock:
            del self._jobs[token]
            hub = self._hub_to_close()
        if hub is not None:
            hub.close()

    def hold(self) -> None:
        """Keeps the threads, with their database connections, for calls by :meth:`call`."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Takes :meth:`hold` back."""
        with self._lock:
            self._holders -= 1
            hub = self._hub_to_close()
        if hub is not None:
            hub.close()

    def _hub_to_close(self) -> _core.Hub | None:
        """Forgets and returns the hub, if nothing uses the threads. Under the lock."""
        if self._jobs or self._holders:
            return None
        hub, self._hub, self._begun = self._hub, None, 0
        return hub

    def call(self, function: Callable[[], T], lane: int = 0) -> Future[T]:
        """
        Calls ``function`` on one of the threads. Never waits. ``lane`` is as for :meth:`enter`.

        Raises:
            RuntimeError: The system gives no thread.
        """
        call = Call(function)
        job = _CallJob(call, self)
        job.token = self.enter(job, lane)
        self.announce(job.token)
        return call.future

    def _start(self, hub: _core.Hub) -> None:
        """Starts a thread. Under the lock."""
        number = self._begun + 1
        # First: the thread may be there before this one goes on.
        self._is_starting = True
        try:
            unpatched.start_code(f"{self._name}-{number}", functools.partial(self._work, [hub]))
        except BaseException:
            self._is_starting = False
            raise
        self._begun = number
        self._alive += 1

    def _start_another(self, hub: _core.Hub) -> None:
        with self._lock:
            if hub is not self._hub or self._is_starting or self._begun >= self._most():
                return
            was_refused, self._is_refused, refusal = self._is_refused, False, ""
            try:
                self._start(hub)
            except RuntimeError as error:
                self._is_refused, refusal = True, str(error)
        if refusal and not was_refused:
            # Once: each message asks for one. A pause would leave slow calls without a thread that
            # there may be by now.
            _log.error("No thread for another WebSocket handler, so the others go on: %s", refusal)

    def _most(self) -> float:
        most: int = conf.get("HANDLER_THREADS")
        return most

    def _work(self, hubs: list[_core.Hub]) -> None:
        # A list, which is emptied: exceptions of calls keep this frame until they are collected,
        # and a hub has descriptors.
        jobs = self._jobs
        database.watch_thread()
        sending.note_turns()
        self._is_starting = False
        found = _next_of(hubs[0], None)
        try:
            while found is not None:
                token, turn, lacks_helper = found
                if lacks_helper:
                    self._start_another(hubs[0])
                if (job := jobs.get(token)) is not None:
                    try:
                        job._run_turn()
                    except BaseException:
                        _log.exception("Something failed behind a WebSocket handler")
                    # Do not hold the connection while waiting for the next one.
                    del job
                found = _next_of(hubs[0], turn)
        finally:
            hubs.clear()
            database.leave()
            with self._lock:
                self._alive -= 1


def _next_of(hub: _core.Hub, turn: int | None) -> tuple[int, int, bool] | None:
    """Calls ``hub.next``; the thread gives back database connections that are idle meanwhile."""
    while True:
        try:
            return hub.next(turn, database.give_back_idle())
        except TimeoutError:
            turn = None
        except Exception:
            # Handlers wait for this thread.
            _log.exception("A thread of WebSocket handlers failed, and goes on")
            turn = None
            unpatched.sleep(_PAUSE_S)


_threads = HandlerThreads()


def home() -> HandlerThreads:
    """Returns the threads of this process."""
    return _threads


renew_at_fork(globals(), _threads=HandlerThreads)
