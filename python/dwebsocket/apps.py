"""`"dwebsocket"` in `INSTALLED_APPS`: under WSGI views work without it, too."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from dwebsocket.compat.django import extend_asgi_handler
from dwebsocket.conf import checks
from dwebsocket.handshake import preloading
from dwebsocket.users import sign_out


class DwebsocketConfig(AppConfig):
    """The application."""

    name = "dwebsocket"
    verbose_name = _("WebSockets")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Registers checks and sign-outs, and has Django's ASGI handler serve WebSockets."""
        checks.register()
        sign_out.listen_in_all()
        extend_asgi_handler(_asgi, _serve)
        preloading.begin()


def _asgi() -> Any:
    # Most processes serve no ASGI, and need not load it.
    return import_module("dwebsocket.asgi")


async def _serve(handler: Any, scope: Any, receive: Any, send: Any) -> bool:
    is_served: bool = await _asgi().serve_for(handler, scope, receive, send)
    return is_served
