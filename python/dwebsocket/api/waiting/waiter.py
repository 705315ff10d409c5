"""How a caller sleeps: the calls of a connection that may, made by a thread of the system."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dwebsocket import _core
from dwebsocket.api import callbacks
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import SendTimeout

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from dwebsocket._core import Connection

    Message = str | bytes
    Watch = Callable[[_core.Hub, int], None]
    Call = Callable[[], object]
    # Waits for something, the given number of seconds at most; returns it, or None.
    Look = Callable[[float | None], T | None]


class Watched(Protocol):
    """Something that can be watched, such as a connection."""

    @property
    def unwatch(self) -> Watch:
        """Takes back a watch that was not signalled."""


class Event(Protocol):
    """Something that happens once, for threads of one kind."""

    def set(self) -> None:
        """Marks that it has happened."""

    def wait(self, timeout: float | None = None) -> object:
        """Sleeps until it has, ``timeout`` seconds at most. False or None when the time was up."""


class Waiter:
    """
    The calls of a connection that may sleep, for threads of the system.

    The engine lets them sleep without the GIL. A :class:`~dwebsocket.api.waiting.green.HubWaiter`
    has the same calls for green threads.
    """

    def take(
        self, connection: Connection, timeout: float | None, text_as_bytes: bool
    ) -> Message | None:
        """Returns the next message; None when the time was up, or at the end."""
        return connection.take(timeout, text_as_bytes)

    def take_coarse(
        self, connection: Connection, time: float, text_as_bytes: bool
    ) -> Message | None:
        """Waits as :meth:`take`, perhaps a little longer than ``time``; costs less."""
        return connection.take_coarse(time, text_as_bytes)

    def send(
        self,
        connection: Connection,
        message: Message,
        *,
        binary: bool | None,
        timeout: float | None,
    ) -> bool:
        """
        Sends a message, and sleeps while there is no room. False when the connection has ended.

        Raises:
            SendTimeout: There was no room within ``timeout`` seconds.
        """
        return connection.send(message, binary=binary, timeout=timeout)

    def wait_for(self, connection: Connection, look: Look[T], timeout: float | None) -> T | None:
        """
        Sleeps until ``look`` finds something that comes with the answer to a ping or with the end.

        Returns:
            The result of ``look``; None when the time was up, or the end has come before.
        """
        return look(timeout)

    def let_others_run(self, connection: Connection, time: float) -> None:
        """
        Lets other threads run after a call that has found nothing and may be repeated at once.

        Sleeps for ``time`` seconds at most, and not at all when there is a message or the end.
        """
        connection.await_news(time)

    def await_room(self, connection: Connection, timeout: float | None) -> None:
        """Sleeps until the connection has room, or takes no more, ``timeout`` seconds at most."""
        hub = _core.Hub()
        cancel: Callable[[], object] = bool
        if timeout is not None:
            cancel = callbacks.call_later(timeout, functools.partial(hub.announce, 0))
        connection.watch_outbox(hub, 0)
        try:
            with unpatched.selector() as selector:
                selector.register(hub.fileno(), 1)
                selector.select()
        finally:
            connection.unwatch(hub, 0)
            cancel()

    def sleep(self, seconds: float) -> None:
        """Sleeps for the whole time, also when a message or the end comes."""
        time.sleep(seconds)

    def wait_until(self, future: Future[Any], timeout: float | None) -> bool:
        """
        Sleeps until ``future`` is done, ``timeout`` seconds at most. False when the time was up.

        Any thread may settle the future, whose lock is one of the system.
        """
        # The methods of a future sleep on a lock that may be green.
        done = unpatched.lock()
        done.acquire()
        future.add_done_callback(lambda _: done.release())
        return done.acquire(timeout=-1 if timeout is None else max(0.0, timeout))

    def caller(self) -> object:
        """Returns the thread, green thread or task that calls. It can be referred to weakly."""
        if running_loop() is not None and (task := asyncio.current_task()):
            return task
        return threading.current_thread()

    def thread(self) -> object:
        """Returns the thread or green thread that calls; for a task, that of its loop."""
        return threading.current_thread()

    def at_end(self, connection: Connection, call: Call) -> None:
        """
        Calls ``call`` once, as soon as ``connection`` has ended, which may be now.

        ``call`` runs on a thread that must not sleep: work that may sleep needs another one.
        """
        callbacks.at_end(connection, call)

    def call_later(self, delay: float, call: Call) -> Call:
        """
        Calls ``call`` after ``delay`` seconds, on a thread that must not sleep.

        Returns a function that cancels it.
        """
        return callbacks.call_later(delay, call)

    def yield_after_sending(self) -> None:
        """Does nothing: the system schedules threads. Green threads yield here now and then."""

    def new_event(self) -> Event:
        """Makes an event between two threads of this kind."""
        return threading.Event()


#: The waiter of all threads of the system.
THREAD = Waiter()


def no_room(timeout: float) -> SendTimeout:
    """Returns the error of a sender that has waited ``timeout`` seconds and got no room."""
    return SendTimeout(
        f"the client made no room within {timeout} s; "
        "see WEBSOCKET_SEND_BUFFER and WEBSOCKET_SEND_TIMEOUT"
    )
