"""The page."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def room(request: HttpRequest, room: str) -> HttpResponse:
    """The page of a room."""
    return render(request, "moved/room.html", {"room": room})
