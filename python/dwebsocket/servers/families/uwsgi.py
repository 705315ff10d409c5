"""
uWSGI: its own HTTP sockets and router, ``--socket`` behind nginx, threads and the gevent loop.

The descriptor comes from the ``uwsgi`` module that the server puts into the process. Bytes after
the request stay in its C structures; a function that it exports for its plugins reads them.

The master ends a worker by a signal, whose handler may itself call ``exit``. The signal tells a
reload from the end of the site; the master gives no other reason.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from dwebsocket.compat import unpatched
from dwebsocket.compat.uwsgi import body_reader, request_of_greenlet, request_of_thread
from dwebsocket.servers.contract import Client, Environ, Exit, ShutdownPlan, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Options that make the HTTP router forward a client's bytes after its request.
_ROUTER_LETS_THROUGH = ("http-websockets", "http-raw-body")
_ROUTERS = ("http", "https", "https2")
# Sockets that do not carry the client's bytes as they are, but wrapped in packets of a protocol.
_PACKETS = (
    "fastcgi-socket",
    "fastcgi-nph-socket",
    "scgi-socket",
    "scgi-nph-socket",
    "puwsgi-socket",
    "suwsgi-socket",
    "ssl-socket",
    "zeromq-socket",
    "zmq-socket",
    "zmq",
)
_PLAIN = ("socket", "uwsgi-socket", "http-socket", "http11-socket", *_ROUTERS)
_TLS = ("https-socket", "https-socket2")

# Ways to reload one worker after the other.
_CHAINS = ("touch-chain-reload", "master-fifo")
_MERCY, _MERCY_S = "worker-reload-mercy", "60"

_CHUNK = 65536


def find(environ: Environ) -> Client | None:
    """Returns the client of a request that uWSGI serves."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or "uwsgi.version" not in environ:
        return None
    # Whether this request runs on a greenlet of uWSGI's gevent loop.
    in_hub = request_of_greenlet() is not None
    options = _options(uwsgi)
    _refuse_what_cannot_be(environ, options, in_hub=in_hub)
    descriptor = uwsgi.connection_fd()
    if descriptor < 0:
        return None
    return Client(
        server="uWSGI",
        descriptor=descriptor,
        read_early=lambda: _read_early(environ, descriptor),
        concurrency="gevent" if in_hub else "thread",
        at_exit=_exit(uwsgi, options, in_hub=in_hub),
        head_follows_close=True,
    )


def host() -> tuple[int, Client] | None:
    """
    Returns the master's number, and a client without a socket, where connections can move.

    That is in a worker with threads, from its start on.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or unpatched.patched_by() is not None:
        return None
    if not (getattr(uwsgi, "worker_id", int)() and _has_threads(options := _options(uwsgi))):
        return None
    number = getattr(uwsgi, "masterpid", int)() or os.getpid()
    return number, Client("uWSGI", -1, bytes, at_exit=_exit(uwsgi, options, in_hub=False))


def call_in_workers(call: Callable[[], object]) -> None:
    """Has ``call`` called as each worker starts, where a master forks them from this process."""
    if "uwsgi" in sys.modules:
        _call_by_hook("post_fork_hook", call)


def _call_by_hook(name: str, call: Callable[[], object]) -> None:
    """Has a hook of uWSGI's call ``call``, before what the project has put there."""
    uwsgi: Any = sys.modules["uwsgi"]
    of_the_project = getattr(uwsgi, name, None)

    def hook() -> None:
        call()
        if of_the_project is not None:
            of_the_project()

    setattr(uwsgi, name, hook)


def _exit(uwsgi: Any, options: Mapping[str, Any], *, in_hub: bool) -> Exit:
    return Exit(
        # With --skip-atexit-teardown, and under the gevent loop, Python's own hooks do not run.
        register=functools.partial(_call_by_hook, "atexit"),
        shutdown_plans=_departures(uwsgi, options, may_move=not in_hub),
        # The loop hands signals to a greenlet.
        abrupt=frozenset() if in_hub else frozenset({signal.SIGINT, signal.SIGTERM}),
    )


def _options(uwsgi: Any) -> Mapping[str, Any]:
    """Its command line and configuration file, by the options' long names."""
    options: Mapping[Any, Any] = getattr(uwsgi, "opt", None) or {}
    return {os.fsdecode(name): value for name, value in options.items()}


def _refuse_what_cannot_be(environ: Environ, options: Mapping[str, Any], *, in_hub: bool) -> None:
    if environ.get("UWSGI_ROUTER") == "http":
        # The options of a router in another instance are not known here.
        here = any(name in options for name in _ROUTERS)
        if here and not any(_is_on(options.get(name)) for name in _ROUTER_LETS_THROUGH):
            raise Unsupported(
                "uWSGI's HTTP router drops all that a client sends after its request unless it is "
                "told otherwise: add --http-websockets, or use --http-socket instead of --http"
            )
    elif not any(name in options for name in _PLAIN) and (
        packets := [name for name in _PACKETS if name in options]
    ):
        raise Unsupported(
            f"uWSGI's --{packets[0]} wraps the client's bytes in packets: use --socket behind "
            "nginx's uwsgi_pass, or --http-socket"
        )
    if environ.get("HTTPS") == "on" and any(name in options for name in _TLS):
        raise Unsupported(
            "uWSGI ends TLS itself here (--https-socket), and an encrypted connection cannot be "
            "taken over: use its router (--https with --http-websockets), or end TLS in a proxy "
            "such as nginx"
        )
    if not in_hub and not _has_threads(options):
        raise Unsupported(
            "uWSGI runs without threads here, so a view beside the requests would never get its "
            "turn: add --enable-threads"
        )


def _has_threads(options: Mapping[str, Any]) -> bool:
    """Whether Python's threads run while the worker waits for requests."""
    return _is_on(options.get("enable-threads")) or any(
        _number(options.get(name)) > 1 for name in ("threads", "thread")
    )


def _last(value: Any) -> str | bool:
    """Returns an option's value: the last one, if it was given several times."""
    if isinstance(value, list):
        value = value[-1]
    return os.fsdecode(value) if isinstance(value, (str, bytes)) else bool(value)


def _is_on(value: Any) -> bool:
    value = _last(value)
    return value if isinstance(value, bool) else value.lower() not in ("false", "off", "no", "0")


def _number(value: Any) -> int:
    try:
        return int(_last(value))
    except ValueError:
        return 0


# --- ends ----------------------------------------------------------------------------------------


def _departures(
    uwsgi: Any, options: Mapping[str, Any], *, may_move: bool
) -> dict[int, ShutdownPlan]:
    """
    Returns how a worker ends, by signal.

    A worker may wait only while other workers serve. On a reload of the whole instance none serves
    until the last worker has ended, and by SIGHUP a worker cannot tell whether it is such a reload
    or its turn in a chain.
    """
    end = ShutdownPlan(timeout_s=0)
    if not getattr(uwsgi, "masterpid", int)():
        return dict.fromkeys((0, signal.SIGHUP, signal.SIGINT, signal.SIGTERM), end)
    at_once = worn_out = in_turn = ShutdownPlan(timeout_s=0, goes_on=True)
    if getattr(uwsgi, "numproc", 1) > 1:
        mercy, limit = _number(options.get(_MERCY, _MERCY_S)), f"uWSGI's --{_MERCY}"
        plan = functools.partial(ShutdownPlan, mercy, limit, goes_on=True)
        worn_out = plan(heirs="soon" if may_move else None)
        # Others have been there all the time, or all end.
        in_turn = plan(heirs="there" if may_move else None)
    return {
        0: worn_out,
        signal.SIGHUP: in_turn if any(name in options for name in _CHAINS) else at_once,
        signal.SIGINT: end,
        # Without that option SIGTERM makes the master reload at once, without a grace period.
        signal.SIGTERM: end if _is_on(options.get("die-on-term")) else at_once,
    }


# --- early bytes ---------------------------------------------------------------------------------


def _read_early(environ: Environ, descriptor: int) -> bytes:
    """
    Returns what uWSGI has read after the request.

    Empty with a single thread: there it is not known which of the functions returns the current
    request, and the wrong one would give an invalid pointer. Behind the router it is empty, too:
    the router drops these bytes.
    """
    request = request_of_greenlet()
    if request is None and environ.get("wsgi.multithread"):
        request = request_of_thread()
    if not request:
        return b""
    read_body = body_reader()
    if read_body is None:
        return b""
    # After its buffered bytes, uWSGI reads from the placeholder, which is at the end of the stream.
    os.set_blocking(descriptor, False)
    early = b""
    while read := read_body(request, _CHUNK):
        early += read
    return early
