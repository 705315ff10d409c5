"""A board for each name, and the WebSocket of all boards."""

from django.urls import path
from django.views.generic import RedirectView

from kanban import rooms, views

urlpatterns = [
    path("", RedirectView.as_view(url="boards/first/")),
    path("boards/<slug:name>/", views.board),
    path("live/", rooms.live),
]
