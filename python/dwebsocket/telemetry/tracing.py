"""
Spans of OpenTelemetry, where the process has ``opentelemetry-api``.

Nothing is imported: a project that traces has imported the package, and set a provider of spans.
A connection's span begins a trace of its own, which may last for hours, and is linked to that of
the handshake's request. It is the current one in the view, so that the view's own spans are its
children. Each call of a handler's method is a trace of its own besides, linked to both.
"""

from __future__ import annotations

import functools
import logging
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context, Token

    from django.http import HttpRequest

    P = ParamSpec("P")
    T = TypeVar("T")

_log = logging.getLogger("dwebsocket")

_API = "opentelemetry.trace"
# Of a port.
_MOST_DIGITS = 5


def _contained(function: Callable[P, T]) -> Callable[P, T | None]:
    """Returns a function whose exceptions are logged: those of a tracer must harm no connection."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return function(*args, **kwargs)
        except Exception:
            _log.exception("A WebSocket could not be traced")
            return None

    return call


@final
@dataclass(eq=False, repr=False, slots=True)
class _Trace:
    """
    The spans of one connection.

    Attributes:
        span: The connection's span.
        handshake: The context of the handshake's, which may be of none.
        route: The URL's.
        call: The span of the handler's method that runs now.
    """

    span: Any
    handshake: Any
    route: str
    call: Any = None


def current() -> Any:
    """Returns the context of the span that is the current one here; None without OpenTelemetry."""
    if _API not in sys.modules:
        return None
    from opentelemetry import trace

    return trace.get_current_span().get_span_context()


@_contained
def opened(
    websocket: Any, request: HttpRequest, view: str, handshake: Any, context: Context | None
) -> None:
    """
    Begins the span of a connection.

    Args:
        view: The name of its view.
        handshake: What :func:`current` gave while the handshake was handled.
        context: That in which the view is to run; None for one that runs already.
    """
    if handshake is None:
        return
    from opentelemetry import context as contexts
    from opentelemetry import trace

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
    if not span.get_span_context().is_valid:
        # There is no provider of spans.
        return
    websocket._trace = _Trace(span, handshake, route)
    if context is not None:
        context.run(lambda: contexts.attach(trace.set_span_in_context(span)))


def _server(request: HttpRequest) -> tuple[str, int]:
    """Returns the host and the port that the client has asked for."""
    asked = request.get_host()
    host, _, port = asked.rpartition(":")
    if not host or port.endswith("]"):
        # There is no port: the last colon is in an address of IPv6, if there is one.
        host, port = asked, ""
    # A client may write any number of digits.
    is_port = port.isdecimal() and len(port) <= _MOST_DIGITS
    return host.strip("[]"), int(port) if is_port else 443 if request.is_secure() else 80


@_contained
def accepted(websocket: Any) -> None:
    """Makes the span the current one in a view that has just accepted."""
    if (traced := websocket._trace) is None:
        return
    from opentelemetry import context, trace

    # The view may be within a span of its own.
    if trace.get_current_span().get_span_context() == traced.handshake:
        context.attach(trace.set_span_in_context(traced.span))


@contextmanager
def calling(websocket: Any, handler: str, method: str) -> Iterator[None]:
    """Returns the span of one call: a root, which is exported when the call ends."""
    traced: _Trace = websocket._trace
    token = _begin_call(traced, handler, method)
    try:
        yield
    except GeneratorExit:
        # A loop that was closed ends its coroutines in other contexts.
        token = None
        raise
    finally:
        _end_call(traced, token)


@_contained
def _begin_call(traced: _Trace, handler: str, method: str) -> Token[Any]:
    from opentelemetry import context, trace

    contexts = (traced.span.get_span_context(), traced.handshake)
    # Without a parent; what else the context has, such as baggage, stays.
    root = trace.set_span_in_context(trace.INVALID_SPAN)
    traced.call = span = trace.get_tracer("dwebsocket").start_span(
        f"WebSocket {method} {traced.route}",
        context=root,
        kind=trace.SpanKind.SERVER if method == "receive" else trace.SpanKind.INTERNAL,
        links=[trace.Link(each) for each in contexts if each.is_valid],
        attributes={"http.route": traced.route, "code.function.name": f"{handler}.{method}"},
    )
    return context.attach(trace.set_span_in_context(span, root))


@_contained
def _end_call(traced: _Trace, token: Token[Any] | None) -> None:
    from opentelemetry import context

    span, traced.call = traced.call, None
    if token is not None:
        context.detach(token)
    if span is not None:
        span.end()


def failed(websocket: Any, error: BaseException) -> None:
    """Notes that the view has let an exception through."""
    if (traced := websocket._trace) is not None:
        _fail(traced.span, error)
        call_failed(websocket, error)


def call_failed(websocket: Any, error: BaseException) -> None:
    """Notes an exception in a call of a handler's method after which the connection goes on."""
    traced = websocket._trace
    if traced is not None and traced.call is not None:
        _fail(traced.call, error)


@_contained
def _fail(span: Any, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.record_exception(error)
    span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}")
    span.set_status(Status(StatusCode.ERROR, str(error)))


@_contained
def closed(websocket: Any) -> None:
    """Ends the span, once its view is over. May be repeated."""
    if websocket._trace is None or (traced := websocket.__dict__.pop("_trace", None)) is None:
        return
    span, connection = traced.span, websocket._connection
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
