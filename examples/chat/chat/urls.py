"""The lobby, the rooms, the page for the shell, and the pulse that every page listens to."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.lobby, name="lobby"),
    path("pulse/", views.Pulse.as_view(), name="pulse"),
    path("shell/", views.shell, name="shell"),
    path("room/<str:slug>/", views.room, name="room"),
]
