"""Every kind of view is one for Django's `path`."""

from django.urls import path

from dwebsocket import asgi_websocket
from rooms import applications, handlers, views

urlpatterns = [
    path("echo/", views.echo),
    path("aecho/", views.aecho),
    path("rooms/<slug:name>/", views.room),
    path("arooms/<slug:name>/", views.aroom),
    path("members/", views.members),
    path("class/", views.Page.as_view()),
    path("whole-class/", views.WholePage.as_view()),
    path("plain-request/", views.plain_request),
    path("handler/<slug:name>/", handlers.Room.as_view()),
    path("async-handler/<slug:name>/", handlers.AsyncRoom.as_view(max_message_size=1000)),
    path("asgi/", asgi_websocket(applications.echo, max_message_size=1000)),
]
