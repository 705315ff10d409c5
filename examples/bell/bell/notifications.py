"""The one call for the rest of the project: in a view, a task, a signal, a command."""

from django.contrib.auth.models import User

from bell.models import Notification
from dwebsocket import user


def unread(person: User) -> int:
    """Gives the number of a user's unread notifications."""
    return Notification.objects.filter(user=person, is_read=False).count()


def notify(person: User, text: str) -> None:
    """Keeps a notification, and shows it on all open pages of the user after the commit."""
    Notification.objects.create(user=person, text=text)
    user(person).send_json({"text": text, "unread": unread(person)}, on_commit=True)


def read_all(person: User) -> None:
    """The user has seen them: the number is 0 in every tab."""
    Notification.objects.filter(user=person, is_read=False).update(is_read=True)
    user(person).send_json({"unread": 0}, on_commit=True)
