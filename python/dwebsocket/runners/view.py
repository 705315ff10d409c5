"""
The life of a view behind its WebSocket: around it, what Django does around any request.

The view runs in autocommit, outside the handshake's transaction; its database connections are
returned before and after, and a session that it changed is saved when it ends.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import AsyncToSync, SyncToAsync, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import Http404

from dwebsocket import database
from dwebsocket.exceptions import ConnectionClosed, UsageError
from dwebsocket.runners import context
from dwebsocket.websocket import WebSocket, own_websocket

if TYPE_CHECKING:
    from types import CodeType, TracebackType

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http import HttpRequest

View = Callable[..., Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_requests = logging.getLogger("django.request")
_security = logging.getLogger("django.security.SuspiciousOperation")
_log = logging.getLogger("dwebsocket")

_NORMAL, _POLICY, _INTERNAL_ERROR, _NOT_FOUND = 1000, 1008, 1011, 4404
_MAX_REASON_BYTES = 123


def name_of(view: View) -> str:
    """Gives a view's name for its thread and for messages: module and qualified name."""
    named = getattr(view, "view_class", None) or _class_of(view) or inspect.unwrap(view)
    named = getattr(named, "func", named)
    name = getattr(named, "__qualname__", type(named).__name__)
    return f"{getattr(named, '__module__', '')}.{name}"


def is_async(view: View) -> bool:
    """Whether calling ``view`` gives a coroutine, also when it is a method of an async class."""
    if iscoroutinefunction(view):
        return True
    return bool(getattr(_class_of(view), "view_is_async", False))


def _class_of(view: View) -> type | None:
    """Gives the class-based view whose ``dispatch`` a ``method_decorator`` has decorated."""
    # It wraps the bound method into a partial.
    instance = getattr(getattr(view, "func", view), "__self__", None)
    return type(instance) if hasattr(instance, "dispatch") else None


def run(
    view: View,
    request: HttpRequest,
    arguments: Arguments,
    websocket: WebSocket,
    shared_databases: dict[str, BaseDatabaseWrapper],
) -> None:
    """
    Runs ``view`` to its end and closes ``websocket`` with the code that tells how it ended.

    Never raises. Everything is released when it returns.
    """
    args, kwargs = arguments
    context.settle_in()
    database.close_old_connections()
    database.borrow(shared_databases)
    try:
        with _Life(websocket, request):
            try:
                _refuse_coroutine(view(request, *args, **kwargs), view)
            except Exception as error:
                if not _is_quiet_end(error, view, websocket):
                    raise
            _save_session(request)
    finally:
        database.forget(shared_databases)
        database.close_old_connections()


def _refuse_coroutine(result: object, view: View) -> None:
    """An async view that was taken for a sync one would silently not run at all."""
    if inspect.iscoroutine(result):
        result.close()
        raise UsageError(
            f"{name_of(view)} gave a coroutine but is no coroutine function: mark it, or the "
            "decorator around it, with asgiref.sync.markcoroutinefunction"
        )


async def arun(
    view: View, request: HttpRequest, arguments: Arguments, websocket: WebSocket
) -> None:
    """
    Runs the async ``view``. As :func:`run`.

    The databases of async code live in a thread that all views share; what is old there is
    returned after each view.
    """
    args, kwargs = arguments
    context.settle_in()
    # The copied context would send `sync_to_async` to the server's thread, which has gone on.
    with suppress(AttributeError):
        del AsyncToSync.executors.current
    # An ASGI request has a thread of its own, which ends with the handshake.
    SyncToAsync.thread_sensitive_context.set(None)  # type: ignore[arg-type]
    try:
        with _Life(websocket, request):
            try:
                await view(request, *args, **kwargs)
            except Exception as error:
                if not _is_quiet_end(error, view, websocket):
                    raise
            if _is_session_changed(request):
                await sync_to_async(_save_session)(request)
    finally:
        await sync_to_async(database.close_old_connections)()


class _Life:
    """
    Closes a WebSocket when its view ends, and keeps every exception that ends it.

    Not a generator: each would hold a frame for as long as its view lives.
    """

    __slots__ = ("_request", "_token", "_websocket")

    def __init__(self, websocket: WebSocket, request: HttpRequest) -> None:
        self._websocket = websocket
        self._request = request

    def __enter__(self) -> None:
        self._token = own_websocket.set(self._websocket)

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        code, reason = _NORMAL, ""
        try:
            if error is not None:
                code = _INTERNAL_ERROR
                code, reason = _verdict(error, self._request)
        except Exception:
            # A receiver of the signal or a filter of the log: the client must not wait for it.
            path = self._request.path
            _log.exception("An error of a WebSocket view could not be reported: %s", path)
        finally:
            self._websocket.close(code, reason)
            own_websocket.reset(self._token)
        return True


def _is_quiet_end(error: Exception, view: View, websocket: WebSocket) -> bool:
    """Whether ``error`` is how a view may end that did nothing wrong."""
    # A loop that only sends ends by the exception of its own connection.
    return (isinstance(error, ConnectionClosed) and websocket._is_over) or (
        _dresses_no_response(error, view)
    )


def _verdict(error: BaseException, request: HttpRequest) -> tuple[int, str]:
    """Reports what a view let through and gives the close code for it."""
    if isinstance(error, PermissionDenied):
        _requests.warning(
            "Forbidden (Permission denied) in WebSocket: %s",
            request.path,
            extra={"status_code": 403, "request": request},
            exc_info=error,
        )
        return _POLICY, _shown(error)
    if isinstance(error, Http404):
        _requests.warning(
            "Not Found in WebSocket: %s",
            request.path,
            extra={"status_code": 404, "request": request},
        )
        return _NOT_FOUND, _shown(error)
    if isinstance(error, SuspiciousOperation):
        _security.error(str(error), exc_info=error, extra={"status_code": 400, "request": request})
        return _POLICY, _shown(error)
    got_request_exception.send(sender=None, request=request)
    _requests.error(
        "Internal Server Error in WebSocket: %s",
        request.path,
        extra={"status_code": 500, "request": request},
        exc_info=error,
    )
    return _INTERNAL_ERROR, _shown(error)


def _shown(error: BaseException) -> str:
    """Gives the reason that developers see in the browser's close event; nothing in production."""
    if not settings.DEBUG:
        return ""
    text = f"{type(error).__name__}: {error}".encode()[:_MAX_REASON_BYTES]
    return text.decode(errors="ignore")


def _dresses_no_response(error: BaseException, view: View) -> bool:
    """
    Whether a decorator below ours wanted to add headers to the response that no WebSocket has.

    Such decorators (``never_cache``, ``vary_on_headers`` …) fail on the None of a view that has
    returned. The view itself is not in the traceback then.
    """
    is_about_none = isinstance(error, (AttributeError, TypeError)) and str(error).startswith(
        "'NoneType' object"
    )
    if not is_about_none:
        return False
    innermost = inspect.unwrap(view)
    code = getattr(innermost, "__code__", None)
    return innermost is not view and code not in _codes(error.__traceback__)


def _codes(traceback: TracebackType | None) -> list[CodeType]:
    codes = []
    while traceback is not None:
        codes.append(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    return codes


def _is_session_changed(request: HttpRequest) -> bool:
    session = getattr(request, "session", None)
    # A session that began in the view has no cookie in the browser: nobody could ever find it.
    return session is not None and session.modified and session.session_key is not None


def _save_session(request: HttpRequest) -> None:
    if not _is_session_changed(request):
        return
    from django.contrib.sessions.backends.base import UpdateError  # an app that may be absent

    try:
        request.session.save()
    except UpdateError:
        _log.info("The session ended while its WebSocket was open: %s", request.path)
