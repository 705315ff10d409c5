"""A board for each name."""

from django.urls import path

from board import views

urlpatterns = [
    path("", views.board, {"name": "first"}),
    path("<slug:name>/", views.board, name="board"),
]
