"""
The life of a view behind its WebSocket: around it, what Django does around any request.

The view runs in autocommit, outside the handshake's transaction; its database connections are
returned before and after, and a session that it changed is saved when it ends.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import Http404

from dwebsocket import database
from dwebsocket.exceptions import ConnectionClosed
from dwebsocket.websocket import WebSocket, own_websocket

if TYPE_CHECKING:
    from types import TracebackType

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http import HttpRequest

View = Callable[..., Any]

_requests = logging.getLogger("django.request")
_security = logging.getLogger("django.security.SuspiciousOperation")
_log = logging.getLogger("dwebsocket")

_NORMAL, _POLICY, _INTERNAL_ERROR, _NOT_FOUND = 1000, 1008, 1011, 4404
_MAX_REASON_BYTES = 123


def name_of(view: View) -> str:
    """Gives a view's name for its thread and for messages: module and qualified name."""
    named = getattr(view, "view_class", None) or inspect.unwrap(view)
    named = getattr(named, "func", named)
    name = getattr(named, "__qualname__", type(named).__name__)
    return f"{getattr(named, '__module__', '')}.{name}"


def run(
    view: View,
    request: HttpRequest,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    websocket: WebSocket,
    shared_databases: dict[str, BaseDatabaseWrapper],
) -> None:
    """
    Runs ``view`` to its end and closes ``websocket`` with the code that tells how it ended.

    Never raises. Everything is released when it returns.
    """
    args, kwargs = arguments
    token = own_websocket.set(websocket)
    database.close_old_connections()
    database.borrow(shared_databases)
    code, reason = _INTERNAL_ERROR, ""
    try:
        try:
            view(request, *args, **kwargs)
        except Exception as error:
            if not _is_quiet_end(error, view, websocket):
                raise
        _save_session(request)
        code = _NORMAL
    except BaseException as error:  # noqa: BLE001
        code, reason = _verdict(error, request)
    finally:
        websocket.close(code, reason)
        database.forget(shared_databases)
        database.close_old_connections()
        own_websocket.reset(token)


def _is_quiet_end(error: Exception, view: View, websocket: WebSocket) -> bool:
    """Whether ``error`` is how a view may end that did nothing wrong."""
    # A loop that only sends ends by the exception of its own connection.
    return (isinstance(error, ConnectionClosed) and websocket.closed) or (
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
        _security.error(
            str(error), exc_info=error, extra={"status_code": 400, "request": request}
        )
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
    if not isinstance(error, AttributeError) or getattr(error, "obj", error) is not None:
        return False
    innermost = inspect.unwrap(view)
    code = getattr(innermost, "__code__", None)
    return innermost is not view and code not in _codes(error.__traceback__)


def _codes(traceback: TracebackType | None) -> list[object]:
    codes = []
    while traceback is not None:
        codes.append(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    return codes


def _save_session(request: HttpRequest) -> None:
    session = getattr(request, "session", None)
    # A session that began in the view has no cookie in the browser: nobody could ever find it.
    if session is None or not session.modified or session.session_key is None:
        return
    from django.contrib.sessions.backends.base import UpdateError  # an app that may be absent

    try:
        session.save()
    except UpdateError:
        _log.info("The session ended while its WebSocket was open: %s", request.path)
