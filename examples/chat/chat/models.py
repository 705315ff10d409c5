"""The data that all processes share: the rooms, their messages, and who is there."""

from django.db import models
from django.urls import reverse
from django.utils.text import slugify

MAX_NAME = 24
MAX_TEXT = 1000


def slug_of(name):
    """Return the slug of the room ``name`` for addresses; empty when the name has no letter."""
    return slugify(name, allow_unicode=True)[:40]


class Room(models.Model):
    """A place to talk."""

    name = models.CharField(max_length=40)
    slug = models.SlugField(max_length=40, unique=True, allow_unicode=True)
    topic = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ("id",)

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        """Return the one address of the room's page and of its socket."""
        return reverse("room", args=[self.slug])

    def history(self, after=0, limit=50):
        """Return up to ``limit`` of the latest messages with an id over ``after``, oldest first."""
        latest = self.messages.filter(id__gt=after).order_by("-id")[:limit]
        return list(reversed(latest))


class Message(models.Model):
    """A message in a room. The author is a name, not an account."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="messages")
    author = models.CharField(max_length=MAX_NAME)
    text = models.CharField(max_length=MAX_TEXT)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)

    def __str__(self):
        return f"{self.author}: {self.text}"

    def as_event(self):
        """Return the message as browsers get it; ``at`` is in milliseconds, as dates there are."""
        return {
            "type": "message",
            "id": self.pk,
            "author": self.author,
            "text": self.text,
            "at": int(self.created.timestamp() * 1000),
        }


class Seat(models.Model):
    """A WebSocket in a room, and the name of who uses it; empty for one who only listens."""

    room = models.ForeignKey(Room, on_delete=models.CASCADE, related_name="seats")
    socket = models.CharField(max_length=40, unique=True)
    name = models.CharField(max_length=MAX_NAME, blank=True)
    seen = models.DateTimeField()

    def __str__(self):
        return self.name or self.socket
