"""Subjects dwebsocket2-consumer…: the consumers of `channels_site` as views, under WSGI."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application
from django.urls import path

import channels_site
from dwebsocket import asgi_websocket

channels_site.urlpatterns += [
    path("echo", asgi_websocket(channels_site.Echo.as_asgi())),
    path("sync-echo", asgi_websocket(channels_site.SyncEcho.as_asgi())),
    path("chat", asgi_websocket(channels_site.Chat.as_asgi())),
]
application = get_wsgi_application()
