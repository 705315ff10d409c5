"""
The examples of dwebsocket tutorials, in their style: the old API, where every message is bytes.

The docstring of each view says exactly what it sends, so that a client can rely on it.
"""

import gc
import json
import sys
import time
from collections import Counter

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from notes.models import Note

from dwebsocket import accept_websocket, require_websocket
from dwebsocket.decorators import websocket


@require_websocket
def echo_once(request):
    """
    1. Echo once.

    Sends the first message back as it came and returns, which closes with 1000. Plain HTTP: 400.
    """
    message = request.websocket.wait()
    request.websocket.send(message)


@accept_websocket
def echo(request):
    """
    2. Two modes: the page by HTTP GET, the echo by WebSocket.

    Sends each message back followed by `` ← echoed`` until the client closes.
    """
    if not request.is_websocket():
        return render(request, "echo.html")
    for message in request.websocket:
        request.websocket.send(message + " ← echoed".encode("utf-8"))  # noqa: UP012 (as pasted)


@accept_websocket
def clock(request):
    """
    3. The clock: pushes, and never checks whether the client is still there.

    Sends ``{"count": n, "time": "HH:MM:SS"}`` once a second; ``n`` is 1, 2, 3 …
    """
    if not request.is_websocket():
        return render(request, "clock.html")
    count = 0
    while 1:
        time.sleep(1)
        count += 1
        request.websocket.send(json.dumps({"count": count, "time": time.strftime("%H:%M:%S")}))


users = []


@accept_websocket
def chat(request):
    """
    4. Chat with a global list.

    Sends each message, as it came, to all WebSockets in the list, the sender's too. A view whose
    client has gone removes its WebSocket from the list when its own ``wait()`` gives None.
    """
    if not request.is_websocket():
        return render(request, "chat.html")
    users.append(request.websocket)
    while True:
        message = request.websocket.wait()
        if message is None:
            users.remove(request.websocket)
            break
        for user in users:
            user.send(message)


@websocket
def websocket_echo(request):
    """
    5. Echo with ``@websocket`` and ``wait()``.

    Sends each message back as it came until the client closes. Plain HTTP: a line of text.
    """
    if not request.is_websocket():
        return HttpResponse("websocket echo", content_type="text/plain")
    while True:
        message = request.websocket.wait()
        if message is None:
            break
        request.websocket.send(message)


@require_websocket
def poll(request):
    """
    6. Ask for messages instead of waiting for them.

    Sends each message back as it came; the end shows as a message that is None. Plain HTTP: 400.
    """
    while True:
        if request.websocket.has_messages():
            message = request.websocket.read()
            if message is None:
                break
            request.websocket.send(message)
        time.sleep(0.01)


@require_websocket
def count(request):
    """
    6. Count the waiting messages.

    The first message is a number ``n``. Once ``n`` more are waiting, sends the count as text, then
    those ``n`` messages as they came, then the count again, and returns, which closes with 1000.
    Plain HTTP: 400.
    """
    first = request.websocket.wait()
    if first is None:
        return
    expected = int(first)
    while request.websocket.count_messages() < expected:
        if request.websocket.is_closed():
            return
        time.sleep(0.01)
    request.websocket.send(str(request.websocket.count_messages()))
    for _ in range(expected):
        request.websocket.send(request.websocket.read())
    request.websocket.send(str(request.websocket.count_messages()))


def plain(request):
    """
    7. No decorator: ``WEBSOCKET_ACCEPT_ALL`` and the middleware (``settings_accept_all``).

    Sends each message back in upper case until the client closes. Plain HTTP: a line of text.
    """
    if not request.is_websocket():
        return HttpResponse("plain view", content_type="text/plain")
    for message in request.websocket:
        request.websocket.send(message.upper())


def page(request):
    """8. The browser page with its three buttons; it talks to ``/echo/``."""
    return render(request, "page.html")


@accept_websocket
def room(request, name):
    """
    9. Database, session, user, URL argument and query string inside the loop.

    Stores each message as a note of the room ``name`` and answers with JSON: ``room``; ``user``
    (the login name, or ``anonymous``); ``lang`` (from ``?lang=``, or ``en``); ``text`` (the
    message); ``notes`` (how many the room has now); ``said`` (how many this session has said, in
    all rooms, this one included). The message ``bye`` is not stored and ends the view: 1000.

    Plain HTTP: JSON with ``room``, ``notes`` (their texts, oldest first), ``visits`` (plain
    requests of this session so far, this one included) and ``said``. The first GET sets the
    session cookie; what the loop puts into the session is saved when the view ends.
    """
    if not request.is_websocket():
        request.session["visits"] = request.session.get("visits", 0) + 1
        notes = Note.objects.filter(room=name).order_by("id")
        return JsonResponse(
            {
                "room": name,
                "notes": [note.text for note in notes],
                "visits": request.session["visits"],
                "said": request.session.get("said", 0),
            }
        )
    for message in request.websocket:
        text = message.decode("utf-8")
        if text == "bye":
            break
        author = request.user if request.user.is_authenticated else None
        Note.objects.create(room=name, author=author, text=text)
        request.session["said"] = request.session.get("said", 0) + 1
        request.websocket.send(
            json.dumps(
                {
                    "room": name,
                    "user": request.user.username or "anonymous",
                    "lang": request.GET.get("lang", "en"),
                    "text": text,
                    "notes": Note.objects.filter(room=name).count(),
                    "said": request.session["said"],
                }
            )
        )


def running(request):
    """
    Tell which views of this process are running now, as JSON ``{"clock": 2, …}``.

    For tests and for the curious: it shows that a view ends once its browser has gone. The page
    itself is among them. Threads and greenlets are seen, tasks are not.
    """
    inside = Counter()
    frames = list(sys._current_frames().values())
    if (greenlet := sys.modules.get("greenlet")) is not None:
        frames += [it.gr_frame for it in gc.get_objects() if isinstance(it, greenlet.greenlet)]
    for frame in frames:
        while frame is not None:
            if frame.f_code.co_filename == __file__:
                inside[frame.f_code.co_name] += 1
            frame = frame.f_back
    return JsonResponse(inside)
