"""The page, which is also its WebSocket."""

from django.urls import path

from answers import views

urlpatterns = [path("", views.ask)]
