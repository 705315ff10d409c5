"""
The project's own handlers, which answer the offer of a connection as they answer a request.

Packages put their own ``__call__`` into Django's classes, for what belongs to one request: Sentry's
has a scope, New Relic's a transaction, and both return a wrapper of the response. So the handlers
are called as a server calls them, up to the end of the request. The response stays: it opens the
connection later.
"""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import TimeoutError as TimeoutErrorOfFutures
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.http import HttpResponse
from django.urls import set_script_prefix

from dwebsocket.compat.django_asgi import ASGIHandler
from dwebsocket.handover import requests
from dwebsocket.request import HANDSHAKE_KEY, database
from dwebsocket.servers.asgi import SCOPE_KEY, no_body

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.servers.contract import Event, Receive, Send

# Seconds that the server's loop may take for one offer. The other process waits no longer, either.
_ANSWER_S = 10.0


class _StandIn(HttpResponse):
    """The response that the server gets in place of the one that stays."""

    def close(self) -> None:
        """Does nothing: the request is finished when the response that stays is closed."""


class Handler(WSGIHandler):
    """Answers by the project's middleware and URLs."""

    def answer(self, environ: dict[str, Any]) -> None:
        """Answers an offer, which has the request and the response then."""
        answer: Any = self(environ, lambda *_: lambda _: None)
        try:
            for _ in answer:
                pass
        finally:
            if hasattr(answer, "close"):
                answer.close()

    def get_response(self, request: HttpRequest) -> HttpResponse:
        """Django's call with the request of an offer."""
        offer = request.META[HANDSHAKE_KEY].moved
        offer.request = request
        response = super().get_response(request)
        offer.note(response)
        return _StandIn(status=response.status_code)


class LoopHandler(ASGIHandler):
    """The same under an ASGI server: async code runs in the server's loop, as always there."""

    def answer(self, environ: dict[str, Any]) -> None:
        """
        Answers an offer, which has the request and the response then.

        Raises:
            TimeoutError: The loop is busy, or has ended.
        """
        host = environ[HANDSHAKE_KEY].host
        answer = asyncio.run_coroutine_threadsafe(self._answer(environ, host.asgi), host.asgi.loop)
        try:
            answer.result(_ANSWER_S)
        except TimeoutErrorOfFutures as error:
            answer.cancel()
            raise TimeoutError("the event loop of this process does not answer") from error

    async def _answer(self, environ: dict[str, Any], server: Any) -> None:
        # A page, as a handshake is one.
        page = {**requests.scope_of(environ, server), "type": "http"}
        page[SCOPE_KEY] = environ[HANDSHAKE_KEY]
        try:
            await self(page, no_body(), _discard)
        finally:
            # A package may keep it.
            del page[SCOPE_KEY]

    async def handle(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Django's call with the request of an offer."""
        scope = {**scope, "type": "websocket"}
        handshake = scope.pop(SCOPE_KEY)
        request, refusal = self.create_request(scope, io.BytesIO())
        offer = handshake.moved
        if request is None:
            offer.note(refusal)
        else:
            request.META[HANDSHAKE_KEY], offer.request = handshake, request
            set_script_prefix(request.META.get("SCRIPT_NAME", ""))
            start = sync_to_async(request_started.send, thread_sensitive=True)
            await start(sender=type(self), scope=scope)
            offer.note(await self.get_response_async(request))
            # Its thread ends here, and the request on another one.
            await sync_to_async(database.leave, thread_sensitive=True)()
        status = offer.response.status_code
        await send({"type": "http.response.start", "status": status, "headers": []})


async def _discard(event: Event) -> None:
    """The ``send`` of a request that no server waits for."""
