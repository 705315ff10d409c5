"""
The test project's URLs, where every connection is a member of one group.

A thread of each process publishes there all the time, from the first connection on: the text of the
setting PUBLISHED.
"""

import contextlib
import threading
import time

from django.conf import settings
from django.http import HttpResponse
from django.urls import path

from dwebsocket import GroupUnavailable, group
from dwebsocket.signals import websocket_opened
from project.urls import urlpatterns as others

NAME = "everybody"
# Slow enough for two hundred members under an ASGI server on a busy machine.
PAUSE_S = 0.05

_lock = threading.Lock()
_threads: list[threading.Thread] = []


def join(websocket, **kwargs):
    """Make a connection a member."""
    websocket.join(NAME)
    with _lock:
        if not _threads:
            _threads.append(threading.Thread(target=publish, name="publisher", daemon=True))
            _threads[0].start()


def publish():
    """Publish to all members, for ever."""
    while True:
        # The backend may have no descriptor left.
        with contextlib.suppress(GroupUnavailable):
            group(NAME).send(settings.PUBLISHED)
        time.sleep(PAUSE_S)


def count(request):
    """Count the members."""
    return HttpResponse(str(group(NAME).count()))


websocket_opened.connect(join)
urlpatterns = [*others, path("everybody/count/", count)]
