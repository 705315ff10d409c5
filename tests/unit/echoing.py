"""Views that echo, of every kind, and a client that talks to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpResponse
from django.views import View

from dwebsocket.runners import loop, thread

if TYPE_CHECKING:
    from visit import Visit


def echo(request: Any, **kwargs: Any) -> HttpResponse | None:
    """Echo, or a page."""
    if not request.is_websocket():
        return HttpResponse("a page")
    for message in request.websocket:
        request.websocket.send(message)
    return None


async def async_echo(request: Any, **kwargs: Any) -> HttpResponse | None:
    """Echo in a task, or a page."""
    if not request.is_websocket():
        return HttpResponse("a page")
    async for message in request.websocket:
        await request.websocket.asend(message)
    return None


class Echo(View):
    """Echo, or a page."""

    def get(self, request: Any, **kwargs: Any) -> HttpResponse | None:
        """Serve both kinds of request."""
        return echo(request)


class AsyncEcho(View):
    """Echo in a task, or a page."""

    async def get(self, request: Any, **kwargs: Any) -> HttpResponse | None:
        """Serve both kinds of request."""
        return await async_echo(request)


def talks(made: Visit) -> None:
    """See that the upgraded view echoes, and that it ends."""
    assert made.response.status_code == 101, made.response.content
    made.serve()
    made.client.send("hello")
    assert made.client.receive() == "hello"
    made.client.close(1000)
    assert made.client.closing() == (1000, "")
    # All that the view logs is logged then.
    assert thread.join(10)
    assert loop.join(10)
