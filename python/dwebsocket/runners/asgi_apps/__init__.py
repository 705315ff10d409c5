"""
ASGI applications for WebSockets as Django views, under any server.

:mod:`~dwebsocket.runners.asgi_apps.view` runs an application behind its WebSocket, with the
:mod:`~dwebsocket.runners.asgi_apps.scope` of its request;
:mod:`~dwebsocket.runners.asgi_apps.events` are the rules of ``receive`` and ``send``;
:mod:`~dwebsocket.runners.asgi_apps.routing` has the routes of a router for the URL conf.
"""

from __future__ import annotations

from dwebsocket.runners.asgi_apps.view import asgi_websocket

__all__ = ["asgi_websocket"]
