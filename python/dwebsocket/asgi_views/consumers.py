"""
Channels' consumers, with fewer turns between the event loop and threads.

As Channels 4 is, each message takes a new task; a sync consumer's handler goes to its thread, and
what it sends comes back, by asgiref; an async consumer asks a thread whether database connections
are too old. On connections of ours, whose threads are those of
:mod:`~dwebsocket.runners.application_threads`, none of that is needed but the way to a handler's
thread. Consumers on other connections, such as those of Channels' test helpers, run as ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import TYPE_CHECKING, Any

from dwebsocket import unpatched
from dwebsocket.asgi_views.events import Events, Stage, message_of
from dwebsocket.compat import asgiref, consumers
from dwebsocket.runners.application_threads import ApplicationContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dwebsocket.asgi_views.routing import Application
    from dwebsocket.servers.asgi.events import Event

    Receive = Callable[[], Awaitable[Event]]
    Dispatch = Callable[[Event], Awaitable[None]]


async def run(application: Application, scope: dict[str, Any], events: Events) -> None:
    """Runs an application, whose sync code has threads of ours, to its end."""
    if consumers.are_there():
        _exchange()
    thread = ApplicationContext.enter()
    try:
        await application(scope, events.receive, events.send)
    finally:
        await thread.leave()


@functools.cache
def _exchange() -> None:
    consumers.exchange(
        sender=_Sender(),
        dispatch_all=_dispatch_all,
        close_old_connections=_close_old_connections,
        call=_call,
    )


def _events_of(function: object) -> Events | None:
    events = getattr(function, "__self__", None)
    return events if isinstance(events, Events) else None


class _Sender:
    """The attribute in which a sync consumer keeps its ``send``."""

    def __set__(self, consumer: Any, send: Any) -> None:
        function = asgiref.coroutine_function_of(send)
        events = _events_of(function)
        # Middleware may have a `send` of its own around that of the connection. And where threads
        # are green those of consumers are not, and wait in another way.
        if events is not None and function == events.send and unpatched.patched_by() is None:
            send = _sender(events, send)
        vars(consumer)[consumers.SEND] = send

    def __get__(self, consumer: Any, owner: type) -> Any:
        if consumer is None:
            return self
        try:
            return vars(consumer)[consumers.SEND]
        except KeyError:
            raise AttributeError(consumers.SEND) from None


def _sender(events: Events, send: Callable[[Event], None]) -> Callable[[Event], None]:
    """Gives a ``send`` for threads; ``send`` is the one for all but messages."""

    def send_event(event: Event) -> None:
        if event.get("type") == "websocket.send" and events.stage is Stage.OPEN:
            events.peer.send_here(message_of(event))
        else:
            send(event)

    return send_event


async def _dispatch_all(
    channels_own: Callable[..., Awaitable[None]], receivers: Sequence[Receive], dispatch: Dispatch
) -> None:
    """Gives ``dispatch`` one message after the other, of one receiver or of several."""
    if len(receivers) > 1 or _events_of(receivers[0]) is None:
        await channels_own(receivers, dispatch)
    else:
        receive = receivers[0]
        while True:
            await dispatch(await receive())


async def _close_old_connections(channels_own: Callable[[], Awaitable[None]]) -> None:
    """Has the thread of this task close its old database connections, if it can have any."""
    own = asgiref.current_context()
    if not isinstance(own, ApplicationContext) or own.has_thread:
        await channels_own()


async def _call(channels_own: Any, consumer: Any, message: Event) -> None:
    """Calls a sync consumer's handler for a message, on a thread."""
    own = asgiref.current_context()
    if not isinstance(own, ApplicationContext):
        await channels_own(consumer, message)
        return
    context = contextvars.copy_context()
    tasks: list[asyncio.Task[Any]] = []
    call = asgiref.sync_call(channels_own, context, tasks, consumer, message)
    future = own.worker().submit(call)
    try:
        await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        if not future.done():
            await asyncio.gather(asyncio.wrap_future(future), return_exceptions=True)
        raise
    finally:
        asgiref.take_over(context)
