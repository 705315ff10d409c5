"""Views in which several habits meet."""

import json
import subprocess
import threading
import time

from django.http import HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from rest_framework.response import Response
from rest_framework.views import APIView

from dwebsocket.decorators import accept_websocket, require_websocket

from .consoles import TICKS, popen
from .models import Person

consoles = {}
players = {}
rooms = {}


class PodConsole(APIView):
    """The REST framework, a registry by `str`, a pump, and the database at the end."""

    @method_decorator(accept_websocket)
    def get(self, request, name):
        """Show a program's output and send what is typed, or list what is open."""
        if not request.is_websocket():
            online = Person.objects.filter(name=name, online=True).exists()
            return Response({"open": len(consoles), "online": online})
        websocket = request.websocket
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        consoles[str(websocket)] = process
        Person.objects.update_or_create(name=name, defaults={"online": True})

        def pump():
            while not websocket.is_closed():
                line = process.stdout.readline()
                if not line:
                    break
                websocket.send(line)

        threading.Thread(target=pump).start()
        for message in websocket:
            if message is None:
                consoles.pop(str(websocket)).kill()
                process.wait()
                Person.objects.filter(name=name).update(online=False)
            else:
                process.stdin.write(message + b"\n")
                process.stdin.flush()


@require_websocket
def watch(request):
    """Push an endless log until `send` fails, while a thread reads until that fails."""
    process = popen(TICKS)

    def listen():
        while True:
            try:
                request.websocket.wait()
            except Exception:
                break

    threading.Thread(target=listen).start()
    while True:
        try:
            request.websocket.send(process.stdout.readline().strip())
        except Exception:
            break
    process.kill()
    process.wait()


@accept_websocket
def game(request, name):
    """Tick for all players between the moves; a closed player is removed by the next tick."""
    if not request.is_websocket():
        return JsonResponse({"players": sorted(players)})
    players[name] = request.websocket
    while not request.websocket.is_closed():
        message = request.websocket.wait(timeout=0.2)
        state = {"move": json.loads(message) if message else None, "by": name}
        for other, player in list(players.items()):
            if player.is_closed():
                players.pop(other, None)
            else:
                player.send(json.dumps(state))
    players.pop(name, None)


def own_room(request, user):
    """The project's middleware, tabs of a user, and a heartbeat for each; undecorated."""
    if request.websocket is None:
        # Copies: tabs come and go on other threads meanwhile, with any package.
        for tab in list(rooms.get(user, {}).values()):
            tab.send(request.GET["text"])
        return HttpResponse(str(len(rooms.get(user, {}))))
    websocket = request.websocket
    rooms.setdefault(user, {})[str(websocket)] = websocket

    def beat():
        while True:
            if websocket.is_closed():
                break
            websocket.send("")
            time.sleep(0.2)

    thread = threading.Thread(target=beat)
    thread.daemon = True
    thread.start()
    while True:
        message = websocket.wait()
        if not message:
            break
        for tab in list(rooms[user].values()):
            tab.send(message.decode())
    del rooms[user][str(websocket)]
    return HttpResponse()
