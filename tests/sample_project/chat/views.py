"""WebSocket views of every kind, as projects write them."""

import asyncio
import threading

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.utils import translation

from chat.models import Note
from dwebsocket import ReceiveTimeout, accept_websocket, group, require_websocket

PAGE = """<!doctype html>
<title>chat</title>
<p id="log"></p>
<script>
const socket = new WebSocket(`ws://${location.host}/me/`);
socket.onmessage = (event) => { document.querySelector("#log").textContent = event.data; };
</script>
"""


def page(request):
    return HttpResponse(PAGE)


@accept_websocket(text_type=str, subprotocols=["chat.v2", "chat.v1"], max_message_size=1000)
def echo(request):
    if not request.is_websocket():
        return HttpResponse("open a WebSocket here")
    for message in request.websocket:
        if message == "bye":
            request.websocket.close(4000, "as you wish")
        request.websocket.send(message)
    return None


@accept_websocket(text_type=str)
async def aecho(request):
    async for message in request.websocket:
        if message == "bye":
            await request.websocket.aclose(4000, "as you wish")
        await request.websocket.asend(message)


rooms = {}


@require_websocket(text_type=str)
def room(request, room):
    members = rooms.setdefault(room, set())
    members.add(request.websocket)
    request.websocket.send(f"welcome to {room}")
    try:
        for message in request.websocket:
            for member in list(members):
                member.send(message)
    finally:
        members.discard(request.websocket)


@require_websocket
async def aroom(request, room):
    members = rooms.setdefault(room, set())
    members.add(request.websocket)
    await request.websocket.asend(f"welcome to {room}")
    try:
        async for message in request.websocket:
            for member in list(members):
                await member.asend(message)
    finally:
        members.discard(request.websocket)


@require_websocket(text_type=str)
def team(request, team):
    request.websocket.join(f"team-{team}")
    request.websocket.send(f"welcome to {team}")
    for message in request.websocket:
        group(f"team-{team}").send_json({"said": message}, exclude=request.websocket)


@require_websocket(text_type=str)
async def ateam(request, team):
    async with group(f"team-{team}").joined(request.websocket):
        await request.websocket.asend(f"welcome to {team}")
        async for message in request.websocket:
            await group(f"team-{team}").asend_json({"said": message}, exclude=request.websocket)


def add_note(request):
    with transaction.atomic():
        note = Note.objects.create(text=request.POST["text"])
        group("team-notes").send_json({"note": note.pk}, on_commit=True)
    return HttpResponseRedirect("/")


@require_websocket(text_type=str)
def board(request):
    request.websocket.join("team-notes")
    request.websocket.send("welcome")
    for text in request.websocket:
        with transaction.atomic():
            note = Note.objects.create(text=text)
            group("team-notes").send_json({"note": note.pk}, on_commit=True)


@sync_to_async
def _add_and_tell(text):
    with transaction.atomic():
        note = Note.objects.create(text=text)
        transaction.on_commit(lambda: group("team-notes").send_json({"note": note.pk}))


@require_websocket(text_type=str)
async def aboard(request):
    await request.websocket.ajoin("team-notes")
    await request.websocket.asend("welcome")
    async for text in request.websocket:
        await _add_and_tell(text)


@require_websocket
def me(request, term=""):
    term = term or request.GET.get("q", "")
    request.websocket.send_json({"user": request.user.username, "term": term})
    request.websocket.wait()


@require_websocket(text_type=str)
def visits(request):
    for _ in request.websocket:
        request.session["visits"] = request.session.get("visits", 0) + 1
        request.session.save()
        request.websocket.send(str(request.session["visits"]))


@require_websocket
def language(request):
    request.websocket.send(translation.get_language())


@require_websocket(text_type=str)
def notes(request):
    request.websocket.send_json(list(Note.objects.values_list("text", flat=True)))
    for text in request.websocket:
        Note.objects.create(text=text)
        request.websocket.send_json(Note.objects.count())


@require_websocket
async def anotes(request):
    await request.websocket.asend_json([note.text async for note in Note.objects.all()])
    async for text in request.websocket:
        await Note.objects.acreate(text=text)
        await request.websocket.asend_json(await Note.objects.acount())


@require_websocket
def import_notes(request):
    texts = request.websocket.receive_json()
    try:
        with transaction.atomic():
            for text in texts:
                Note.objects.create(text=text)
    except Exception as error:
        request.websocket.send_json({"error": type(error).__name__})
    else:
        request.websocket.send_json({"imported": len(texts)})


@require_websocket(text_type=str)
def fail(request):
    for message in request.websocket:
        request.websocket.send(message)
        raise ValueError(f"cannot stand {message!r}")


@require_websocket
async def afail(request):
    async for message in request.websocket:
        await request.websocket.asend(message)
        raise ValueError(f"cannot stand {message!r}")


@require_websocket
def fail_late(request):
    request.websocket.wait()
    raise ValueError("too late for the client")


@login_required
@require_websocket
def members(request):
    request.websocket.send(f"hello {request.user.username}")


@require_websocket
def secret(request):
    raise PermissionDenied("not for you")


@require_websocket(ping_interval=25, ping_timeout=20)
def patient(request):
    try:
        request.websocket.send(request.websocket.receive(timeout=60))
    except ReceiveTimeout:
        request.websocket.send("too slow")


@require_websocket
async def apatient(request):
    try:
        await request.websocket.asend(await request.websocket.areceive(timeout=60))
    except ReceiveTimeout:
        await request.websocket.asend("too slow")


# A view that waits for `release` has begun to.
begun, release = threading.Event(), threading.Event()


@require_websocket
def stuck(request):
    begun.set()
    release.wait()


@require_websocket
async def astuck(request):
    begun.set()
    while not release.is_set():
        await asyncio.sleep(0.01)


@accept_websocket(text_type=str)
def leaves(request):
    def note():
        Note.objects.create(text="left")

    request.websocket.on_close(note)
    request.websocket.every(3600, request.websocket.send, "an hour has passed")
    for message in request.websocket:
        request.websocket.send(message)
