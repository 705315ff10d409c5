"""A board for each name, and the WebSocket of all boards."""

from django.urls import path

from kanban import rooms, views

urlpatterns = [
    path("", views.board, {"name": "first"}),
    path("boards/<slug:name>/", views.board),
    path("live/", rooms.live),
]
