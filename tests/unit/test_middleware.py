"""The middleware: attributes on every request, and WebSockets for views without a decorator."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.http import HttpResponse
from django.test import RequestFactory
from echoing import AsyncEcho, Echo, async_echo, echo, talks
from visit import Serve, handshake

from dwebsocket import accept_websocket
from dwebsocket.middleware import WebSocketMiddleware

MIDDLEWARE = ["dwebsocket.middleware.WebSocketMiddleware"]


def plain() -> dict[str, Any]:
    """Make the environ of a plain request."""
    return dict(RequestFactory().get("/").environ)


def facts(request: Any) -> HttpResponse:
    """Give the attributes on the request."""
    return HttpResponse(f"{request.is_websocket()} {request.websocket}")


def marked(view: Any, attribute: str) -> Any:
    """Set an attribute on a copy of a view."""
    if iscoroutinefunction(view):

        async def copy(request: Any) -> Any:
            return await view(request)

    else:

        def copy(request: Any) -> Any:
            return view(request)

    setattr(copy, attribute, True)
    return copy


class TestKinds:
    """Sync and async chains."""

    def test_is_sync_or_async_as_what_it_wraps(self) -> None:
        """Django asks, and calls it accordingly."""

        def get_response(request: Any) -> str:
            return "response"

        async def aget_response(request: Any) -> str:
            return "response"

        assert WebSocketMiddleware.sync_capable
        assert WebSocketMiddleware.async_capable
        sync, async_ = WebSocketMiddleware(get_response), WebSocketMiddleware(aget_response)
        assert not iscoroutinefunction(sync)
        assert iscoroutinefunction(async_)
        assert sync(RequestFactory().get("/")) == "response"
        assert asyncio.run(async_(RequestFactory().get("/"))) == "response"


@pytest.mark.parametrize("in_async_chain", [False, True])
class TestRequests:
    """The attributes of each request."""

    def test_plain(self, visit: Serve, in_async_chain: bool) -> None:
        """False and None, for every view."""
        made = visit(facts, middleware=MIDDLEWARE, environ=plain(), in_async_chain=in_async_chain)
        assert made.response.content == b"False None"

    def test_handshake_for_a_view_that_takes_none(self, visit: Serve, in_async_chain: bool) -> None:
        """400 before the view."""
        made = visit(facts, middleware=MIDDLEWARE, in_async_chain=in_async_chain)
        assert made.response.status_code == 400
        assert made.response.content == b"This address takes no WebSockets.\n"

    @pytest.mark.parametrize("attribute", ["accept_websocket", "require_websocket"])
    @pytest.mark.parametrize("view", [echo, async_echo])
    def test_views_with_the_attribute(
        self, visit: Serve, in_async_chain: bool, attribute: str, view: Any
    ) -> None:
        """Need no decorator."""
        view = marked(view, attribute)
        talks(visit(view, middleware=MIDDLEWARE, in_async_chain=in_async_chain))

    def test_required_by_attribute(self, visit: Serve, in_async_chain: bool) -> None:
        """Plain requests get 400."""
        view = marked(facts, "require_websocket")
        made = visit(view, middleware=MIDDLEWARE, environ=plain(), in_async_chain=in_async_chain)
        assert made.response.status_code == 400
        assert made.response.content == b"This address is for WebSockets only.\n"

    def test_accepted_by_attribute(self, visit: Serve, in_async_chain: bool) -> None:
        """Plain requests get the page."""
        view = marked(facts, "accept_websocket")
        made = visit(view, middleware=MIDDLEWARE, environ=plain(), in_async_chain=in_async_chain)
        assert made.response.content == b"False None"

    @pytest.mark.parametrize("view", [echo, async_echo, Echo.as_view(), AsyncEcho.as_view()])
    def test_accept_all(self, visit: Serve, override: Any, in_async_chain: bool, view: Any) -> None:
        """Every view may get WebSockets."""
        override(WEBSOCKET_ACCEPT_ALL=True)
        talks(visit(view, middleware=MIDDLEWARE, in_async_chain=in_async_chain))

    def test_accept_all_and_decorated(
        self, visit: Serve, override: Any, in_async_chain: bool
    ) -> None:
        """The decorator's options count."""
        override(WEBSOCKET_ACCEPT_ALL=True)
        view = accept_websocket(subprotocols=["chat"])(echo)
        made = visit(
            view,
            middleware=MIDDLEWARE,
            environ=handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="chat"),
            in_async_chain=in_async_chain,
        )
        talks(made)
        assert made.header("Sec-WebSocket-Protocol") == ["chat"]

    @pytest.mark.parametrize("accept_all", [True, False])
    @pytest.mark.parametrize("decorate", [accept_websocket(subprotocols=["chat"]), None])
    def test_partial_of_a_view(
        self, visit: Serve, override: Any, in_async_chain: bool, accept_all: bool, decorate: Any
    ) -> None:
        """It is that view, with some arguments."""
        override(WEBSOCKET_ACCEPT_ALL=accept_all)
        view = marked(echo, "accept_websocket") if decorate is None else decorate(echo)
        made = visit(
            functools.partial(view),
            middleware=MIDDLEWARE,
            environ=handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="chat"),
            in_async_chain=in_async_chain,
        )
        talks(made)
        assert made.header("Sec-WebSocket-Protocol") == ([] if decorate is None else ["chat"])

    def test_malformed_handshake_for_an_undecorated_view(
        self, visit: Serve, override: Any, in_async_chain: bool
    ) -> None:
        """Refused as for a decorated one."""
        override(WEBSOCKET_ACCEPT_ALL=True)
        environ = handshake(HTTP_SEC_WEBSOCKET_VERSION="8")
        made = visit(facts, middleware=MIDDLEWARE, environ=environ, in_async_chain=in_async_chain)
        assert made.response.status_code == 426

    def test_url_arguments_of_undecorated_views(
        self, visit: Serve, override: Any, in_async_chain: bool
    ) -> None:
        """Reach the view as ever."""
        override(WEBSOCKET_ACCEPT_ALL=True)

        def view(request: Any, number: int) -> None:
            request.websocket.send(str(number))

        made = visit(
            view,
            middleware=MIDDLEWARE,
            environ=handshake("/42/"),
            in_async_chain=in_async_chain,
        ).serve()
        assert made.client.receive() == "42"

    def test_address_that_does_not_exist(self, visit: Serve, in_async_chain: bool) -> None:
        """404 as for any request."""
        made = visit(
            echo,
            middleware=MIDDLEWARE,
            environ=handshake("/nowhere/"),
            in_async_chain=in_async_chain,
        )
        assert made.response.status_code == 404


def test_attributes_are_there_for_middleware_below(visit: Serve) -> None:
    """And for that above, once the response is on its way."""
    middleware = [*MIDDLEWARE, "test_middleware.note"]
    made = visit(facts, middleware=middleware, environ=plain())
    assert made.response["X-Noted"] == "False NoneType"
    made = visit(accept_websocket(echo), middleware=middleware)
    assert made.response["X-Noted"] == "True WebSocket"


def note(get_response: Any) -> Any:
    """Middleware: note what is on the request."""

    def middleware(request: Any) -> HttpResponse:
        noted = f"{request.is_websocket()} {type(request.websocket).__name__}"
        response: HttpResponse = get_response(request)
        response["X-Noted"] = noted
        return response

    return middleware


def test_settings_are_read_when_used(visit: Serve, override: Any) -> None:
    """`override_settings` works between two requests."""
    assert visit(echo, middleware=MIDDLEWARE).response.status_code == 400
    override(WEBSOCKET_ACCEPT_ALL=True)
    assert visit(echo, middleware=MIDDLEWARE).response.status_code == 101
