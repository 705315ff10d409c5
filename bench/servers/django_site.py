"""The Django settings of all subjects: as little as possible, and the same for each."""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse

IDLE_CONNECTIONS_MAX = 100_000
# The middleware that `startproject` writes, less that which only the admin needs.
APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
IN_MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
#: Whether the row asks for the middleware of a new project.
HAS_MIDDLEWARE = os.environ.get("BENCH_MIDDLEWARE") == "1"


def configure(root_urlconf: str) -> None:
    """
    Set Django up with ``root_urlconf``: no debug, and a database that is never asked.

    Neither apps nor middleware, unless the row asks for those of a new project.
    """
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        # Costs every consumer something, so only where it is used.
        CHANNEL_LAYERS=IN_MEMORY if os.environ.get("BENCH_MODE") == "chat" else {},
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEBUG=False,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=APPS if HAS_MIDDLEWARE else [],
        MIDDLEWARE=MIDDLEWARE if HAS_MIDDLEWARE else [],
        ROOT_URLCONF=root_urlconf,
        SECRET_KEY="only for measuring",
        # The ceiling is not what is measured.
        WEBSOCKET_MAX_CONNECTIONS=IDLE_CONNECTIONS_MAX,
    )
    django.setup()


def ready(request: HttpRequest) -> HttpResponse:
    """Answer the runner's question whether the server is up."""
    return HttpResponse("ready")
