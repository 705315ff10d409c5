"""Every public name of dwebsocket 0.5.12: there, with the same arguments and kinds of results."""

from __future__ import annotations

import importlib
import inspect
import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.deprecation import MiddlewareMixin
from echoing import echo, talks
from visit import Serve, Visit, handshake

from dwebsocket import WebSocket, accept_websocket
from dwebsocket.backends.default.factory import WebSocketFactory
from dwebsocket.backends.default.protocols import WebSocketProtocol13, get_websocket_protocol
from dwebsocket.backends.default.websocket import DefaultWebSocket
from dwebsocket.backends.uwsgi.factory import SocketWarp, uWsgiWebSocketFactory
from dwebsocket.middleware import WebSocketMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Functions and methods, with the parameters that they have there; `self` and `cls` are left out.
CALLABLES = {
    "dwebsocket:accept_websocket": "func",
    "dwebsocket:require_websocket": "func",
    "dwebsocket.decorators:accept_websocket": "func",
    "dwebsocket.decorators:require_websocket": "func",
    "dwebsocket.factory:WebSocketFactory": "request",
    "dwebsocket.factory:WebSocketFactory.is_websocket": "",
    "dwebsocket.factory:WebSocketFactory.get_websocket_version": "",
    "dwebsocket.factory:WebSocketFactory.create_websocket": "",
    "dwebsocket.middleware:WebSocketMiddleware": "",
    "dwebsocket.middleware:WebSocketMiddleware.process_request": "request",
    "dwebsocket.middleware:WebSocketMiddleware.process_view": (
        "request, view_func, view_args, view_kwargs"
    ),
    "dwebsocket.middleware:WebSocketMiddleware.process_response": "request, response",
    "dwebsocket.middleware:WebSocketMiddleware.process_exception": "request, exception",
    "dwebsocket.websocket:WebSocket": "",
    "dwebsocket.websocket:WebSocket.accept_connection": "",
    "dwebsocket.websocket:WebSocket.send": "message",
    "dwebsocket.websocket:WebSocket.count_messages": "",
    "dwebsocket.websocket:WebSocket.has_messages": "",
    "dwebsocket.websocket:WebSocket.read": "fallback=None",
    "dwebsocket.websocket:WebSocket.wait": "timeout=None",
    "dwebsocket.websocket:WebSocket.close": "code=None, reason=None",
    "dwebsocket.websocket:WebSocket.is_close": "",
    "dwebsocket.backends.default.factory:WebSocketFactory": "request",
    "dwebsocket.backends.default.factory:WebSocketFactory.is_websocket": "",
    "dwebsocket.backends.default.factory:WebSocketFactory.get_websocket_version": "",
    "dwebsocket.backends.default.factory:WebSocketFactory.get_wsgi_sock": "",
    "dwebsocket.backends.default.factory:WebSocketFactory.create_websocket": "",
    "dwebsocket.backends.default.websocket:DefaultWebSocket": "protocol",
    "dwebsocket.backends.default.websocket:DefaultWebSocket.accept_connection": "",
    "dwebsocket.backends.default.websocket:DefaultWebSocket.send": "message",
    "dwebsocket.backends.default.websocket:DefaultWebSocket.count_messages": "",
    "dwebsocket.backends.default.websocket:DefaultWebSocket.has_messages": "",
    "dwebsocket.backends.default.websocket:DefaultWebSocket.read": "fallback=None",
    "dwebsocket.backends.default.websocket:DefaultWebSocket.wait": "timeout=None",
    "dwebsocket.backends.default.websocket:DefaultWebSocket.close": "code=None, reason=None",
    "dwebsocket.backends.default.websocket:DefaultWebSocket.is_closed": "",
    "dwebsocket.backends.default.protocols:get_websocket_protocol": None,
    "dwebsocket.backends.default.protocols:WebSocketProtocol13": (
        "sock, headers, mask_outgoing=False"
    ),
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.read": "",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.mask_or_unmask": "mask, data",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.select_subprotocol": "subprotocols",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.compute_accept_value": "key",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.read_data": "",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.read_frame": "",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.accept_connection": "",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.can_read": "timeout=0.0",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.write": "message, binary=False",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.write_ping": "payload=''",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.write_pong": "data",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.write_close": (
        "code=None, reason=None"
    ),
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.close": "code=None, reason=None",
    "dwebsocket.backends.default.protocols:WebSocketProtocol13.is_closed": "",
    "dwebsocket.backends.uwsgi.factory:SocketWarp": "request",
    "dwebsocket.backends.uwsgi.factory:SocketWarp.fileno": "",
    "dwebsocket.backends.uwsgi.factory:SocketWarp.recv": "bufsize",
    "dwebsocket.backends.uwsgi.factory:SocketWarp.send": "body",
    "dwebsocket.backends.uwsgi.factory:SocketWarp.sendall": "body",
    "dwebsocket.backends.uwsgi.factory:SocketWarp.close": "",
    "dwebsocket.backends.uwsgi.factory:uWsgiWebSocketFactory": "request",
    "dwebsocket.backends.uwsgi.factory:uWsgiWebSocketFactory.get_wsgi_sock": "",
}
# Names that are called with their argument in place, as decorators are.
POSITIONAL = {"func"}

CONSTANTS = {
    "LENGTH_7": 125,
    "LENGTH_16": 65536,
    "LENGTH_63": 9223372036854775808,
    "OPCODE_TEXT": 1,
    "OPCODE_BINARY": 2,
    "OPCODE_CLOSE": 8,
    "OPCODE_PING": 9,
    "OPCODE_PONG": 10,
    "STATUS_NORMAL": 1000,
    "STATUS_GOING_AWAY": 1001,
    "STATUS_PROTOCOL_ERROR": 1002,
    "STATUS_UNSUPPORTED_DATA_TYPE": 1003,
    "STATUS_STATUS_NOT_AVAILABLE": 1005,
    "STATUS_ABNORMAL_CLOSED": 1006,
    "STATUS_INVALID_PAYLOAD": 1007,
    "STATUS_POLICY_VIOLATION": 1008,
    "STATUS_MESSAGE_TOO_BIG": 1009,
    "STATUS_INVALID_EXTENSION": 1010,
    "STATUS_UNEXPECTED_CONDITION": 1011,
    "STATUS_TLS_HANDSHAKE_ERROR": 1015,
}

LOGGERS = ["dwebsocket.factory", "dwebsocket.middleware", "dwebsocket.backends.default.factory"]


def thing(name: str) -> Any:
    """Give the object of a name, such as `module:Class.method`."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def calls(parameters: str) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Give the ways to call something: the least, all in place, all by name."""
    names = [each.strip() for each in parameters.split(",") if each.strip()]
    least = [name for name in names if "=" not in name]
    every = [name.partition("=")[0] for name in names]
    yield least, {}
    yield every, {}
    if not POSITIONAL & set(every):
        yield [], dict.fromkeys(every, "value")


@pytest.mark.parametrize("name", CALLABLES)
def test_takes_the_same_arguments(name: str) -> None:
    """As the original was called, in place or by name, with the same defaults."""
    found, parameters = thing(name), CALLABLES[name]
    assert callable(found)
    if parameters is None:
        return
    owner = thing(name.rpartition(".")[0]) if "." in name.partition(":")[2] else None
    bound = inspect.ismethod(found) or owner is None
    ours = inspect.signature(found)
    for args, kwargs in calls(parameters):
        ours.bind(*args, **kwargs) if bound else ours.bind("self", *args, **kwargs)
    defaults = inspect.signature(eval(f"lambda {parameters}: None")).parameters
    for parameter in defaults.values():
        if parameter.default is not parameter.empty:
            assert ours.parameters[parameter.name].default == parameter.default


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants(name: str) -> None:
    """Of the protocol, on the class."""
    assert getattr(WebSocketProtocol13, name) == CONSTANTS[name]


@pytest.mark.parametrize("module", LOGGERS)
def test_loggers(module: str) -> None:
    """Of the modules that had one."""
    logger = thing(f"{module}:logger")
    assert isinstance(logger, logging.Logger)
    assert logger.name == module


def wsgi_request(**changes: str | None) -> WSGIRequest:
    """Make a handshake."""
    return WSGIRequest(handshake(**changes))


class TestSettings:
    """Constants that modules there read from the settings."""

    def test_accept_all(self, override: Callable[..., None]) -> None:
        """As it is set now."""
        assert thing("dwebsocket.middleware:WEBSOCKET_ACCEPT_ALL") is False
        override(WEBSOCKET_ACCEPT_ALL=True)
        assert thing("dwebsocket.middleware:WEBSOCKET_ACCEPT_ALL") is True

    def test_factory_class(self, override: Callable[..., None]) -> None:
        """As it is set now, the original's default without."""
        name = "dwebsocket.middleware:WEBSOCKET_FACTORY_CLASS"
        assert thing(name) == "dwebsocket.backends.default.factory.WebSocketFactory"
        override(WEBSOCKET_FACTORY_CLASS="dwebsocket.factory.WebSocketFactory")
        assert thing(name) == "dwebsocket.factory.WebSocketFactory"

    def test_middleware_installed(self, override: Callable[..., None]) -> None:
        """As it is set now."""
        assert thing("dwebsocket.decorators:WEBSOCKET_MIDDLEWARE_INSTALLED") is False
        override(MIDDLEWARE=["dwebsocket.middleware.WebSocketMiddleware"])
        assert thing("dwebsocket.decorators:WEBSOCKET_MIDDLEWARE_INSTALLED") is True

    @pytest.mark.parametrize("module", ["dwebsocket.middleware", "dwebsocket.decorators"])
    def test_nothing_else(self, module: str) -> None:
        """Other names are not there."""
        with pytest.raises(AttributeError, match="has no attribute 'MISSING'"):
            thing(f"{module}:MISSING")


class TestFactories:
    """Both backends."""

    @pytest.mark.parametrize("cls", [WebSocketFactory, uWsgiWebSocketFactory])
    def test_results(self, cls: type[WebSocketFactory]) -> None:
        """A WebSocket for a handshake, None for a page."""
        factory = cls(wsgi_request())
        assert factory.is_websocket() is True
        assert factory.get_websocket_version() == "13"
        assert isinstance(factory.create_websocket(), DefaultWebSocket)
        assert isinstance(factory.get_wsgi_sock(), SocketWarp)
        page = cls(RequestFactory().get("/"))
        assert page.is_websocket() is False
        assert page.create_websocket() is None
        assert page.request.path == "/"

    def test_sock(self) -> None:
        """Leads to the client past the server."""
        made = Visit(handshake())
        sock = WebSocketFactory(made.request()).get_wsgi_sock()
        assert sock.fileno() == made.server.fileno()
        assert sock.request.path == "/"
        assert sock.send(b"first") == 5
        sock.sendall(b", second")
        assert made.client.sock.recv(100) == b"first, second"
        made.client.send_raw(b"answer")
        assert sock.recv(100) == b"answer"
        sock.close()
        assert sock.closed is True
        assert sock.recv(100) == b""
        assert sock.send(b"nothing") == 7
        assert made.server.fileno() >= 0
        made.close()


class TestWebSocket:
    """`request.websocket`, by each of its class's names."""

    def test_classes(self) -> None:
        """One class, one more name for uWSGI."""
        assert DefaultWebSocket is WebSocket
        assert thing("dwebsocket.backends.uwsgi.websocket:uWsgiWebSocket") is WebSocket

    def test_subclass(self, open_websocket: Callable[..., Any]) -> None:
        """May pass its protocol on, or replace it."""
        protocol = WebSocketProtocol13(sock=None, headers={})

        class Mine(DefaultWebSocket):
            def __init__(self) -> None:
                super().__init__(protocol)

        assert open_websocket(Mine).websocket.protocol is protocol

    def test_results(self, open_websocket: Callable[..., Any]) -> None:
        """The kinds that they have there."""
        live = open_websocket()
        websocket = live.websocket
        assert isinstance(websocket.protocol, WebSocketProtocol13)
        assert (websocket.accept_connection(), websocket.closed) == (None, False)
        assert (websocket.count_messages(), websocket.has_messages()) == (0, False)
        assert websocket.read(fallback="nothing") == "nothing"
        assert websocket.wait(timeout=0) is None
        live.client.send("one")
        live.client.send("two")
        assert websocket.wait(timeout=10) == b"one"
        assert next(iter(websocket)) == b"two"
        assert websocket.close(1000, b"enough") is None
        assert (websocket.is_closed(), websocket.is_close(), websocket.closed) == (True, True, True)

    def test_handle(self, open_websocket: Callable[..., Any]) -> None:
        """May be set on the object."""
        live = open_websocket()
        heard: list[tuple[int, Any]] = []
        live.websocket.handle = lambda opcode, data: heard.append((opcode, data))
        live.client.send("one")
        assert live.websocket.wait(10) == b"one"
        assert heard == [(1, b"one")]


class TestProtocols:
    """The names of the protocol's module."""

    def test_versions(self) -> None:
        """One is spoken."""
        assert thing("dwebsocket.backends.default.protocols:protocols") == {
            "13": WebSocketProtocol13
        }
        assert get_websocket_protocol("13") is WebSocketProtocol13
        assert get_websocket_protocol("76") is None

    def test_helpers(self) -> None:
        """Callable on the class; the examples are those of RFC 6455 sections 1.3 and 5.7."""
        cls = WebSocketProtocol13
        assert cls.mask_or_unmask(b"\x37\xfa\x21\x3d", b"\x7f\x9f\x4d\x51\x58") == b"Hello"
        assert cls.mask_or_unmask(mask=b"\0\0\0\0", data=b"") == b""
        assert cls.select_subprotocol(["chat"]) is None
        accept = cls.compute_accept_value(b"dGhlIHNhbXBsZSBub25jZQ==")
        assert accept == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    def test_attributes(self) -> None:
        """As they were given."""
        protocol = WebSocketProtocol13("sock", {"HTTP_HOST": "here"}, mask_outgoing=True)
        assert (protocol.sock, protocol.headers) == ("sock", {"HTTP_HOST": "here"})
        assert protocol.mask_outgoing is True


class TestMiddleware:
    """Called on the class, and as a part of a project's own."""

    def test_handshake(self) -> None:
        """There is a WebSocket, not open yet, and the view is not called."""
        request: Any = wsgi_request(HTTP_SEC_WEBSOCKET_VERSION="8")
        assert WebSocketMiddleware.process_request(request) is None
        assert request.is_websocket() is True
        assert isinstance(request.websocket, DefaultWebSocket)
        response = WebSocketMiddleware.process_view(
            request=request, view_func=echo, view_args=(), view_kwargs={}
        )
        assert response is not None
        assert response.status_code == 400
        assert WebSocketMiddleware.process_response(request, response) is response
        assert WebSocketMiddleware.process_exception(request, KeyError()) is None  # type: ignore[func-returns-value]

    def test_page(self) -> None:
        """There is none; a view that requires one is not called."""

        def view(request: Any) -> None: ...

        view.require_websocket = True  # type: ignore[attr-defined]
        request: Any = RequestFactory().get("/")
        assert WebSocketMiddleware.process_request(request) is None
        assert (request.is_websocket(), request.websocket) == (False, None)
        assert WebSocketMiddleware.process_view(request, echo, (), {}) is None
        refused = WebSocketMiddleware.process_view(request, view, (), {})
        assert refused is not None
        assert refused.status_code == 400

    @pytest.mark.parametrize("in_async_chain", [False, True])
    @pytest.mark.parametrize("name", ["Mixed", "MixedBehind", "Plain"])
    def test_own_class(self, visit: Serve, name: str, in_async_chain: bool) -> None:
        """With Django's mixin, before and behind, and without."""
        middleware = [f"test_original_names.{name}"]
        made = visit(accept_websocket(echo), middleware=middleware, in_async_chain=in_async_chain)
        assert made.response["X-Own"] == "request response"
        talks(made)
        environ = dict(RequestFactory().get("/").environ)
        made = visit(echo, middleware=middleware, environ=environ, in_async_chain=in_async_chain)
        assert made.response["X-Own"] == "request response"
        made = visit(echo, middleware=middleware, in_async_chain=in_async_chain)
        assert made.response.status_code == 400

    def test_own_class_that_answers(self, visit: Serve) -> None:
        """The view is not asked."""
        made = visit(accept_websocket(echo), middleware=["test_original_names.Answers"])
        assert made.response.content == b"not here"


class Own:
    """Overrides two of its methods."""

    def process_request(self, request: Any) -> Any:
        """Note that it was called."""
        request.noted = ["request"]
        return super().process_request(request)  # type: ignore[misc]

    def process_response(self, request: Any, response: Any) -> Any:
        """Answer with the names of the methods that were called."""
        response["X-Own"] = " ".join([*request.noted, "response"])
        return super().process_response(request, response)  # type: ignore[misc]


class Mixed(Own, MiddlewareMixin, WebSocketMiddleware):
    """As projects write it."""


class MixedBehind(Own, WebSocketMiddleware, MiddlewareMixin):
    """The other way round."""


class Plain(Own, WebSocketMiddleware):
    """Without the mixin."""


class Answers(WebSocketMiddleware):
    """Answers in place of the view."""

    @classmethod
    def process_request(cls, request: Any) -> HttpResponse:
        """Answer."""
        return HttpResponse("not here")
