"""
An agent of observation such as Sentry's or New Relic's: an app, and handlers that tell what it has.

It has a scope for each request, from where it begins to where the server ends it. Django's handlers
are patched for that, and the response of WSGI is in a wrapper of the agent.
"""

import contextvars
import functools
import json
import os
from typing import Any

from django.core.cache import caches
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path

from dwebsocket import WebSocketHandler


class Scope:
    """The agent's knowledge of a request."""

    query = ""
    status = 0
    is_over = False


current: contextvars.ContextVar[Scope] = contextvars.ContextVar("current")
#: A variable that middleware sets for a request, and leaves.
left: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("left", default=())


class Wrapped:
    """The response of a WSGI application, within the scope; no attribute of it is seen."""

    __slots__ = ("_response", "_scope")

    def __init__(self, response: Any, scope: Scope) -> None:
        """Begin with both."""
        self._response, self._scope = response, scope

    def __iter__(self) -> Any:
        """Give the parts, as a generator."""
        token = current.set(self._scope)
        try:
            yield from self._response
        finally:
            current.reset(token)

    def close(self) -> None:
        """End the scope."""
        self._response.close()
        self._scope.is_over = True


def patched_wsgi(call: Any) -> Any:
    """Give the ``__call__`` of WSGI that has a scope."""

    @functools.wraps(call)
    def patched(self: Any, environ: Any, start_response: Any) -> Any:
        scope = Scope()
        scope.query = environ["QUERY_STRING"]

        def start(status: str, *args: Any) -> Any:
            scope.status = int(status.split()[0])
            return start_response(status, *args)

        token = current.set(scope)
        try:
            return Wrapped(call(self, environ, start), scope)
        finally:
            current.reset(token)

    return patched


def patched_asgi(call: Any) -> Any:
    """Give the ``__call__`` of ASGI that has a scope for HTTP."""

    @functools.wraps(call)
    async def patched(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await call(self, scope, receive, send)
        own = Scope()

        async def tell(event: Any) -> None:
            own.status = event.get("status", own.status)
            await send(event)

        token = current.set(own)
        try:
            await call(self, scope, receive, tell)
        finally:
            current.reset(token)
            own.is_over = True

    return patched


def patched_create_request(create: Any) -> Any:
    """Give the method of ASGI that tells the scope of the request."""

    @functools.wraps(create)
    def patched(self: Any, *args: Any) -> Any:
        request, error = create(self, *args)
        current.get().query = request.META["QUERY_STRING"]
        return request, error

    return patched


WSGIHandler.__call__ = patched_wsgi(WSGIHandler.__call__)  # type: ignore[method-assign]
ASGIHandler.__call__ = patched_asgi(ASGIHandler.__call__)  # type: ignore[method-assign]
ASGIHandler.create_request = patched_create_request(  # type: ignore[method-assign]
    ASGIHandler.create_request
)


def leaves(get_response: Any) -> Any:
    """Middleware that sets a variable for a request, and uses a cache."""

    def respond(request: Any) -> Any:
        left.set((*left.get(), request.GET.get("name", "")))
        caches["default"].get("key")
        return get_response(request)

    return respond


def facts() -> str:
    """Tell what this connection has, as JSON."""
    scope = current.get()
    agent = [scope.query, scope.status, scope.is_over]
    return json.dumps([os.getpid(), agent, left.get(), id(caches["default"])])


class Told(WebSocketHandler):
    """Answer each message with what its connection has."""

    survives = True

    def receive(self, message: str | bytes) -> None:
        """Tell it."""
        self.websocket.send_text(facts())


class AsyncTold(Told):
    """The same in an event loop."""

    async def receive(self, message: str | bytes) -> None:
        """Tell it."""
        await self.websocket.asend_text(facts())


urlpatterns = [
    path("told/", Told.as_view()),
    path("async-told/", AsyncTold.as_view()),
    path("status/", lambda request: HttpResponse()),
]
