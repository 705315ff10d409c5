"""
gunicorn, workers ``sync``, ``gthread``, ``gevent`` and ``eventlet``, versions 20 to 27.

``gevent_pywsgi`` is in :mod:`dwebsocket.servers.families.gevent`; ``eventlet`` ended with
version 25.

It puts the client's socket into the environ. Bytes after the request stay in two buffers: that
of the request's body, and that of the parser below it.

The arbiter ends a worker by SIGTERM, and kills it when it takes too long. It gives the worker no
reason.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwebsocket.compat import gevent, unpatched
from dwebsocket.compat.gunicorn import (
    buffered,
    finish_response,
    has_buffers,
    is_stream,
    streams,
    worker,
    worker_kind,
)
from dwebsocket.compat.socket import has_tls
from dwebsocket.compat.system import children_of
from dwebsocket.servers.contract import (
    Client,
    Environ,
    ShutdownPlan,
    ShutdownPlanner,
    Unsupported,
    unknown_plan,
)
from dwebsocket.servers.families import green

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.servers.contract import Heirs

_KEY, _ERRORS = "gunicorn.socket", "wsgi.errors"
# The workers between which connections move, by what has patched the process.
_MOVABLE: dict[str | None, tuple[str, ...]] = {None: ("sync", "gthread"), "gevent": ("gevent",)}
# The `wsgi.errors` writer that requests share, by its class.
_writers: dict[type, Any] = {}


def find(environ: Environ) -> Client | None:
    """Returns the client of a request that gunicorn serves."""
    sock = environ.get(_KEY)
    if sock is None:
        return None
    if is_stream(environ):
        raise Unsupported(
            "gunicorn serves this request as one of many HTTP/2 streams of one connection, which "
            "cannot be taken over for one of them: start it with --http-protocols h1 and "
            "--http2-cleartext off, and let a proxy such as nginx speak HTTP/2 to the clients"
        )
    body = environ["wsgi.input"]
    if not has_buffers(body):
        # Refuse now: after the takeover, bytes that the client sent early would be lost.
        raise Unsupported(
            f"wsgi.input is a {type(body).__name__} and not gunicorn's own here, perhaps wrapped "
            "by a WSGI middleware: leave that out, or its work to a Django middleware"
        )
    return Client(
        server="gunicorn",
        descriptor=sock.fileno(),
        read_early=lambda: buffered(body),
        let_go=lambda: _forget(environ),
        tls=sock if has_tls(sock) else None,
        concurrency=green.kind_of(sock),
        shutdown_plan=shutdown_plan,
    )


def host() -> tuple[int, Client] | None:
    """
    Returns the arbiter's number, and a client without a socket, where connections can move.

    That is in a worker ``sync``, ``gthread`` or ``gevent``, from its start on.
    """
    kind, patched = worker_kind(), unpatched.patched_by()
    if kind not in _MOVABLE.get(patched, ()) or (kind == "gevent" and not gevent.find_home()):
        return None
    client = Client("gunicorn", -1, bytes, concurrency=patched or "thread")
    client.shutdown_plan = shutdown_plan
    return worker("ppid").ppid, client


def _forget(environ: Environ) -> None:
    environ.pop(_KEY, None)
    # Otherwise the server would use the placeholder like a client: write a head to it, keep it in
    # its poller, and give it to one of its threads, which finds it closed.
    finish_response(environ)
    if streams(errors := environ.get(_ERRORS)) is not None:
        environ[_ERRORS] = _one_for_all(errors)


def _one_for_all(errors: Any) -> Any:
    """Returns one writer for all requests with the same streams; each request brings its own."""
    known = _writers.setdefault(type(errors), errors)
    if streams(known) != streams(errors):
        # The log was reopened, so the shared writer is out of date.
        known = _writers[type(errors)] = errors
    return known


def shutdown_plan() -> ShutdownPlanner:
    """Returns the :class:`ShutdownPlanner` of this worker: how the arbiter will end it."""
    found = worker("cfg", "nr", "max_requests", "ppid", "sockets")
    if found is None:
        return unknown_plan()
    return _PlanOfWorker(found, lambda: found.nr >= found.max_requests)


def plan_of_uvicorn(worker: Any) -> ShutdownPlanner:
    """Returns the same of a worker in which uvicorn serves, and counts the requests."""
    if not all(hasattr(worker, name) for name in ("cfg", "ppid", "sockets")):
        return unknown_plan()
    return _PlanOfWorker(worker, lambda: worker.cfg.max_requests > 0)


class _PlanOfWorker:
    def __init__(self, worker: Any, is_worn_out: Callable[[], bool]) -> None:
        """``is_worn_out`` is asked about a worker that no signal ends."""
        self._worker = worker
        self._is_worn_out = is_worn_out
        # An arbiter that stops closes its listening sockets first: remember these by inode.
        inodes = [os.fstat(sock.fileno()).st_ino for sock in worker.sockets]
        self._listeners = {f"socket:[{inode}]" for inode in inodes}

    def __call__(self, *, terminated: bool) -> ShutdownPlan:
        """
        Returns the plan of a worker that ends.

        A worker may wait only if other workers serve meanwhile: after SIGTERM, or when it ends by
        ``max_requests`` beside others; the only worker has no successor until it is gone. A worker
        that ends by SIGINT or SIGQUIT has to be quick.
        """
        cfg, goes_on = self._worker.cfg, self._is_served_on()
        worn_out = cfg.workers > 1 and self._is_worn_out()
        if not (terminated or worn_out):
            return ShutdownPlan(timeout_s=0, goes_on=goes_on)
        # The arbiter also kills a worker that sends no heartbeat for `timeout`. An ending worker
        # sends no more heartbeats, and the last of an idle worker may be half of `timeout` old.
        timeout, limit = min(
            (cfg.graceful_timeout, "gunicorn's --graceful-timeout"),
            (cfg.timeout / 2 or float("inf"), "half of gunicorn's --timeout"),
        )
        return ShutdownPlan(timeout, limit, goes_on, self._heirs() if goes_on else None)

    def _heirs(self) -> Heirs:
        """
        Returns the processes that may go on with the connections of one that may wait.

        On a reload the arbiter starts the new workers before it ends the old ones. A worker that is
        worn out, or that somebody else ends, it replaces after its end: of several the only one may
        be there for a moment.
        """
        workers, wanted = len(children_of(self._worker.ppid)), self._worker.cfg.workers
        if workers == wanted == 1:
            return "of others"
        return "soon" if 0 < workers <= wanted else "to come"

    def _is_served_on(self) -> bool:
        """
        Whether the arbiter goes on without this worker.

        An arbiter that stops closes its listening sockets before it ends its workers. Where its
        descriptors cannot be read it is assumed to go on, as it usually does.
        """
        parent = self._worker.ppid
        if parent != os.getppid():
            return False
        open_there = set()
        try:
            for entry in Path(f"/proc/{parent}/fd").iterdir():
                # It closes the file of each worker that has ended.
                with suppress(FileNotFoundError):
                    open_there.add(os.readlink(entry))
        except OSError:
            return True
        return not self._listeners.isdisjoint(open_there)
