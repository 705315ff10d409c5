"""The table of the groups' messages that are too long for ``NOTIFY``, on PostgreSQL."""

from __future__ import annotations

from django.db import migrations

from dwebsocket.groups.postgres.migrations._postgres import OnPostgres

# The app "dwebsocket" has made the tables up to version 0.2: they are kept as they are.
#
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


class Migration(migrations.Migration):
    """Makes the table."""

    operations = [OnPostgres(_CREATE, _DROP)]  # noqa: RUF012
