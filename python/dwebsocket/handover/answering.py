"""
The project's own handlers, which answer the offer of a connection as they answer a request.

Packages put their own ``__call__`` into Django's classes, for what belongs to one request: Sentry's
has a scope, New Relic's a transaction, and both return a wrapper of the response. So that of WSGI
is called as a server calls it, up to the end of the request. The response stays: it opens the
connection later.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import TimeoutError as TimeoutErrorOfFutures
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.http import HttpResponse
from django.urls import set_script_prefix

from dwebsocket.compat.asgiref import request_context
from dwebsocket.handover import requests
from dwebsocket.request import HANDSHAKE_KEY

if TYPE_CHECKING:
    from django.http import HttpRequest

# Seconds that the server's loop may take for one offer. The other process waits no longer, either.
_ANSWER_S = 10.0


class _Told(HttpResponse):
    """What a server is told in place of the response that stays."""

    def close(self) -> None:
        """Does nothing: the request is finished when the response that stays is closed."""


class Handler(WSGIHandler):
    """Answers by the project's middleware and URLs."""

    def answer(self, environ: dict[str, Any]) -> None:
        """Answers an offer, which has the request and the response then."""
        told: Any = self(environ, lambda *_: lambda _: None)
        try:
            for _ in told:
                pass
        finally:
            if hasattr(told, "close"):
                told.close()

    def get_response(self, request: HttpRequest) -> HttpResponse:
        """Django's call with the request of an offer."""
        offer = request.META[HANDSHAKE_KEY].moved
        offer.request = request
        response = super().get_response(request)
        offer.note(response)
        return _Told(status=response.status_code)


class LoopHandler(BaseHandler):
    """The same under an ASGI server: what is async runs in the server's loop, as ever there."""

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware(is_async=True)

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
        request = requests.asgi_request(environ, server)
        handshake = request.META[HANDSHAKE_KEY] = environ[HANDSHAKE_KEY]
        handshake.moved.request = request
        async with request_context():
            set_script_prefix(request.META.get("SCRIPT_NAME", ""))
            start = sync_to_async(request_started.send, thread_sensitive=True)
            await start(sender=type(self), scope=getattr(request, "scope", {}))
            handshake.moved.note(await self.get_response_async(request))
