"""A board for each name."""

from django.urls import path
from django.views.generic import RedirectView

from board import views

urlpatterns = [
    path("", RedirectView.as_view(url="first/")),
    path("<slug:name>/", views.board, name="board"),
]
