"""The rooms. What is said in them, and who is there, is kept by their groups."""

import json
from typing import Any

from django.db import models
from django.urls import reverse
from django.utils.text import slugify

from dwebsocket import Group, group
from dwebsocket.groups import Entry


class Room(models.Model):
    """A place to talk."""

    name = models.CharField(max_length=40)
    slug = models.SlugField(max_length=40, unique=True, allow_unicode=True)
    topic = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """Return the one address of the room's page and of its socket."""
        return reverse("room", args=[self.slug])

    @property
    def group(self) -> Group:
        """The sockets in the room. HISTORY and PRESENCE in the settings are for its name."""
        return group(f"room-{self.slug}")

    @property
    def typing(self) -> Group:
        """The same sockets, for what is not worth keeping."""
        return group(f"typing-{self.slug}")

    def last_message(self) -> dict[str, Any] | None:
        """Return what was said last, or None."""
        return next(map(read, self.group.history(limit=1)), None)


def slug_of(name: str) -> str:
    """Return the slug of the room ``name`` for addresses; empty when the name has no letter."""
    return slugify(name, allow_unicode=True)[:40]


def read(entry: Entry) -> dict[str, Any]:
    """Return a message of a group's history as it was sent by ``send_json``."""
    said: dict[str, Any] = json.loads(entry.message)
    return said
