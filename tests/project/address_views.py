"""Views that report the address of their client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.urls import path

from dwebsocket import accept_websocket

if TYPE_CHECKING:
    from django.http import HttpRequest


@accept_websocket
def addresses(request: HttpRequest) -> None:
    """Send the client's address and what arrived of the headers of proxies; stay."""
    request.websocket.send_json(
        {
            "peer": request.META.get("REMOTE_ADDR") or "",
            "forwarded": request.META.get("HTTP_X_FORWARDED_FOR"),
        }
    )
    request.websocket.wait()


urlpatterns = [path("", addresses)]
