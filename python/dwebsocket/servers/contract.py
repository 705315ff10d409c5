"""The data of a server family that the takeover of its clients' connections needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Environ = dict[str, Any]
Concurrency = Literal["thread", "gevent", "eventlet"]
# The processes that may go on with the connections of one that ends. First those of its server: one
# comes if need be; one comes soon, unless all end at a time, as it does when this one has ended;
# those that are there. Then those of other servers only.
Heirs = Literal["to come", "soon", "there", "of others"]
ShutdownHook = Callable[[], None]
# The types of an ASGI application's interface.
Event = Mapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]


def _nothing() -> None:
    """Does nothing: the server neither watches the descriptor nor refers to the socket."""


@dataclass(frozen=True)
class ShutdownPlan:
    """
    How a server ends one of its processes.

    Attributes:
        timeout_s: Seconds from now after which it kills the process; 0 when the process must end
            at once, ``None`` when the server waits.
        limit: The option that sets ``timeout_s``, for messages. Empty when none does.
        goes_on: The site serves on without the process: its clients can reconnect.
        heirs: The processes that may go on with its connections. None: by ``goes_on``, to come or
            of others.
    """

    timeout_s: float | None = None
    limit: str = ""
    goes_on: bool = False
    heirs: Heirs | None = None


class ShutdownPlanner(Protocol):
    """Returns the :class:`ShutdownPlan` of this process, as known at the time of the call."""

    def __call__(self, *, terminated: bool) -> ShutdownPlan:
        """``terminated`` is whether SIGTERM has come."""


def unknown_plan() -> ShutdownPlanner:
    """Returns that of a server of which nothing is known: it waits, and the site ends."""
    return lambda *, terminated: ShutdownPlan()


@dataclass(frozen=True)
class Exit:
    """
    How a server written in C ends a process: by ``exit``, perhaps without running any Python.

    Attributes:
        register: Registers the shutdown function with the server's own exit hook, for the exits
            that run Python.
        shutdown_plans: How the process ends, by the signal that ends it; 0 is an end without a
            signal. Known in advance, because no Python code may run any more at that moment. One
            with ``heirs`` is for an exit in which the server does call the function.
        abrupt: The signals whose handlers call ``exit`` wherever the main thread is.
    """

    register: Callable[[ShutdownHook], None]
    shutdown_plans: Mapping[int, ShutdownPlan]
    abrupt: frozenset[int] = frozenset()


@dataclass(slots=True)
class Client:
    """
    A client's connection that the server still owns.

    Never changed; making a frozen one would take six times as long.

    Attributes:
        server: The server's name, for messages.
        descriptor: The descriptor of the connected socket.
        read_early: Returns the bytes that the client sent after its request and the server has
            read already. Called once, when ``descriptor`` refers to a placeholder, which reads as
            the end of the stream: so a buffered reader can be read to its end without waiting.
        forget: Called first: makes the server's event loop, if it has one, stop watching the
            descriptor. For gevent it is filled in.
        let_go: Called last: drops the request's remaining references to the socket.
        concurrency: The kind of threads on which the server runs views. Monkey patching by the
            project is detected separately.
        tls: The server's socket object, when the server encrypts the connection: then the
            descriptor alone is not enough. See :mod:`dwebsocket.servers.tls`.
        shutdown_plan: Called once in the process, with its first connection. Its result is called
            when the process ends, and returns how the server ends it.
        dies_of_sigterm: The server leaves SIGTERM to the system, which kills the process:
            dwebsocket has to close the connections before.
        at_exit: The exits of a server that may end the process without running Python's own
            hooks; used in place of ``shutdown_plan``. None for the others.
        head_follows_close: The server writes the head of a response without chunks only after it
            has closed the response; an empty chunk makes it write the head first.
    """

    server: str
    descriptor: int
    read_early: Callable[[], bytes]
    let_go: Callable[[], object] = _nothing
    dies_of_sigterm: bool = False
    concurrency: Concurrency = "thread"
    forget: Callable[[], None] = _nothing
    tls: object | None = None
    shutdown_plan: Callable[[], ShutdownPlanner] = unknown_plan
    at_exit: Exit | None = None
    head_follows_close: bool = False


class Unsupported(Exception):
    """
    This server runs the request, but it cannot serve its WebSocket.

    The message gives the reason and an alternative.
    """


#: Returns the client of a WSGI request, None when another server runs it; raises `Unsupported`.
Find = Callable[[Environ], "Client | None"]
