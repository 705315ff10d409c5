"""One address for each recipe; page and socket share it."""

from django.urls import path

from recipes import views

urlpatterns = [
    path("", views.index),
    path("tail/", views.tail),
    path("terminal/", views.terminal),
    path("pod/", views.pod),
    path("progress/", views.progress),
]
