"""Subject original: dwebsocket 0.5.12, on the newest Django on which it runs."""

from __future__ import annotations

import django_site

django_site.configure(__name__)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket.decorators import accept_websocket  # noqa: E402


@accept_websocket
def echo(request):
    """Send every message back."""
    for message in request.websocket:
        if message is None:
            break
        request.websocket.send(message)


urlpatterns = [path("ready", django_site.ready), path("echo", echo)]
application = get_wsgi_application()
