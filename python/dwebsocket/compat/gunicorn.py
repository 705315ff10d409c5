"""
Undocumented parts of gunicorn, versions 20 to 27: its request bodies, responses and workers.

``environ["gunicorn.socket"]`` is meant for applications; nothing else here is.
"""

from __future__ import annotations

import signal
import sys
import threading
from traceback import walk_stack
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.system import at_fork
from dwebsocket.compat.threading import frame_of

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY, _HINTS = "gunicorn.socket", "wsgi.early_hints"
# Additional keys in the environ of an HTTP/2 stream; a client's header never gets such a name.
_PRIORITY, _SEND_TRAILERS = "gunicorn.http2.priority_weight", "gunicorn.http2.send_trailers"


def has_buffers(body: object) -> bool:
    """
    Whether :func:`buffered` can read ``body``, the ``wsgi.input`` of a request.

    False for a body that a WSGI middleware has wrapped, and where gunicorn has changed its own:
    then the client's early bytes cannot be had, and the handshake is refused.
    """
    reader = getattr(body, "reader", None)
    is_readable = hasattr(getattr(reader, "unreader", None), "buf") or hasattr(reader, "parser")
    return hasattr(body, "buf") and is_readable


def buffered(body: Any) -> bytes:
    """
    Returns the bytes that the client has sent after the head of its request.

    ``Body.buf`` and, below it, ``Body.reader.unreader.buf``, in 20 to 27, both ``io.BytesIO``. A
    body in chunks has a ``parser`` instead of the second; no handshake has such a body. To be
    called only when :func:`has_buffers` is true.
    """
    unreader = getattr(body.reader, "unreader", None)
    return bytes(body.buf.getvalue() + (b"" if unreader is None else unreader.buf.getvalue()))


def is_stream(environ: dict[str, Any]) -> bool:
    """
    Whether an HTTP/2 stream carries the request.

    Two keys of the environ, since 25. Where they are missing there is ``SERVER_PROTOCOL``.
    """
    version = str(environ.get("SERVER_PROTOCOL", ""))
    is_named = version.startswith(("HTTP/2", "HTTP/3"))
    return is_named or _PRIORITY in environ or _SEND_TRAILERS in environ


def finish_response(environ: dict[str, Any]) -> None:
    """
    Marks gunicorn's response to the request as sent, and its connection as one to close.

    ``Response.headers_sent`` and ``force_close()``, in 20 to 27; the response is reached only by a
    closure behind ``wsgi.early_hints``, since 25. Where any of it is missing gunicorn writes its
    response into the placeholder, which only takes time.
    """
    for cell in getattr(environ.get(_HINTS), "__closure__", None) or ():
        response = cell.cell_contents
        if hasattr(response, "force_close") and hasattr(response, "headers_sent"):
            response.headers_sent = True
            response.force_close()


def streams(errors: object) -> Any:
    """
    Returns the streams that a request's ``wsgi.errors`` writes to.

    ``WSGIErrorsWrapper.streams``, in 20 to 27. Where it is missing: None, and each connection keeps
    a writer of its own.
    """
    return getattr(errors, "streams", None)


def worker_kind() -> str:
    """
    Returns the kind of this worker, such as ``sync``; empty where this process is none.

    ``Config.worker_class_str``, in 20 to 27. Where it is missing, connections do not move to other
    processes.
    """
    found = worker("cfg", "nr", "ppid")
    kind: str = getattr(getattr(found, "cfg", None), "worker_class_str", "")
    return kind


def is_ending() -> bool:
    """
    Whether this worker was told to end, also before it had a WebSocket.

    ``Worker.alive``, in 20 to 27. Where it is missing: False.
    """
    found = worker("alive")
    return found is not None and not found.alive


def call_in_workers(call: Callable[[], object]) -> None:
    """
    Has ``call`` called as each worker starts, where an arbiter that has this module forks it.

    So it does with ``--preload``. The hook ``post_worker_init`` is documented. ``Arbiter.cfg`` and
    ``Config.set``, and signal handlers that are methods of the arbiter, are in 20 to 27. Where they
    are missing it is not called.
    """
    at_fork(lambda: _call_when_initialized(call))


def _call_when_initialized(call: Callable[[], object]) -> None:
    # A worker has none for this signal: so what it forks itself finds no arbiter.
    config: Any = getattr(_receiver(signal.SIGHUP), "cfg", None)
    if not hasattr(config, "set") or not hasattr(config, "post_worker_init"):
        return
    of_the_project = config.post_worker_init

    def post_worker_init(worker: Any) -> None:
        call()
        of_the_project(worker)

    config.set("post_worker_init", post_worker_init)


def worker(*needed: str) -> Any:
    """
    Returns the worker of this process if it has all the attributes ``needed``, or else None.

    Its signal handlers are its methods (``Worker.init_signals``), in 20 to 27. Without a worker
    dwebsocket does not know for how long the arbiter waits, and assumes a usual time.
    """
    found = _worker_of_loop() or _receiver(signal.SIGTERM)
    return found if all(hasattr(found, name) for name in needed) else None


def _worker_of_loop() -> Any:
    """
    Returns the worker of the class ``asgi``, whose signal handlers only its loop has, or None.

    ``ASGIWorker.run`` is on the main thread's stack as long as the worker serves, in 24 to 27.
    """
    kind = getattr(sys.modules.get("gunicorn.workers.gasgi"), "ASGIWorker", ())
    innermost = frame_of(threading.main_thread().ident) if kind else None
    for frame, _ in walk_stack(innermost) if innermost else ():
        if frame.f_code.co_name == "run" and isinstance(frame.f_locals.get("self"), kind):
            return frame.f_locals["self"]
    return None


def _receiver(number: int) -> Any:
    """Returns the object a method of which handles a signal, or None."""
    # That of `signal` is gevent's in a process that it has patched, for its own threads.
    return getattr(sys.modules["_signal"].getsignal(number), "__self__", None)
