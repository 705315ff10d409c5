"""Tells the dashboard of each change, wherever it is made: in the admin, a shell, a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.db.models.signals import post_delete, post_save

if TYPE_CHECKING:
    from dashboard.models import Order


class DashboardConfig(AppConfig):
    """The app."""

    name = "dashboard"

    def ready(self) -> None:
        """Connects the receivers."""
        from dashboard.models import Order

        post_save.connect(tell_saved, sender=Order)
        post_delete.connect(tell_deleted, sender=Order)


def tell_saved(instance: Order, **kwargs: Any) -> None:
    """The row as it is now; after the commit, or not at all."""
    from dwebsocket import group

    group("orders").send_json({"saved": instance.as_row()}, on_commit=True)


def tell_deleted(instance: Order, **kwargs: Any) -> None:
    """The row is gone."""
    from dwebsocket import group

    group("orders").send_json({"deleted": instance.pk}, on_commit=True)
