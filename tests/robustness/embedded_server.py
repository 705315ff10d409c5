"""
A process that serves the test project from a thread of its own; run by test_fork.py.

Modes: `fork` and `fork-idle`, each with the path of an echo, report each step on stdout; `exit-…`
prints the port, waits for a line on stdin and lets the main thread end in the way named.
"""

import os
import sys
import threading
import warnings

import django
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application

from support.raw_peer import RawPeer

# Python 3.12 and later warn of any fork of a process with threads.
warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", module="__main__")
django.setup()


class Quiet(WSGIRequestHandler):
    """A request handler without an access log."""

    def log_message(self, *args: object) -> None:
        """Write nothing."""


class Embedded:
    """A server on a thread."""

    host = "localhost"

    def __init__(self) -> None:
        self.httpd = ThreadedWSGIServer(("127.0.0.1", 0), Quiet)
        self.httpd.daemon_threads = True
        self.httpd.set_app(get_wsgi_application())
        self.address = ("127.0.0.1", self.httpd.server_port)
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()


def echo(peer: RawPeer, who: str) -> None:
    """Send a message, read its echo, and report that."""
    peer.send_text(who)
    assert peer.read_message() == who.encode()
    print(f"{who}:echo", flush=True)


def fork(path: str, *, child_echoes: bool) -> None:
    """Use the engine, fork, see both sides work."""
    server = Embedded()
    peer = RawPeer.open(server, path)
    echo(peer, "parent")
    pid = os.fork()
    if pid == 0:
        if child_echoes:
            with RawPeer.open(Embedded(), path) as own:
                echo(own, "child")
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    print(f"child:exit:{os.waitstatus_to_exitcode(status)}", flush=True)
    echo(peer, "parent")
    peer.send_close()
    assert peer.read_to_eof().code == 1000
    peer.close()


def main(mode: str, path: str = "/echo/") -> None:
    """Run one mode."""
    if mode.startswith("fork"):
        fork(path, child_echoes=mode == "fork")
        return
    print(Embedded().address[1], flush=True)
    sys.stdin.readline()
    if mode == "exit-sys-exit":
        sys.exit(0)
    if mode == "exit-exception":
        raise RuntimeError("the end")


main(*sys.argv[1:])
