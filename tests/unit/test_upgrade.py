"""From a request to a WebSocket: refusals, and the response that becomes the upgrade."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils import translation
from django.utils.cache import patch_vary_headers
from peer import LiveWebSocket
from visit import KEY, Serve, Visit, body, descriptors, handshake

from dwebsocket import _core, accept_websocket, require_websocket
from dwebsocket.factory import WebSocketFactory
from dwebsocket.handshake import upgrade_request as attributes
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.runners import thread
from dwebsocket.servers.handshake import Handshake
from support.waiting import eventually

Override = Callable[..., None]
Log = Callable[..., list[logging.LogRecord]]
Open = Callable[..., LiveWebSocket]


class Known:
    """The objects of a server that hold a request."""

    def method(self, *arguments: Any) -> bytes:
        """Be one of its methods."""
        return b""


@accept_websocket
def echo(request: HttpRequest, **kwargs: Any) -> HttpResponse | None:
    """Echo, or a page."""
    if not request.is_websocket():  # type: ignore[attr-defined]
        return HttpResponse("a page")
    for message in request.websocket:  # type: ignore[attr-defined]
        request.websocket.send(message)  # type: ignore[attr-defined]
    return None


def never(request: HttpRequest) -> None:
    """Fail if a refused request gets here."""
    raise AssertionError("the view of a refused handshake was called")


class TestRefusals:
    """Each is an ordinary response, logged, and never reaches the view."""

    def refused(
        self, visit: Serve, status: int, *, view: Any = never, **changes: str | None
    ) -> HttpResponse:
        """Check that a handshake gets `status`, and has no effect but the response."""
        before, places = descriptors(), _core.open_connections()
        made = visit(require_websocket(view), environ=handshake(**changes))
        response: HttpResponse = made.response
        assert response.status_code == status
        assert response["Content-Type"] == "text/plain; charset=utf-8"
        assert not isinstance(response, UpgradeResponse)
        assert _core.open_connections() == places
        # The two of the visit itself. The engine may yet close those of an earlier visit.
        eventually(lambda: len(descriptors() - before) <= 2, what="no descriptor is left")
        assert made.environ["gunicorn.socket"] is made.server
        return response

    @pytest.mark.parametrize("field", ["HTTP_COOKIE", "QUERY_STRING", "HTTP_X_OF_ITS_OWN"])
    def test_too_large(self, visit: Serve, override: Override, field: str) -> None:
        """A handshake may have so many bytes, wherever they are, and not one more."""
        size = Handshake("GET", handshake(**{field: "x=1"}), None).size
        override(WEBSOCKET_MAX_HANDSHAKE_SIZE=size)
        assert visit(echo, environ=handshake(**{field: "x=1"})).serve().response.status_code == 101
        response = self.refused(visit, 431, **{field: "x=12"})
        assert response.content == b"The headers of this handshake are too large.\n"
        override(WEBSOCKET_MAX_HANDSHAKE_SIZE=None)
        assert visit(echo, environ=handshake(**{field: "x=12"})).serve().response.status_code == 101

    def test_too_many_headers(self, visit: Serve, override: Override) -> None:
        """A request with as many as honest clients send stays small, whatever its size may be."""
        override(WEBSOCKET_MAX_HANDSHAKE_SIZE=None)
        rest = 128 - Handshake("GET", handshake(), None).header_count
        many = {f"HTTP_X_{number}": "" for number in range(rest)}
        assert visit(echo, environ=handshake(**many)).serve().response.status_code == 101
        self.refused(visit, 431, **many, HTTP_Y="")

    def test_too_many_subprotocols(self, visit: Serve) -> None:
        """The response names the most subprotocols."""
        offers = ", ".join(f"v{number}" for number in range(128))
        served = visit(echo, environ=handshake(HTTP_SEC_WEBSOCKET_PROTOCOL=offers)).serve()
        assert served.response.status_code == 101
        response = self.refused(visit, 400, HTTP_SEC_WEBSOCKET_PROTOCOL=f"{offers}, v128")
        assert b"128 subprotocols" in response.content

    def test_size_is_that_of_text(self) -> None:
        """Middleware may put anything into `META`, which the client has not sent."""
        environ: dict[str, Any] = handshake()
        size = Handshake("GET", environ, None).size
        assert Handshake("GET", {**environ, "HTTP_X_NUMBER": 7}, None).size == size

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"REQUEST_METHOD": "POST"}, "GET"),
            ({"REQUEST_METHOD": "HEAD"}, "GET"),
            ({"SERVER_PROTOCOL": "HTTP/1.0"}, "HTTP/1.1"),
            ({"SERVER_PROTOCOL": "nonsense"}, "HTTP"),
            ({"REQUEST_METHOD": "get"}, "GET"),
            ({"HTTP_HOST": None}, "Host"),
            ({"CONTENT_LENGTH": "5"}, "body"),
            ({"HTTP_TRANSFER_ENCODING": "chunked"}, "body"),
            ({"HTTP_UPGRADE": None}, "Upgrade"),
            ({"HTTP_UPGRADE": "h2c"}, "Upgrade"),
            ({"HTTP_CONNECTION": None}, "Connection"),
            ({"HTTP_CONNECTION": "keep-alive"}, "Connection"),
            ({"HTTP_SEC_WEBSOCKET_KEY": None}, "Sec-WebSocket-Key"),
            ({"HTTP_SEC_WEBSOCKET_KEY": ""}, "Sec-WebSocket-Key"),
            ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, "Sec-WebSocket-Key"),
            ({"HTTP_SEC_WEBSOCKET_KEY": "not base64 at all!!!!!!"}, "Sec-WebSocket-Key"),
            ({"HTTP_SEC_WEBSOCKET_PROTOCOL": "a b"}, "Sec-WebSocket-Protocol"),
            ({"HTTP_SEC_WEBSOCKET_EXTENSIONS": "x;"}, "Sec-WebSocket-Extensions"),
        ],
    )
    def test_malformed(self, visit: Serve, changes: dict[str, Any], word: str) -> None:
        """400 with the header that is wrong."""
        response = self.refused(visit, 400, **changes)
        if changes.get("REQUEST_METHOD") != "HEAD":
            assert word in response.content.decode()

    @pytest.mark.parametrize(
        "changes",
        [
            {"HTTP_SEC_WEBSOCKET_VERSION": "8"},
            {"HTTP_SEC_WEBSOCKET_VERSION": "14"},
            {"HTTP_SEC_WEBSOCKET_VERSION": "thirteen"},
            {"HTTP_SEC_WEBSOCKET_VERSION": None},
            {
                "HTTP_SEC_WEBSOCKET_VERSION": None,
                "HTTP_SEC_WEBSOCKET_KEY": None,
                "HTTP_SEC_WEBSOCKET_KEY1": "4 @1  46546xW%0l 1 5",
                "HTTP_SEC_WEBSOCKET_KEY2": "12998 5 Y3 1  .P00",
            },
        ],
    )
    def test_version(self, visit: Serve, changes: dict[str, Any]) -> None:
        """426 with the version that is spoken."""
        response = self.refused(visit, 426, **changes)
        assert response["Sec-WebSocket-Version"] == "13"

    @pytest.mark.parametrize("debug", [True, False])
    def test_origin(self, visit: Serve, override: Override, request_log: Log, debug: bool) -> None:
        """403; the setting is named in the log, and to the client only with DEBUG."""
        override(DEBUG=debug)
        response = self.refused(visit, 403, HTTP_ORIGIN="https://evil.example")
        assert (b"WEBSOCKET_ALLOWED_ORIGINS" in response.content) is debug
        assert "WEBSOCKET_ALLOWED_ORIGINS" in request_log("dwebsocket")[-1].getMessage()

    def test_origin_of_the_view(self, visit: Serve) -> None:
        """An option of the decorator replaces the setting."""
        view = accept_websocket(allowed_origins=["https://friend.example"])(echo.__wrapped__)  # type: ignore[attr-defined]
        made = visit(view, environ=handshake(HTTP_ORIGIN="https://friend.example"))
        assert made.response.status_code == 101

    def test_host(self, visit: Serve) -> None:
        """A host that is not the site's gets 400 from Django, as for any request."""
        before = _core.open_connections()
        made = visit(accept_websocket(never), environ=handshake(HTTP_HOST="elsewhere.example"))
        assert made.response.status_code == 400
        assert _core.open_connections() == before

    def test_limit(self, visit: Serve, override: Override, request_log: Log) -> None:
        """503, and when to come back."""
        override(WEBSOCKET_MAX_CONNECTIONS=0)
        response = self.refused(visit, 503)
        assert response["Retry-After"] == "5"
        reason = "All 0 connections of WEBSOCKET_MAX_CONNECTIONS are taken"
        assert reason in request_log("dwebsocket")[-1].getMessage()

    def test_limit_counts_promised_places(self, visit: Serve, override: Override) -> None:
        """A response that is not iterated yet holds one."""
        override(WEBSOCKET_MAX_CONNECTIONS=1)
        first = visit(echo)
        assert first.response.status_code == 101
        assert visit(echo).response.status_code == 503
        first.response.close()
        assert visit(echo).response.status_code == 101

    def test_no_descriptor_left(self, monkeypatch: pytest.MonkeyPatch, request_log: Log) -> None:
        """503 instead of a connection that is not served; the place is given back."""

        def none_left(*args: Any) -> None:
            raise OSError(24, "Too many open files")

        eventually(lambda: _core.open_connections() == 0, what="no connection of another test")
        made = Visit(handshake())
        before = descriptors()
        monkeypatch.setattr("dwebsocket._core.Takeover", none_left)
        response = require_websocket(never)(made.request())
        assert response.status_code == 503
        assert "Too many open files" in request_log("dwebsocket")[-1].getMessage()
        assert descriptors() <= before
        assert _core.open_connections() == 0
        made.close()

    def test_server_without_a_socket(self, request_log: Log) -> None:
        """501, and one error that names the server."""
        environ = handshake()
        made = Visit(environ)
        del environ["gunicorn.socket"]
        environ["SERVER_SOFTWARE"] = "granian/2.8"
        response = require_websocket(never)(made.request())
        made.close()
        assert response.status_code == 501
        (record,) = request_log("dwebsocket")
        assert record.levelno == logging.ERROR
        assert "granian/2.8 does not give its clients' connections" in record.getMessage()
        assert "Use gunicorn" in record.getMessage()

    def test_bad_setting(self, override: Override) -> None:
        """An error of the project's, raised before the connection is taken over."""
        override(WEBSOCKET_SEND_BUFFER=0)
        made = Visit(handshake())
        before = descriptors()
        with pytest.raises(Exception, match=r"^WEBSOCKET_SEND_BUFFER must be a number of bytes"):
            require_websocket(never)(made.request())
        assert descriptors() <= before
        made.close()

    def test_each_is_logged(self, visit: Serve, request_log: Log) -> None:
        """With status and request, as Django logs its own refusals."""
        visit(require_websocket(never), environ=handshake("/", HTTP_SEC_WEBSOCKET_VERSION="8"))
        (record,) = request_log("dwebsocket")
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith("WebSocket refused with 426: /: ")
        assert record.status_code == 426  # type: ignore[attr-defined]
        assert record.request.path == "/"  # type: ignore[attr-defined]

    def test_reason_with_percent_signs_is_logged_as_it_is(
        self, visit: Serve, request_log: Log
    ) -> None:
        """A client's text is not used as a format."""
        made = visit(require_websocket(never), environ=handshake(HTTP_ORIGIN="http://%s%d"))
        assert made.response.status_code == 403
        (record,) = request_log("dwebsocket")
        assert "'http://%s%d'" in record.getMessage()


class TestAccepted:
    """The response that turns its request into a WebSocket."""

    def test_messages_flow(self, visit: Serve) -> None:
        """The client gets our 101 and nothing of the server's."""
        made = visit(echo).serve()
        assert made.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert made.header("Server") == []
        made.client.send("hello")
        assert made.client.receive() == "hello"
        made.client.close(1001)
        assert made.client.closing() == (1001, "")
        assert made.client.frame() is None

    def test_head_is_what_the_rfc_asks_for(self, visit: Serve) -> None:
        """Nothing about a body, each header once."""
        made = visit(echo).serve()
        accept = _core.validate_handshake(
            method="GET",
            http_version=(1, 1),
            host="testserver",
            content_length=None,
            transfer_encoding=None,
            upgrade="websocket",
            connection="upgrade",
            version="13",
            key=KEY,
            protocols=None,
            extensions=None,
        )[1]
        assert made.head == (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
        )

    def test_headers_and_cookies_go_into_the_head(self, visit: Serve) -> None:
        """Everything that middleware has added, each cookie in a header of its own."""
        made = visit(echo, middleware=["test_upgrade.decorate"]).serve()
        assert made.header("X-Stamp") == ["grüße".encode().decode("latin-1")]
        assert made.header("Vary") == ["Cookie"]
        cookies = made.header("Set-Cookie")
        assert [cookie.partition(";")[0] for cookie in cookies] == ["a=1", 'b="two words"']
        assert "HttpOnly" in cookies[1]

    def test_headers_of_another_kind_of_mapping(self, visit: Serve) -> None:
        """Some middleware's, or a later Django's: the methods of any mapping are enough."""
        made = visit(echo, middleware=["test_upgrade.exchange_headers"]).serve()
        assert made.header("X-Mine") == ["yes"]

    def test_early_bytes_reach_the_view(self, visit: Serve) -> None:
        """In order, wherever the server had put them."""
        frame = b"\x81\x85\x00\x00\x00\x00hello"
        made = visit(echo, early=frame[:4], read_ahead=frame[4:]).serve()
        made.client.send("second")
        assert (made.client.receive(), made.client.receive()) == ("hello", "second")

    @pytest.mark.parametrize(
        ("offered", "chosen"), [("b, a", ["a"]), ("c, b", ["b"]), ("c", []), (None, [])]
    )
    def test_subprotocol(self, visit: Serve, offered: str | None, chosen: list[str]) -> None:
        """The site's first choice that the client offers."""
        view = accept_websocket(subprotocols=["a", "b"])(say_subprotocol)
        made = visit(view, environ=handshake(HTTP_SEC_WEBSOCKET_PROTOCOL=offered)).serve()
        assert made.header("Sec-WebSocket-Protocol") == chosen
        assert made.client.receive() == str([*chosen, None][0])

    def test_options_are_used(self, visit: Serve) -> None:
        """Those of the view, above those of the settings."""
        view = accept_websocket(max_message_size=5, text_type=str)(echo.__wrapped__)  # type: ignore[attr-defined]
        made = visit(view).serve()
        made.client.send(b"12345")
        assert made.client.receive() == b"12345"
        made.client.send("123456")
        assert made.client.closing()[0] == 1009

    def test_nothing_happens_before_the_server_iterates(self, visit: Serve) -> None:
        """Up to then the connection is the server's."""
        made = visit(echo)
        assert made.environ["gunicorn.socket"] is made.server
        made.server.sendall(b"still the server's")
        assert made.client.sock.recv(100) == b"still the server's"

    def test_second_iteration_does_nothing(self, visit: Serve) -> None:
        """The view is started once."""
        made = visit(echo)
        assert list(made.response) == []
        assert list(made.response) == []
        made.finish()

    def test_url_arguments_reach_the_view(self, visit: Serve) -> None:
        """As for any view."""
        view = accept_websocket(say_arguments)
        made = visit(view, environ=handshake("/7/?q=x")).serve()
        assert made.client.receive() == "(7, 'x')"

    def test_context_of_the_request_reaches_the_view(self, visit: Serve) -> None:
        """The language that a middleware has set, though another thread runs the view."""
        view = accept_websocket(say_language)
        middleware = ["django.middleware.locale.LocaleMiddleware"]
        environ = handshake(HTTP_ACCEPT_LANGUAGE="de")
        made = visit(view, middleware=middleware, environ=environ).serve()
        assert made.client.receive() == "de"

    def test_body_of_the_request_is_empty(self, visit: Serve) -> None:
        """The view cannot read the server's placeholder."""
        made = visit(accept_websocket(say_body)).serve()
        assert made.client.receive() == "b''"

    def test_request_lets_go_of_the_servers_socket(self, visit: Serve) -> None:
        """The view holds the request for hours."""
        made = visit(echo).serve()
        assert "gunicorn.socket" not in made.environ

    def test_view_holds_nothing_that_the_server_knew_of_the_request(self, visit: Serve) -> None:
        """Its parser and its response, by way of the body and of what sends hints."""
        known = Known()
        environ = handshake()
        environ["wsgi.early_hints"] = known.method
        environ["wsgi.input"].read = known.method
        gone = weakref.ref(known)
        made = visit(echo, environ=environ).serve()
        made.client.send(b"?")
        assert made.client.receive() == "?"
        del known, environ
        made.environ.clear()
        gc.collect()
        assert gone() is None

    def test_transaction_of_the_handshake_is_not_the_views(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Under ATOMIC_REQUESTS the handshake has one; the view would hold it for hours."""
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        made = visit(accept_websocket(say_transaction)).serve()
        assert made.client.receive() == "False"

    def test_async_view(self, visit: Serve) -> None:
        """Runs as a task, also behind the sync handler."""
        made = visit(accept_websocket(async_echo)).serve()
        made.client.send("hello")
        assert made.client.receive() == "hello"
        made.client.close()
        assert made.client.closing()[0] == 1000


def say_subprotocol(request: Any) -> None:
    """Send the subprotocol."""
    request.websocket.send(str(request.websocket.subprotocol))


def say_arguments(request: Any, number: int) -> None:
    """Send the URL's arguments."""
    request.websocket.send(str((number, request.GET["q"])))


def say_language(request: Any) -> None:
    """Send the active language."""
    request.websocket.send(str(translation.get_language()))


def say_transaction(request: Any) -> None:
    """Send whether this is in a transaction."""
    request.websocket.send(str(connection.in_atomic_block))


def say_body(request: Any) -> None:
    """Send the request's body."""
    request.websocket.send(str(request.body))


async def async_echo(request: Any) -> None:
    """Echo in a task."""
    async for message in request.websocket:
        await request.websocket.asend(message)


def decorate(get_response: Any) -> Any:
    """Middleware: add what middleware adds."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        response["X-Stamp"] = "grüße".encode().decode("latin-1")
        response["Content-Length"] = "0"
        response.set_cookie("a", "1")
        response.set_cookie("b", "two words", httponly=True)
        patch_vary_headers(response, ["Cookie"])
        return response

    return middleware


class TestMiddlewareOfDjango:
    """For middleware the response is an empty 101 like any other."""

    @pytest.mark.parametrize("in_async_chain", [False, True])
    def test_all_of_it(self, visit: Serve, override: Override, in_async_chain: bool) -> None:
        """The usual ones together let it through."""
        override(USE_ETAGS=True)
        made = visit(
            echo,
            middleware=[
                "django.middleware.security.SecurityMiddleware",
                "django.middleware.gzip.GZipMiddleware",
                "django.middleware.cache.UpdateCacheMiddleware",
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.locale.LocaleMiddleware",
                "django.middleware.http.ConditionalGetMiddleware",
                "django.middleware.common.CommonMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware",
                "django.middleware.cache.FetchFromCacheMiddleware",
                "dwebsocket.middleware.WebSocketMiddleware",
            ],
            environ=handshake(
                HTTP_ACCEPT_ENCODING="gzip", HTTP_IF_NONE_MATCH="*", HTTP_ACCEPT_LANGUAGE="de"
            ),
            in_async_chain=in_async_chain,
        )
        assert isinstance(made.response, UpgradeResponse)
        made.serve()
        assert made.header("X-Content-Type-Options") == ["nosniff"]
        assert made.header("X-Frame-Options") == ["DENY"]
        assert made.header("Content-Length") == []
        assert made.header("Content-Encoding") == []
        made.client.send("hello")
        assert made.client.receive() == "hello"

    def test_session_begun_by_the_handshake(self, visit: Serve) -> None:
        """Its cookie is in the 101, and values that the view adds later are saved as well."""
        made = visit(
            accept_websocket(count_in_session),
            middleware=[
                "django.contrib.sessions.middleware.SessionMiddleware",
                "test_upgrade.begin_session",
            ],
        ).serve()
        (cookie,) = made.header("Set-Cookie")
        key = cookie.partition("=")[2].partition(";")[0]
        made.client.send("go")
        assert made.client.closing()[0] == 1000
        assert thread.join(10)
        from django.contrib.sessions.backends.cache import SessionStore

        assert dict(SessionStore(key).items()) == {"begun": True, "count": 1}

    def test_response_that_is_replaced(self, visit: Serve) -> None:
        """Descriptors and place go back; the client gets the other response."""
        gc.collect()
        places = _core.open_connections()
        made = visit(echo, middleware=["test_upgrade.replace"])
        assert made.response.status_code == 418
        assert _core.open_connections() == places
        before = descriptors()
        gc.collect()
        assert descriptors() <= before
        made.server.sendall(b"teapot")
        assert made.client.sock.recv(100) == b"teapot"

    def test_middleware_that_fails(self, visit: Serve) -> None:
        """A 500, and nothing stays behind once the exception is forgotten."""
        places = _core.open_connections()
        made = visit(echo, middleware=["test_upgrade.fail"])
        assert made.response.status_code == 500

        def is_given_back() -> bool:
            gc.collect()
            return _core.open_connections() <= places

        eventually(is_given_back)


def begin_session(get_response: Any) -> Any:
    """Middleware: begin a session."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.session["begun"] = True
        return get_response(request)

    return middleware


def count_in_session(request: Any) -> None:
    """Change the session after the handshake."""
    request.websocket.wait()
    request.session["count"] = 1


def replace(get_response: Any) -> Any:
    """Middleware: answer something else."""

    def middleware(request: HttpRequest) -> HttpResponse:
        get_response(request)
        return HttpResponse("teapot", status=418)

    return middleware


def fail(get_response: Any) -> Any:
    """Middleware: break behind the view."""

    def middleware(request: HttpRequest) -> HttpResponse:
        get_response(request)
        raise RuntimeError("after the view")

    return middleware


class TestLost:
    """Errors when it is too late for a response."""

    def test_header_that_would_break_the_head(self, visit: Serve) -> None:
        """Found before the exchange: the server answers with its own error."""
        made = visit(echo, middleware=["test_upgrade.break_header"])
        with pytest.raises(ValueError, match="X-Broken"):
            list(made.response)
        made.server.sendall(b"HTTP/1.1 500 \r\n\r\n")
        assert made.client.sock.recv(100) == b"HTTP/1.1 500 \r\n\r\n"

    def test_process_that_ends(
        self, visit: Serve, request_log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The client sees the end, the log says why, the view does not run."""
        from dwebsocket.exceptions import ShuttingDown

        def refuse(descriptor: int, *args: Any, **kwargs: Any) -> None:
            import os

            os.close(descriptor)
            raise ShuttingDown("the process is ending")

        made = visit(require_websocket(never))
        monkeypatch.setattr(_core, "adopt", refuse)
        assert list(made.response) == []
        made.finish()
        (record,) = request_log("dwebsocket")
        assert record.levelno == logging.ERROR
        assert record.getMessage() == "WebSocket lost before it was open: /: the process is ending"
        assert made.client.sock.recv(100) == b""

    @pytest.mark.parametrize("error", [BrokenPipeError("gone"), OSError("no memory")], ids=str)
    def test_one_that_another_process_gives(
        self, error: OSError, visit: Serve, request_log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If that has given up, it tells of the end."""

        def refuse(descriptor: int, *args: Any, **kwargs: Any) -> None:
            import os

            os.close(descriptor)
            raise error

        made = visit(require_websocket(never))
        monkeypatch.setattr(_core, "adopt", refuse)
        monkeypatch.setattr(Handshake, "moved", SimpleNamespace(subprotocol=None))
        assert list(made.response) == []
        made.finish()
        (record,) = request_log("dwebsocket")
        is_given_up = isinstance(error, BrokenPipeError)
        assert record.levelno == (logging.INFO if is_given_up else logging.ERROR)

    @pytest.mark.parametrize("view", [never, async_echo])
    @pytest.mark.parametrize(
        "error", [RuntimeError("can't start new thread"), ValueError("size not valid: 5 bytes")]
    )
    def test_no_thread_for_the_view(
        self,
        visit: Serve,
        request_log: Log,
        monkeypatch: pytest.MonkeyPatch,
        view: Any,
        error: Exception,
    ) -> None:
        """The client gets 1013, and the log has the reason."""

        def refuse(*args: Any) -> None:
            raise error

        monkeypatch.setattr("dwebsocket.runners.thread.run", refuse)
        monkeypatch.setattr("dwebsocket.runners.loop.run", refuse)
        made = visit(require_websocket(view)).serve()
        assert made.client.closing() == (1013, "no thread for another view")
        (record,) = request_log("dwebsocket")
        assert record.levelno == logging.ERROR
        assert record.getMessage() == f"No thread for another WebSocket view: /: {error}"

    def test_stack_size_that_cannot_be(
        self, visit: Serve, override: Override, request_log: Log
    ) -> None:
        """A setting that is read late must not leave an open connection without a view."""
        override(WEBSOCKET_THREAD_STACK_SIZE="large")
        made = visit(require_websocket(never)).serve()
        assert made.client.closing()[0] == 1013
        (record,) = request_log("dwebsocket")
        assert "WEBSOCKET_THREAD_STACK_SIZE must be a number of bytes" in record.getMessage()


def break_header(get_response: Any) -> Any:
    """Middleware: add a header that no client could read."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        response.headers._store["x-broken"] = ("X-Broken", "a\r\nSet-Cookie: evil=1")  # type: ignore[attr-defined]
        return response

    return middleware


def exchange_headers(get_response: Any) -> Any:
    """Middleware: put a mapping of its own in the place of the response's headers."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        response.headers = {"X-Mine": "yes"}  # type: ignore[assignment]
        return response

    return middleware


class TestPrepare:
    """The attributes of every request under this package."""

    def test_plain(self) -> None:
        """Neither; there is nothing to upgrade."""
        request: Any = RequestFactory().get("/")
        assert attributes.prepare(request) is None
        assert (request.websocket, request.is_websocket()) == (None, False)

    def test_page_is_asked_about_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the middleware; its view's decorator believes that."""
        request = RequestFactory().get("/")
        assert attributes.prepare(request) is None
        monkeypatch.setattr(WebSocketFactory, "is_websocket", never)
        assert attributes.prepare(request) is None

    def test_handshake(self) -> None:
        """The project's factory, which is to make the WebSocket."""
        request: Any = WSGIRequest(handshake())
        factory = attributes.prepare(request)
        assert type(factory) is WebSocketFactory
        assert factory.request is request
        assert (request.websocket, request.is_websocket()) == (None, True)

    @pytest.mark.parametrize("environ", [handshake(), RequestFactory().get("/").environ])
    def test_leaves_no_cycle(self, environ: dict[str, Any]) -> None:
        """A request goes when its last user does, without the garbage collector."""
        gc.disable()
        try:
            request = WSGIRequest({**environ, "wsgi.input": body()})
            attributes.prepare(request)
            gone = weakref.ref(request)
            del request
            assert gone() is None
        finally:
            gc.enable()


def test_async_wrapper_judges_as_the_sync_one() -> None:
    """A refusal, and a page for plain requests."""
    view = accept_websocket(async_page)
    plain = asyncio.run(view(RequestFactory().get("/")))  # type: ignore[arg-type]
    assert plain.content == b"False"
    environ = handshake(HTTP_SEC_WEBSOCKET_VERSION="8")
    made = Visit(environ)
    assert asyncio.run(view(made.request())).status_code == 426  # type: ignore[arg-type]
    made.close()


async def async_page(request: Any) -> HttpResponse:
    """Give a page."""
    return HttpResponse(str(request.is_websocket()))
