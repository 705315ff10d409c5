"""
The server that the test clients feign where there is no engine: an ASGI server in this process.

The request passes through Django's handler as everywhere. The connection is one that an ASGI server
keeps; its events come and go by a :class:`~dwebsocket.testing.link.Link`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from concurrent.futures import Future
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from asgiref.sync import ThreadSensitiveContext, sync_to_async

from dwebsocket.compat.django_test import AsyncClientHandler, ClientHandler
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.runners import loop
from dwebsocket.runners.view import witness
from dwebsocket.servers import asking
from dwebsocket.servers.asgi import SCOPE_KEY, AsgiHandshake
from dwebsocket.testing.host import name_host
from dwebsocket.testing.link import Link
from dwebsocket.testing.watch import ViewWatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.http import HttpRequest


class Offer:
    """The place of a handshake's connection, while Django handles its request."""

    def __init__(self) -> None:
        """Begins without one."""
        self.link: Link | None = None


# Of async tests. A loop has weak references only.
_tasks: set[asyncio.Task[None]] = set()
_offer: ContextVar[Offer | None] = ContextVar("offer", default=None)


@contextlib.contextmanager
def offering() -> Iterator[tuple[Offer, ViewWatch]]:
    """Makes the requests in the block offer a connection."""
    offer, watch = Offer(), ViewWatch()
    tokens = _offer.set(offer), witness.set(watch)
    try:
        yield offer, watch
    finally:
        _offer.reset(tokens[0])
        witness.reset(tokens[1])


class _ThreadsHandshake(AsgiHandshake):
    """One of a sync test: async views run in the background loop, as under WSGI."""

    has_loop = False


def _scope_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scope for the headers of Django's request, which is one for a page."""
    headers = {
        name[len("HTTP_") :].lower().replace("_", "-"): str(value)
        for name, value in meta.items()
        if name.startswith("HTTP_")
    }
    offered = headers.get("sec-websocket-protocol", "").split(",")
    path = meta["PATH_INFO"]
    return {
        "type": "http",
        "http_version": "1.1",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": str(meta.get("QUERY_STRING", "")).encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": (meta.get("REMOTE_ADDR", ""), 0),
        "server": (meta["SERVER_NAME"], int(meta["SERVER_PORT"])),
        "subprotocols": [name.strip() for name in offered if name.strip()],
    }


async def _serve(handshake: AsgiHandshake, link: Link) -> None:
    """Serves a connection to its end, as an ASGI application."""
    try:
        await handshake.serve()
    finally:
        link.over()


class Handler(ClientHandler):
    """The handler of Django's client, whose server has a loop on a thread of its own."""

    def get_response(self, request: HttpRequest) -> Any:
        """Django's call for the response, which it closes."""
        offer = _offer.get()
        if offer is None:
            return super().get_response(request)
        name_host(request.META)
        begun: Future[tuple[AsgiHandshake, Link]] = Future()
        decided: Future[None] = Future()
        scope = _scope_of(request.META)
        serve = functools.partial(self._serve, scope, begun, decided)
        loop.run("dwebsocket-test-server", serve, Context())
        try:
            handshake, link = begun.result()
            request.__dict__["scope"] = {**scope, SCOPE_KEY: handshake}
            response = super().get_response(request)
            if isinstance(response, UpgradeResponse):
                response.look_at_user()
                handshake.call(response.open)
                offer.link = link
        finally:
            decided.set_result(None)
        return response

    async def _serve(
        self,
        scope: Mapping[str, Any],
        begun: Future[tuple[AsgiHandshake, Link]],
        decided: Future[None],
    ) -> None:
        link = Link()
        handshake = _ThreadsHandshake(scope, link.receive, link.tell)
        begun.set_result((handshake, link))
        await asyncio.wrap_future(decided)
        await _serve(handshake, link)


class AsyncHandler(AsyncClientHandler):
    """The handler of Django's async client, a server in the event loop of the test."""

    async def get_response_async(self, request: Any) -> Any:
        """Django's call for the response, which it closes."""
        offer = _offer.get()
        if offer is None:
            return await super().get_response_async(request)
        link = Link()
        handshake = AsgiHandshake(_scope_of(request.META), link.receive, link.tell)
        request.scope[SCOPE_KEY] = handshake
        asking.note(is_websocket=True)
        # As under a server: a consumer that waits for its answer has the thread of the process.
        async with ThreadSensitiveContext():
            response = await super().get_response_async(request)
            if isinstance(response, UpgradeResponse) and response.needs_database:
                await sync_to_async(response.look_at_user)()
        if isinstance(response, UpgradeResponse):
            response.open()
            offer.link = link
            task = Context().run(asyncio.create_task, _serve(handshake, link))
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)
        return response
