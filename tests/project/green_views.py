"""Views for the suites over gevent and eventlet; the same code runs on threads."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path

from dwebsocket import require_websocket

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.api.helpers import Ticker


@require_websocket
def clock(request: HttpRequest) -> None:
    """Say the time, as the tutorials do."""
    while True:
        time.sleep(0.1)
        request.websocket.send("tick")


@require_websocket
def impatient(request: HttpRequest) -> None:
    """Wait with a timeout, then without."""
    started = time.monotonic()
    nothing = request.websocket.wait(timeout=0.3)
    took = time.monotonic() - started
    request.websocket.send(f"{nothing} {0.25 < took < 60}")
    request.websocket.send(request.websocket.wait())


@require_websocket
def two_wait(request: HttpRequest) -> None:
    """Let two threads wait on one connection; each message goes to one of them."""

    def echo(name: str) -> None:
        for message in request.websocket:
            if message is None:
                break
            request.websocket.send(f"{name} {message.decode()}")

    other = threading.Thread(target=echo, args=("other",))
    other.start()
    echo("view")
    other.join()


@require_websocket
def polls(request: HttpRequest) -> None:
    """Ask again and again, and never sleep."""
    while True:
        if request.websocket.has_messages():
            message = request.websocket.read()
            if message is None:
                break
            request.websocket.send(message)


@require_websocket(send_timeout=30)
def floods(request: HttpRequest) -> None:
    """Send more than any buffer takes."""
    request.websocket.wait()
    for _ in range(24):
        request.websocket.send(b"\xff" * (1 << 20))
    request.websocket.send("that was all")


@require_websocket(compression=True)
def sends_large(request: HttpRequest) -> None:
    """Send what takes long to compress, and then how many turns another thread had meanwhile."""
    turns, is_over = 0, False

    def take_turns() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            time.sleep(0)

    other = threading.Thread(target=take_turns)
    request.websocket.wait()
    other.start()
    before = turns
    request.websocket.send(os.urandom(8 << 20))
    had = turns - before
    is_over = True
    other.join()
    request.websocket.send(str(had))


@require_websocket
def interrupts(request: HttpRequest) -> None:
    """Be the green thread that runs when Ctrl-C comes."""
    request.websocket.wait()
    signal.raise_signal(signal.SIGINT)


@require_websocket
def forks(request: HttpRequest) -> None:
    """Fork a child for each message, which uses its parent's connection, and send how it ended."""
    ws = request.websocket
    parent = os.getppid()
    for message in ws:
        if message is None:
            # A child's copy of the hub could accept the next connection, and take it along.
            break
        gate, key = os.pipe()
        child = os.fork()
        if child == 0:
            # gevent never learns of a child that ends before it has begun to watch for its end.
            os.read(gate, 1)
            # Copies of gunicorn's own greenlets end a worker whose parent is another one.
            os.getppid = lambda: parent
            time.sleep(0.05)
            sent = ws.send("from the child")
            os._exit(7 if sent is False and ws.wait(0.1) is None else 8)
        os.write(key, b"!")
        _, status = os.waitpid(child, 0)
        os.close(gate)
        os.close(key)
        ws.send(f"{message.decode()} {os.waitstatus_to_exitcode(status)}")


@require_websocket
async def async_echo(request: HttpRequest) -> None:
    """Echo from a task."""
    async for message in request.websocket:
        await asyncio.sleep(0)
        await request.websocket.asend(message)


@require_websocket
async def async_facts(request: HttpRequest) -> None:
    """Use the ORM and other threads from a task, and say where that was."""
    await request.websocket.areceive()
    name = f"async {time.monotonic_ns()}"
    await User.objects.acreate(username=name)
    there = await sync_to_async(User.objects.filter(username=name).count)()
    slept = await asyncio.to_thread(lambda: time.sleep(0.05) or "slept")
    async with asyncio.timeout(5) if hasattr(asyncio, "timeout") else asyncio.Lock():
        await asyncio.sleep(0.01)
    await request.websocket.asend_json([there, slept])


@require_websocket
async def async_joins(request: HttpRequest) -> None:
    """Wait for what runs beside an async view, on a thread and on what runs there."""
    websocket = request.websocket

    async def tick() -> None:
        await asyncio.sleep(60)

    def stop(ticker: Ticker) -> None:
        ticker.stop()
        ticker.join()
        websocket.send("stopped")

    helper = websocket.start(stop, websocket.every(0.01, tick))
    await asyncio.to_thread(helper.join)
    await websocket.asend("joined")


def hubs(request: HttpRequest) -> HttpResponse:
    """Count the hubs of gevent in this process: one for each thread that has waited in its way."""
    hub = sys.modules["gevent.hub"].Hub
    return HttpResponse(str(sum(isinstance(each, hub) for each in gc.get_objects())))


urlpatterns = [
    path("hubs/", hubs),
    *(
        path(f"{view.__name__.replace('_', '-')}/", view)
        for view in (
            clock,
            impatient,
            two_wait,
            polls,
            floods,
            sends_large,
            interrupts,
            forks,
            async_echo,
            async_facts,
            async_joins,
        )
    ),
]
