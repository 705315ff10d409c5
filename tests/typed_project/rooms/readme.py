"""The view of the README, annotated as docs/views.md says. `tests/test_types.py` compares it."""

from django.http import HttpResponse
from django.shortcuts import render

from dwebsocket import WebSocketRequest, accept_websocket, group


@accept_websocket(text_type=str, groups=["chat"])
def chat(request: WebSocketRequest) -> HttpResponse | None:
    """Pages and WebSockets."""
    if not request.is_websocket():
        return render(request, "chat.html")
    for message in request.websocket:
        group("chat").send(message)
    return None
