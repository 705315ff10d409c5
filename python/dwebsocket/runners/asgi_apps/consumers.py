"""
Channels' consumers, with fewer turns between the event loop and threads.

As Channels 4 is, each message takes a new task; a sync consumer's handler goes to its thread, and
what it sends comes back, by asgiref; an async consumer asks a thread whether database connections
are too old. On connections of ours, the threads of :mod:`~dwebsocket.runners.application_threads`
take messages from the engine and give it theirs; an async consumer uses none before it calls sync
code, and asks then. Consumers on other connections, such as those of Channels' test helpers, run as
ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
from typing import TYPE_CHECKING, Any

from dwebsocket.api.base import own_websocket
from dwebsocket.api.waiting.long_calls import call_elsewhere
from dwebsocket.compat import asgiref, consumers, unpatched
from dwebsocket.request import database
from dwebsocket.runners.application_threads import ApplicationContext
from dwebsocket.runners.asgi_apps.events import Events, Stage, event_of, message_of
from dwebsocket.runners.async_view_threads import OwnThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from concurrent.futures import Future

    from dwebsocket._core import Connection
    from dwebsocket.api.arguments import Message
    from dwebsocket.runners.asgi_apps.events import Peer
    from dwebsocket.runners.asgi_apps.routing import Application
    from dwebsocket.servers.contract import Event

    Receive = Callable[[], Awaitable[Event]]
    Dispatch = Callable[[Event], Awaitable[None]]

# Whether tasks can be made in a given context: since Python 3.11.
_HAVE_CONTEXT = sys.version_info >= (3, 11)
# The attribute of a consumer in which its handler is kept.
_HANDLER = "_dwebsocket_handler"
# And what tells it whether there is room to send.
_ROOM = "_dwebsocket_room"


async def run(
    application: Application,
    scope: dict[str, Any],
    events: Events,
    *,
    thread_per_connection: bool = False,
) -> object:
    """
    Runs an application, and returns what that returns.

    Args:
        thread_per_connection: Its sync code has a thread of its own, as that of an async view.
            Otherwise it has those of all applications.
    """
    if consumers.are_there():
        _exchange()
    thread = (OwnThread if thread_per_connection else ApplicationContext).enter()
    try:
        return await events.run(application, scope)
    finally:
        await thread.leave()


@functools.cache
def _exchange() -> None:
    consumers.exchange(
        sender=_Sender(),
        dispatch_all=_dispatch_all,
        close_old_connections=_close_old_connections,
        close_old_connections_here=_close_old_connections_here,
        dispatch_sync=_dispatch_sync,
    )


def _events_of(function: object) -> Events | None:
    events = getattr(function, "__self__", None)
    return events if isinstance(events, Events) else None


# -- sending ---------------------------------------------------------------------------------------


class _Sender:
    """The attribute in which a sync consumer keeps its ``send``."""

    def __set__(self, consumer: Any, send: Any) -> None:
        function = asgiref.coroutine_function_of(send)
        events = _events_of(function)
        # Middleware may have a `send` of its own around that of the connection. And where threads
        # are green those of consumers may not be, and wait in another way.
        is_alike = unpatched.patched_by() is None or unpatched.is_code_green()
        if events is not None and function == events.send and is_alike:
            vars(consumer)[_ROOM] = room = _Room(events)
            send = _sender(events, room, send)
        vars(consumer)[consumers.SEND] = send

    def __get__(self, consumer: Any, owner: type) -> Any:
        if consumer is None:
            return self
        try:
            return vars(consumer)[consumers.SEND]
        except KeyError:
            raise AttributeError(consumers.SEND) from None


def _sender(events: Events, room: _Room, send: Callable[[Event], None]) -> Callable[[Event], None]:
    """Returns a ``send`` for threads; ``send`` is the one for all but messages."""

    def send_event(event: Event) -> None:
        if event.get("type") == "websocket.send" and events.stage is Stage.OPEN:
            if not events.peer.send_here(message_of(event)):
                room.is_lacking()
        else:
            send(event)

    return send_event


def _send_through_middleware(events: Events, consumer: Any) -> None:
    """Has what a sync consumer sends by a middleware's ``send`` wait as :class:`_Room` says."""
    is_shared = isinstance(asgiref.current_context(), ApplicationContext)
    if is_shared and _ROOM not in vars(consumer):
        vars(consumer)[_ROOM] = room = _Room(events)
        events.send_message = functools.partial(_send_beyond, events.peer, room)


async def _send_beyond(peer: Peer, room: _Room, message: Message) -> None:
    websocket = peer.websocket
    connection = None if websocket is None else websocket._connection
    send = functools.partial(peer.send_here, message)
    is_slow = connection is not None and connection.is_slow_to_send(message)
    if not (await call_elsewhere(send) if is_slow else send()):
        room.is_lacking()


class _Room:
    """
    The room for messages to the client of a sync consumer.

    A client that takes nothing must not hold the thread of all consumers. So what a handler sends
    waits beyond the buffer's size, and the consumer's next handler waits for room. A consumer with
    a thread of its own waits where it sends.
    """

    def __init__(self, events: Events) -> None:
        """Begins with room, in the loop and the context of the consumer."""
        self._peer = events.peer
        self._loop = asyncio.get_running_loop()
        self._is_shared = isinstance(asgiref.current_context(), ApplicationContext)
        self._made: Future[None] | None = None
        #: Called, in the loop, when there is room again.
        self.when_made: Callable[[], object] = bool

    @property
    def is_there(self) -> bool:
        """Whether the next handler may run."""
        return self._made is None or self._made.done()

    def is_lacking(self) -> None:
        """To be called by a handler's thread when a message has found no room."""
        websocket = self._peer.websocket
        if websocket is None or not self.is_there:
            return
        waiting = websocket._await_rest()
        try:
            self._made = made = asyncio.run_coroutine_threadsafe(waiting, self._loop)
        except RuntimeError:
            # The loop was closed, and the connection's server with it.
            waiting.close()
            return
        if self._is_shared:
            made.add_done_callback(lambda _: self.when_made())
        else:
            made.result()

    async def until_there(self) -> None:
        """Waits for it."""
        if self._made is not None:
            await asyncio.wrap_future(self._made)


# -- receiving -------------------------------------------------------------------------------------


async def _dispatch_all(
    channels_own: Callable[..., Awaitable[None]], receivers: Sequence[Receive], dispatch: Dispatch
) -> None:
    """Returns ``dispatch`` one message after the other: the client's, and those of a layer."""
    events = _events_of(receivers[0])
    if events is None:
        await channels_own(receivers, dispatch)
        return
    events.is_of_consumer = True
    try:
        await _dispatch_ours(channels_own, events, receivers, dispatch)
    finally:
        # One that has failed or was cancelled has not left its groups.
        consumer: Any = getattr(dispatch, "__self__", None)
        layer = getattr(consumer, "channel_layer", None)
        if (end := getattr(layer, "end_channel", None)) is not None:
            end(consumer.channel_name)


async def _dispatch_ours(
    channels_own: Callable[..., Awaitable[None]],
    events: Events,
    receivers: Sequence[Receive],
    dispatch: Dispatch,
) -> None:
    receive, *others = receivers
    if consumers.channels_dispatch_of(dispatch) is not None:
        _send_through_middleware(events, dispatch.__self__)  # type: ignore[attr-defined]
    if (handler := _Handler.behind(dispatch)) is not None:
        # Its line makes the calls of both one at a time.
        client = _serve_client(events, handler, dispatch)
        await _run_all(client, *(_pass_on(other, dispatch) for other in others))
    elif not others:
        await _pass_on(receive, dispatch)
    elif _HAVE_CONTEXT:
        lock = asyncio.Lock()
        await _run_all(*(_pass_on_alone(receiver, dispatch, lock) for receiver in receivers))
    else:
        await channels_own(receivers, dispatch)


async def _pass_on(receive: Receive, dispatch: Dispatch) -> None:
    while True:
        await dispatch(await receive())


async def _pass_on_alone(receive: Receive, dispatch: Dispatch, lock: asyncio.Lock) -> None:
    while True:
        try:
            event = await receive()
        except asyncio.CancelledError:
            # It ends the consumer: not in the middle of another handler.
            async with lock:
                raise
        async with lock:
            await dispatch(event)


async def _serve_client(events: Events, handler: _Handler, dispatch: Dispatch) -> None:
    await dispatch(await events.receive())
    websocket = events.peer.websocket if events.stage is Stage.OPEN else None
    if websocket is not None and websocket._connection is not None:
        await handler.read(websocket._connection)
    # The end, or all that comes to one that has not accepted yet.
    await _pass_on(events.receive, dispatch)


async def _run_all(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Runs them until one raises, and raises that."""
    if len(coroutines) == 1:
        await coroutines[0]
        return
    # A context variable that one handler sets is there for the next one.
    options: Any = {"context": contextvars.copy_context()} if _HAVE_CONTEXT else {}
    websocket = own_websocket.get()
    if websocket is not None and (world := websocket._world) is not None:
        coroutines = tuple(world.arun(functools.partial(_give, each)) for each in coroutines)
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_outcome(coroutine), **options) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if (exit_of_process := task.result()) is not None:
                raise exit_of_process
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _outcome(coroutine: Coroutine[Any, Any, None]) -> BaseException | None:
    """
    Returns the exception that asks for the end of the process, if one does.

    A task that raises it ends the whole loop.
    """
    try:
        await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        return error
    return None


def _give(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    return coroutine


async def _close_old_connections(channels_own: Callable[[], Awaitable[None]]) -> None:
    """Has old database connections closed, before the next call that may use them."""
    own = asgiref.current_context()
    if isinstance(own, OwnThread):
        own.has_old_connections = True
    else:
        await channels_own()


def _close_old_connections_here(channels_own: Callable[[], None]) -> None:
    """Closes old database connections of this thread; one of ours keeps them between two calls."""
    if database.is_watched():
        database.close_old_connections()
    else:
        channels_own()


async def _dispatch_sync(channels_own: Any, consumer: Any, message: Event) -> None:
    """Has a sync consumer handle a message on its thread."""
    if isinstance(asgiref.current_context(), ApplicationContext):
        await _Handler.of(channels_own, consumer).handle(message)
    else:
        await channels_own(consumer, message)


class _Handler:
    """The handlers of one sync consumer. They run in one context, also on several threads."""

    def __init__(self, channels_own: Any, consumer: Any) -> None:
        """Begins in the context of the consumer's task."""
        own = asgiref.current_context()
        assert isinstance(own, ApplicationContext)
        self._line = own.line
        # The tasks of `async_to_sync` in a handler.
        self._tasks: list[asyncio.Task[Any]] = []
        context = contextvars.copy_context()
        self._call = asgiref.sync_call(channels_own, context, self._tasks, consumer)
        websocket = own_websocket.get()
        if websocket is not None and websocket._world is not None:
            self._call = asgiref.wrapped_in_context(self._call, websocket._world.around)
        self._room: _Room | None = vars(consumer).get(_ROOM)

    @classmethod
    def of(cls, channels_own: Any, consumer: Any) -> _Handler:
        """Returns the one of a consumer."""
        handler: _Handler | None = vars(consumer).get(_HANDLER)
        if handler is None:
            handler = vars(consumer)[_HANDLER] = cls(channels_own, consumer)
        return handler

    @classmethod
    def behind(cls, dispatch: Dispatch) -> _Handler | None:
        """Returns the one that ``dispatch`` leads to, if its messages can be read on threads."""
        channels_own = consumers.channels_dispatch_of(dispatch)
        is_ours = isinstance(asgiref.current_context(), ApplicationContext)
        if channels_own is None or not is_ours or unpatched.patched_by() is not None:
            return None
        return cls.of(channels_own, dispatch.__self__)  # type: ignore[attr-defined]

    async def handle(self, message: Event) -> None:
        """Handles one message."""
        if self._room is not None:
            await self._room.until_there()
        await self._wait_for(self._line.submit(functools.partial(self._call, message)))

    async def read(self, connection: Connection) -> None:
        """Handles a connection's messages, until no more can come."""
        if self._room is not None:
            self._room.when_made = functools.partial(self._line.submit, bool)
        await self._wait_for(self._line.read(connection, self._handle_here, self._may_read))

    def _may_read(self) -> bool:
        return self._room is None or self._room.is_there

    def _handle_here(self, message: Message) -> None:
        self._call(event_of(message))

    async def _wait_for(self, future: Future[Any]) -> None:
        try:
            await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            for task in list(self._tasks):
                task.cancel()
            # A handler that runs, runs to its end.
            await asyncio.wrap_future(self._line.submit(bool))
            raise
