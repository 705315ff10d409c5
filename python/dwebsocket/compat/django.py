"""Undocumented parts of Django's requests, settings and databases, versions 4.2 to 6.1."""

from __future__ import annotations

import functools
import sys
from contextlib import contextmanager
from importlib import import_module
from traceback import walk_stack
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.db import connections
from django.http import request as http_request
from django.utils import autoreload, http
from django.utils.functional import SimpleLazyObject, empty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
    from types import FrameType

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    Serve = Callable[[Any, Any, Any, Any], Awaitable[bool]]

#: Whether the ASGI handler closes a response itself, after ``send_response``: since 5.0.
HANDLER_CLOSES: bool = django.VERSION >= (5, 0)

_AUTH_MIDDLEWARE = "django.contrib.auth.middleware"
_TEST_CLIENT = "django.test.client"
_OF_COMMANDS = ("django.core.management", "django.core.management.base")
_OF_CHECKS = "django.core.checks.registry"
_HIDES = "sensitive_variables_wrapper"
# The attributes of a match that depend on its route alone. `_func_path`: since 1.9.
_OF_ROUTE = (
    *("app_names", "app_name", "namespaces", "namespace", "route", "tried", "view_name"),
    "_func_path",
)


# --- commands ------------------------------------------------------------------------------------


def is_in_command() -> bool:
    """
    Whether a command of ``manage.py`` runs on this thread's stack.

    ``runserver`` serves on a thread that is none. By the names of Django's modules, in every
    version so far. Where they are others: False.
    """
    names = (frame.f_globals.get("__name__") for frame, _ in walk_stack(sys._getframe()))
    return any(name in _OF_COMMANDS for name in names)


# --- system checks -------------------------------------------------------------------------------


def join_run(check: Callable[..., Any], *, deploy: bool) -> None:
    """
    Has the run of system checks that imports the caller make ``check``, too, if there is one.

    Django's check of URLs imports views, and the run has its list of checks by then. It is the
    variable ``checks`` of ``run_checks`` beside ``tags`` and ``include_deployment_checks``, in
    every version so far. Where they are others the next run makes it, which most commands lack.

    Args:
        deploy: Whether it is for ``check --deploy`` only.
    """
    for frame, _ in walk_stack(sys._getframe()):
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == (_OF_CHECKS, "run_checks"):
            own = frame.f_locals
            checks, is_for_all = own.get("checks"), own.get("tags", ()) is None
            is_wanted = is_for_all and (not deploy or own.get("include_deployment_checks"))
            if is_wanted and isinstance(checks, list) and check not in checks:
                checks.append(check)
            return


# --- settings ------------------------------------------------------------------------------------


def settings_source() -> object:
    """
    Returns the object that ``django.conf.settings`` gets its values from, read if need be.

    ``LazySettings._wrapped``, in every version so far: ``override_settings`` and its kind put
    another object there and restore the old one. Where it is missing: a new object each time, so
    that no settings are cached, which is slower.
    """
    try:
        # Not by `settings._wrapped`, which takes ten times as long.
        source = object.__getattribute__(settings, "_wrapped")
    except AttributeError:
        return _Settings()
    if source is empty:
        # Settings are not loaded yet: reading any of them loads them, or raises the reason.
        _ = settings.DEBUG
        source = object.__getattribute__(settings, "_wrapped")
    return source


class _Settings:
    """The settings in an object of its own."""

    def __getattr__(self, name: str) -> Any:
        return getattr(settings, name)


def is_in_test_environment() -> bool:
    """
    Whether Django's ``setup_test_environment()`` was called, as every runner of tests does.

    ``django.test.utils._TestState.saved_data``, since 1.11. Where it is missing: whether there is
    ``django.core.mail.outbox``, which a site that keeps its mails in memory has, too.
    """
    # Looked up, not imported: sites run without Django's tools for tests.
    utils = sys.modules.get("django.test.utils")
    if utils is None:
        return False
    state = getattr(utils, "_TestState", None)
    if state is None:
        return hasattr(sys.modules.get("django.core.mail"), "outbox")
    return hasattr(state, "saved_data")


def on_file_changed(receiver: Callable[..., None]) -> None:
    """
    Calls ``receiver(file_path=…)`` when runserver's reloader sees a changed file.

    ``django.utils.autoreload.file_changed``, a signal, since 2.2. Where it is missing a reload is
    taken for the end of the server: the clients get 1001 instead of 1012.
    """
    signal = getattr(autoreload, "file_changed", None)
    if signal is not None:
        signal.connect(receiver)


# --- requests and responses ----------------------------------------------------------------------


def headers_of(response: HttpResponseBase) -> Iterable[tuple[str, str]]:
    """
    Returns the headers of a response with the names as they were written.

    ``ResponseHeaders._store``, since 3.2. Where it is missing: ``items()``, which takes eight times
    as long.
    """
    stored = getattr(response.headers, "_store", None)
    return response.items() if stored is None else stored.values()


def mark_as_logged(response: HttpResponseBase) -> None:
    """
    Keeps Django from logging ``response``, whose status is an error: that has been done.

    ``_has_been_logged``, which ``django.utils.log.log_response`` looks for, since 2.1. Where it is
    not looked for the response is logged twice.
    """
    response.__dict__["_has_been_logged"] = True


def is_same_domain(host: str, pattern: str) -> bool:
    """
    Whether ``host``, in small letters, is ``pattern``, or below it where that begins with a dot.

    ``django.utils.http.is_same_domain``, since 1.9. Where it is missing, the same is done here.
    """
    django_says: Callable[[str, str], bool] | None = getattr(http, "is_same_domain", None)
    if django_says is not None:
        return bool(django_says(host, pattern))
    pattern = pattern.lower()
    is_below = pattern.startswith(".") and f".{host}".endswith(pattern)
    return bool(pattern) and (is_below or host == pattern)


def host_of(netloc: str) -> str:
    """
    Returns the host of ``host:port``, in small letters, and empty when it is none.

    ``django.http.request.split_domain_port``, since 1.4. Where it is missing, the text before the
    last colon is taken for the host.
    """
    split: Callable[[str], tuple[str, str]] | None
    split = getattr(http_request, "split_domain_port", None)
    if split is not None:
        return str(split(netloc)[0])
    host, _, port = netloc.lower().rpartition(":")
    return host if host and port.isdigit() else netloc.lower()


def is_host_allowed(host: str, allowed: Sequence[str]) -> bool:
    """
    Whether ``host``, as :func:`host_of` returns it, is one of ``ALLOWED_HOSTS``.

    ``django.http.request.validate_host``, since 1.5. Where it is missing, the same is done here.
    """
    validate: Callable[[str, Sequence[str]], bool] | None
    validate = getattr(http_request, "validate_host", None)
    if validate is not None:
        return bool(validate(host, allowed))
    return any(pattern == "*" or is_same_domain(host, pattern) for pattern in allowed)


def forget_body(request: HttpRequest, stream: object) -> None:
    """
    Puts ``stream`` in the place of a request's body, which keeps the server's buffers.

    ``HttpRequest._stream``, in every version so far. Where it is missing the buffers are kept.
    """
    if "_stream" in vars(request):
        vars(request)["_stream"] = stream


def is_looked_up_in_session(user: object) -> bool:
    """
    Whether Django's own middleware will look up ``request.user``, which it does in the session.

    ``SimpleLazyObject._setupfunc``, since 1.3. Where it is missing: no, and the session is asked.
    """
    if type(user) is not SimpleLazyObject:
        return False
    # Not by ordinary attribute access, which takes ten times as long.
    look_up = object.__getattribute__(user, "__dict__").get("_setupfunc")
    return getattr(look_up, "__module__", None) == _AUTH_MIDDLEWARE


def parts_of_route(match: object) -> tuple[str, ...]:
    """
    Returns the names of the attributes of ``match`` that depend on its route alone.

    ``ResolverMatch`` documents some of them; those that are missing are left out.
    """
    return tuple(name for name in _OF_ROUTE if hasattr(match, name))


def limited_readers(body: object) -> tuple[object, object]:
    """
    Returns two candidates for the reader below the body of a request to runserver.

    ``LimitedStream.stream``, up to 4.2, and ``LimitedStream._read``, its method, since 5.0. Where
    both are missing there is none, and the handshake is refused.
    """
    read = getattr(body, "_read", None)
    return getattr(body, "stream", None), getattr(read, "__self__", None)


def is_from_test_client(environ: dict[str, Any]) -> bool:
    """
    Whether Django's own test client makes a request.

    Its bodies are ``FakePayload`` of ``django.test.client``, in every version so far. If that
    moves, the message of a refusal names another server.
    """
    return type(environ.get("wsgi.input")).__module__ == _TEST_CLIENT


def hidden_variables() -> tuple[str, ...] | None:
    """
    Returns the local variables that ``sensitive_variables`` around the caller hides; empty for all.

    Its ``sensitive_variables_wrapper`` has them, in every version so far, and error reports find it
    by this name on the stack. Where it is missing: None, as without the decorator.
    """
    # Each handshake does this: `traceback.walk_stack`, a generator, takes three times as long.
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == _HIDES and (wrapper := frame.f_locals.get(_HIDES)) is not None:
            names = getattr(wrapper, _HIDES.removesuffix("_wrapper"), None)
            return names if isinstance(names, tuple) else ()
        frame = frame.f_back
    return None


@functools.cache
def extend_asgi_handler(begin: Callable[[], object], serve: Serve) -> None:
    """
    Has Django's ASGI handler, and all handlers of subclasses, serve more than plain HTTP. Once.

    ``__init__`` and ``__call__`` of ``django.core.handlers.asgi.ASGIHandler``, since 3.0. Where the
    class is missing nothing changes: ``asgi.py`` has to use ``dwebsocket.asgi`` then.

    Args:
        begin: Called when a handler is made.
        serve: Awaited with the handler and each connection's scope, receive and send. Says whether
            it has served the connection.
    """
    handlers = import_module("django.core.handlers.asgi")
    kind: Any = getattr(handlers, "ASGIHandler", None)
    if kind is None:
        return
    init, call = kind.__init__, kind.__call__

    @functools.wraps(init)
    def extended_init(self: Any, *args: Any, **kwargs: Any) -> None:
        begin()
        init(self, *args, **kwargs)

    @functools.wraps(call)
    async def extended_call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if not await serve(self, scope, receive, send):
            await call(self, scope, receive, send)

    kind.__init__, kind.__call__ = extended_init, extended_call


# --- databases -----------------------------------------------------------------------------------


def has_connections() -> bool:
    """
    Whether this thread has begun to use a database.

    ``django.db.connections._connections``, since 3.2, and its ``_storage``, of asgiref's ``Local``:
    a ``threading.local`` where threads are kept apart. Where either is missing: perhaps, and Django
    finds out by four exceptions for each database.
    """
    try:
        return bool(connections._connections._storage.__dict__)  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return True


@contextmanager
def ageless(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """
    Lets a connection stay open within the block, however old it is.

    ``BaseDatabaseWrapper.close_at``, in every version so far. If that moves, old ones are closed.
    """
    due, connection.close_at = getattr(connection, "close_at", None), None
    try:
        yield
    finally:
        connection.close_at = due
