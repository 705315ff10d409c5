"""The cards of the boards."""

from django.db import models


class Card(models.Model):
    """A card. `rank` is its place in the column, from above."""

    COLUMNS = ("ideas", "doing", "done")

    board = models.SlugField()
    column = models.CharField(max_length=10)
    rank = models.FloatField()
    title = models.CharField(max_length=200)

    class Meta:
        """Cards are shown from above."""

        ordering = ("rank",)

    def __str__(self) -> str:
        """As in the admin."""
        return self.title

    def as_dict(self) -> dict[str, object]:
        """Give the card as pages get it."""
        return {"id": self.pk, "column": self.column, "rank": self.rank, "title": self.title}
