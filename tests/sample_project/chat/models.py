"""The models of the sample project."""

from django.db import models


class Note(models.Model):
    """A message of a user."""

    text = models.CharField(max_length=100, unique=True)

    def __str__(self) -> str:
        return self.text
