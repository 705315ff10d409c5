"""The models."""

from __future__ import annotations

from django.db import models


class Note(models.Model):
    """One message of a room."""

    # Without mypy's plugin a type checker has to be told.
    text: models.CharField[str, str] = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.text
