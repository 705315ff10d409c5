"""
ASGI applications for WebSockets as Django views, under any server.

:mod:`~dwebsocket.asgi_views.view` runs an application behind its WebSocket, with the
:mod:`~dwebsocket.asgi_views.scope` of its request; :mod:`~dwebsocket.asgi_views.events` are the
rules of ``receive`` and ``send``; :mod:`~dwebsocket.asgi_views.routing` has the routes of a router
for the URL conf.
"""

from __future__ import annotations

from dwebsocket.asgi_views.view import asgi_websocket

__all__ = ["asgi_websocket"]
