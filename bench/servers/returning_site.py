"""Clients that come back: groups with a history and without, event streams, and presence."""

from __future__ import annotations

import os
import statistics
import time

import django_site

django_site.configure(__name__)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from dwebsocket import accept_websocket, group  # noqa: E402

# Clients here do not answer pings.
QUIET = {"ping_interval": None, "text_type": str}


@accept_websocket(groups=["{name}"], **QUIET)
def plain(request, name):
    """Send every message to a group without a history."""
    for message in request.websocket:
        group(name).send(message)


@accept_websocket(groups=["kept-{name}"], resume=True, **QUIET)
def resumed(request, name):
    """Send every message to a group whose members get it with its position."""
    for message in request.websocket:
        group(f"kept-{name}").send(message)


@accept_websocket(groups=["{name}"], fallback=True, **QUIET)
def stream(request, name):
    """Serve WebSockets and event streams alike."""
    for message in request.websocket:
        group(name).send(message)


@accept_websocket(groups=["{name}"], **QUIET)
async def still(request, name):
    """Wait."""
    async for _ in request.websocket:
        pass


@accept_websocket(groups=["here-{name}"], presence=True, **QUIET)
async def present(request, name):
    """Wait, while the client gets the members that come and go."""
    async for _ in request.websocket:
        pass


def publish(request, name):
    """Publish messages whose texts are numbered; answers with the last one."""
    size, first = int(request.GET["size"]), int(request.GET["first"])
    target = group(name)
    for number in range(first, first + int(request.GET["count"])):
        target.send(f"{number:0{size}}")
    return JsonResponse({"done": True})


def position(request, name):
    """Answer with the position of a group."""
    return JsonResponse({"position": group(name).position()})


def members(request, name):
    """Ask several times for the present users; answers with medians in ms, and their number."""
    wall, cpu = [], []
    for _ in range(int(request.GET["times"])):
        begin, busy = time.perf_counter(), time.thread_time()
        found = group(name).members()
        cpu.append((time.thread_time() - busy) * 1000)
        wall.append((time.perf_counter() - begin) * 1000)
    answer = {"ms": statistics.median(wall), "cpu_ms": statistics.median(cpu)}
    return JsonResponse({**answer, "count": len(found)})


def process(request):
    """Answer which process this is."""
    return JsonResponse({"pid": os.getpid()})


urlpatterns = [
    path("ready", django_site.ready),
    path("process", process),
    path("plain/<name>", plain),
    path("resumed/<name>", resumed),
    path("stream/<name>", stream),
    path("still/<name>", still),
    path("present/<name>", present),
    path("publish/<name>", publish),
    path("position/<name>", position),
    path("members/<name>", members),
]
application = get_wsgi_application()
