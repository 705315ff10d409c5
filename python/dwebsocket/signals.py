"""
Django signals about WebSockets and groups.

The class :class:`dwebsocket.WebSocket` sends each signal, with ``websocket`` and ``request``.
Connect receivers before connections open, as in ``AppConfig.ready()``: a connection looks once,
when it opens, whether there are any, so that one without receivers has nothing more to do.

An exception of a receiver is logged by Django. It harms neither the connection nor other receivers.
"""

from __future__ import annotations

import contextvars
import functools
import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.dispatch import Signal

from dwebsocket.compat.asgiref import does_thread_wait
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.compat.work_queue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dwebsocket.request.worlds import World

__all__ = [
    "group_interrupted",
    "group_joined",
    "group_left",
    "member_joined",
    "member_left",
    "member_updated",
    "websocket_closed",
    "websocket_message",
    "websocket_opened",
    "websocket_refused",
]

#: A connection is open; its view is about to begin, or goes on after ``accept()``.
websocket_opened: Signal = Signal()
#: A message has come (``message``: text as ``str``, binary as ``bytes``); its view has not got it
#: yet.
websocket_message: Signal = Signal()
#: A connection has ended: ``code``, ``reason``, ``by`` (``"local"``, ``"peer"`` or ``"lost"``),
#: ``seconds`` that it was open, ``messages_in`` and ``messages_out``.
websocket_closed: Signal = Signal()
#: A handshake was refused: ``status`` (of HTTP) and ``why``. ``websocket`` may be None.
websocket_refused: Signal = Signal()
#: A connection of this process is now a member of ``group``.
group_joined: Signal = Signal()
#: A connection of this process is no member of ``group`` any more; also because it has ended.
group_left: Signal = Signal()
#: The user ``member`` has joined ``group``, by ``websocket`` of this process. Only for groups with
#: ``PRESENCE``, and not for a user who is present already or comes back in time.
member_joined: Signal = Signal()
#: The user ``member`` has left ``group``: no connection in any process, and the grace is over. One
#: process sends it. ``websocket`` and ``request`` are None.
member_left: Signal = Signal()
member_updated: Signal = Signal()
#: A member of ``group`` in this process may have missed messages: the backend was away.
group_interrupted: Signal = Signal()

_log = logging.getLogger("dwebsocket")

# Event loops cannot wait for receivers that are slower than clients: beyond so many, calls are
# dropped, and counted.
_MOST_WAITING = 10_000
_dropped = 0


@functools.cache
def _class_that_sends() -> Any:
    # Its module needs this one, and a process without WebSockets has not imported it.
    return import_module("dwebsocket.websocket").WebSocket


def send(signal: Signal, websocket: object, request: object, **facts: Any) -> None:
    """
    Sends ``signal`` and returns when all receivers have.

    In an event loop it returns at once, and a thread calls them, because they may block.
    """
    _send(signal, websocket, request, facts, on_thread=running_loop() is not None)


def make(call: Callable[[], object]) -> None:
    """Makes a call that may wait, and sends signals. In an event loop a thread makes it."""
    if running_loop() is None:
        call()
    else:
        _call_on_thread(functools.partial(contextvars.copy_context().run, call))


def send_of_end(signal: Signal, websocket: object, request: object, **facts: Any) -> None:
    """
    Sends a signal about an end: never ahead of what an event loop has sent before.

    It may return before the receivers do.
    """
    _send(signal, websocket, request, facts, on_thread=_calls.is_working)


def _send(
    signal: Signal, websocket: object, request: object, facts: dict[str, Any], *, on_thread: bool
) -> None:
    if not signal.receivers:
        return
    call: Callable[[], object] = functools.partial(
        signal.send_robust, _class_that_sends(), websocket=websocket, request=request, **facts
    )
    if (world := getattr(websocket, "_world", None)) is not None:
        call = functools.partial(_send_within, world, call)
    if on_thread:
        _call_on_thread(functools.partial(contextvars.copy_context().run, call))
    else:
        call()


async def asend(signal: Signal, websocket: object, request: object, **facts: Any) -> None:
    """Sends a signal, and waits for the receivers without blocking the event loop."""
    if signal.receivers:
        send = functools.partial(_send_in_loop, signal, websocket, request, facts)
        world = getattr(websocket, "_world", None)
        try:
            # A thread that waits has entered the world, and calls the sync receivers in it.
            await (send() if world is None or does_thread_wait() else world.arun(send))
        except (Exception, SystemExit):
            # A receiver has called `sys.exit()`, which would end the loop; or the world cannot be
            # entered, or the system gives no thread for those that are not async. The connection
            # goes on.
            _log.exception("A signal about a WebSocket could not be sent.")


def _send_within(world: World, call: Callable[[], object]) -> None:
    """Calls the receivers in a connection's world; all of them fail where that cannot be."""
    try:
        with world.entered():
            call()
    except Exception:
        _log.exception("A signal about a WebSocket could not be sent.")


def _send_in_loop(
    signal: Signal, websocket: object, request: object, facts: dict[str, Any]
) -> Coroutine[Any, Any, object]:
    arguments = {"websocket": websocket, "request": request, **facts}
    # Django 4.2 has no `asend_robust`, and no async receivers.
    if (asend_robust := getattr(signal, "asend_robust", None)) is not None:
        found: Coroutine[Any, Any, object] = asend_robust(_class_that_sends(), **arguments)
        return found
    return sync_to_async(signal.send_robust)(_class_that_sends(), **arguments)


def _call_on_thread(call: Callable[[], object]) -> None:
    """
    Makes ``call`` on a thread, after those that were handed over before. Never waits.

    Where too many wait it is dropped, and that is logged.
    """
    global _dropped
    if len(_calls) < _MOST_WAITING:
        _calls.add((_make, call), or_here=True)
        return
    # Two threads may count as one: it is no exact number.
    _dropped += 1
    if _dropped == 1:
        _log.error(
            "Receivers of signals take too long: %s calls wait, and no more are taken until they "
            "are made.",
            _MOST_WAITING,
        )


def _make(call: Callable[[], object]) -> None:
    global _dropped
    try:
        call()
    except BaseException:
        # All of them, such as the CancelledError of an async receiver: the next ones are sent.
        _log.exception("A signal about a WebSocket could not be sent.")
    finally:
        # The thread may end now, and with it what receivers have left open.
        connections.close_all()
        if _dropped and not _calls:
            dropped, _dropped = _dropped, 0
            _log.error(
                "%s signals about WebSockets were dropped: their receivers took long.", dropped
            )


def _new_queue() -> WorkQueue:
    return WorkQueue("dwebsocket-signals")


_calls = _new_queue()

renew_at_fork(globals(), _calls=_new_queue, _dropped=int)
