"""``manage.py toast you "The backup is done"``: a toast from a process that is no server."""

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from recipes.toasts import toast


class Command(BaseCommand):
    """Shows a toast on all open pages of a user."""

    help = "Shows a toast on all open pages of a user."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the user's name, a text, and its level."""
        parser.add_argument("username")
        parser.add_argument("text")
        parser.add_argument("--level", default="info", choices=["info", "success", "warning"])

    def handle(self, username: str, text: str, level: str, **options: Any) -> None:
        """Send it."""
        try:
            user = User.objects.get(username=username)
        except User.DoesNotExist as error:
            raise CommandError(f"there is no user {username!r}") from error
        toast(user, text, level)
