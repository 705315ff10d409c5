"""A table of each tenant, and none in the public schema."""

from django.db import models


class Note(models.Model):
    """A line of text."""

    text = models.TextField()

    def __str__(self):
        return self.text
