"""The page."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from dwebsocket import group
from kanban.models import Card

FIRST = (
    ("ideas", "Invite a friend to this board"),
    ("ideas", "Open it on a phone"),
    ("doing", "Drag this card"),
    ("doing", "Click here, and change the text"),
    ("done", "Start the server"),
)


def board(request: HttpRequest, name: str) -> HttpResponse:
    """Show a board with its cards, and from where on its page has to be told of changes."""
    # The position first: what changes in between comes twice, and is the same twice.
    position = group(f"board-{name}").position()
    if not Card.objects.filter(board=name).exists():
        for rank, (column, title) in enumerate(FIRST):
            Card.objects.create(board=name, column=column, rank=rank, title=title)
    cards = [card.as_dict() for card in Card.objects.filter(board=name)]
    told = {"room": f"board-{name}", "position": position, "cards": cards}
    return render(request, "kanban/board.html", {"name": name, "told": told})
