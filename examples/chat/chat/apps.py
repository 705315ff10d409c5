"""The chat app."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    """Rooms, the people in them, and what they said."""

    name = "chat"
