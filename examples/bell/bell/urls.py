"""The page, its WebSocket, and the admin with its log-in."""

from django.contrib import admin
from django.urls import path

from bell import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.page, name="page"),
    path("ws/", views.socket, name="socket"),
    path("send/", views.send, name="send"),
]
