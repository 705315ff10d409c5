"""
Mistakes that a type checker finds where it knows Django's types. Never run; see `mistakes.py`.
"""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from dwebsocket import WebSocketRequest, accept_websocket
from rooms import views


@accept_websocket  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def of_no_response(request: WebSocketRequest) -> str:
    """A view gives a response, or nothing."""
    return "text"


@accept_websocket(text_type=str)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def of_no_response_later(request: WebSocketRequest) -> str:
    """Nor does an async view."""
    return "text"


def of_an_undecorated_view(request: WebSocketRequest) -> None:
    """Not for Django."""


path("", of_an_undecorated_view)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


def of_requests(request: WebSocketRequest, plain: HttpRequest) -> HttpResponse:
    """Attributes that a WebSocket and Django's request do not have."""
    plain.websocket  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    request.nope  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    return views.echo(request)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
