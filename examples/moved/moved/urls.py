"""The consumer is a view now, under any server: no asgi.py, no routing.py, no daphne."""

from django.urls import path

from dwebsocket import asgi_websocket
from moved import views
from moved.consumers import ChatConsumer

urlpatterns = [
    path("", views.room, {"room": "kitchen"}),
    path("<slug:room>/", views.room, name="room"),
    path("ws/<slug:room>/", asgi_websocket(ChatConsumer.as_asgi()), name="socket"),
]
