"""The notes app."""

from django.apps import AppConfig


class NotesConfig(AppConfig):
    """Somewhere for ``/room/<name>/`` to write to."""

    name = "notes"
