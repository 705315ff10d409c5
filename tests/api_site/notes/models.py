"""What is observed."""

from django.db import models


class Note(models.Model):
    """A note."""

    text = models.CharField(max_length=100)

    def __str__(self):
        return self.text
