"""Waiting for what the listening thread finds, as a thread or a green thread."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dwebsocket.compat import unpatched
from dwebsocket.compat.socket import system

if TYPE_CHECKING:
    from concurrent.futures import Future


#: Makes one.
new = unpatched.future


def wait(future: Future[Any], timeout: float) -> bool:
    """Sleeps until ``future`` is done, ``timeout`` seconds at most. Whether it is."""
    if future.done():
        return True
    if unpatched.patched_by() is None:
        return wait_in_thread(future, timeout)
    # Sockets are the one thing for which green threads of all libraries wait and that any thread
    # may make ready. The sending end is the system's: no hub must be asked by the other thread.
    receiving, sending = system.socketpair()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, receiving.detach()) as receiver:

        def wake(_: Future[Any]) -> None:
            with suppress(OSError):
                sending.send(b"!")

        future.add_done_callback(wake)
        receiver.settimeout(max(0.001, timeout))
        # The patched libraries raise exceptions of their own, all of them OSErrors.
        with suppress(OSError):
            receiver.recv(1)
    return future.done()


def wait_in_thread(future: Future[Any], timeout: float) -> bool:
    """Waits on a thread of ``unpatched.start_code``, also in a patched process."""
    if unpatched.is_code_green():
        return wait(future, timeout)
    done = unpatched.lock()
    done.acquire()
    future.add_done_callback(lambda _: done.release())
    return done.acquire(timeout=max(0.0, timeout))
