"""Create the table of rooms."""

# ruff: noqa: RUF012 (a migration reads as Django writes it)

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Room",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=40)),
                ("slug", models.SlugField(allow_unicode=True, max_length=40, unique=True)),
                ("topic", models.CharField(blank=True, max_length=120)),
            ],
            options={
                "ordering": ("id",),
            },
        ),
    ]
