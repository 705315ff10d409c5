"""Django's addresses."""

from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

from fastapi_beside import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", views.temperature, name="temperature"),
    *staticfiles_urlpatterns(),
]
