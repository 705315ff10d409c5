"""The admin, metrics, and some WebSockets."""

import os

from django.contrib import admin
from django.contrib.auth import get_user_model, login
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.http import HttpResponse
from django.urls import path

from dwebsocket import WebSocketHandler, metrics, require_websocket


@require_websocket
def chat(request, room):
    """Echo."""
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket
def breaks(request):
    """Fail at the first message."""
    request.websocket.receive()
    raise RuntimeError("broken on purpose")


class Feed(WebSocketHandler):
    """Many quiet ones."""


class Lasting(WebSocketHandler):
    """Moves to another process, and says so."""

    survives = True

    def resumed(self):
        """Say it."""
        self.websocket.send("moved")


def log_in(request, name):
    """Log a user in."""
    login(request, get_user_model().objects.get(username=name))
    return HttpResponse("logged in")


urlpatterns = [
    path("status/", lambda request: HttpResponse(str(os.getpid()))),
    path("log-in/<str:name>/", log_in),
    path("admin/", admin.site.urls),
    path("metrics", metrics),
    path("chat/<str:room>/", chat),
    path("feed/<int:number>/", Feed.as_view()),
    path("lasting/", Lasting.as_view()),
    path("breaks/", breaks),
    *staticfiles_urlpatterns(),
]
