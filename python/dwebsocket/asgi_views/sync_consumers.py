"""
Channels' sync consumers: their messages leave from the thread that sends them.

A consumer sends by ``async_to_sync(send)``, which takes two switches between its thread and the
event loop for each message. Connections may be used by any thread, so neither is needed. Accepting
and closing take the long way: there is one of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dwebsocket.asgi_views.events import Events, Stage, message_of
from dwebsocket.compat import consumers
from dwebsocket.compat.asgiref import coroutine_function_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.asgi_views.events import Peer
    from dwebsocket.asgi_views.routing import Application
    from dwebsocket.connection import Message
    from dwebsocket.servers.asgi.events import Event


def sending_here(application: Application) -> Application:
    """Gives an equal application, whose messages take the short way if it is a sync consumer."""
    consumer = consumers.sync_consumer_of(application)
    if consumer is None:
        return application
    known = {name: getattr(consumer, name) for name in ("__module__", "__qualname__", "__doc__")}
    own = type(consumer.__name__, (consumer,), {**known, consumers.SEND: _Sender()})
    remade: Application = consumers.remade(application, own)
    return remade


class _Sender:
    """The attribute in which a consumer keeps its ``send`` for threads."""

    def __set__(self, consumer: Any, send: Any) -> None:
        function = coroutine_function_of(send)
        events = getattr(function, "__self__", None)
        # Middleware may have a `send` of its own around that of the connection.
        if isinstance(events, ThreadEvents) and function == events.send:
            send = events.sender(send)
        vars(consumer)[consumers.SEND] = send

    def __get__(self, consumer: Any, owner: type) -> Any:
        return self if consumer is None else vars(consumer)[consumers.SEND]


class ThreadEvents(Events):
    """Events of a connection on which any thread may send."""

    def __init__(self, peer: Peer, send_here: Callable[[Message], object]) -> None:
        """Begins, with the function that sends a message from the thread that calls it."""
        super().__init__(peer)
        self._send_here = send_here

    def sender(self, send: Callable[[Event], None]) -> Callable[[Event], None]:
        """Gives a ``send`` for threads; ``send`` is the one for all but messages."""

        def send_event(event: Event) -> None:
            if event.get("type") == "websocket.send" and self.stage is Stage.OPEN:
                self._send_here(message_of(event))
            else:
                send(event)

        return send_event
