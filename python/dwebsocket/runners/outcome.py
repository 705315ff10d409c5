"""
What an exception, or a result, means at the end of a view behind an open WebSocket.

Three exceptions count as a normal end: ``ConnectionClosed`` of a connection that has ended; an
error because the view's own code used the ``None`` at the end as a message; and an error of a
framework's decorator that wanted to add headers to a response, which a WebSocket's view does not
return. The same exceptions from any other code are reported as errors.

Some refusals come too late: the client already has its 101. A page that a view returns at its end
does not matter. But a redirect or an error comes from a decorator below ours, such as
``login_required``, which was meant to refuse the client.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http.response import HttpResponseBase

from dwebsocket.compat.django_views import class_based
from dwebsocket.exceptions import ConnectionClosed
from dwebsocket.telemetry.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from django.http import HttpRequest

    from dwebsocket.websocket import WebSocket

# Frameworks whose decorators add headers to a view's response, and their names of its variable.
_FRAMEWORKS = ("django", "rest_framework")
_RESPONSES = {"response", "resp"}
# Errors of operations that apply to responses, and never to messages.
_OF_RESPONSES = re.compile("does not support item (assignment|deletion)")
_POLICY = 1008
_MAX_REASON_BYTES = 123
# Responses with a status below this are no refusals.
_REDIRECTION = 300
_ADVICE = (
    "Put the decorator that refuses above accept_websocket, or let the view decide with "
    "accept_websocket(accept=False)"
)


def tells_end(error: BaseException) -> bool:
    """Whether an exception, or all of a ``TaskGroup``'s, say that a connection has ended."""
    return isinstance(sole(error), ConnectionClosed)


def sole(error: BaseException) -> BaseException:
    """Returns the first exception of a ``TaskGroup`` whose exceptions are all of one class."""
    # Before Python 3.11 groups are those of a package.
    group = getattr(error, "exceptions", None)
    if not (isinstance(group, tuple) and group and all(isinstance(e, Exception) for e in group)):
        return error
    first, *others = map(sole, group)
    return first if all(type(each) is type(first) for each in others) else error


def is_quiet_end(
    error: Exception, view: Callable[..., Any], request: HttpRequest, websocket: WebSocket
) -> bool:
    """Whether ``error`` counts as a normal end of the view; logs the use of the None."""
    # A loop that only sends ends by this exception.
    if tells_end(error):
        return websocket._is_over
    is_about_none = websocket._is_told_here and _is_about_none(error)
    if not is_about_none and not isinstance(error, (AttributeError, TypeError, AssertionError)):
        return False
    # The innermost one last.
    frames, code = [frame for frame, _ in walk_tb(error.__traceback__)], _own_code(view)
    if not any(frame.f_code is code for frame in frames):
        # The view's own code is not in the traceback: a decorator raised the error.
        return _dresses_no_response(frames)
    if is_about_none:
        _report_use_of_none(error, request, websocket)
    return is_about_none


def _own_code(view: Callable[..., Any]) -> CodeType | None:
    """Returns the code of the view itself, without its decorators."""
    function = inspect.unwrap(view)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    # Not its `__module__`, which is that of the class for what `as_view()` gives.
    if _is_of_framework(getattr(function, "__globals__", {}).get("__name__")):
        cls = class_based(view)
        # A handshake is a GET; the framework's view sets name their handlers themselves.
        name = (getattr(view, "actions", None) or {}).get("get", "get")
        function = inspect.unwrap(getattr(cls, name, function))
    # A view may be an object, too.
    function = function if hasattr(function, "__code__") else type(function).__call__
    return getattr(function, "__code__", None)


def _is_about_none(error: Exception) -> bool:
    """Whether ``error`` is one that using None as a message raises."""
    if isinstance(error, AttributeError):
        is_none = str(error).startswith("'NoneType' object")
        name = getattr(error, "name", None) or ""
        return is_none and (hasattr(bytes, name) or hasattr(str, name))
    if not isinstance(error, TypeError) or _OF_RESPONSES.search(str(error)):
        return False
    # Python 3.10 does not name the type there.
    return "NoneType" in str(error) or "expected string or bytes-like object" in str(error)


def _report_use_of_none(error: Exception, request: HttpRequest, websocket: WebSocket) -> None:
    connection = websocket._connection
    end = None if connection is None else connection.end()
    if connection is None or end is None:
        return
    record = Record.of("websocket.none_used", request, end[0], repr(error), connection.id)
    text = "WebSocket view took the None at the end of its connection for a message: %s: %s"
    record.log(logging.INFO, text, request=request)


def _dresses_no_response(frames: list[FrameType]) -> bool:
    """
    Whether a framework's decorator has failed because the view returned None, not a response.

    Such decorators (``never_cache``, ``vary_on_headers`` …) and the ``dispatch`` of Django REST
    framework have that None in a local variable. When a decorator of a project passes the None to a
    function of the framework, it is an argument there, and does not count.
    """
    for frame in reversed(frames):
        if not _is_of_framework(frame.f_globals.get("__name__")):
            return False
        code = frame.f_code
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        # Not `f_locals` itself, which is no dictionary any more in Python 3.13.
        variables = dict(frame.f_locals)
        for name in _RESPONSES:
            if name not in arguments and variables.get(name, frame) is None:
                return True
    return False


def _is_of_framework(module: object) -> bool:
    return str(module).partition(".")[0] in _FRAMEWORKS


def refuse_if_unseen(
    result: object, request: HttpRequest, websocket: WebSocket, advice: str = _ADVICE
) -> None:
    """
    Closes with 1008, and one warning, if ``result`` refuses a client that is still there.

    Args:
        result: The result of the view behind the open ``websocket``.
        advice: The advice for the log record.
    """
    if not isinstance(result, HttpResponseBase) or result.status_code < _REDIRECTION:
        return
    if websocket._is_over:
        return
    status, connection = result.status_code, websocket._connection
    what = f"{type(result).__name__} with status {status}"
    number = None if connection is None else connection.id
    record = Record.of("websocket.unseen_response", request, _POLICY, what, number)
    record.log(
        logging.WARNING,
        "A WebSocket view returned a response that its client cannot see: %s: %s. %s",
        *(record.path, record.reason, advice),
        status_code=status,
        request=request,
    )
    reason = f"{what}: see the log".encode()[:_MAX_REASON_BYTES] if settings.DEBUG else b""
    websocket._close_wanted(_POLICY, reason.decode(errors="ignore"))
