"""
WebSockets under ASGI servers.

With ``"dwebsocket"`` in ``INSTALLED_APPS`` Django's own ``get_asgi_application()`` serves them: an
``asgi.py`` as ``startproject`` makes it is left as it is. Without that, in place of Django's
function of the same name::

    from dwebsocket.asgi import get_asgi_application

    application = get_asgi_application()

Projects that route by themselves, as with Channels' ``ProtocolTypeRouter``, pass
:func:`websocket_application` on as what serves ``"websocket"``.

A handshake is a GET request that goes through all of Django. The response that upgrades it becomes
``websocket.accept``; any other is the refusal.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import django
from asgiref.sync import sync_to_async

from dwebsocket import _core, conf
from dwebsocket.api.waiting import engine_calls
from dwebsocket.api.waiting.loop_hub import LoopEvent
from dwebsocket.compat.asgiref import request_context
from dwebsocket.compat.django import HANDLER_CLOSES
from dwebsocket.compat.django_asgi import ASGIHandler
from dwebsocket.handshake import preloading
from dwebsocket.handshake.fallback.polling import HeldResponse
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.runners import shutdown
from dwebsocket.runners.loop import SERVER_TASKS
from dwebsocket.servers import asgi, asking, hosts
from dwebsocket.servers.asgi.fallback import Exchange
from dwebsocket.servers.asgi.replies import Plain, Reply, reply_to
from dwebsocket.telemetry.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http.response import HttpResponseBase

    from dwebsocket.servers.contract import Receive, Send

    Scope = dict[str, Any]

__all__ = ["get_asgi_application", "websocket_application"]


# Time for clients and async views to close when the server stops.
_GRACE_S = 1.0
# The same for clients alone, where the server does not wait.
_CLOSE_FRAME_S = 0.3
# Seconds that handshakes which have begun may still take.
_HANDSHAKES_S = 3.0
# The handshakes that Django is handling now, and who is told when none is left.
_handshakes: set[asgi.AsgiHandshake | Exchange] = set()
_when_none: list[LoopEvent] = []
# The ends of servers that are under way.
_endings: set[asyncio.Task[None]] = set()
# The servers of this process that run, as far as they tell.
_servers: set[asgi.Served] = set()
# Whether the server tells its application when it ends, and waits for it.
_has_lifespan = False
# Middleware behind a proxy may give a handshake the scheme of a page, as hypercorn's does.
_ENCRYPTED = ("wss", "https")
# Where the scope of a page holds that of the handshake which is handled like one, and its reply.
_HANDSHAKE = "dwebsocket.of"

# The server has loaded its own modules before its application, as a rule.
asgi.keep_early_bytes()


def get_asgi_application() -> ASGIHandler:
    """
    Returns the project's ASGI application: plain HTTP as by Django, WebSockets, and lifespan.

    Call it once, before models are imported: it sets Django up.
    """
    django.setup(set_prefix=False)
    return _Application()


async def websocket_application(scope: Scope, receive: Receive, send: Send) -> None:
    """
    Serves WebSockets only, for projects that route to Django by themselves.

    Django must be set up; its own ``get_asgi_application()`` sees to that.

    Raises:
        ValueError: ``scope`` is about anything but a WebSocket.
    """
    if scope["type"] != "websocket":
        raise ValueError(
            f"dwebsocket.asgi.websocket_application serves websocket scopes, not {scope['type']}: "
            "route others to get_asgi_application()"
        )
    await _shared_application()(scope, receive, send)


@functools.cache
def _shared_application() -> _Application:
    return _Application()


class _Application(ASGIHandler):
    """Django's handler for HTTP, extended by WebSockets and lifespan."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await _serve(self, scope, receive, send):
            await super().__call__(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        # First, before the server reads on: it may drop what it reads.
        handshake = asgi.begin(scope, receive, send)
        if (await receive())["type"] != "websocket.connect":
            return
        _listen_for_the_end()
        if not _has_lifespan and isinstance(handshake, asgi.NativeHandshake):
            # Before the first one opens, with which this process begins to take others.
            handshake.note_server()
        if not await handshake.has_turn(conf.get_or("HANDSHAKE_TIMEOUT", otherwise=None)):
            _report_refusal(scope, 503, "Its client has not read the response before it.")
            await handshake.serve()
            return
        reply = reply_to(scope, send, handshake)
        if reply.is_leaving and not reply.is_http:
            # Without the HTTP response extension every refusal is a 403: Django is not needed.
            _report_refusal(scope, 403, "This process is ending.")
            await reply.reject()
            return
        scheme = "https" if scope.get("scheme") in _ENCRYPTED else "http"
        try:
            # Without a name: this task may last as long as the connection.
            await self._handle_like_page(
                {**scope, "method": "GET", "scheme": scheme}, asgi.no_body(), reply, handshake
            )
        finally:
            await handshake.serve()

    async def _serve_fallback(self, scope: Scope, receive: Receive, send: Send) -> None:
        _listen_for_the_end()
        exchange = Exchange(receive)
        try:
            # It may be any page, of which the view does not look at the query.
            await self._handle_like_page(scope, exchange.receive, Plain(send), exchange)
            await exchange.serve(send)
        finally:
            exchange.close()

    async def _handle_like_page(
        self,
        scope: Scope,
        receive: Receive,
        reply: Reply | Plain,
        handshake: asgi.AsgiHandshake | Exchange,
    ) -> None:
        """
        Has Django handle a handshake by the handler's ``__call__``, as it does a page.

        Packages put their own in its place, for what belongs to one request: Sentry's has a scope
        and a transaction for each, which end here and not with the connection.
        """
        request_scope = {**scope, asgi.SCOPE_KEY: handshake}
        page = {**scope, "type": "http", _HANDSHAKE: (request_scope, reply)}
        _handshakes.add(handshake)
        try:
            # Only around the handshake: the context may hold a thread.
            async with request_context():
                await ASGIHandler.__call__(self, page, receive, reply)
        finally:
            # Such a package may keep it as long as the view runs, as the view may its request.
            del page[_HANDSHAKE], request_scope[asgi.SCOPE_KEY]
            reply.outer = None
            _handshakes.discard(handshake)
            if not _handshakes:
                for event in _when_none:
                    event.set()
            if (served := asgi.Served.of(scope)) is not None and handshake.connection is not None:
                served.add(handshake.connection)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Django's call with a request, to which a handshake comes as a page."""
        if (handshake := scope.get(_HANDSHAKE)) is not None:
            reply: Reply | Plain
            scope, reply = handshake
            reply.outer, send = send, reply
        await super().handle(scope, receive, send)

    async def send_response(self, response: HttpResponseBase, send: Any) -> None:
        """Django's call with the response that has passed all middleware."""
        if isinstance(response, UpgradeResponse) and isinstance(send, (Reply, Plain)):
            if response.needs_database:
                await sync_to_async(response.look_at_user)()
            response.open()
            if isinstance(send, Reply):
                await send.tell_outer()
        elif isinstance(response, HeldResponse) and isinstance(send, Plain):
            response.open()
        elif isinstance(send, Reply) and (send.is_open or not send.is_http):
            if not send.is_open:
                await send.reject()
        else:
            outer = getattr(send, "outer", None)
            await super().send_response(response, send if outer is None else outer)
            return
        if not HANDLER_CLOSES:
            await sync_to_async(response.close)()


async def serve_for(handler: ASGIHandler, scope: Scope, receive: Receive, send: Send) -> bool:
    """
    Serves what reaches Django's own handler, or one of a class of the project's, but plain HTTP.

    Returns:
        Whether it was served; else it is the handler's.
    """
    # Ours has asked already. A connection that moves is no request of this server.
    is_for_it = isinstance(handler, _Application) or asgi.SCOPE_KEY in scope
    return not is_for_it and await _serve(handler, scope, receive, send)


async def _serve(handler: ASGIHandler, scope: Scope, receive: Receive, send: Send) -> bool:
    kind = scope["type"]
    if kind == "lifespan":
        await _follow_lifespan(scope, receive, send)
        return True
    is_fallback = kind == "http" and _asks_for_fallback(scope)
    if _has_lifespan:
        asgi.look_at(send)
    asking.note(is_websocket=kind == "websocket" or is_fallback)
    if kind == "websocket":
        await _extended(handler)._serve_websocket(scope, receive, send)
    elif is_fallback and scope["method"] == "GET":
        await _extended(handler)._serve_fallback(scope, receive, send)
    else:
        return False
    return True


def _extended(handler: ASGIHandler) -> _Application:
    """Returns ``handler`` with our methods: the same middleware, and all that its class has."""
    if isinstance(handler, _Application):
        return handler
    kind = type(handler)
    extended = _extended_classes.get(kind)
    if extended is None:
        extended = _extended_classes[kind] = type(kind.__name__, (_Application, kind), {})
    found = extended.__new__(extended)
    found.__dict__ = handler.__dict__
    return found


# For each class of handlers that serves WebSockets, the one that has our methods, too.
_extended_classes: dict[type[ASGIHandler], type[_Application]] = {ASGIHandler: _Application}


def _asks_for_fallback(scope: Scope) -> bool:
    parts = (scope.get("query_string") or b"").split(b"&")
    return b"transport=sse" in parts or b"transport=polling" in parts


def _report_refusal(scope: Scope, status: int, reason: str) -> None:
    """Reports as for any handshake, but there is no request yet."""
    peer = str((scope.get("client") or ("",))[0])
    refused = Record("websocket.refused", None, peer, scope["path"], status, reason)
    text, args = "WebSocket refused with %d: %s: %s", (status, refused.path, refused.reason)
    refused.log(logging.INFO, text, *args, status_code=status)


@functools.cache
def _listen_for_the_end() -> None:
    """
    Closes all connections as soon as a signal tells the process to end.

    Some servers first wait for their connections, and only then notify the application. To be
    called when the server has set its own handlers; handlers of event loops still run. A server
    without lifespan does not wait for connections that the engine has: its handler is called when
    they are closed, or at once when the signal comes again.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)
        if not callable(previous):
            continue

        def on_signal(number: int, frame: Any, previous: Any = previous) -> None:
            asgi.note_signal()
            is_at_once = _has_lifespan or _core.is_leaving() or loop.is_closed()
            stop = None if is_at_once else functools.partial(previous, number, None)
            # Not here: the code that was interrupted may hold any lock.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_planner, loop, stop)
            if stop is None:
                previous(number, frame)

        signal.signal(number, on_signal)
        # As event loops set it for their own handlers. Windows interrupts no system calls.
        if hasattr(signal, "siginterrupt"):
            signal.siginterrupt(number, False)  # noqa: FBT003


def _planner(loop: asyncio.AbstractEventLoop, stop: Callable[[], object] | None) -> None:
    """Begins to close all connections, and stops the server, if need be, when they are closed."""
    patience = shutdown.depart() + _GRACE_S
    if stop is not None:
        task = loop.create_task(_stop_when_quiet(loop, stop, patience))
        _endings.add(task)
        task.add_done_callback(_endings.discard)


async def _stop_when_quiet(
    loop: asyncio.AbstractEventLoop, stop: Callable[[], object], patience: float
) -> None:
    """
    Stops a server after the last handshakes and connections, for which it has ``patience``.

    Bytes not sent by then are lost, and a handshake's thread would wait for the loop for ever.
    """
    await _moved()
    since = loop.time()
    await asyncio.sleep(_CLOSE_FRAME_S)
    _when_none.append(over := LoopEvent())
    if _handshakes:
        await over.wait(since + _HANDSHAKES_S - loop.time())
    await _all_over(since + patience - loop.time())
    # Not in this task: its exceptions are the loop's.
    loop.call_soon(stop)


async def _moved() -> None:
    """Waits until no connection moves to another process any more."""
    over = LoopEvent()
    shutdown.mover.call_when_done(over.set)
    await over.wait()


async def _all_over(timeout: float) -> None:
    """
    Waits until all connections, views and callbacks have ended, ``timeout`` seconds at most.

    Those on threads, too: after the lifespan uvicorn ends the process by a signal.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while (none_open := _core.wait_for_none_open()) is not None:
        if (left := end - loop.time()) <= 0:
            return
        await engine_calls.await_call(none_open, left)


async def _follow_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    global _has_lifespan
    _has_lifespan = True
    served = None
    if (state := scope.get("state")) is not None:
        # Its server passes the state on with each connection.
        served = state[asgi.Served.KEY] = asgi.Served()
        _servers.add(served)
    while True:
        event = await receive()
        if event["type"] == "lifespan.startup":
            asgi.keep_early_bytes()
            found = asgi.config_of(receive)
            if found is not None and asgi.note(*found, served, state or {}):
                # Other processes may give their connections to this one.
                _listen_for_the_end()
                import_module("dwebsocket.handover.arriving").begin()
        if event["type"] == "lifespan.shutdown":
            all_over = _all_over
            if served is None:
                timeout = shutdown.depart() + _GRACE_S
            else:
                _servers.discard(served)
                # The process goes on for others, and so do views and callbacks.
                closing = shutdown.closing() if _servers else shutdown.begin_to_move()
                timeout = served.leave(*closing, shutdown.mover.moves) + _GRACE_S
                if _servers:
                    all_over = served.all_over
                    hosts.forget(served.add)
            await _moved()
            await asyncio.gather(all_over(timeout), SERVER_TASKS.join(timeout))
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


preloading.begin()
