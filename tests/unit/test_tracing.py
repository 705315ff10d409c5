"""A span of OpenTelemetry for each connection, linked to that of its handshake."""

from __future__ import annotations

import contextvars
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.test import RequestFactory
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from visit import handshake

from dwebsocket import WebSocketHandler, accept_websocket, require_websocket
from dwebsocket.telemetry import tracing
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest
    from visit import Visit

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("tests")


@pytest.fixture(autouse=True)
def _spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The provider of these tests, and no spans of other ones."""
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    exporter.clear()
    yield
    exporter.clear()


def trace_requests(get_response: Any) -> Any:
    """Trace each request, as the instrumentation for Django does."""

    def middleware(request: Any) -> Any:
        with tracer.start_as_current_span("GET"):
            return get_response(request)

    return middleware


MIDDLEWARE = [f"{__name__}.trace_requests"]


def spans() -> dict[str, Any]:
    """Give the spans that have ended, by their names."""
    return {span.name: span for span in exporter.get_finished_spans()}


def of_connection() -> Any:
    """Wait for the connection's span."""
    return eventually(lambda: spans().get("WebSocket /"), what="the span has ended")


@require_websocket
def one_message(request: Any) -> None:
    with tracer.start_as_current_span("work of the view"):
        request.websocket.send(request.websocket.receive())


@require_websocket
async def one_message_async(request: Any) -> None:
    with tracer.start_as_current_span("work of the view"):
        await request.websocket.asend(await request.websocket.areceive())


class OneMessage(WebSocketHandler):
    def receive(self, message: Any) -> None:
        with tracer.start_as_current_span("work of the view"):
            self.websocket.send(message)
        self.websocket.close()


@pytest.mark.parametrize("view", [one_message, one_message_async, OneMessage.as_view()])
def test_a_connection_has_a_span_linked_to_its_request(
    visit: Callable[..., Visit], view: Any
) -> None:
    """It is a trace of its own; the spans that the view makes are its children."""
    made = visit(view, middleware=MIDDLEWARE, environ=handshake(HTTP_USER_AGENT="curl/8"))
    made.serve().client.send("hi")
    span = of_connection()
    request = spans()["GET"]
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [request.context.span_id]
    assert span.context.trace_id != request.context.trace_id
    assert span.kind is trace.SpanKind.SERVER
    assert span.status.is_ok
    assert spans()["work of the view"].parent.span_id == span.context.span_id
    expected = {
        "http.request.method": "GET",
        "http.response.status_code": 101,
        "http.route": "/",
        "url.path": "/",
        "url.scheme": "ws",
        "server.address": "testserver",
        "server.port": 80,
        "client.address": "127.0.0.1",
        "user_agent.original": "curl/8",
        "network.protocol.name": "websocket",
        "dwebsocket.close.code": 1000,
        "dwebsocket.close.by": "local",
        "dwebsocket.messages.in": 1,
        "dwebsocket.messages.out": 1,
    }
    assert expected.items() <= dict(span.attributes).items()


def attributes_of(request: HttpRequest, transport: str) -> dict[str, Any]:
    """Give the attributes of a connection that such a request has opened."""
    connection = SimpleNamespace(end=lambda: (1000, "", "peer"), traffic=lambda: (0, 0, 0, 0))
    websocket = SimpleNamespace(_transport=transport, _connection=connection)
    tracing.opened(websocket, request, "view", contextvars.copy_context(), has_begun=True)
    tracing.closed(websocket)
    (span,) = exporter.get_finished_spans()
    return dict(span.attributes or {})


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    ("transport", "status", "protocol", "schemes"),
    [
        ("websocket", 101, "websocket", ("ws", "wss")),
        ("sse", 200, "http", ("http", "https")),
        ("polling", 200, "http", ("http", "https")),
    ],
)
def test_the_fallback_is_no_websocket(
    transport: str, status: int, protocol: str, schemes: tuple[str, str], *, secure: bool
) -> None:
    """Its attributes are those of the request that opened it."""
    found = attributes_of(RequestFactory().get("/", secure=secure), transport)
    assert found["dwebsocket.transport"] == transport
    assert found["http.response.status_code"] == status
    assert found["network.protocol.name"] == protocol
    assert found["url.scheme"] == schemes[secure]


@pytest.mark.parametrize(
    ("host", "secure", "address", "port"),
    [
        ("testserver", False, "testserver", 80),
        ("testserver", True, "testserver", 443),
        ("testserver:8000", True, "testserver", 8000),
        ("[::1]", False, "::1", 80),
        ("[::1]:8000", False, "::1", 8000),
        pytest.param(f"testserver:{'9' * 5000}", False, "testserver", 80, id="many digits"),
    ],
)
def test_the_server_is_a_host_and_a_port(
    host: str, address: str, port: int, *, secure: bool
) -> None:
    """The usual port of the scheme where the client names none."""
    request = RequestFactory().get("/", secure=secure, headers={"Host": host})
    found = attributes_of(request, "websocket")
    assert (found["server.address"], found["server.port"]) == (address, port)


@require_websocket
def broken(request: Any) -> None:
    raise RuntimeError("broken on purpose")


def test_an_exception_of_the_view_is_recorded(visit: Callable[..., Visit]) -> None:
    """Once, and the span has the status of an error."""
    visit(broken, middleware=MIDDLEWARE).serve()
    span = of_connection()
    (event,) = span.events
    assert event.attributes["exception.message"] == "broken on purpose"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.attributes["error.type"] == "builtins.RuntimeError"
    assert span.attributes["dwebsocket.close.code"] == 1011


@accept_websocket(accept=False)
def decides(request: Any) -> Any:
    if request.GET.get("no"):
        request.websocket.reject()
    else:
        request.websocket.accept()


@pytest.mark.parametrize(("path", "has_span"), [("/", True), ("/?no=1", False)])
def test_only_what_was_opened_has_a_span(
    visit: Callable[..., Visit], path: str, has_span: bool
) -> None:
    """A refused handshake is a request like any other."""
    made = visit(decides, middleware=MIDDLEWARE, environ=handshake(path))
    if has_span:
        made.serve()
        assert of_connection().links
    else:
        assert made.response.status_code == 403
        assert spans().keys() == {"GET"}


def test_a_tracer_that_fails_harms_no_connection(
    visit: Callable[..., Visit], monkeypatch: pytest.MonkeyPatch, request_log: Any
) -> None:
    """Its exception is in the log."""

    def fail(*args: object) -> None:
        raise RuntimeError("no tracer")

    monkeypatch.setattr(trace, "get_tracer", fail)
    made = visit(one_message).serve()
    made.client.send("hi")
    assert made.client.frame().data == b"hi"
    texts = [record.getMessage() for record in request_log("dwebsocket")]
    assert texts == ["A WebSocket could not be traced"]


def test_nothing_is_imported_for_projects_that_do_not_trace() -> None:
    """Nor for metrics."""
    program = "import dwebsocket, sys; print([n for n in sys.modules if n.startswith(NAMES)])"
    program = program.replace("NAMES", "('opentelemetry', 'prometheus_client', 'sentry_sdk')")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
    assert tracing._API == trace.__name__
