"""`WEBSOCKET_FACTORY_CLASS`: the decisions of a project's own class."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory
from echoing import echo, talks
from visit import KEY, Serve, Visit, handshake

from dwebsocket import WebSocket, _core, accept_websocket, require_websocket
from dwebsocket.backends.default.factory import WebSocketFactory as DefaultFactory
from dwebsocket.backends.default.protocols import WebSocketProtocol13, get_websocket_protocol
from dwebsocket.backends.default.websocket import DefaultWebSocket
from dwebsocket.backends.uwsgi.factory import uWsgiWebSocketFactory
from dwebsocket.factory import WebSocketFactory

if TYPE_CHECKING:
    from collections.abc import Sequence


class Loud(WebSocket):
    """Sends everything in capitals."""

    def send(self, message: Any, *, strict: bool = False) -> bool:
        """Shout."""
        return super().send(message.upper(), strict=strict)


class WithOwnClass(WebSocketFactory):
    """Makes another class."""

    websocket_class = Loud


class Never(WebSocketFactory):
    """Takes nothing for a WebSocket."""

    def is_websocket(self) -> bool:
        """Never."""
        return False


Log = Any
NOT_MADE = b"There is no WebSocket for this request.\n"


class Nothing(WebSocketFactory):
    """Makes none."""

    def create_websocket(self) -> None:
        """None."""
        return


class Wrong(WebSocketFactory):
    """Makes something else."""

    def create_websocket(self) -> Any:
        """A thing that is no WebSocket."""
        return object()


class SmallProtocol(WebSocketProtocol13):
    """Knows the second of two subprotocols."""

    @classmethod
    def select_subprotocol(cls, subprotocols: Sequence[str]) -> str | None:
        """Choose."""
        return "two" if subprotocols else None


class SmallWebSocket(DefaultWebSocket):
    """Passes its protocol on."""

    def __init__(self, protocol: Any) -> None:
        super().__init__(protocol)
        self.extra = "of its own"


class OfTheOriginal(DefaultFactory):
    """Makes everything itself."""

    def create_websocket(self) -> WebSocket | None:
        """As the original does."""
        if not self.is_websocket():
            return None
        assert get_websocket_protocol(self.get_websocket_version()) is WebSocketProtocol13
        protocol = SmallProtocol(sock=self.get_wsgi_sock(), headers=self.request.META)
        return SmallWebSocket(protocol=protocol)


class Refuses(WebSocketFactory):
    """Refuses as the original's do."""

    def create_websocket(self) -> WebSocket | None:
        """Never."""
        raise ValueError("not today")


class Foreign:
    """No subclass of ours: only the calls count."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def is_websocket(self) -> bool:
        """Only with a token."""
        return self.request.GET.get("token") == "secret"

    def create_websocket(self) -> WebSocket:
        """As usual."""
        return WebSocket()


class TestDefault:
    """The base class."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"HTTP_UPGRADE": "websocket"},
            {"HTTP_UPGRADE": "WebSocket"},
            {"HTTP_UPGRADE": "h2c, websocket"},
            {"HTTP_SEC_WEBSOCKET_KEY": KEY},
            {"HTTP_SEC_WEBSOCKET_KEY1": "draft 76"},
            {"HTTP_SEC_WEBSOCKET_VERSION": "8"},
        ],
    )
    def test_takes_for_a_websocket(self, headers: dict[str, Any]) -> None:
        """Every request that asks for one, however badly."""
        assert WebSocketFactory(RequestFactory().post("/", **headers)).is_websocket() is True

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"HTTP_UPGRADE": "h2c"},
            {"HTTP_UPGRADE": "websockets"},
            {"HTTP_CONNECTION": "Upgrade"},
            {"HTTP_SEC_WEBSOCKET_PROTOCOL": "chat"},
        ],
    )
    def test_takes_for_plain(self, headers: dict[str, Any]) -> None:
        """Every other request."""
        assert WebSocketFactory(RequestFactory().get("/", **headers)).is_websocket() is False

    @pytest.mark.parametrize(
        ("headers", "version"),
        [
            ({"HTTP_SEC_WEBSOCKET_KEY": KEY}, "13"),
            ({"HTTP_SEC_WEBSOCKET_KEY": KEY, "HTTP_SEC_WEBSOCKET_VERSION": "8"}, "13"),
            ({"HTTP_SEC_WEBSOCKET_KEY1": "1", "HTTP_SEC_WEBSOCKET_KEY2": "2"}, "76"),
            ({"HTTP_UPGRADE": "websocket"}, "75"),
            ({}, "75"),
        ],
    )
    def test_version(self, headers: dict[str, Any], version: str) -> None:
        """As the original tells them apart."""
        factory = WebSocketFactory(RequestFactory().get("/", **headers))
        assert factory.get_websocket_version() == version

    def test_half_a_draft(self) -> None:
        """The original's error."""
        request = RequestFactory().get("/", HTTP_SEC_WEBSOCKET_KEY1="1")
        with pytest.raises(ValueError, match="Sec-WebSocket-Key2 is missing"):
            WebSocketFactory(request).get_websocket_version()

    def test_makes_a_websocket(self) -> None:
        """Not open yet; none for plain HTTP."""
        made = WebSocketFactory(WSGIRequest(handshake())).create_websocket()
        assert type(made) is WebSocket
        assert made._connection is None
        assert WebSocketFactory(RequestFactory().get("/")).create_websocket() is None

    def test_websocket_does_not_hold_its_request(self) -> None:
        """Nor does the request need the collector when it holds the WebSocket."""
        request = WSGIRequest(handshake())
        request.websocket = DefaultFactory(request).create_websocket()  # type: ignore[attr-defined]
        gone = weakref.ref(request)
        gc.disable()
        try:
            del request
            assert gone() is None
        finally:
            gc.enable()

    def test_names_of_the_original(self) -> None:
        """Are subclasses that do the same."""
        assert issubclass(DefaultFactory, WebSocketFactory)
        assert issubclass(uWsgiWebSocketFactory, DefaultFactory)


class TestFactoryOfTheOriginal:
    """Makes the protocol and the WebSocket itself."""

    def test_talks(self, visit: Serve, override: Any) -> None:
        """As one that leaves it to us."""
        override(WEBSOCKET_FACTORY_CLASS="test_factory.OfTheOriginal")
        opened: list[WebSocket] = []

        @accept_websocket
        def view(request: Any) -> None:
            opened.append(request.websocket)
            request.websocket.protocol.write(request.websocket.wait(), binary=True)

        made = visit(view, environ=handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="one, two")).serve()
        made.client.send("hello")
        assert made.client.receive() == b"hello"
        assert type(opened[0]) is SmallWebSocket
        assert type(opened[0].protocol) is SmallProtocol
        assert opened[0].protocol.headers["HTTP_HOST"] == "testserver"
        assert made.header("Sec-WebSocket-Protocol") == ["two"]

    @pytest.mark.parametrize("middleware", [[], ["dwebsocket.middleware.WebSocketMiddleware"]])
    @pytest.mark.parametrize("debug", [False, True])
    def test_refuses_by_value_error(
        self, visit: Serve, override: Any, request_log: Log, middleware: list[str], debug: bool
    ) -> None:
        """400, with its reason in the log, and with DEBUG in the body."""
        override(WEBSOCKET_FACTORY_CLASS="test_factory.Refuses", DEBUG=debug)
        made = visit(accept_websocket(echo), middleware=middleware)
        assert made.response.status_code == 400
        told = b"Refuses.create_websocket() refuses this request: not today\n"
        assert made.response.content == (told if debug else NOT_MADE)
        (record,) = request_log("dwebsocket")
        assert record.getMessage().endswith(": not today")

    def test_choice_that_the_client_does_not_offer(self, visit: Serve, override: Any) -> None:
        """An error of the project's, and no connection."""
        override(WEBSOCKET_FACTORY_CLASS="test_factory.OfTheOriginal")
        made = visit(accept_websocket(echo), environ=handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="one"))
        with pytest.raises(ValueError, match="'two'"):
            list(made.response)


@pytest.mark.parametrize(
    "path",
    [
        None,
        "dwebsocket.factory.WebSocketFactory",
        "dwebsocket.backends.default.factory.WebSocketFactory",
        "dwebsocket.backends.uwsgi.factory.uWsgiWebSocketFactory",
    ],
)
def test_values_of_the_original(visit: Serve, override: Any, path: str | None) -> None:
    """All of them mean that the package chooses the factory."""
    override(WEBSOCKET_FACTORY_CLASS=path)
    talks(visit(accept_websocket(echo)))


def test_own_websocket_class(visit: Serve, override: Any) -> None:
    """The view gets it."""
    override(WEBSOCKET_FACTORY_CLASS="test_factory.WithOwnClass")
    made = visit(accept_websocket(text_type=str)(echo)).serve()
    made.client.send("hello")
    assert made.client.receive() == "HELLO"


def test_takes_no_request_for_a_websocket(visit: Serve, override: Any) -> None:
    """A handshake is a plain request then: a page, or 400 where a WebSocket is required."""
    override(WEBSOCKET_FACTORY_CLASS="test_factory.Never")
    made = visit(accept_websocket(echo))
    assert (made.response.status_code, made.response.content) == (200, b"a page")
    assert visit(require_websocket(echo)).response.status_code == 400


@pytest.mark.parametrize("middleware", [[], ["dwebsocket.middleware.WebSocketMiddleware"]])
def test_makes_no_websocket(visit: Serve, override: Any, middleware: list[str]) -> None:
    """The handshake is refused, nothing is left behind. The client learns of no setting."""
    override(WEBSOCKET_FACTORY_CLASS="test_factory.Nothing")
    before = _core.open_connections()
    made = visit(accept_websocket(echo), middleware=middleware)
    assert made.response.status_code == 400
    assert made.response.content == NOT_MADE
    assert _core.open_connections() == before


def test_makes_something_else(override: Any) -> None:
    """A mistake of the project's, by name."""
    override(WEBSOCKET_FACTORY_CLASS="test_factory.Wrong")
    made = Visit(handshake())
    with pytest.raises(
        ImproperlyConfigured, match=r"Wrong\.create_websocket\(\) must give.* object"
    ):
        accept_websocket(echo)(made.request())
    made.close()


def test_class_without_our_base(visit: Serve, override: Any) -> None:
    """Is obeyed all the same."""
    override(WEBSOCKET_FACTORY_CLASS="test_factory.Foreign")
    assert visit(require_websocket(echo)).response.status_code == 400
    talks(visit(require_websocket(echo), environ=handshake("/?token=secret")))


@pytest.mark.parametrize("path", ["os.path", "os.path.join", "os.PathLike"])
def test_no_such_class(override: Any, path: str) -> None:
    """The error names the setting."""
    override(WEBSOCKET_FACTORY_CLASS=path)
    with pytest.raises(ImproperlyConfigured, match=f"^WEBSOCKET_FACTORY_CLASS is '{path}', which"):
        accept_websocket(echo)(RequestFactory().get("/"))


def test_class_that_does_not_exist(override: Any) -> None:
    """As Python says it."""
    override(WEBSOCKET_FACTORY_CLASS="test_factory.Missing")
    with pytest.raises(ImportError, match="Missing"):
        accept_websocket(echo)(RequestFactory().get("/"))
