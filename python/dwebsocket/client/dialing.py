"""Waiting until a connection is open: in a thread, a green thread, or an event loop."""

from __future__ import annotations

import asyncio
import functools
import socket
from http.client import HTTPMessage
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dwebsocket import _core, conf
from dwebsocket.api.base import GOING_AWAY
from dwebsocket.api.waiting.engine_calls import await_call, wait
from dwebsocket.api.waiting.steps import Call, arun, run
from dwebsocket.client.connection import ClientConnection
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import at_fork
from dwebsocket.compat.threading import at_exit
from dwebsocket.exceptions import (
    ConnectionFailed,
    ConnectionTimeout,
    HandshakeRefused,
    ShuttingDown,
    UsageError,
)
from dwebsocket.runners import shutdown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from typing import Any

    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.client.options import Dialer, Target

    # As in `_core.pyi`: what is open; another answer; what failed and why.
    Answer = tuple[int, str, list[tuple[str, str]]]
    Outcome = (
        tuple[_core.Connection, str | None, bool, Answer] | tuple[Answer, bytes] | tuple[str, str]
    )

# Time for servers to answer the close frames that they get as the process ends.
_GRACE_S = 0.5


def open_now(target: Target) -> ClientConnection:
    """
    Opens a connection and waits until it is open.

    Raises:
        ConnectionFailed: There is none; or one of its subclasses.
        ShuttingDown: This process is ending.
        UsageError: Called in an event loop.
        TypeError, ValueError, Exception: As :meth:`~dwebsocket.client.options.Target.now`.
    """
    if running_loop() is not None:
        raise UsageError(
            "connect() would block the event loop: use `await aconnect(…)`, "
            "or `async with aconnect(…) as websocket`"
        )
    return run(_open(*target.now()))


async def open_soon(target: Target) -> ClientConnection:
    """Opens a connection as :func:`open_now`, for event loops. Cancelling it gives up."""
    return await arun(_open(*await target.soon()))


def _open(url: str, dialer: Dialer) -> Steps[ClientConnection]:
    dial: _core.Dial | None = None
    try:
        try:
            _prepare()
            dial = dialer.core.dial()
            outcome: Outcome | None = yield Call(wait, await_call, dial, None)
        except OSError as error:
            # The system has no thread or descriptor left.
            raise _failure(("network", str(error))) from error
        if outcome is None or len(outcome) == 2:
            raise _failure(outcome)
        connection, subprotocol, is_compressed, (_, _, headers) = outcome
        return ClientConnection(
            url,
            connection,
            subprotocol=subprotocol,
            headers=_message(headers),
            is_compressed=is_compressed,
            send_timeout=dialer.send_timeout,
        )
    except BaseException:
        # Its traceback refers to the dial, and the program may keep it.
        if dial is not None:
            dial.cancel()
        raise


class Opening:
    """A connection that is opened when it is awaited: see :func:`dwebsocket.aconnect`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        # Each with the task that has entered it: others may have entered others.
        self._entered: list[tuple[object, ClientConnection]] = []

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        """Returns the open connection."""
        return open_soon(self._target).__await__()

    async def __aenter__(self) -> ClientConnection:
        connection = await self
        self._entered.append((asyncio.current_task(), connection))
        return connection

    async def __aexit__(self, *exception: object) -> None:
        task = asyncio.current_task()
        own = [at for at, (its, _) in enumerate(self._entered) if its is task]
        # A fixture, or an exit stack, may be left by another task than the one that has entered.
        self._entered.pop(own[-1] if own else -1)[1].close()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Yields each message until the connection has ended, and closes it after the last."""
        connection = await self
        try:
            async for message in connection:
                yield message
        finally:
            connection.close()


def exchange(dialer: Dialer, request: bytes) -> tuple[Answer, bytes, socket.socket | None]:
    """
    Sends a request as it is, for clients in tests: they may break every rule.

    Blocks, also in an event loop.

    Returns:
        The answer, which nothing has validated; what came after it, such as its body; and the
        socket, if it is a 101.

    Raises:
        ConnectionFailed, ShuttingDown: As :func:`open_now`, but for answers.
    """
    _prepare()
    dial = dialer.core.exchange(request)
    try:
        outcome = wait(dial, None)
    except BaseException:
        dial.cancel()
        raise
    # No connection is made of it.
    assert outcome is None or len(outcome) == 2
    if outcome is None or isinstance(outcome[0], str):
        raise _failure(outcome)
    descriptor = dial.descriptor()
    return *outcome, None if descriptor is None else socket.socket(fileno=descriptor)


def _failure(outcome: tuple[Answer, bytes] | tuple[str, str] | None) -> Exception:
    if outcome is None:
        return ConnectionFailed("the opening of the connection was interrupted")
    first, second = outcome
    if not isinstance(first, str):
        status, reason, headers = first
        assert isinstance(second, bytes)
        return HandshakeRefused(status, reason, _message(headers), second)
    if first == "shutting down":
        return ShuttingDown("this process is ending and opens no connection")
    if first == "timeout":
        return ConnectionTimeout(second)
    failure = ConnectionFailed(second)
    failure.step = first
    return failure


def _message(headers: list[tuple[str, str]]) -> HTTPMessage:
    message = HTTPMessage()
    for name, value in headers:
        message[name] = value
    return message


@functools.cache
def _prepare() -> None:
    if settings.configured:
        # This may start the engine, before the first client of a server does.
        try:
            _core.want_threads(conf.get("ENGINE_THREADS"))
        except ImproperlyConfigured:
            # A system check reports it. It concerns no client.
            pass
    at_exit(_close_at_exit)


def _close_at_exit() -> None:
    """Closes what is open as a process ends that serves no WebSockets itself."""
    if not shutdown.has_begun():
        _core.shut_down(*GOING_AWAY, _GRACE_S)


# A child of `multiprocessing` drops what its parent has registered.
at_fork(_prepare.cache_clear)
