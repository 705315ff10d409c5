"""`"dwebsocket.groups.postgres"` in `INSTALLED_APPS`: `manage.py migrate` makes the tables."""

from __future__ import annotations

from django.apps import AppConfig


class PostgresConfig(AppConfig):
    """The application. It has migrations alone."""

    name = "dwebsocket.groups.postgres"
    label = "dwebsocket_postgres"
    verbose_name = "WebSocket groups in PostgreSQL"
