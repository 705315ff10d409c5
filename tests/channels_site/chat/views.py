"""The pages of the chat."""

from django.http import HttpResponse


def room(request, room_name):
    """Show a room."""
    return HttpResponse(f"This is {room_name}.")
