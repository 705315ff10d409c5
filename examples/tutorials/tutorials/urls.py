"""One address for each thing the tutorials teach; ``views`` says what each one sends."""

from django.conf import settings
from django.contrib.auth.views import LoginView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path
from django.views.generic import TemplateView

from tutorials import views

urlpatterns = [
    path("", TemplateView.as_view(template_name="index.html")),
    path("echo-once/", views.echo_once),
    path("echo/", views.echo),
    path("clock/", views.clock),
    path("chat/", views.chat),
    path("websocket-echo/", views.websocket_echo),
    path("poll/", views.poll),
    path("count/", views.count),
    path("page/", views.page),
    path("room/<name>/", views.room),
    path("login/", LoginView.as_view()),
    path("running/", views.running),
    # runserver would do without; gunicorn would not.
    *staticfiles_urlpatterns(),
]

# An undecorated view has no request.websocket unless the middleware puts it there.
if getattr(settings, "WEBSOCKET_ACCEPT_ALL", False):
    urlpatterns += [path("plain/", views.plain)]
