"""The common part of migrations for PostgreSQL alone."""

from __future__ import annotations

from typing import Any

from django.db import migrations


class OnPostgres(migrations.RunSQL):
    """SQL for PostgreSQL alone: on other databases nothing happens."""

    def database_forwards(self, app_label: str, schema_editor: Any, *states: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, *states)

    def database_backwards(self, app_label: str, schema_editor: Any, *states: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, *states)
