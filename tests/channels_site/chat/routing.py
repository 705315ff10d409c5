"""The addresses of the chat's WebSockets."""

from django.urls import path

from chat import consumers

websocket_urlpatterns = [
    path("ws/chat/<room_name>/", consumers.ChatConsumer.as_asgi()),
]
