"""Middleware of a project's own that opens WebSockets: their views run in the server's worker."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path
from django.utils.deprecation import MiddlewareMixin
from echoing import async_echo, echo, talks
from visit import Serve, Visit, handshake
from websockets.frames import Frame, Opcode

from dwebsocket import (
    UnsupportedServer,
    UsageError,
    WebSocket,
    _core,
    accept_websocket,
    require_websocket,
)
from dwebsocket.api.base import own_websocket
from dwebsocket.backends.default.factory import WebSocketFactory
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.testing import WebSocketClient
from support.waiting import eventually

Log = Callable[..., list[logging.LogRecord]]

OURS = ["dwebsocket.middleware.WebSocketMiddleware"]
OPENS, MAKES = ["test_inline.Opens"], ["test_inline.Makes"]

# The things that middleware and views saw.
seen: list[Any] = []


class Makes(MiddlewareMixin):
    """Makes a WebSocket of each handshake, and closes it when the response is there."""

    def process_request(self, request: Any) -> None:
        """As the original's middleware."""
        request.websocket = WebSocketFactory(request).create_websocket()
        request.is_websocket = lambda: request.websocket is not None

    def process_response(self, request: Any, response: HttpResponse) -> HttpResponse:
        """As the original's middleware."""
        if request.is_websocket():
            seen.append(request.websocket)
            request.websocket.close()
        return response

    def process_exception(self, request: Any, exception: Exception) -> None:
        """As the original's middleware."""
        if request.is_websocket():
            request.websocket.close()


class Opens(Makes):
    """Opens it before each view."""

    def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        """As the original's middleware."""
        if request.is_websocket():
            request.websocket.accept_connection()


class Gentle(Opens):
    """Leaves the end to us."""

    def process_response(self, request: Any, response: HttpResponse) -> HttpResponse:
        """Do nothing."""
        return response

    process_exception = None  # type: ignore[assignment]


def once(request: Any) -> HttpResponse:
    """Echo one message, or a page."""
    seen.append(threading.current_thread())
    if not request.is_websocket():
        return HttpResponse("a page")
    assert own_websocket.get() is request.websocket
    request.websocket.send(request.websocket.wait(10))
    return HttpResponse("for nobody")


def once_and_none(request: Any) -> None:
    """Echo one message."""
    request.websocket.send(request.websocket.wait(10))


async def async_once(request: Any) -> HttpResponse:
    """Echo one message."""
    await request.websocket.asend(await request.websocket.areceive(10))
    return HttpResponse()


HELLO = Frame(Opcode.TEXT, b"hello").serialize(mask=True)


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    seen.clear()


def end(made: Visit, code: int = 1000) -> None:
    """Serve the response, and see that the client got one echo and the end."""
    assert b"".join(made.response) in (b"", b"for nobody")
    made.finish()
    made.head = made._read_head()
    assert made.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert made.client.receive() == "hello"
    assert made.client.closing() == (code, "")
    assert own_websocket.get() is None


class TestOpens:
    """`accept_connection()` before the view."""

    def test_view_that_refuses_too_late(self, visit: Serve, request_log: Log) -> None:
        """1008, and a warning that says where to do so."""
        view = accept_websocket(lambda request: HttpResponse(status=403))
        made = visit(view, middleware=OPENS)
        assert b"".join(made.response) == b""
        made.finish()
        made._read_head()
        assert made.client.closing() == (1008, "")
        (record,) = [r for r in request_log("dwebsocket") if hasattr(r, "event")]
        assert record.levelno == logging.WARNING
        assert "Refuse it before accept_connection()" in record.getMessage()

    @pytest.mark.parametrize("middleware", [OPENS, ["test_inline.Gentle"], [*OPENS, *OURS]])
    @pytest.mark.parametrize(
        "view", [once, accept_websocket(once), require_websocket(once_and_none)]
    )
    def test_talks(self, visit: Serve, view: Any, middleware: list[str]) -> None:
        """The view runs here, at once, and the connection ends with the response."""
        made = visit(view, middleware=middleware, early=HELLO)
        assert made.response.status_code == 200
        end(made)

    def test_thread(self, visit: Serve) -> None:
        """The view's is that of the request."""
        end(visit(once, middleware=["test_inline.Gentle"], early=HELLO))
        assert seen == [threading.current_thread()]

    @pytest.mark.parametrize("in_async_chain", [False, True])
    def test_async_view(self, visit: Serve, in_async_chain: bool) -> None:
        """Runs inline, too."""
        end(visit(async_once, middleware=OPENS, early=HELLO, in_async_chain=in_async_chain))

    def test_page(self, visit: Serve) -> None:
        """Has no WebSocket."""
        made = visit(once, middleware=OPENS, environ=dict(RequestFactory().get("/").environ))
        assert made.response.content == b"a page"

    def test_handshake(self, visit: Serve, override: Any) -> None:
        """The settings of the project count."""
        override(WEBSOCKET_SUBPROTOCOLS=["chat"])
        environ = handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="chat")
        made = visit(once, middleware=OPENS, environ=environ, early=HELLO)
        end(made)
        assert made.header("Sec-WebSocket-Protocol") == ["chat"]

    def test_twice(self, visit: Serve) -> None:
        """Nothing happens."""

        def view(request: Any) -> HttpResponse:
            request.websocket.accept_connection()
            request.websocket.protocol.accept_connection()
            return once(request)

        end(visit(view, middleware=OPENS, early=HELLO))

    def test_in_a_decorated_view(self, visit: Serve) -> None:
        """Nothing happens there either."""

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.accept_connection()
            echo(request)

        talks(visit(view))

    def test_in_a_view_that_decides(self, visit: Serve) -> None:
        """It is another name of `accept()`."""

        @accept_websocket(accept=False)
        def view(request: Any) -> None:
            request.websocket.accept_connection()
            echo(request)

        talks(visit(view))

    def test_websocket_that_is_not_on_the_request(self, visit: Serve) -> None:
        """It is put there."""

        def view(request: Any) -> HttpResponse:
            websocket = WebSocketFactory(request).create_websocket()
            assert websocket is not None
            websocket.accept_connection()
            assert request.websocket is websocket
            return once(request)

        end(visit(view, early=HELLO))

    def test_protocol(self, visit: Serve) -> None:
        """Has the request's headers, from the beginning."""

        def view(request: Any) -> HttpResponse:
            websocket = WebSocketFactory(request).create_websocket()
            assert websocket is not None
            before = websocket.protocol.headers["HTTP_HOST"]
            websocket.protocol.accept_connection()
            assert websocket.protocol.headers["HTTP_HOST"] == before == "testserver"
            assert websocket.protocol.headers is request.META
            return once(request)

        end(visit(view, early=HELLO))


class TestEnd:
    """The connection ends with the response, whatever led to it."""

    def test_view_that_fails(self, visit: Serve, request_log: Log) -> None:
        """Django answers, the client sees a normal close."""

        def view(request: Any) -> HttpResponse:
            once(request)
            raise KeyError("lost")

        made = visit(view, middleware=["test_inline.Gentle"], early=HELLO)
        assert made.response.status_code == 500
        list(made.response)
        made.finish()
        made._read_head()
        assert made.client.receive() == "hello"
        assert made.client.closing() == (1000, "")
        assert [record.levelname for record in request_log("django.request")] == ["ERROR"]

    def test_code_of_the_view(self, visit: Serve) -> None:
        """Is the one that counts."""

        def view(request: Any) -> HttpResponse:
            response = once(request)
            request.websocket.close(4001)
            return response

        end(visit(view, middleware=OPENS, early=HELLO), 4001)

    def test_once(self, visit: Serve) -> None:
        """Closing the response again changes nothing."""
        made = visit(once, middleware=OPENS, early=HELLO)
        end(made)
        made.response.close()

    def test_nothing_is_left(self, visit: Serve) -> None:
        """Neither the request nor the WebSocket wait for the collector."""
        gone: list[weakref.ref[Any]] = []

        def view(request: Any) -> HttpResponse:
            gone.extend((weakref.ref(request), weakref.ref(request.websocket)))
            return once(request)

        gc.disable()
        try:
            made = visit(view, middleware=["test_inline.NoCycle"], early=HELLO)
            end(made)
            made.response = None
            assert [each() for each in gone] == [None, None]
        finally:
            gc.enable()

    def test_client_that_is_gone(self, visit: Serve, request_log: Log) -> None:
        """Is reported, as behind other views."""

        def view(request: Any) -> HttpResponse:
            assert request.websocket.wait(10) == b"hello"
            made_before.client.vanish()
            assert request.websocket.wait(10) is None
            return HttpResponse()

        made_before = Visit(handshake(), early=HELLO)
        request: Any = made_before.request()
        websocket = WebSocketFactory(request).create_websocket()
        assert websocket is not None
        websocket.accept_connection()
        view(request)
        assert own_websocket.get() is websocket
        request.close()
        assert own_websocket.get() is None
        made_before.close()
        (record,) = request_log("dwebsocket")
        assert record.event == "websocket.lost"  # type: ignore[attr-defined]


class NoCycle(Gentle):
    """Sets no attribute that holds the request itself."""

    def process_request(self, request: Any) -> None:
        """Set one."""
        request.websocket = WebSocketFactory(request).create_websocket()

    def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> None:
        """Open it."""
        request.websocket.accept_connection()
        assert request.is_websocket() is True


class TestRefusals:
    """Are exceptions that Django answers."""

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"HTTP_ORIGIN": "https://evil.example"}, 403),
            ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 400),
            ({"HTTP_SEC_WEBSOCKET_KEY": "short"}, 400),
        ],
    )
    def test_handshake(
        self, visit: Serve, request_log: Log, changes: dict[str, Any], status: int
    ) -> None:
        """The view is not called, the refusal is logged once."""
        before = _core.open_connections()
        made = visit(once, middleware=OPENS, environ=handshake(**changes))
        assert made.response.status_code == status
        assert [each for each in seen if not isinstance(each, WebSocket)] == []
        assert _core.open_connections() == before
        records = [each for each in request_log("dwebsocket") if hasattr(each, "event")]
        assert [record.event for record in records] == ["websocket.refused"]

    @pytest.mark.parametrize(
        ("changes", "error", "reason"),
        [
            ({"HTTP_ORIGIN": "https://evil.example"}, PermissionDenied, "may not open a WebSocket"),
            ({"HTTP_SEC_WEBSOCKET_VERSION": "8"}, BadRequest, "Sec-WebSocket-Version"),
        ],
    )
    def test_exception(self, changes: Any, error: type[Exception], reason: str) -> None:
        """The response has the reason, as far as clients may see it."""
        made = Visit(handshake(**changes))
        request = made.request()
        websocket = WebSocketFactory(request).create_websocket()
        assert websocket is not None
        with pytest.raises(error, match=reason):
            websocket.accept_connection()
        assert websocket.close() is None
        made.close()

    def test_limit(self, visit: Serve, override: Any) -> None:
        """Django knows no other status for it."""
        override(WEBSOCKET_MAX_CONNECTIONS=0)
        assert visit(once, middleware=OPENS).response.status_code == 400

    def test_websocket_of_nobody(self) -> None:
        """Has no request to be opened on."""
        with pytest.raises(UsageError, match=r"create_websocket\(\) has made"):
            WebSocket().accept_connection()

    def test_websocket_of_a_request_that_is_gone(self) -> None:
        """The call comes too late, and raises."""
        made = Visit(handshake())
        websocket = WebSocketFactory(made.request()).create_websocket()
        made.close()
        assert websocket is not None
        with pytest.raises(UsageError):
            websocket.accept_connection()

    def test_lost_on_the_way(self, monkeypatch: pytest.MonkeyPatch, request_log: Log) -> None:
        """The view has a client that has gone."""

        def fails(*args: Any) -> None:
            raise OSError("gone")

        eventually(lambda: _core.open_connections() == 0, what="no connection of another test")
        made = Visit(handshake())
        request: Any = made.request()
        websocket = WebSocketFactory(request).create_websocket()
        assert websocket is not None
        monkeypatch.setattr("dwebsocket._core.adopt", fails)
        websocket.accept_connection()
        assert websocket.is_closed() is True
        assert websocket.wait() is None
        request.close()
        made.close()
        assert _core.open_connections() == 0
        (record,) = request_log("dwebsocket")
        assert record.event == "websocket.never_opened"  # type: ignore[attr-defined]


def test_test_client(override: Any) -> None:
    """An error says that it cannot, instead of a wait for ever."""
    override(ROOT_URLCONF=(path("", once),), MIDDLEWARE=OPENS)
    with (
        pytest.raises(UnsupportedServer, match="use a live server"),
        WebSocketClient().websocket("/"),
    ):
        pass


class TestMakes:
    """Middleware that makes the WebSocket, and a decorated view that opens it."""

    @pytest.mark.parametrize("middleware", [MAKES, [*MAKES, *OURS], [*OURS, *MAKES]])
    @pytest.mark.parametrize("view", [echo, async_echo])
    def test_talks(self, visit: Serve, view: Any, middleware: list[str]) -> None:
        """Through the same object, detached; what middleware closes is not open yet."""
        found: list[Any] = []

        if view is echo:

            @accept_websocket
            def decorated(request: Any) -> Any:
                found.append(request.websocket)
                return echo(request)

        else:

            @accept_websocket
            async def decorated(request: Any) -> Any:
                found.append(request.websocket)
                return await async_echo(request)

        made = visit(decorated, middleware=middleware)
        assert isinstance(made.response, UpgradeResponse)
        (at_response,) = seen
        assert isinstance(at_response, WebSocket)
        talks(made)
        assert found == [at_response]

    def test_cannot_open_it_itself_any_more(self, visit: Serve) -> None:
        """The response does."""
        made = visit(accept_websocket(echo), middleware=MAKES)
        with pytest.raises(UsageError, match="once"):
            seen[0].accept_connection()
        talks(made)

    def test_refusal(self, visit: Serve) -> None:
        """Leaves an object that can be closed."""
        environ = handshake(HTTP_ORIGIN="https://evil.example")
        made = visit(accept_websocket(echo), middleware=MAKES, environ=environ)
        assert made.response.status_code == 403
        assert len(seen) == 1

    def test_view_that_decides(self, visit: Serve) -> None:
        """Has the same object."""

        @accept_websocket(accept=False)
        def view(request: Any) -> None:
            request.websocket.accept()
            echo(request)

        talks(visit(view, middleware=["test_inline.Silent"]))


class Silent(Makes):
    """Closes nothing."""

    def process_response(self, request: Any, response: HttpResponse) -> HttpResponse:
        """Do nothing."""
        return response
