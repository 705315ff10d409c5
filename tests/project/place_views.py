"""Views that look at nothing until `let_go` is called."""

import threading

from django.http import HttpRequest, HttpResponse
from django.urls import path

from dwebsocket import require_websocket

_let_go = threading.Event()


@require_websocket
def oblivious(request: HttpRequest) -> None:
    """Notice nothing of its client."""
    _let_go.wait(60)


@require_websocket(accept=False)
def oblivious_undecided(request: HttpRequest) -> None:
    """Decide nothing in time."""
    _let_go.wait(60)


def let_go(request: HttpRequest) -> HttpResponse:
    """End them all."""
    _let_go.set()
    return HttpResponse()


urlpatterns = [
    path("oblivious/", oblivious),
    path("oblivious-undecided/", oblivious_undecided),
    path("let-go/", let_go),
]
