"""
How a caller sleeps until its connection has something for it.

A thread sleeps in the engine. A green thread must not: it yields to its hub, which one descriptor
wakes for all its connections (:class:`dwebsocket._core.Hub`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dwebsocket import callbacks, clock, long_calls
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import SendTimeout

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from dwebsocket import _core
    from dwebsocket.connection import Connection
    from dwebsocket.hub import Watched

    Message = str | bytes
    Watch = Callable[[_core.Hub, int], None]
    Call = Callable[[], None]
    # Waits so many seconds for something at most, and gives it if it is there.
    Look = Callable[[float | None], T | None]


class Pings:
    """A connection, watched for what ``look`` finds: answers to pings, and its end."""

    __slots__ = ("_connection", "_look", "unwatch")

    def __init__(self, connection: Connection, look: Look[Any]) -> None:
        self._connection = connection
        self._look = look
        self.unwatch = connection.unwatch_pings

    def watch(self, hub: _core.Hub, token: int) -> None:
        """As :meth:`dwebsocket._core.Connection.watch_pings`, also for what has come just now."""
        self._connection.watch_pings(hub, token)
        if self._look(0) is not None:
            hub.announce(token)


class _LongCall:
    """A call on another thread, watched for its end."""

    __slots__ = ("_future",)

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def watch(self, hub: _core.Hub, token: int) -> None:
        """Puts ``token`` on the hub's list as soon as the call is done."""
        self._future.add_done_callback(lambda _: hub.announce(token))

    def unwatch(self, hub: _core.Hub, token: int) -> None:
        """Does nothing: hubs ignore tokens that come late."""


class Event(Protocol):
    """Something that happens once, for threads of one kind."""

    def set(self) -> None:
        """Marks that it has happened."""

    def wait(self, timeout: float | None = None) -> object:
        """Sleeps until it has, ``timeout`` seconds at most. False or None when the time was up."""


class Waiter(Protocol):
    """The calls of a connection that may sleep, in one kind of thread."""

    def take(
        self, connection: Connection, timeout: float | None, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`dwebsocket._core.Connection.take`."""

    def take_coarse(
        self, connection: Connection, time: float, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`dwebsocket._core.Connection.take_coarse`."""

    def send(
        self,
        connection: Connection,
        message: Message,
        *,
        binary: bool | None,
        patience: float | None,
    ) -> bool:
        """As :meth:`dwebsocket._core.Connection.send`."""

    def wait_for(self, connection: Connection, look: Look[T], timeout: float | None) -> T | None:
        """
        Sleeps until ``look`` finds something that comes with the answer to a ping or with the end.

        Returns:
            What it has found, None when the time was up or the end has come without it.
        """

    def let_others_run(self, connection: Connection, time: float) -> None:
        """
        Lets others run after a call that has found nothing and is likely to be repeated at once.

        Sleeps for ``time`` seconds at most, and not at all when there is a message or the end.
        """

    def sleep(self, seconds: float) -> None:
        """Sleeps for the whole time, also when a message or the end comes."""

    def caller(self) -> object:
        """Gives the thread, green thread or task that calls. It can be referred to weakly."""

    def thread(self) -> object:
        """As :meth:`caller`, but for a task the thread of its loop."""

    def at_end(self, connection: Connection, call: Call) -> None:
        """
        Calls ``call`` once, as soon as ``connection`` has ended, which may be now.

        ``call`` runs on a thread that must not sleep: work that may sleep needs another one.
        """

    def call_later(self, delay: float, call: Call) -> Call:
        """Calls ``call`` after ``delay`` seconds, as :meth:`at_end`. Gives what cancels it."""

    def rest_after_sending(self) -> None:
        """
        Lets others run if it is their turn.

        Without this, a view that only sends blocks all other views while its client keeps up.
        """

    def new_event(self) -> Event:
        """Makes an event between two threads of this kind."""


class ThreadWaiter:
    """For threads of the operating system, which the engine lets sleep without the GIL."""

    def take(
        self, connection: Connection, timeout: float | None, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`Waiter.take`."""
        return connection.take(timeout, text_as_bytes)

    def take_coarse(
        self, connection: Connection, time: float, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`Waiter.take_coarse`."""
        return connection.take_coarse(time, text_as_bytes)

    def send(
        self,
        connection: Connection,
        message: Message,
        *,
        binary: bool | None,
        patience: float | None,
    ) -> bool:
        """As :meth:`Waiter.send`."""
        return connection.send(message, binary=binary, patience=patience)

    def wait_for(self, connection: Connection, look: Look[T], timeout: float | None) -> T | None:
        """As :meth:`Waiter.wait_for`: ``look`` sleeps without the GIL."""
        return look(timeout)

    def let_others_run(self, connection: Connection, time: float) -> None:
        """As :meth:`Waiter.let_others_run`: without the GIL."""
        connection.await_news(time)

    def sleep(self, seconds: float) -> None:
        """As :meth:`Waiter.sleep`."""
        time.sleep(seconds)

    def caller(self) -> object:
        """As :meth:`Waiter.caller`."""
        if running_loop() is not None and (task := asyncio.current_task()):
            return task
        return threading.current_thread()

    def thread(self) -> object:
        """As :meth:`Waiter.thread`."""
        return threading.current_thread()

    def at_end(self, connection: Connection, call: Call) -> None:
        """As :meth:`Waiter.at_end`."""
        callbacks.at_end(connection, call)

    def call_later(self, delay: float, call: Call) -> Call:
        """As :meth:`Waiter.call_later`."""
        return callbacks.call_later(delay, call)

    def rest_after_sending(self) -> None:
        """Does nothing: the system schedules all threads."""

    def new_event(self) -> Event:
        """As :meth:`Waiter.new_event`."""
        return threading.Event()


class GreenWaiter(ABC):
    """For green threads: only how they yield differs from hub to hub."""

    @abstractmethod
    def wait(self, connection: Watched, watch: Watch, timeout: float | None) -> None:
        """
        Yields to the hub until the engine signals ``watch``, ``timeout`` seconds at most.

        Must take the watch back (``connection.unwatch``) when it was not signalled.
        """

    @abstractmethod
    def let_others_run(self, connection: Connection, time: float) -> None:
        """As :meth:`Waiter.let_others_run`."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """As :meth:`Waiter.sleep`."""

    @abstractmethod
    def caller(self) -> object:
        """As :meth:`Waiter.caller`."""

    @abstractmethod
    def thread(self) -> object:
        """As :meth:`Waiter.thread`."""

    @abstractmethod
    def at_end(self, connection: Connection, call: Call) -> None:
        """As :meth:`Waiter.at_end`."""

    @abstractmethod
    def call_later(self, delay: float, call: Call) -> Call:
        """As :meth:`Waiter.call_later`."""

    @abstractmethod
    def rest_after_sending(self) -> None:
        """As :meth:`Waiter.rest_after_sending`."""

    @abstractmethod
    def new_event(self) -> Event:
        """As :meth:`Waiter.new_event`."""

    def take(
        self, connection: Connection, timeout: float | None, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`Waiter.take`."""
        deadline = None if timeout is None else clock.now() + timeout
        while True:
            # Look for the end first: it comes behind all messages, so then none is missed.
            ended = connection.waiting()[1]
            message = connection.take(0, text_as_bytes)
            left = None if deadline is None else deadline - clock.now()
            if message is not None or ended:
                return message
            if left is not None and left <= 0:
                return None
            self.wait(connection, connection.watch_inbox, left)

    @abstractmethod
    def take_coarse(
        self, connection: Connection, time: float, text_as_bytes: bool
    ) -> Message | None:
        """As :meth:`Waiter.take_coarse`."""

    def wait_for(self, connection: Connection, look: Look[T], timeout: float | None) -> T | None:
        """As :meth:`Waiter.wait_for`."""
        deadline = None if timeout is None else clock.now() + timeout
        while True:
            # First: what came before the end counts.
            ended = connection.end() is not None
            found = look(0)
            left = None if deadline is None else deadline - clock.now()
            if found is not None or ended or (left is not None and left <= 0):
                return found
            pings = Pings(connection, look)
            self.wait(pings, pings.watch, left)

    def send(
        self,
        connection: Connection,
        message: Message,
        *,
        binary: bool | None,
        patience: float | None,
    ) -> bool:
        """As :meth:`Waiter.send`."""
        if patience is None:
            return connection.send(message, binary=binary)
        deadline = clock.now() + patience
        is_slow = connection.is_slow_to_send(message)

        def try_send() -> bool | None:
            return connection.try_send(message, binary=binary)

        while (sent := self._call_elsewhere(try_send) if is_slow else try_send()) is None:
            left = deadline - clock.now()
            if left <= 0:
                raise no_room(patience)
            self.wait(connection, connection.watch_outbox, left)
        return sent

    def _call_elsewhere(self, function: Callable[[], T]) -> T:
        """Calls ``function`` on a thread of the system, while the hub goes on."""
        future = long_calls.submit(function)
        call = _LongCall(future)
        while not future.done():
            self.wait(call, call.watch, None)
        return future.result()


def no_room(patience: float) -> SendTimeout:
    """Gives the error of a sender that has waited ``patience`` seconds in vain."""
    return SendTimeout(
        f"the client made no room within {patience} s; "
        "see WEBSOCKET_SEND_BUFFER and WEBSOCKET_SEND_TIMEOUT"
    )


THREAD = ThreadWaiter()
