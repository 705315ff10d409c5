"""The Django settings of all subjects: as little as possible, and the same for each."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse

IDLE_CONNECTIONS_MAX = 100_000


def configure(root_urlconf: str) -> None:
    """Set Django up with ``root_urlconf``: no middleware, no apps, no database, no debug."""
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        DEBUG=False,
        INSTALLED_APPS=[],
        MIDDLEWARE=[],
        ROOT_URLCONF=root_urlconf,
        SECRET_KEY="only for measuring",
        # The ceiling is not what is measured.
        WEBSOCKET_MAX_CONNECTIONS=IDLE_CONNECTIONS_MAX,
    )


def ready(request: HttpRequest) -> HttpResponse:
    """Tell the runner that the server is up."""
    return HttpResponse("ready")
