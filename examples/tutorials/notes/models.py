"""The one table of the tutorials."""

from django.conf import settings
from django.db import models


class Note(models.Model):
    """A message that somebody left in a room."""

    room = models.CharField(max_length=100, db_index=True)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL
    )
    text = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return f"{self.room}: {self.text}"
