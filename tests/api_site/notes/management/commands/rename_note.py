"""`manage.py rename_note ID TEXT`."""

from django.core.management.base import BaseCommand

from notes.models import Note


class Command(BaseCommand):
    """Give a note another text."""

    def add_arguments(self, parser):
        parser.add_argument("pk", type=int)
        parser.add_argument("text")

    def handle(self, *args, pk, text, **options):
        note = Note.objects.get(pk=pk)
        note.text = text
        note.save()
