"""The ways to receive: each view notes what it got and sends it back."""

import time

from django.http import JsonResponse

from dwebsocket import accept_websocket

seen = {}


def note(request, message):
    """Note a message, which takes a while, and send it back unless the client wants nothing."""
    seen.setdefault(request.GET["run"], []).append(message.decode())
    time.sleep(0.01)
    if "silent" not in request.GET:
        request.websocket.send(message)


def notes(request):
    """Tell what was noted."""
    return JsonResponse({"seen": seen.get(request.GET["run"], [])})


@accept_websocket
def iterating(request):
    """Iterate, and stop at a false value."""
    for message in request.websocket:
        if not message:
            break
        note(request, message)


@accept_websocket
def waiting(request):
    """Wait until None comes."""
    while True:
        message = request.websocket.wait()
        if message is None:
            break
        note(request, message)


@accept_websocket
def until_closed(request):
    """Wait until the connection is closed."""
    while not request.websocket.is_closed():
        message = request.websocket.wait()
        if message:
            note(request, message)


@accept_websocket
def polling(request):
    """Ask and read, without a pause."""
    while True:
        if request.websocket.has_messages():
            message = request.websocket.read()
            if message is None:
                break
            note(request, message)


@accept_websocket
def polling_with_sleep(request):
    """Ask and read, with pauses."""
    while True:
        if request.websocket.has_messages():
            message = request.websocket.read()
            if message is None:
                break
            note(request, message)
        else:
            time.sleep(0.02)


@accept_websocket
def polling_until_closed(request):
    """Ask and read, with pauses, until the connection is closed."""
    while not request.websocket.is_closed():
        if request.websocket.has_messages():
            message = request.websocket.read()
            if message:
                note(request, message)
        time.sleep(0.02)


@accept_websocket
def counting(request):
    """Count and read as many."""
    closed = False
    while not closed:
        for _ in range(request.websocket.count_messages()):
            message = request.websocket.read()
            if message is None:
                closed = True
                break
            note(request, message)
        time.sleep(0.02)


@accept_websocket
def reading_until_closed(request):
    """Read without asking, with pauses, until the connection is closed."""
    while not request.websocket.is_closed():
        message = request.websocket.read()
        if message:
            note(request, message)
        else:
            time.sleep(0.02)


@accept_websocket
def ticking(request):
    """Wait for a while only, and tick when nothing came."""
    while True:
        message = request.websocket.wait(timeout=1)
        if message is None:
            if request.websocket.is_closed():
                break
            request.websocket.send("tick")
        else:
            note(request, message)
