"""The pages."""

from django.urls import path

from task import views

urlpatterns = [
    path("", views.start_page, name="start-page"),
    path("start/", views.start, name="start"),
    path("<uuid:number>/", views.progress, name="progress"),
]
