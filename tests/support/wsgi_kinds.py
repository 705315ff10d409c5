"""The WSGI servers besides runserver and gunicorn, for the matrices of tests/servers."""

from __future__ import annotations

from support.server import LAUNCH, Kind


def _launched(name: str, *options: str) -> Kind:
    """A server that its own script starts in one process."""
    server = name.partition("-")[0]
    command = ("{python}", LAUNCH, server, "{module}.wsgi", "{port}", *options)
    return Kind(name, server, command)


def _uwsgi(
    name: str,
    *options: str,
    front: tuple[str, ...] = (),
    lacks: tuple[tuple[str, str], ...] = (),
    grumbles: str | None = None,
) -> Kind:
    """One worker under a master."""
    return Kind(
        name,
        "uwsgi",
        (
            *front,
            "{bin}/uwsgi",
            *options,
            *("--master", "--processes", "1", "--die-on-term", "--need-app", "--auto-procname"),
            *("--module", "{module}.wsgi:application", "--disable-logging"),
            *("--reload-mercy", "40", "--worker-reload-mercy", "40"),
        ),
        worker_title="uWSGI worker",
        lacks=lacks,
        grumbles=grumbles,
        programs=("uwsgi", "nginx") if front else ("uwsgi",),
    )


WERKZEUG = _launched("werkzeug")
WERKZEUG_ONE_THREAD = _launched("werkzeug-one-thread", "--one-thread")
# One thread is the smallest set of workers that they have.
CHEROOT = _launched("cheroot")
WAITRESS = _launched("waitress")

_PORT = "127.0.0.1:{port}"
UWSGI_HTTP_SOCKET = _uwsgi("uwsgi-http-socket", "--http-socket", _PORT, "--threads", "2")
UWSGI_HTTP11_SOCKET = _uwsgi("uwsgi-http11-socket", "--http11-socket", _PORT, "--threads", "2")
UWSGI_ONE_THREAD = _uwsgi(
    "uwsgi-one-thread",
    "--http-socket",
    _PORT,
    "--enable-threads",
    lacks=(("early bytes", "uWSGI with one thread keeps them where they cannot be read safely"),),
)
UWSGI_LAZY = _uwsgi(
    "uwsgi-lazy-apps", "--http-socket", _PORT, "--threads", "2", "--lazy-apps", "--close-on-exec"
)
UWSGI_ROUTER = _uwsgi(
    "uwsgi-router",
    "--http",
    _PORT,
    "--http-websockets",
    "--threads",
    "2",
    lacks=(
        ("early bytes", "uWSGI's HTTP router drops them"),
        (
            "close at exit",
            "uWSGI kills its HTTP router at once, and with it the clients' connections",
        ),
    ),
    grumbles=r"uwsgi-http key: .*(Connection reset by peer|Broken pipe)",
)
UWSGI_BEHIND_NGINX = _uwsgi(
    "uwsgi-nginx",
    "--socket",
    "{folder}/socket",
    "--threads",
    "2",
    front=("{python}", LAUNCH, "nginx", "uwsgi", "{folder}", "{port}"),
)
UWSGI_GEVENT = _uwsgi(
    "uwsgi-gevent", "--http-socket", _PORT, "--gevent", "20", "--gevent-early-monkey-patch"
)

UWSGIS = (
    UWSGI_HTTP_SOCKET,
    UWSGI_HTTP11_SOCKET,
    UWSGI_ONE_THREAD,
    UWSGI_LAZY,
    UWSGI_ROUTER,
    UWSGI_BEHIND_NGINX,
    UWSGI_GEVENT,
)
SINGLE_PROCESS = (WERKZEUG, WERKZEUG_ONE_THREAD, CHEROOT, WAITRESS)
WSGI_SERVERS = (*SINGLE_PROCESS, *UWSGIS)
