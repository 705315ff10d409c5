"""The game of `promise_consumers`, and a page of django-sockpuppet, as views."""

from __future__ import annotations

import time

from django.urls import path
from django.views.generic import TemplateView
from sockpuppet.consumer import SockpuppetConsumerAsgi

from dwebsocket import asgi_websocket
from project import promise_consumers, urls


class Page(TemplateView):
    """A page whose text a reflex sets."""

    template_name = "who.html"

    def get(self, request, *args, **kwargs):
        # As a database that takes its time.
        time.sleep(0.002)
        return super().get(request, *args, **kwargs)


urlpatterns = [
    path("game/", asgi_websocket(promise_consumers.Game.as_asgi())),
    path("async-game/", asgi_websocket(promise_consumers.AsyncGame.as_asgi())),
    path("ws/sockpuppet-sync", asgi_websocket(SockpuppetConsumerAsgi.as_asgi())),
    path("page/", Page.as_view()),
    *urls.urlpatterns,
]
