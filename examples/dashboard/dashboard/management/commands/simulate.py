"""Changes orders for a while, in a process of its own: the open pages follow."""

import random
import time
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from dashboard.models import Order

NAMES = ("Ana", "Bo", "Chen", "Dilek", "Emil", "Fatou")


class Command(BaseCommand):
    """The command."""

    help = "Changes orders for a while."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declares the options."""
        parser.add_argument("--changes", type=int, default=60)
        parser.add_argument("--pause", type=float, default=0.5, help="seconds between two")

    def handle(self, *args: str, changes: int, pause: float, **options: Any) -> None:
        """Makes the changes."""
        # Ctrl-C ends it.
        with suppress(KeyboardInterrupt):
            for _ in range(changes):
                sent = Order.objects.filter(state="sent")
                if sent.count() > 6:
                    sent.earliest("pk").delete()
                unsent = list(Order.objects.exclude(state="sent"))
                if len(unsent) < 5:
                    Order.objects.create(
                        customer=random.choice(NAMES), total=random.randrange(500, 20000) / 100
                    )
                else:
                    order = random.choice(unsent)
                    order.state = {"new": "paid", "paid": "sent"}[order.state]
                    order.save()
                time.sleep(pause)
