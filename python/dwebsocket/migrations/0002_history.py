"""Makes nothing: the tables for PostgreSQL are those of ``dwebsocket.groups.postgres`` now."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    """Stays, because databases have it."""

    dependencies = [("dwebsocket", "0001_messages")]  # noqa: RUF012
    operations = []  # noqa: RUF012
