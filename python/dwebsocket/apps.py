"""`"dwebsocket"` in `INSTALLED_APPS`: optional, everything works without it."""

from __future__ import annotations

from django.apps import AppConfig

from dwebsocket import checks, sign_out


class DwebsocketConfig(AppConfig):
    """The application."""

    name = "dwebsocket"
    verbose_name = "WebSockets"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Registers the system checks and sign-outs, also when no view was imported yet."""
        checks.register()
        sign_out.listen_in_all()
