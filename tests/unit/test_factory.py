"""`WEBSOCKET_FACTORY_CLASS`: what a project's own class decides."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from echoing import echo, talks
from visit import KEY, Serve, Visit, handshake

from dwebsocket import WebSocket, _core, accept_websocket, require_websocket
from dwebsocket.backends.default.factory import WebSocketFactory as DefaultFactory
from dwebsocket.backends.uwsgi.factory import uWsgiWebSocketFactory
from dwebsocket.factory import WebSocketFactory


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
        """Whoever asks for one, however badly."""
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
        """Everybody else."""
        assert WebSocketFactory(RequestFactory().get("/", **headers)).is_websocket() is False

    @pytest.mark.parametrize(
        ("header", "version"),
        [("13", 13), (" 8 ", 8), (None, None), ("", None), ("thirteen", None), ("-1", None)],
    )
    def test_version(self, header: str | None, version: int | None) -> None:
        """As the client says it."""
        headers = {} if header is None else {"HTTP_SEC_WEBSOCKET_VERSION": header}
        factory = WebSocketFactory(RequestFactory().get("/", **headers))  # type: ignore[arg-type]
        assert factory.get_websocket_version() == version

    def test_makes_a_websocket(self) -> None:
        """Not open yet."""
        made = WebSocketFactory(RequestFactory().get("/")).create_websocket()
        assert type(made) is WebSocket

    def test_names_of_the_original(self) -> None:
        """Are the same class, or nothing but a subclass."""
        assert DefaultFactory is WebSocketFactory
        assert issubclass(uWsgiWebSocketFactory, WebSocketFactory)


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
    """All mean: find out by yourself."""
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


def test_makes_no_websocket(visit: Serve, override: Any) -> None:
    """The handshake is refused, nothing is left behind."""
    override(WEBSOCKET_FACTORY_CLASS="test_factory.Nothing")
    before = _core.open_connections()
    made = visit(accept_websocket(echo))
    assert made.response.status_code == 400
    assert b"WEBSOCKET_FACTORY_CLASS" in made.response.content
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


def test_class_that_does_not_exist(override: Any) -> None:
    """As Python says it."""
    override(WEBSOCKET_FACTORY_CLASS="test_factory.Missing")
    with pytest.raises(ImportError, match="Missing"):
        accept_websocket(echo)(RequestFactory().get("/"))
