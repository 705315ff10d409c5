"""
The model behind the page about WebSockets in Django's admin.

It has no table and no rows: it is what the page's permissions and log entries refer to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.db.models import QuerySet


class NoRows(models.Manager["OpenWebSocket"]):
    """A manager that never asks the database, which has no such table (``dumpdata``)."""

    def get_queryset(self) -> QuerySet[OpenWebSocket]:
        """Returns nothing."""
        found: QuerySet[OpenWebSocket] = super().get_queryset().none()
        return found


class OpenWebSocket(models.Model):
    """An open WebSocket of any process. Not stored."""

    objects: ClassVar[NoRows] = NoRows()

    class Meta:
        """Its permissions."""

        managed = False
        base_manager_name = "objects"
        default_permissions = ()
        permissions = (
            ("view_websockets", "Can view open WebSockets"),
            ("close_websockets", "Can close WebSockets"),
        )
        verbose_name = _("open WebSocket")
        verbose_name_plural = _("open WebSockets")

    def __str__(self) -> str:
        return f"WebSocket {self.pk}"
