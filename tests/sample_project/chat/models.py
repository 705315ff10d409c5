"""What the sample project keeps."""

from django.db import models


class Note(models.Model):
    """Something that somebody has said."""

    text = models.CharField(max_length=100, unique=True)

    def __str__(self) -> str:
        return self.text
