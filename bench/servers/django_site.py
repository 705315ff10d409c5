"""The Django settings of all subjects: as little as possible, and the same for each."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

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
LAYERS = {
    "dwebsocket": "dwebsocket.channels.ChannelLayer",
    "memory": "channels.layers.InMemoryChannelLayer",
    "redis": "channels_redis.core.RedisChannelLayer",
    "redis-pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}
NO_DATABASE = '{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}'
#: Whether the row asks for the middleware of a new project.
HAS_MIDDLEWARE = os.environ.get("BENCH_MIDDLEWARE") == "1"


def channel_layers() -> dict[str, Any]:
    """Return the setting of that name. A layer costs every consumer something."""
    if os.environ.get("BENCH_MODE") != "chat":
        return {}
    name = os.environ.get("BENCH_LAYER", "memory")
    layer = {"BACKEND": LAYERS[name]}
    if name.startswith("redis"):
        layer["CONFIG"] = {"hosts": [os.environ["BENCH_REDIS"]]}
    return {"default": layer}


def configure(root_urlconf: str, apps: Sequence[str] = ()) -> None:
    """
    Set Django up with ``root_urlconf``: no debug, and a database that is never asked, unless the
    row's groups go through one (``BENCH_GROUPS``, ``BENCH_DATABASE``).

    Neither middleware nor apps beside ``apps``, unless the row asks for those of a new project.
    """
    groups = os.environ.get("BENCH_GROUPS")
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        CHANNEL_LAYERS=channel_layers(),
        DATABASES={"default": json.loads(os.environ.get("BENCH_DATABASE", NO_DATABASE))},
        DEBUG=False,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[*(APPS if HAS_MIDDLEWARE else ()), *apps],
        MIDDLEWARE=MIDDLEWARE if HAS_MIDDLEWARE else [],
        ROOT_URLCONF=root_urlconf,
        SECRET_KEY="only for measuring",
        # The limit of connections is not measured.
        WEBSOCKET_MAX_CONNECTIONS=IDLE_CONNECTIONS_MAX,
        **({"WEBSOCKET_GROUPS": {"default": json.loads(groups)}} if groups else {}),
    )
    django.setup()


def ready(request: HttpRequest) -> HttpResponse:
    """Answer the runner's question whether the server is up."""
    return HttpResponse("ready")
