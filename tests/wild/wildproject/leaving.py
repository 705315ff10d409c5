"""Chats, and their clean-up when a user leaves."""

import json
import threading

from django.http import JsonResponse

from dwebsocket import accept_websocket, require_websocket

from .models import Person

clients = {}
lock = threading.RLock()
members = []
taken = []
listeners = []
screens = {}


@accept_websocket
def chat(request, name):
    """Keep the user in a dict until the None at the end of the iteration."""
    if not request.is_websocket():
        return JsonResponse({"names": sorted(clients)})
    clients[name] = request.websocket
    for message in request.websocket:
        if message is None:
            del clients[name]
            for client in clients.values():
                client.send(json.dumps({"left": name}))
        else:
            text = json.loads(message)["text"]
            for client in list(clients.values()):
                client.send(json.dumps({"name": name, "text": text}))


@accept_websocket
def room(request):
    """Keep the connection in a list, behind a lock, until `wait()` gives None."""
    if not request.is_websocket():
        return JsonResponse({"count": len(members)})
    lock.acquire()
    members.append(request.websocket)
    lock.release()
    try:
        while True:
            message = request.websocket.wait()
            if message is None:
                break
            for member in members:
                member.send(message)
    finally:
        lock.acquire()
        members.remove(request.websocket)
        lock.release()


@accept_websocket
def presence(request, name):
    """Mark the user online in the database, and offline when None comes."""
    if not request.is_websocket():
        return JsonResponse({"online": Person.objects.get(name=name).online})
    Person.objects.update_or_create(name=name, defaults={"online": True})
    request.websocket.send("welcome")
    for message in request.websocket:
        if message is None:
            person = Person.objects.get(name=name)
            person.online = False
            person.save()
        else:
            request.websocket.send(message)


@accept_websocket
def seat(request, name):
    """Give each name one seat: a page that is reloaded finds its seat free again."""
    if name in taken:
        request.websocket.send("taken")
        return
    taken.append(name)
    request.websocket.send("seated")
    for message in request.websocket:
        if not message:
            taken.remove(name)
            break
        request.websocket.send(message)


@accept_websocket
def careless(request):
    """Treat each message as JSON, the None at the end too; clean up all the same."""
    if not request.is_websocket():
        return JsonResponse({"count": len(listeners)})
    listeners.append(request.websocket)
    try:
        for message in request.websocket:
            data = json.loads(message)
            request.websocket.send(json.dumps({"sum": sum(data["numbers"])}))
    finally:
        listeners.remove(request.websocket)


@require_websocket
def decoder(request):
    """Decode each message, the None at the end too."""
    while True:
        text = request.websocket.wait().decode("utf-8")
        request.websocket.send(text.upper())


@require_websocket
def single_login(request, name):
    """Close the old page of a user when a new one is opened."""
    old = screens.get(name)
    if old is not None:
        old.send("signed in elsewhere")
        old.close()
    screens[name] = request.websocket
    request.websocket.send("hello")
    while True:
        message = request.websocket.wait()
        if message is None:
            break
        request.websocket.send(message)
    if screens.get(name) is request.websocket:
        del screens[name]


def screens_open(request):
    """Tell which users have a page."""
    return JsonResponse({"names": sorted(screens)})
