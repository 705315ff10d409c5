"""Views and threads that send without being asked."""

import json
import queue
import threading
import time

from django.http import HttpResponse

from dwebsocket import accept_websocket, require_websocket

queues = {}


@accept_websocket
def clock(request):
    """Send for ever, and receive never."""
    count = 0
    while True:
        count += 1
        request.websocket.send(json.dumps({"count": count}))
        time.sleep(0.2)


@accept_websocket
def heartbeat(request):
    """Send an empty message now and then from a thread, until the connection is closed."""

    def beat():
        while not request.websocket.is_closed():
            request.websocket.send("")
            time.sleep(0.2)

    threading.Thread(target=beat).start()
    for message in request.websocket:
        if message is None:
            break
        request.websocket.send(message)


@accept_websocket
def heartbeat_json(request):
    """Send JSON now and then from a thread, until sending or asking fails."""

    def beat():
        try:
            while not request.websocket.is_closed():
                request.websocket.send(json.dumps({"type": "ping"}))
                time.sleep(0.2)
        except Exception:
            pass

    thread = threading.Thread(target=beat)
    thread.daemon = True
    thread.start()
    while True:
        message = request.websocket.wait()
        if message is None:
            break
        data = json.loads(message)
        request.websocket.send(json.dumps({"type": "answer", "to": data["number"]}))


@accept_websocket
def heartbeat_alone(request):
    """Send an empty message now and then from the view, which never reads."""
    while not request.websocket.is_closed():
        request.websocket.send("")
        time.sleep(0.1)


@require_websocket
def notifications(request, name):
    """Send what pages put into a queue, until the connection is closed."""
    mine = queues[name] = queue.Queue()
    request.websocket.send("ready")
    while not request.websocket.is_closed():
        try:
            request.websocket.send(mine.get(timeout=0.2))
        except queue.Empty:
            continue
    del queues[name]


def notify(request, name):
    """Put a text into a queue."""
    queues[name].put(request.GET["text"])
    return HttpResponse("queued")


@require_websocket
def pump_of_a_queue(request, name):
    """Send what pages put into a queue from a thread, which a None in the queue ends."""
    mine = queues[name] = queue.Queue()

    def pump():
        while True:
            text = mine.get()
            if text is None:
                break
            request.websocket.send(text)

    threading.Thread(target=pump).start()
    request.websocket.send("ready")
    for message in request.websocket:
        mine.put(message)
    del queues[name]


@require_websocket
def stubborn(request):
    """Read in a thread that nothing stops."""

    def listen():
        while True:
            try:
                message = request.websocket.wait()
                request.websocket.send(message.upper())
            except:
                continue

    thread = threading.Thread(target=listen)
    thread.daemon = True
    thread.start()
    thread.join()


@require_websocket
def early_view(request):
    """End while a thread still reads."""

    def listen():
        while True:
            try:
                request.websocket.wait()
            except Exception:
                break

    thread = threading.Thread(target=listen)
    thread.daemon = True
    thread.start()
    request.websocket.send("bye")
    time.sleep(0.2)


@require_websocket
def naive_thread(request):
    """Read in a thread that checks for None only."""
    done = threading.Event()

    def listen():
        while True:
            message = request.websocket.wait()
            if message is None:
                break
            request.websocket.send(message)
        done.set()

    threading.Thread(target=listen).start()
    while not done.is_set():
        time.sleep(0.05)


@require_websocket
def upload(request):
    """Take bytes and send them back reversed, as a binary message."""
    for message in request.websocket:
        if message is None:
            break
        request.websocket.protocol.write(message[::-1], binary=True)


@require_websocket
def appended(request):
    """Append bytes to what came, as the README of the original does."""
    for message in request.websocket:
        if message:
            request.websocket.send(message + b" received")


@require_websocket
def farewell(request):
    """Close with a code and a reason of the view's own choice."""
    request.websocket.wait()
    request.websocket.close(4001, b"enough")


@require_websocket
def handled(request):
    """Have a function called for each frame."""
    opcodes = []
    request.websocket.handle = lambda opcode, data: opcodes.append(opcode)
    request.websocket.wait()
    request.websocket.wait()
    request.websocket.send(json.dumps(opcodes))
