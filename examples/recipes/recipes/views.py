"""
Four things that projects do with a process and a WebSocket.

A GET of an address gets the page; the docstring says what the page's WebSocket sends and takes.
"""

import fcntl
import os
import pty
import shlex
import struct
import termios
import time
from contextlib import contextmanager, suppress
from subprocess import PIPE, STDOUT, Popen

from django.conf import settings
from django.shortcuts import render

from dwebsocket import accept_websocket


def index(request):
    """The list of recipes."""
    return render(request, "index.html")


@accept_websocket
def tail(request):
    """
    1. Log tail.

    Sends the last 100 lines of the log, and what is added to it.
    """
    if not request.is_websocket():
        return render(request, "tail.html", {"log": settings.RECIPES_LOG})
    command = ["tail", "-n", "100", "-F", settings.RECIPES_LOG]
    request.websocket.pump(Popen(command, stdout=PIPE, stderr=STDOUT))


@accept_websocket(text_type=str)
def terminal(request):
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


@contextmanager
def shell_on_a_pty():
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


def press_keys(websocket, master):
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
def pod(request):
    """
    3. Pod console.

    Takes lines for the command. Sends what it prints, as binary messages.
    """
    command = settings.RECIPES_POD_COMMAND
    if not request.is_websocket():
        return render(request, "pod.html", {"command": shlex.join(command)})
    websocket = request.websocket
    with Popen(command, stdin=PIPE, stdout=PIPE, stderr=STDOUT, bufsize=0) as process:
        keyboard = websocket.start(type_lines, websocket, process.stdin)
        websocket.pump(process)
        websocket.close(reason="the command has ended")
        keyboard.join()


def type_lines(websocket, stdin):
    """Write what is typed."""
    # The command has ended.
    with suppress(BrokenPipeError):
        for line in websocket:
            stdin.write(f"{line}\n".encode())


@accept_websocket(text_type=str)
def progress(request):
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
        for line in job.stdout:
            match line.split():
                case ["progress", percent]:
                    websocket.send_json({"percent": int(percent)})
    websocket.send_json({"status": job.returncode})


def cancel_on_request(websocket, job):
    """Kill the program when the page says so."""
    for message in websocket:
        if message == "cancel":
            job.kill()
