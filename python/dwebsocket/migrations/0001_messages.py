"""The table of the groups' messages that are too long for ``NOTIFY``, on PostgreSQL."""

from __future__ import annotations

from typing import Any

from django.db import migrations

# A minute begins when a purge first sees a row, not when it was written: until its transaction
# commits no other process can see it, and that may take hours.
_CREATE = """
CREATE UNLOGGED TABLE IF NOT EXISTS dwebsocket_message (
    number bigint PRIMARY KEY,
    content text NOT NULL,
    expires_at timestamp with time zone
);
ALTER TABLE dwebsocket_message ALTER COLUMN content SET STORAGE EXTERNAL;
"""
_DROP = "DROP TABLE IF EXISTS dwebsocket_message;"


class _OnPostgres(migrations.RunSQL):
    """SQL for PostgreSQL alone: on other databases nothing happens."""

    def database_forwards(self, app_label: str, schema_editor: Any, *states: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, *states)

    def database_backwards(self, app_label: str, schema_editor: Any, *states: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, *states)


class Migration(migrations.Migration):
    """Makes the table."""

    operations = [_OnPostgres(_CREATE, _DROP)]  # noqa: RUF012
