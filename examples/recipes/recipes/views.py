"""
Five things that projects do with a WebSocket, four of them with a process.

A GET of an address gets the page; the docstring says what the page's WebSocket sends and takes.
"""

import fcntl
import os
import pty
import shlex
import struct
import termios
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from subprocess import PIPE, STDOUT, Popen
from typing import IO

from django.conf import settings
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from dwebsocket import WebSocket, WebSocketRequest, accept_websocket

from .toasts import toast


def index(request: HttpRequest) -> HttpResponse:
    """The list of recipes."""
    return render(request, "index.html")


@accept_websocket
def tail(request: WebSocketRequest) -> HttpResponse | None:
    """
    1. Log tail.

    Sends the last 100 lines of the log, and what is added to it.
    """
    if not request.is_websocket():
        return render(request, "tail.html", {"log": settings.RECIPES_LOG})
    command = ["tail", "-n", "100", "-F", settings.RECIPES_LOG]
    request.websocket.pump(Popen(command, stdout=PIPE, stderr=STDOUT))
    return None


@accept_websocket(text_type=str)
def terminal(request: WebSocketRequest) -> HttpResponse | None:
    """
    2. Web terminal.

    Takes ``{"keys": "ls\\r"}`` and ``{"rows": 24, "columns": 80}``. Sends what the shell prints, as
    binary messages.
    """
    if not request.is_websocket():
        return render(request, "terminal.html")
    websocket = request.websocket
    with shell_on_a_pty() as master:
        keyboard = websocket.start(press_keys, websocket, master)
        websocket.pump(master)
        websocket.close(reason="the shell has ended")
        keyboard.join()
    return None


@contextmanager
def shell_on_a_pty() -> Generator[int, None, None]:
    """Give our end of a shell's terminal."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    # With -c it becomes the shell's controlling terminal: Ctrl-C and hanging up need that. A server
    # that runs under `nohup` ignores the hang-up, which the shell would inherit.
    command = ["env", "--default-signal=HUP", "setsid", "-c", *settings.RECIPES_SHELL]
    env = {**os.environ, "TERM": "dumb"}
    with Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env):
        os.close(slave)
        try:
            yield master
        finally:
            # Hangs up, which ends the shell and its jobs.
            os.close(master)


def press_keys(websocket: WebSocket, master: int) -> None:
    """Write what is typed, and set the size of the window."""
    while True:
        match websocket.receive_json():
            case {"keys": keys}:
                # The shell has ended, or its program does not read: these keys are lost.
                with suppress(OSError):
                    os.write(master, keys.encode())
            case {"rows": rows, "columns": columns}:
                size = struct.pack("4H", rows, columns, 0, 0)
                fcntl.ioctl(master, termios.TIOCSWINSZ, size)


@accept_websocket(text_type=str)
def pod(request: WebSocketRequest) -> HttpResponse | None:
    """
    3. Pod console.

    Takes lines for the command. Sends what it prints, as binary messages.
    """
    command = settings.RECIPES_POD_COMMAND
    if not request.is_websocket():
        return render(request, "pod.html", {"command": shlex.join(command)})
    websocket = request.websocket
    with Popen(command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, bufsize=0) as process:
        assert process.stdin
        keyboard = websocket.start(type_lines, websocket, process.stdin)
        websocket.pump(process)
        websocket.close(reason="the command has ended")
        keyboard.join()
    return None


def type_lines(websocket: WebSocket, stdin: IO[bytes]) -> None:
    """Write what is typed."""
    # The command has ended.
    with suppress(BrokenPipeError):
        for line in websocket:
            if isinstance(line, str):
                stdin.write(f"{line}\n".encode())


@accept_websocket(text_type=str)
def progress(request: WebSocketRequest) -> HttpResponse | None:
    """
    4. Progress of a subprocess.

    Sends ``{"percent": 42}`` for each line ``progress 42`` of the program, ``{"seconds": 3}`` each
    second, and ``{"status": 0}`` at its end. Takes ``cancel``, which kills it: the status is -9.
    """
    if not request.is_websocket():
        return render(request, "progress.html")
    websocket, began = request.websocket, time.monotonic()
    with Popen(settings.RECIPES_JOB_COMMAND, stdout=PIPE, text=True) as job:
        websocket.on_close(job.kill)
        websocket.start(cancel_on_request, websocket, job)
        websocket.every(1, lambda: websocket.send_json({"seconds": int(time.monotonic() - began)}))
        assert job.stdout
        for line in job.stdout:
            match line.split():
                case ["progress", percent]:
                    websocket.send_json({"percent": int(percent)})
    websocket.send_json({"status": job.returncode})
    return None


def cancel_on_request(websocket: WebSocket, job: Popen[str]) -> None:
    """Kill the program when the page says so."""
    for message in websocket:
        if message == "cancel":
            job.kill()


def toast_page(request: HttpRequest) -> HttpResponse:
    """5. Toasts: a page with a button. All pages of somebody who is signed in show toasts."""
    if request.user.is_anonymous:
        # A project has accounts, and a page to log in.
        login(request, User.objects.get_or_create(username="you")[0])
    return render(request, "toasts.html")


@require_POST
def save(request: HttpRequest) -> HttpResponse:
    """Toast, and redirect."""
    toast(request.user, "The order is saved", level="success")
    return redirect("toast-page")
