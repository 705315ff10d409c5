"""Django's part."""

from django.http import HttpResponse
from django.shortcuts import render

from dwebsocket import WebSocketRequest, accept_websocket


@accept_websocket(groups=["temperature"])
async def temperature(request: WebSocketRequest) -> HttpResponse | None:
    """A page, and the values for it."""
    if not request.is_websocket():
        return render(request, "fastapi_beside/temperature.html")
    await request.websocket.await_closed()
    return None
