"""The dashboard, and the admin, where orders are changed."""

from django.contrib import admin
from django.urls import path

from dashboard import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.orders, name="orders"),
]
