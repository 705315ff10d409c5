"""The room of a board: who is here, where their pointers are, and what they do with cards."""

from typing import Any

from django.core.exceptions import PermissionDenied

from dwebsocket.rooms import Room, rooms
from kanban.models import Card


class Board(Room):
    """Changes go to all that have the board open, and to those that come back."""

    name = "board-<slug:board>"
    presence = True
    events = ("pointer",)

    def receive(self, event: str, data: dict[str, Any]) -> None:
        """Change a card, and tell all of it."""
        cards = Card.objects.filter(board=self.kwargs["board"])
        if event == "delete":
            cards.filter(pk=int(data["id"])).delete()
            self.group.send_json({"gone": data["id"]})
        elif event == "save" and data["column"] in Card.COLUMNS:
            fields = {
                "column": data["column"],
                "rank": float(data["rank"]),
                "title": str(data["title"])[:200],
            }
            if data.get("id"):
                card = cards.get(pk=int(data["id"]))
                vars(card).update(fields)
                card.save()
            else:
                card = Card.objects.create(board=self.kwargs["board"], **fields)
            self.group.send_json({"card": card.as_dict()})
        else:
            raise PermissionDenied


live = rooms(Board, fallback=True)
