"""The types that users of this package see. Never run: the type checkers read it."""

from collections.abc import Callable, Coroutine
from http.client import HTTPMessage
from typing import Any

from django.http.response import HttpResponseBase
from typing_extensions import assert_type

from dwebsocket import (
    ClientConnection,
    ConnectionClosed,
    Group,
    HandshakeRefused,
    WebSocket,
    WebSocketRequest,
    accept_websocket,
    aconnect,
    connect,
    group,
    statistics,
)
from dwebsocket.client import AsyncReconnecting, Opening, Reconnecting
from dwebsocket.groups import Recovery
from dwebsocket.testing import (
    AsyncClientWebSocket,
    AsyncWebSocketClient,
    ClientWebSocket,
    WebSocketClient,
)
from rooms import views

# Decorated views keep their further parameters, and always give a response.
sync_view: Callable[[WebSocketRequest], HttpResponseBase] = views.echo
async_view: Callable[[WebSocketRequest], Coroutine[Any, Any, HttpResponseBase]] = views.aecho
async_view_with_name: Callable[[Any, str], Coroutine[Any, Any, HttpResponseBase]] = views.aroom


@accept_websocket(fallback=True)
def several(request: WebSocketRequest, name: str, *, page: int = 1) -> None:
    """A view with several parameters."""


assert_type(several(WebSocketRequest(), "kitchen", page=2), HttpResponseBase)


def of_a_request(request: WebSocketRequest) -> None:
    """Attributes of a request."""
    assert_type(request.websocket, WebSocket)
    assert_type(request.is_websocket(), bool)


def of_a_websocket(websocket: WebSocket) -> None:
    """The types that calls give."""
    assert_type(websocket.wait(), str | bytes | None)
    assert_type(websocket.read(), str | bytes | None)
    assert_type(websocket.read(0), str | bytes | int | None)
    assert_type(websocket.receive(timeout=1.5), str | bytes)
    assert_type(websocket.send("text"), bool)
    assert_type(websocket.join("room"), bool | Recovery | None)
    assert_type(websocket.groups, frozenset[str])
    assert_type(websocket.close_code, int | None)
    # By `text_type` it is str, or bytes and a None at the end; `messages` has one type in both.
    assert_type(list(websocket), list[Any])
    assert_type(list(websocket.messages()), list[str | bytes])


async def of_async_calls(websocket: WebSocket) -> None:
    """The types that async calls give."""
    assert_type(await websocket.areceive(), str | bytes)
    assert_type(await websocket.asend(b"binary"), bool)
    assert_type([message async for message in websocket], list[str | bytes])
    assert_type([message async for message in websocket.messages()], list[str | bytes])


async def of_clients(url: str, *, wants_more: bool) -> None:
    """The types of connections to other servers."""
    assert_type(connect(url), ClientConnection)
    assert_type(await aconnect(url), ClientConnection)
    assert_type(connect(url).receive(), str | bytes)
    assert_type(list(connect(url, reconnect=True)), list[ClientConnection])
    # Neither is known to be it before the program runs.
    assert_type(connect(url, reconnect=wants_more), ClientConnection | Reconnecting)
    assert_type(aconnect(url, reconnect=wants_more), Opening | AsyncReconnecting)


def of_groups() -> None:
    """The types that groups give."""
    assert_type(group("room"), Group)
    assert_type(group("room").count(), int)
    assert_type([entry.message for entry in group("room").history()], list[str | bytes])


def of_exceptions(closed: ConnectionClosed, refused: HandshakeRefused) -> None:
    """The attributes of exceptions."""
    assert_type((closed.code, closed.reason, closed.by), tuple[int, str, str])
    assert_type((refused.status, refused.body), tuple[int, bytes])
    assert_type(refused.headers, HTTPMessage)


def of_statistics() -> None:
    """Their keys are checked."""
    assert_type(statistics()["open"]["views"], dict[str, int])


async def of_the_test_kit() -> None:
    """The types of the test kit."""
    with WebSocketClient().websocket("/") as ws:
        assert_type(ws, ClientWebSocket)
        assert_type(ws.receive(), str | bytes)
        assert_type(ws.wait_closed(), int)
        assert_type(list(ws), list[str | bytes])
    async with AsyncWebSocketClient().websocket("/") as aws:
        assert_type(aws, AsyncClientWebSocket)
        assert_type(await aws.receive(), str | bytes)
        assert_type(await aws.wait_closed(), int)
