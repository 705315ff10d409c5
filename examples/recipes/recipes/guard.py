"""Keeps the recipes on the machine on which they run."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden

Answer = Callable[[HttpRequest], HttpResponse]


def this_machine_only(get_response: Answer) -> Answer:
    """
    Answer 403 to every request that is not from 127.0.0.1, and to all of them without ``DEBUG``.

    Behind a proxy every request is from 127.0.0.1, so those that a proxy has passed on are refused.
    """

    def respond(request: HttpRequest) -> HttpResponse:
        is_local = request.META["REMOTE_ADDR"] == "127.0.0.1"
        is_passed_on = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
        if settings.DEBUG and is_local and not is_passed_on:
            return get_response(request)
        return HttpResponseForbidden("The recipes give a shell away: this machine only, with DEBUG")

    return respond
