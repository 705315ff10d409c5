"""Create the table of who is where."""

# ruff: noqa: RUF012 (a migration reads as Django writes it)

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("chat", "0002_first_rooms")]

    operations = [
        migrations.CreateModel(
            name="Seat",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("socket", models.CharField(max_length=40, unique=True)),
                ("name", models.CharField(blank=True, max_length=24)),
                ("seen", models.DateTimeField()),
                (
                    "room",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="seats",
                        to="chat.room",
                    ),
                ),
            ],
        ),
    ]
