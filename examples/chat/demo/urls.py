"""The demo's addresses: everything is in the chat app."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

urlpatterns = [
    path("", include("chat.urls")),
    # runserver would do without; gunicorn would not. Empty unless DEBUG is on.
    *staticfiles_urlpatterns(),
]
