"""Open the first rooms, so that the lobby is not empty."""

# ruff: noqa: RUF012 (a migration reads as Django writes it)

from django.db import migrations

ROOMS = [
    ("Kitchen table", "kitchen-table", "Small talk, good coffee, whatever is on your mind."),
    ("Workshop", "workshop", "What are you building, and where are you stuck?"),
    ("Reading room", "reading-room", "Books, papers and long articles worth the evening."),
    ("Night shift", "night-shift", "For everyone who is still up."),
]


def open_rooms(apps, schema_editor):
    room = apps.get_model("chat", "Room")
    for name, slug, topic in ROOMS:
        room.objects.get_or_create(slug=slug, defaults={"name": name, "topic": topic})


class Migration(migrations.Migration):
    dependencies = [("chat", "0001_initial")]

    operations = [migrations.RunPython(open_rooms, migrations.RunPython.noop)]
