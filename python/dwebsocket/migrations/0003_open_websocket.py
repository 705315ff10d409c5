"""The permissions of the page about WebSockets. Makes no table."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Declares the model that has them."""

    dependencies = [("dwebsocket", "0002_history")]  # noqa: RUF012

    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="OpenWebSocket",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
            ],
            options={
                "verbose_name": "open WebSocket",
                "verbose_name_plural": "open WebSockets",
                "permissions": (
                    ("view_websockets", "Can view open WebSockets"),
                    ("close_websockets", "Can close WebSockets"),
                ),
                "managed": False,
                "default_permissions": (),
                "base_manager_name": "objects",
            },
        ),
    ]
