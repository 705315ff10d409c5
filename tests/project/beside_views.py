"""Views that have something done beside them or at their connection's end."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from django.contrib.auth.models import User

from dwebsocket import require_websocket

if TYPE_CHECKING:
    from django.http import HttpRequest

# Gives its number and nothing more. No Python: under uWSGI `sys.executable` is uWSGI.
PROGRAM = ["sh", "-c", "echo $$; exec sleep 600"]


def note(path: str, text: str) -> None:
    """Add a line to a file that outlives the process."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


def count_users(path: str) -> None:
    """Ask the database."""
    note(path, f"users {User.objects.count()}")


@require_websocket
def closes(request: HttpRequest) -> None:
    """Note the end of the connection in a file, and the view's own behind it."""
    websocket, path = request.websocket, request.GET["file"]

    def first() -> None:
        time.sleep(float(request.GET.get("pause", 0)))
        note(path, f"first {websocket.close_code}")

    async def later() -> None:
        note(path, "async")

    websocket.on_close(first)
    websocket.on_close(later)
    websocket.on_close(count_users, path)
    websocket.on_close(note, path, "last")
    websocket.send("ready")
    if "busy" in request.GET:
        while not websocket.closed:
            time.sleep(0.01)
        return
    for message in websocket:
        if message == b"end":
            return


@require_websocket
async def aclosing(request: HttpRequest) -> None:
    """As `closes`, in an event loop."""
    websocket, path = request.websocket, request.GET["file"]

    async def first() -> None:
        await asyncio.sleep(float(request.GET.get("pause", 0)))
        note(path, f"first {websocket.close_code}")

    async def later() -> None:
        note(path, "async")

    websocket.on_close(first)
    websocket.on_close(later)
    websocket.on_close(count_users, path)
    websocket.on_close(note, path, "last")
    await websocket.asend("ready")
    async for message in websocket:
        if message == "end":
            return


@require_websocket
def starts(request: HttpRequest) -> None:
    """Echo in a helper, tick, and pump a process that says nothing more."""
    websocket = request.websocket

    def echo() -> None:
        while True:
            message = websocket.wait()
            websocket.send(b"echo " + message)

    websocket.start(echo)
    websocket.every(0.1, websocket.send, "tick")
    websocket.pump(subprocess.Popen(PROGRAM, stdout=subprocess.PIPE))
