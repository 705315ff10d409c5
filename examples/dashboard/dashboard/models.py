"""Orders, whose changes the dashboard shows."""

from django.db import models


class Order(models.Model):
    """An order of the shop."""

    STATES = (("new", "new"), ("paid", "paid"), ("sent", "sent"))

    customer = models.CharField(max_length=60)
    total = models.DecimalField(max_digits=8, decimal_places=2)
    state = models.CharField(max_length=4, choices=STATES, default="new")

    def __str__(self) -> str:
        return f"{self.customer}: {self.total}"

    def as_row(self) -> dict[str, int | str]:
        """Gives what the page shows of it."""
        return {
            "id": self.pk,
            "customer": self.customer,
            "total": f"{self.total:.2f}",
            "state": self.state,
        }
