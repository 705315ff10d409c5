"""Requests that wrap Django's, as those of Django REST framework do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from echoing import talks
from rest_framework.decorators import api_view, renderer_classes
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet
from visit import Serve, handshake

from dwebsocket import WebSocket, accept_websocket, require_websocket
from dwebsocket.factory import WebSocketFactory
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.middleware import WebSocketMiddleware

if TYPE_CHECKING:
    from django.http import HttpRequest

Log = Callable[..., list[logging.LogRecord]]

MIDDLEWARE = ["dwebsocket.middleware.WebSocketMiddleware"]
FOREIGN = {"HTTP_ORIGIN": "https://evil.example"}

# The requests that the views got.
seen: list[Any] = []


def serve(request: Any) -> Response | HttpResponse:
    """Echo, or a page."""
    seen.append(request)
    if not request.is_websocket():
        return Response("a page")
    for message in request.websocket:
        request.websocket.send(message)
    return HttpResponse()


class View(APIView):
    """The part that all of these share."""

    renderer_classes = (JSONRenderer,)

    def get(self, request: Request, **kwargs: Any) -> Response | HttpResponse:
        """Echo, or a page."""
        return serve(request)


class Get(View):
    """Its handler is decorated."""

    @method_decorator(accept_websocket)
    def get(self, request: Request, **kwargs: Any) -> Response | HttpResponse:
        """Echo, or a page."""
        return serve(request)


class Required(View):
    """Its handler is decorated, with options."""

    @method_decorator(require_websocket(text_type=str))
    def get(self, request: Request, **kwargs: Any) -> Response | HttpResponse:
        """Echo."""
        return serve(request)


class Decides(View):
    """Its handler decides about the handshake."""

    @method_decorator(accept_websocket(accept=False))
    def get(self, request: Request, **kwargs: Any) -> Response | HttpResponse:
        """Echo, or 404."""
        if "reject" in request.query_params:
            request.websocket.reject(404)
            return HttpResponse()
        request.websocket.accept()
        return serve(request)


class Set(ViewSet):
    """The handler of a route is decorated."""

    renderer_classes = (JSONRenderer,)

    @method_decorator(accept_websocket)
    def follow(self, request: Request, **kwargs: Any) -> Response | HttpResponse:
        """Echo, or a page."""
        return serve(request)


@api_view(["GET"])
@renderer_classes([JSONRenderer])
@accept_websocket
def function(request: Request) -> Response | HttpResponse:
    """Echo, or a page."""
    return serve(request)


DISPATCH = method_decorator(accept_websocket, name="dispatch")(type("Dispatch", (View,), {}))
VIEWS: dict[str, Any] = {
    "get": Get.as_view(),
    "get required": Required.as_view(),
    "get that decides": Decides.as_view(),
    "dispatch": DISPATCH.as_view(),
    "around as_view": accept_websocket(View.as_view()),
    "viewset": Set.as_view({"get": "follow"}),
}


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


@pytest.mark.parametrize("middleware", [[], MIDDLEWARE], ids=["alone", "with the middleware"])
class TestViews:
    """Each place that a decorator can have."""

    @pytest.mark.parametrize("name", VIEWS)
    def test_talks(self, visit: Serve, name: str, middleware: list[str]) -> None:
        """The view gets the request that the decorator got, with its WebSocket."""
        talks(visit(VIEWS[name], middleware=middleware))
        (request,) = seen
        assert type(request) is Request
        assert type(request.websocket) is WebSocket

    @pytest.mark.parametrize("name", ["get", "dispatch", "around as_view", "viewset"])
    def test_page(self, visit: Serve, name: str, middleware: list[str]) -> None:
        """A plain request has the attributes, too."""
        environ = RequestFactory().get("/").environ
        made = visit(VIEWS[name], middleware=middleware, environ=environ)
        assert made.response.content == b'"a page"'
        (request,) = seen
        assert request.websocket is None

    def test_page_where_a_websocket_is_required(self, visit: Serve, middleware: list[str]) -> None:
        """400."""
        environ = RequestFactory().get("/").environ
        made = visit(VIEWS["get required"], middleware=middleware, environ=environ)
        assert made.response.status_code == 400
        assert made.response.content == b"This address is for WebSockets only.\n"

    @pytest.mark.parametrize("name", VIEWS)
    def test_foreign_origin(
        self, visit: Serve, request_log: Log, name: str, middleware: list[str]
    ) -> None:
        """Is refused before the view, and logged once with Django's request."""
        made = visit(VIEWS[name], middleware=middleware, environ=handshake(**FOREIGN))
        assert made.response.status_code == 403
        assert seen == []
        (record,) = request_log("dwebsocket")
        assert record.getMessage().startswith("WebSocket refused with 403: /: ")
        assert type(record.request).__name__ == "WSGIRequest"  # type: ignore[attr-defined]

    def test_view_that_refuses(self, visit: Serve, middleware: list[str]) -> None:
        """One that decides."""
        environ = handshake("/?reject=1")
        made = visit(VIEWS["get that decides"], middleware=middleware, environ=environ)
        assert made.response.status_code == 404

    def test_limit_of_one_address(self, visit: Serve, override: Any, middleware: list[str]) -> None:
        """Counts by Django's request."""
        override(WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=1)
        first = visit(VIEWS["get"], middleware=middleware)
        assert first.response.status_code == 101
        assert visit(VIEWS["get"], middleware=middleware).response.status_code == 429


def test_function(visit: Serve) -> None:
    """A view by `api_view`, decorated below it."""
    talks(visit(function))


def test_header_of_the_framework_is_in_the_101(visit: Serve) -> None:
    """The framework adds it to the response that upgrades."""
    made = visit(VIEWS["get"])
    assert isinstance(made.response, UpgradeResponse)
    made.serve()
    assert made.header("Allow") == ["GET, HEAD, OPTIONS"]


def test_failing_view_is_reported_with_the_request_of_django(
    visit: Serve, request_log: Log
) -> None:
    """Readers of logs know no other."""

    class Fails(View):
        @method_decorator(accept_websocket)
        def get(self, request: Request, **kwargs: Any) -> HttpResponse:
            raise KeyError("lost")

    made = visit(Fails.as_view()).serve()
    assert made.client.closing() == (1011, "")
    (record,) = request_log("django.request")
    assert type(record.request).__name__ == "WSGIRequest"  # type: ignore[attr-defined]


def wrapped(environ: Any = None) -> Request:
    """Wrap a request."""
    return Request(WSGIRequest(handshake() if environ is None else environ))


def test_factory() -> None:
    """Takes either request."""
    factory = WebSocketFactory(wrapped())  # type: ignore[arg-type]
    assert factory.is_websocket() is True
    assert type(factory.create_websocket()) is WebSocket


def test_middleware_called_by_hand() -> None:
    """Takes either request."""
    request = wrapped()
    middleware = WebSocketMiddleware(lambda request: HttpResponse("a page"))
    assert middleware.process_view(request, Get.as_view(), (), {}) is None  # type: ignore[arg-type]
    refused = middleware.process_view(request, serve, (), {})  # type: ignore[arg-type]
    assert refused is not None
    assert refused.status_code == 400


def test_request_wrapped_twice() -> None:
    """By an authentication of a project's own, say."""

    class Outer:
        def __init__(self, request: HttpRequest | Request) -> None:
            self._request = request

        def __getattr__(self, name: str) -> Any:
            return getattr(self._request, name)

    request = Outer(wrapped(dict(RequestFactory().get("/").environ)))
    response = accept_websocket(lambda request: HttpResponse(str(request.is_websocket())))(request)
    assert response.content == b"False"
