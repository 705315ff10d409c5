"""One address for each recipe; page and socket share it."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

from recipes import views
from recipes.toasts import toasts

urlpatterns = [
    path("", views.index),
    path("tail/", views.tail),
    path("terminal/", views.terminal),
    path("pod/", views.pod),
    path("progress/", views.progress),
    path("toasts/", views.toast_page, name="toast-page"),
    path("toasts/save/", views.save, name="save"),
    path("toasts/ws/", toasts, name="toasts"),
    # runserver would do without; gunicorn would not.
    *staticfiles_urlpatterns(),
]
