"""Connections that other requests and threads send to."""

import threading
import time

from django.http import HttpResponse, JsonResponse

from dwebsocket import accept_websocket, require_websocket

sockets = {}
users = {}
sessions = {}
everyone = []
queue = []
callbacks = {}


@accept_websocket
def by_str(request):
    """Keep the connection by its `str`."""
    if not request.is_websocket():
        return JsonResponse({"count": len(sockets)})
    sockets[str(request.websocket)] = request.websocket
    request.websocket.send(str(request.websocket))
    for message in request.websocket:
        if message is None:
            break
    del sockets[str(request.websocket)]


def push_by_str(request):
    """Send to one connection, or close it, from a page."""
    client = sockets.get(request.GET["to"])
    if client is None:
        return HttpResponse("gone", status=404)
    if "close" in request.GET:
        client.close()
    else:
        client.send(request.GET["text"])
    return HttpResponse("sent")


@accept_websocket
def tabs(request, user):
    """Keep all tabs of a user."""
    if not request.is_websocket():
        return JsonResponse({"tabs": len(users.get(user, [])), "known": user in users})
    users.setdefault(user, []).append(request.websocket)
    request.websocket.send("ready")
    while True:
        message = request.websocket.wait()
        if message is None:
            break
        for tab in users[user]:
            tab.send(message)
    users[user].remove(request.websocket)
    if not users[user]:
        users.pop(user)


def push_to_user(request, user):
    """Send to all tabs of a user from a page."""
    for tab in users.get(user, []):
        tab.send(request.GET["text"])
    return HttpResponse("sent")


def start_job(request, user):
    """Start a thread that reports its progress to all tabs of a user."""

    def work():
        for percent in (20, 40, 60, 80, 100):
            time.sleep(0.1)
            for tab in list(users.get(user, [])):
                tab.send("%d %%" % percent)

    threading.Thread(target=work).start()
    return HttpResponse("started")


@accept_websocket
def by_session(request):
    """Keep the connection by the key of the session."""
    if not request.is_websocket():
        request.session["seen"] = True
        request.session.save()
        return HttpResponse(request.session.session_key)
    key = request.session.session_key
    sessions[key] = request.websocket
    request.websocket.send("ready")
    for message in request.websocket:
        if not message:
            break
    sessions.pop(key)


def push_to_session(request):
    """Send to the page of this session."""
    client = sessions.get(request.session.session_key)
    if client is None:
        return HttpResponse("nobody", status=404)
    client.send("for your session")
    return HttpResponse("sent")


@accept_websocket
def swept(request):
    """Keep the connection and leave it to the next broadcast to remove it."""
    if not request.is_websocket():
        return JsonResponse({"count": len(everyone)})
    everyone.append(request.websocket)
    request.websocket.send("ready")
    while not request.websocket.is_closed():
        request.websocket.wait()


def broadcast(request):
    """Send to all, and remove those that are closed."""
    for client in list(everyone):
        if client.is_closed():
            everyone.remove(client)
        else:
            client.send(request.GET["text"])
    return JsonResponse({"count": len(everyone)})


@require_websocket
def support_chat(request):
    """Pair a customer with an agent: messages of one go to the other."""
    if queue:
        pair = queue.pop()
        pair["agent"] = request.websocket
        mine, other = "agent", "customer"
        pair["customer"].send("agent is here")
    else:
        pair = {"customer": request.websocket, "agent": None}
        queue.append(pair)
        mine, other = "customer", "agent"
        request.websocket.send("wait")
    for message in request.websocket:
        partner = pair[other]
        if message is None:
            pair[mine] = None
            if partner is not None:
                partner.send("partner left")
            break
        if partner is not None:
            partner.send(message)


@accept_websocket
def subscribe(request, topic):
    """Send what is published, from a callback of a library that has threads of its own."""
    if not request.is_websocket():
        return JsonResponse({"count": len(callbacks.get(topic, []))})

    def on_message(payload):
        request.websocket.send(payload)

    callbacks.setdefault(topic, []).append(on_message)
    request.websocket.send("subscribed")
    while request.websocket.wait() is not None:
        pass
    callbacks[topic].remove(on_message)


def publish(request, topic):
    """Call the callbacks from a thread, as a client of a message broker does."""

    def deliver():
        for callback in list(callbacks.get(topic, [])):
            callback(request.GET["text"].encode())

    thread = threading.Thread(target=deliver)
    thread.start()
    thread.join()
    return HttpResponse("published")
