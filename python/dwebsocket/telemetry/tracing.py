"""
A span of OpenTelemetry for each connection, where the process has ``opentelemetry-api``.

Nothing is imported: a project that traces has imported the package, and set a provider of spans.
The span begins a trace of its own, which may last for hours, and is linked to that of the
handshake's request. It is the current one in the view, so that the view's own spans are its
children.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from django.http import HttpRequest

    from dwebsocket.api.connection import Connection

    P = ParamSpec("P")

_log = logging.getLogger("dwebsocket")

_API = "opentelemetry.trace"
# Where a WebSocket has its span.
_SPAN = "_tracing_span"
# Of a port.
_MOST_DIGITS = 5


def _contained(function: Callable[P, None]) -> Callable[P, None]:
    """Gives a function whose exceptions are logged: those of a tracer must harm no connection."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            _log.exception("A WebSocket could not be traced")

    return call


def opened(
    websocket: Any, request: HttpRequest, view: str, context: Context, *, has_begun: bool
) -> None:
    """
    Begins the span of a connection.

    Args:
        view: The name of its view.
        context: A copy of the handshake's context, in which the view runs.
        has_begun: The view runs there already, and keeps the handshake's span as the current one.
    """
    if _API in sys.modules:
        _open(websocket, request, view, context, has_begun=has_begun)


@_contained
def _open(
    websocket: Any, request: HttpRequest, view: str, context: Context, *, has_begun: bool
) -> None:
    from opentelemetry import context as contexts
    from opentelemetry import trace

    handshake = context.copy().run(trace.get_current_span).get_span_context()
    match = request.resolver_match
    route = request.path if match is None or match.route is None else f"/{match.route.lstrip('/^')}"
    # The fallback's connections are answers to plain requests.
    transport = websocket._transport
    status, protocol, scheme = (
        (101, "websocket", "ws") if transport == "websocket" else (200, "http", "http")
    )
    host, port = _server(request)
    attributes = {
        "http.request.method": request.method or "GET",
        "http.response.status_code": status,
        "http.route": route,
        "url.path": request.path,
        "url.scheme": f"{scheme}s" if request.is_secure() else scheme,
        "server.address": host,
        "server.port": port,
        "client.address": request.META.get("REMOTE_ADDR") or "",
        "user_agent.original": request.META.get("HTTP_USER_AGENT") or "",
        "network.protocol.name": protocol,
        "code.function.name": view,
        "dwebsocket.transport": transport,
    }
    span = trace.get_tracer("dwebsocket").start_span(
        f"WebSocket {route}",
        # A root: the request's span has ended, or does so now.
        context=contexts.Context(),
        kind=trace.SpanKind.SERVER,
        links=[trace.Link(handshake)] if handshake.is_valid else [],
        attributes={name: value for name, value in attributes.items() if value != ""},
    )
    if not span.is_recording():
        # There is no provider of spans, or this one is not sampled.
        return
    websocket.__dict__[_SPAN] = span
    if not has_begun:
        context.run(lambda: contexts.attach(trace.set_span_in_context(span)))


def _server(request: HttpRequest) -> tuple[str, int]:
    """Gives the host and the port that the client has asked for."""
    asked = request.get_host()
    host, _, port = asked.rpartition(":")
    if not host or port.endswith("]"):
        # There is no port: the last colon is in an address of IPv6, if there is one.
        host, port = asked, ""
    # A client may write any number of digits.
    is_port = port.isdecimal() and len(port) <= _MOST_DIGITS
    return host.strip("[]"), int(port) if is_port else 443 if request.is_secure() else 80


def failed(websocket: Any, error: BaseException) -> None:
    """Notes that the view has let an exception through."""
    if (span := websocket.__dict__.get(_SPAN)) is not None:
        _fail(span, error)


@_contained
def _fail(span: Any, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.record_exception(error)
    span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}")
    span.set_status(Status(StatusCode.ERROR, str(error)))


def closed(websocket: Any) -> None:
    """Ends the span, once its view is over. May be repeated."""
    if (span := websocket.__dict__.pop(_SPAN, None)) is not None:
        _close(span, websocket._connection)


@_contained
def _close(span: Any, connection: Connection) -> None:
    code, reason, by = connection.end() or (1006, "", "lost")
    messages_in, messages_out, bytes_in, bytes_out, *_ = connection.traffic()
    span.set_attributes(
        {
            "dwebsocket.close.code": code,
            "dwebsocket.close.reason": reason,
            "dwebsocket.close.by": by,
            "dwebsocket.messages.in": messages_in,
            "dwebsocket.messages.out": messages_out,
            "dwebsocket.bytes.in": bytes_in,
            "dwebsocket.bytes.out": bytes_out,
        }
    )
    span.end()
