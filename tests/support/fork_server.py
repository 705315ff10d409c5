"""
A process that has imported what others need, and becomes them: each is forked from it.

A test's processes spend most of their time on the imports of Django and of a database's library.
Nothing of the package has begun here: no setting is read, no thread started.

Its input is a Unix socket. A message is JSON, `[script, argument, folder, environment]`, with the
descriptors of the new process's standard streams; its answer the pid, with a descriptor of the
process. It ends with its input. `support/forked.py` speaks to it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path

MODULES = (
    *("django.core.handlers.asgi", "django.core.handlers.wsgi", "django.middleware.cache"),
    *("django.core.management.commands.makemigrations", "django.core.cache.backends.locmem"),
    *("django.core.management.commands.migrate", "django.template.defaulttags"),
    *("django.template.loader_tags", "django.templatetags.i18n", "django.views.csrf"),
    *("asyncio", "urllib.request", "dwebsocket.users.recheck"),
    *("dwebsocket.groups.backends.local", "dwebsocket.groups.backends.process"),
)
# Where their library is.
OF_DATABASES = (
    *("django.db.backends.postgresql.base", "psycopg"),
    *("dwebsocket.groups.backends.postgres", "dwebsocket.compat.psycopg"),
)


def main() -> None:
    """Fork until the input ends; a child goes on as its script."""
    # The names of files beside this one are those of libraries.
    del sys.path[0]
    for name in MODULES:
        import_module(name)
    with contextlib.suppress(ImportError):
        for name in OF_DATABASES:
            import_module(name)
    gc.collect()
    # No child has to look through what it has imported.
    gc.freeze()
    signal.signal(signal.SIGCHLD, reap)
    control = socket.socket(fileno=os.dup(0))
    while True:
        message, streams, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not message:
            return
        # Until there is a descriptor of it the pid has to stay.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if not pid:
            break
        for stream in streams:
            os.close(stream)
        child = os.pidfd_open(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        socket.send_fds(control, [str(pid).encode()], [child])
        os.close(child)
    control.close()
    become(streams, *json.loads(message))


def reap(*_: object) -> None:
    """Wait for children that have ended: their processor time is this process's from now on."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def become(
    streams: list[int], script: str, argument: str, folder: str, environment: dict[str, str]
) -> None:
    """Run a script as the interpreter does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script, argument]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
