"""URLs of handlers whose connections survive their process."""

import os
from collections.abc import Callable

from django.contrib import auth
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from dwebsocket import group, statistics, user
from dwebsocket.compat import unpatched
from dwebsocket.rooms import rooms
from project import moving_views, urls


def sign_in(request: HttpRequest) -> HttpResponse:
    """Sign in as the user whose name is in the query."""
    name = request.GET["name"]
    user, _ = auth.get_user_model().objects.get_or_create(username=name)
    auth.login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(request.session.session_key)


def handovers(request: HttpRequest) -> JsonResponse:
    """Return the counts of this process."""
    return JsonResponse(statistics()["handed_over"])


def members(request: HttpRequest) -> JsonResponse:
    """Return the names of the connections of each user of a group."""
    found = group(request.GET["group"]).members()
    return JsonResponse({each.key: [it["id"] for it in each.connections] for each in found})


def publish(request: HttpRequest) -> HttpResponse:
    """Tell a group, or a user, a text."""
    if name := request.GET.get("user"):
        target = user(auth.get_user_model().objects.get(username=name))
    else:
        target = group(request.GET["group"])
    padding = "\n" + "x" * int(request.GET["padding"]) if "padding" in request.GET else ""
    target.send(f"group:{request.GET['text']}{padding}")
    return HttpResponse(str(os.getpid()))


def evict(request: HttpRequest) -> HttpResponse:
    """Take a connection out of a group."""
    group(request.GET["group"]).evict(request.GET["id"], "out")
    return HttpResponse()


def refuse_threads(request: HttpRequest) -> HttpResponse:
    """Have a process get no thread whose name begins so, if it is the one that answers."""
    name, start = request.GET["name"], unpatched.start_thread

    def start_or_refuse(of: str, target: Callable[[], None]) -> None:
        if of.startswith(name):
            raise RuntimeError("can't start new thread")
        start(of, target)

    if request.GET["process"] == str(os.getpid()):
        unpatched.start_thread = start_or_refuse
    return HttpResponse(str(os.getpid()))


urlpatterns = [
    path("refuse-threads/", refuse_threads),
    path("publish/", publish),
    path("evict/", evict),
    path("grouped/", moving_views.Grouped.as_view()),
    path("async-grouped/", moving_views.AsyncGrouped.as_view()),
    path("members/", members),
    path("kept/", moving_views.Kept.as_view()),
    path("numbered/", moving_views.AsyncNumbered.as_view()),
    path("present/", moving_views.Present.as_view()),
    path("watching/", moving_views.Watching.as_view()),
    path("rooms/", rooms(moving_views.Talk, moving_views.Plain)),
    path("async-rooms/", rooms(moving_views.AsyncTalk, moving_views.Plain)),
    path("named-rooms/", rooms(moving_views.Named)),
    path("settled-rooms/", rooms(moving_views.Settled)),
    path("forgetful-rooms/", rooms(moving_views.Forgetful)),
    path("pumped/", moving_views.Pumped.as_view()),
    path("counting/", moving_views.Counting.as_view()),
    path("async-counting/", moving_views.AsyncCounting.as_view()),
    path("mixed-counting/", moving_views.MixedCounting.as_view()),
    path("asked/<name>/", moving_views.Asked.as_view()),
    path("async-asked/<name>/", moving_views.AsyncAsked.as_view()),
    path("ticking/", moving_views.Ticking.as_view()),
    path("failing/", moving_views.Failing.as_view()),
    path("addressed/", moving_views.Addressed.as_view()),
    path("raising-state/", moving_views.RaisingState.as_view()),
    path("bad-state/", moving_views.BadState.as_view()),
    path("slow/", moving_views.Slow.as_view()),
    path("async-slow/", moving_views.AsyncSlow.as_view()),
    path("staying/", moving_views.Staying.as_view()),
    path("sign-in/", sign_in),
    path("handovers/", handovers),
    *urls.urlpatterns,
]
