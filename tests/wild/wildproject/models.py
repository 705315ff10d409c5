"""Rows that the views keep in the database."""

from django.db import models


class Person(models.Model):
    """A user, who is online while a page of theirs is open."""

    name = models.CharField(max_length=50, unique=True)
    online = models.BooleanField(default=False)

    def __str__(self):
        return self.name
