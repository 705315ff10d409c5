"""A span of OpenTelemetry for each connection, linked to that of its handshake."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory
from django.urls import path
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider
from visit import handshake

from dwebsocket import WebSocketHandler, accept_websocket, require_websocket
from dwebsocket.groups import seats
from dwebsocket.rooms import Room, rooms
from dwebsocket.telemetry import tracing
from dwebsocket.testing import AsyncWebSocketClient, WebSocketClient
from support.pages import run
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
    monkeypatch.setattr(trace, "get_tracer", lambda name, *_, **__: provider.get_tracer(name))
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


@pytest.mark.parametrize("view", [one_message, one_message_async])
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


class Traced(WebSocketHandler):
    """A handler with each method."""

    every = 0.01

    def connect(self) -> None:
        """Do something before the handshake is answered."""
        tracer.start_span("work of connect").end()

    def receive(self, message: Any) -> None:
        tracer.start_span("work of receive").end()
        raise RuntimeError(message)

    def tick(self) -> None:
        tracer.start_span("work of tick").end()

    def disconnect(self, code: int, reason: str) -> None:
        tracer.start_span("work of disconnect").end()


class TracedAsync(Traced):
    """The same as coroutine functions."""

    async def connect(self) -> None:
        """Do something before the handshake is answered."""
        super().connect()

    async def receive(self, message: Any) -> None:
        super().receive(message)

    async def tick(self) -> None:
        super().tick()

    async def disconnect(self, code: int, reason: str) -> None:
        super().disconnect(code, reason)


class TracedMixed(TracedAsync):
    """Messages in a loop, the rest on threads."""

    tick = Traced.tick
    disconnect = Traced.disconnect


@pytest.mark.parametrize("handler", [Traced, TracedAsync, TracedMixed])
def test_each_call_of_a_handler_is_a_trace(
    visit: Callable[..., Visit], handler: type[WebSocketHandler]
) -> None:
    """It is exported when the call ends, and linked to the connection and to the handshake."""
    client = visit(handler.as_view(), middleware=MIDDLEWARE).serve().client
    eventually(lambda: "WebSocket tick /" in spans())
    client.send("broken on purpose")
    connection = of_connection()
    found = spans()
    request = found["GET"]
    assert found["work of connect"].parent.span_id == request.context.span_id
    linked = [connection.context.span_id, request.context.span_id]
    for method in ("receive", "tick", "disconnect"):
        span = found[f"WebSocket {method} /"]
        assert span.parent is None
        assert [link.context.span_id for link in span.links] == linked
        assert found[f"work of {method}"].parent.span_id == span.context.span_id
        assert dict(span.attributes) == {
            "http.route": "/",
            "code.function.name": f"{__name__}.{handler.__name__}.{method}",
            **({"error.type": "builtins.RuntimeError"} if method == "receive" else {}),
        }
    failed = found["WebSocket receive /"]
    assert failed.kind is trace.SpanKind.SERVER
    for span in (failed, connection):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]
    assert len({span.context.trace_id for span in (connection, request, failed)}) == 3


class Forbidding(WebSocketHandler):
    def receive(self, message: Any) -> None:
        raise PermissionDenied


class Quiet(WebSocketHandler):
    def receive(self, message: Any) -> None:
        self.websocket.close()
        self.websocket.send(message)


@pytest.mark.parametrize("handler", [Forbidding, Quiet])
def test_what_is_no_error_is_none_of_a_span(
    visit: Callable[..., Visit], handler: type[WebSocketHandler]
) -> None:
    """A client that may not, and a connection that is over. A method that is not there is none."""
    visit(handler.as_view()).serve().client.send("hi")
    of_connection()
    found = spans()
    assert found.keys() == {"WebSocket /", "WebSocket receive /"}
    assert [span.status.is_ok for span in found.values()] == [True, True]


class Failing(Room):
    name = "room"
    events = ("typing",)

    def receive(self, event: str, data: Any) -> Any:
        raise RuntimeError("broken on purpose")


def test_a_room_that_fails_is_an_error_of_the_call(
    visit: Callable[..., Visit], override: Callable[..., None]
) -> None:
    """The connection goes on, and is none."""
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}})
    client = visit(rooms(Failing)).serve().client
    for text in ({"join": "room", "id": 1}, {"to": "room", "event": "say", "data": 1, "id": 2}):
        client.send(json.dumps(text))
        assert client.frame()
    client.close(1000)
    assert of_connection().status.is_ok
    calls = [each for each in exporter.get_finished_spans() if each.name == "WebSocket receive /"]
    assert [each.status.is_ok for each in calls] == [True, False]


def test_an_event_that_is_passed_on_is_a_call(
    visit: Callable[..., Visit], override: Callable[..., None]
) -> None:
    """Where a project traces, Python takes each message."""
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}})
    client = visit(rooms(Failing)).serve().client
    for text in ({"join": "room"}, *[{"to": "room", "event": "typing"}] * 3):
        client.send(json.dumps({"id": 1, **text}))
        assert client.frame()
        [owner] = seats._owners.values()
        eventually(owner.websocket._connection.is_awaited)  # type: ignore[attr-defined]
    client.close(1000)
    assert of_connection().status.is_ok
    calls = [each for each in exporter.get_finished_spans() if each.name == "WebSocket receive /"]
    assert len(calls) == 4


def test_spans_of_a_view_that_is_not_sampled_are_not_either(
    visit: Callable[..., Visit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were children of the request's span, which has ended long ago."""
    monkeypatch.setattr(trace, "get_tracer", TracerProvider(sampler=ALWAYS_OFF).get_tracer)
    client = visit(one_message, middleware=MIDDLEWARE).serve().client
    client.send("hi")
    assert client.frame()
    client.closing()
    assert spans().keys() == {"GET"}


def test_without_a_provider_nothing_is_kept(
    visit: Callable[..., Visit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls go on as without OpenTelemetry."""
    monkeypatch.setattr(trace, "get_tracer", NoOpTracerProvider().get_tracer)
    kept: list[dict[str, Any]] = []

    class Looking(WebSocketHandler):
        def receive(self, message: Any) -> None:
            kept.append(dict(vars(self.websocket)))
            self.websocket.close()

    client = visit(Looking.as_view(), middleware=MIDDLEWARE).serve().client
    client.send("hi")
    client.closing()
    assert "_trace" not in kept[0]
    assert spans().keys() == {"GET"}


@require_websocket
async def elsewhere(request: Any) -> None:
    """Work on a thread, in a task, beside the view and behind the end."""

    def work(name: str) -> None:
        tracer.start_span(name).end()

    async def awork(name: str) -> None:
        work(name)

    request.websocket.on_close(work, "on_close")
    await sync_to_async(work)("thread")
    await asyncio.create_task(awork("task"))
    request.websocket.every(60, work, "beside")


def test_the_span_is_the_current_one_wherever_a_view_works(visit: Callable[..., Visit]) -> None:
    """It is the parent of all that the view starts."""
    visit(elsewhere, middleware=MIDDLEWARE).serve().client.closing()
    parent = of_connection().context.span_id
    names = ("thread", "task", "on_close")
    found = eventually(lambda: len(all_ := spans()) > len(names) + 1 and all_)
    assert {name: found[name].parent.span_id for name in names} == dict.fromkeys(names, parent)


@pytest.fixture
def instrumented(override: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Django is instrumented by OpenTelemetry's own package, as the page says."""
    package = pytest.importorskip("opentelemetry.instrumentation.django")
    given: list[TracerProvider] = []
    monkeypatch.setattr(trace, "set_tracer_provider", given.append)
    monkeypatch.setattr(package, "get_tracer", trace.get_tracer)
    override(MIDDLEWARE=[])
    run("docs/operations.md", "DjangoInstrumentor")
    yield
    package.DjangoInstrumentor().uninstrument()
    given[0].shutdown()


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_with_the_instrumentation_for_django(
    instrumented: None, override: Callable[..., None], server: str
) -> None:
    """The handshake is a request with the status 101; the connection is linked to it."""
    override(ROOT_URLCONF=(path("<int:number>/", lambda request, number: one_message(request)),))

    async def talk() -> None:
        async with AsyncWebSocketClient().websocket("/7/") as websocket:
            await websocket.send("hi")
            assert await websocket.receive() == "hi"

    if server == "asgi":
        asyncio.run(talk())
    else:
        with WebSocketClient().websocket("/7/") as websocket:
            websocket.send("hi")
            assert websocket.receive() == "hi"
    span = eventually(lambda: spans().get("WebSocket /<int:number>/"))
    request = spans()["GET <int:number>/"]
    assert request.attributes["http.status_code"] == 101
    assert request.status.status_code is not trace.StatusCode.ERROR
    assert [link.context for link in span.links] == [request.context]
    assert spans()["work of the view"].parent.span_id == span.context.span_id


def attributes_of(request: HttpRequest, transport: str) -> dict[str, Any]:
    """Give the attributes of a connection that such a request has opened."""
    connection = SimpleNamespace(end=lambda: (1000, "", "peer"), traffic=lambda: (0, 0, 0, 0))
    websocket = SimpleNamespace(_transport=transport, _connection=connection)
    tracing.opened(websocket, request, "view", tracing.current(), None)
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
        tracer.start_span("work of the view").end()


@accept_websocket(accept=False)
async def decides_async(request: Any) -> Any:
    await request.websocket.aaccept()
    tracer.start_span("work of the view").end()


@pytest.mark.parametrize("view", [decides, decides_async])
def test_a_view_that_has_accepted_is_within_the_span(
    visit: Callable[..., Visit], view: Any
) -> None:
    """Like one that begins behind the handshake."""
    visit(view, middleware=MIDDLEWARE).serve()
    parent = of_connection().context.span_id
    assert spans()["work of the view"].parent.span_id == parent


@accept_websocket(accept=False)
def decides_within(request: Any) -> None:
    with tracer.start_as_current_span("span of the view"):
        request.websocket.accept()
        tracer.start_span("work of the view").end()


def test_a_span_of_the_views_own_stays_the_current_one(visit: Callable[..., Visit]) -> None:
    """Also behind `accept()`."""
    visit(decides_within, middleware=MIDDLEWARE).serve()
    of_connection()
    parent = spans()["span of the view"].context.span_id
    assert spans()["work of the view"].parent.span_id == parent


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
