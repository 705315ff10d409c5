"""The views of :mod:`dwebsocket.testing.contract`: connections that are members of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.urls import path

from dwebsocket import accept_websocket
from dwebsocket.groups import Group

if TYPE_CHECKING:
    from dwebsocket.typing import WebSocketRequest


def _groups(request: WebSocketRequest) -> list[Group]:
    """Returns the groups that the test wants, also those of users."""
    return [Group(name, "default") for name in request.GET.getlist("group")]


@accept_websocket
def member(request: WebSocketRequest) -> None:
    """Joins, says its id, and obeys: ``leave``, ``join NUMBER``; repeats everything else."""
    websocket, groups = request.websocket, _groups(request)
    websocket.join(*groups)
    websocket.send(websocket.id)
    for message in websocket:
        if message == "leave":
            websocket.leave(*groups)
        elif str(message).startswith("join "):
            websocket.join(*(f"{groups[0].name}-{n}" for n in range(int(str(message)[5:]))))
        websocket.send(message)


@accept_websocket
async def async_member(request: WebSocketRequest) -> None:
    """Serves a member as :func:`member`, by the async calls."""
    websocket, groups = request.websocket, _groups(request)
    await websocket.ajoin(*groups)
    await websocket.asend(websocket.id)
    async for message in websocket:
        if message == "leave":
            await websocket.aleave(*groups)
        await websocket.asend(message)


# The stubs of Django know no views that return nothing.
_member: Any = member
_async_member: Any = async_member
urlpatterns = [path("member/", _member), path("async-member/", _async_member)]
