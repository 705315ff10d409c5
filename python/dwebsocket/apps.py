"""`"dwebsocket"` in `INSTALLED_APPS`: optional, everything works without it."""

from __future__ import annotations

from django.apps import AppConfig

from dwebsocket import checks
from dwebsocket.groups import postgres_checks


class DwebsocketConfig(AppConfig):
    """The application."""

    name = "dwebsocket"
    verbose_name = "WebSockets"

    def ready(self) -> None:
        """Registers the system checks, also when no view was imported yet."""
        checks.register()
        postgres_checks.register()
