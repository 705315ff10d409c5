"""Every error in and around a view reaches the client as a close code, and the log."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.decorators import login_required
from django.http import (
    FileResponse,
    Http404,
    HttpResponse,
    HttpResponseForbidden,
    HttpResponseNotModified,
    HttpResponseRedirect,
    HttpResponseServerError,
)
from django.test import RequestFactory
from django.utils.cache import patch_vary_headers
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods
from peer import LiveWebSocket

from dwebsocket import accept_websocket, event_counts
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.request import database, request_copy
from dwebsocket.runners import view as runner

if TYPE_CHECKING:
    from visit import Serve

    from dwebsocket._core import Connection

Open = Callable[..., LiveWebSocket]
Log = Callable[..., list[logging.LogRecord]]

ADVICE = "Put the decorator that refuses above accept_websocket"


def echo(request: Any) -> None:
    """Echo until the end, and do nothing with the None at the end."""
    for message in request.websocket:
        if message is not None:
            request.websocket.send(message)


def end_of(visited: Any) -> tuple[int | None, str]:
    """Serve a visit and read how its connection ends."""
    return visited.serve().client.closing()


class Anonymous:
    """The user of a request, for `login_required`."""

    is_authenticated = False


def sign_nobody_in(get_response: Any) -> Any:
    """Middleware: give each request a user who is not signed in."""

    def middleware(request: Any) -> Any:
        request.user = Anonymous()
        return get_response(request)

    return middleware


class TestResponsesThatNobodySees:
    """The handshake is answered, so the response of the view goes nowhere."""

    @pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])
    @pytest.mark.parametrize(
        "response",
        [
            HttpResponseForbidden(),
            HttpResponseRedirect("/login/"),
            HttpResponseNotModified(),
            HttpResponseServerError(),
            HttpResponse(status=429),
        ],
        ids=lambda response: str(response.status_code),
    )
    def test_refusal(
        self, open_websocket: Open, request_log: Log, as_async: bool, response: HttpResponse
    ) -> None:
        """1008, and one warning that says what to do."""
        live = open_websocket()
        request = RequestFactory().get("/there/")
        before = event_counts()["websocket.unseen_response"].get(1008, 0)
        if as_async:

            async def aview(request: Any) -> HttpResponse:
                return response

            asyncio.run(runner.arun(aview, request, ((), {}), live.websocket))
        else:
            runner.run(lambda request: response, request, ((), {}), live.websocket, {})
        assert live.client.closing() == (1008, "")
        (record,) = request_log("dwebsocket", "dwebsocket")
        assert (record.name, record.levelno) == ("dwebsocket", logging.WARNING)
        name = type(response).__name__
        assert f"{name} with status {response.status_code}" in record.getMessage()
        assert "/there/" in record.getMessage()
        assert ADVICE in record.getMessage()
        assert record.event == "websocket.unseen_response"  # type: ignore[attr-defined]
        assert record.status_code == response.status_code  # type: ignore[attr-defined]
        assert event_counts()["websocket.unseen_response"][1008] == before + 1

    @pytest.mark.parametrize(
        "response", [HttpResponse("a page"), HttpResponse(status=204), FileResponse([b"x"]), 403]
    )
    def test_anything_else(
        self, open_websocket: Open, request_log: Log, response: HttpResponse
    ) -> None:
        """1000, as ever: old views return a page at their end."""
        live = open_websocket()
        request = RequestFactory().get("/")
        runner.run(lambda request: response, request, ((), {}), live.websocket, {})
        assert live.client.closing() == (1000, "")
        assert request_log("django.request", "dwebsocket") == []

    def test_developers_see_it_in_the_browser(self, open_websocket: Open, override: Any) -> None:
        """With DEBUG."""
        override(DEBUG=True)
        live = open_websocket()
        request = RequestFactory().get("/")
        view = lambda request: HttpResponseForbidden()  # noqa: E731
        runner.run(view, request, ((), {}), live.websocket, {})
        assert live.client.closing() == (1008, "HttpResponseForbidden with status 403: see the log")

    def test_client_that_has_gone_is_refused_nothing(
        self, open_websocket: Open, request_log: Log
    ) -> None:
        """Views that end with a redirect for pages and WebSockets alike are no mistake then."""
        live = open_websocket()
        live.client.close(1000)

        def view(request: Any) -> HttpResponse:
            assert live.websocket.wait() is None
            return HttpResponseRedirect("/")

        runner.run(view, RequestFactory().get("/"), ((), {}), live.websocket, {})
        assert live.client.closing() == (1000, "")
        assert request_log("django.request", "dwebsocket") == []

    def test_view_that_has_closed_has_told_its_client(
        self, open_websocket: Open, request_log: Log
    ) -> None:
        """Its code stays, and no warning is logged."""
        live = open_websocket()

        def view(request: Any) -> HttpResponse:
            live.websocket.close(4003, "not you")
            return HttpResponseForbidden()

        runner.run(view, RequestFactory().get("/"), ((), {}), live.websocket, {})
        assert live.client.closing() == (4003, "not you")
        assert request_log("django.request", "dwebsocket") == []

    def test_login_required_below_ours(self, visit: Serve, request_log: Log) -> None:
        """The commonest of them."""
        view = accept_websocket(login_required(echo))
        made = visit(view, middleware=["test_no_error_vanishes.sign_nobody_in"])
        assert end_of(made) == (1008, "")
        (record,) = request_log("django.request", "dwebsocket")
        assert "HttpResponseRedirect with status 302" in record.getMessage()

    def test_method_that_a_decorator_below_ours_forbids(
        self, visit: Serve, request_log: Log
    ) -> None:
        """Django logs its refusal, and we log the close."""
        view = accept_websocket(require_http_methods(["POST"])(echo))
        assert end_of(visit(view)) == (1008, "")
        log = request_log("django.request", "dwebsocket")
        assert [ADVICE in record.getMessage() for record in log] == [False, True]

    def test_view_that_decides_and_has_accepted(self, visit: Serve, request_log: Log) -> None:
        """Too late for a page."""

        @accept_websocket(accept=False)
        def view(request: Any) -> HttpResponse:
            request.websocket.accept()
            return HttpResponseForbidden()

        assert end_of(visit(view)) == (1008, "")
        (record,) = request_log("django.request", "dwebsocket")
        assert record.levelno == logging.WARNING

    def test_view_that_decides_and_has_not(self, visit: Serve, request_log: Log) -> None:
        """Its response is the answer to the handshake."""
        view = accept_websocket(lambda request: HttpResponseForbidden(), accept=False)
        assert visit(view).response.status_code == 403
        assert [r.getMessage() for r in request_log("dwebsocket")] == []


def ends_with_none(view: Any) -> Any:
    """Decorate in a way that wants a response, with Django's own functions for it."""

    @functools.wraps(view)
    def wrapper(request: Any) -> Any:
        response = view(request)
        patch_vary_headers(response, ["Accept"])
        return response

    return wrapper


def stamped(view: Any) -> Any:
    """Decorate in a way that wants a response."""

    @functools.wraps(view)
    def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
        response = view(request, *args, **kwargs)
        response["X-Stamp"] = "1"
        return response

    return wrapper


def encoded(view: Any) -> Any:
    """Decorate with a mistake that looks like a message that is None."""

    @functools.wraps(view)
    def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs).encode()

    return wrapper


def unnamed(view: Any) -> Any:
    """Decorate without `functools.wraps`."""

    def wrapper(request: Any) -> Any:
        response = view(request)
        response["X-Stamp"] = "1"
        return response

    return wrapper


class Echo(View):
    """A class-based view."""

    def get(self, request: Any) -> None:
        """Echo until the end."""
        echo(request)


def view_that_dresses(request: Any) -> None:
    """Fail in Django's code, called by the view's own."""
    response = None
    patch_vary_headers(response, ["Accept"])  # type: ignore[arg-type]


class TestDecoratorsBelowOurs:
    """Their mistakes are mistakes, also when they have to do with None."""

    @pytest.mark.parametrize(
        "view",
        [
            ends_with_none(echo),
            never_cache(ends_with_none(echo)),
            stamped(echo),
            encoded(echo),
            unnamed(echo),
            view_that_dresses,
            never_cache(view_that_dresses),
            method_decorator(stamped, name="get")(type("Get", (Echo,), {})).as_view(),
            method_decorator(encoded, name="get")(type("Get", (Echo,), {})).as_view(),
            method_decorator(stamped, name="dispatch")(type("Dispatch", (Echo,), {})).as_view(),
            stamped(Echo.as_view()),
        ],
        ids=lambda view: getattr(view, "__name__", "view"),
    )
    def test_error(self, visit: Serve, request_log: Log, view: Any) -> None:
        """Is logged with its traceback, also behind the end of the connection."""
        made = visit(accept_websocket(view)).serve()
        made.client.close(1000)
        runner_thread_ends()
        records = [r for r in request_log("django.request", "dwebsocket") if r.exc_info]
        assert [(r.levelno, r.event) for r in records] == [  # type: ignore[attr-defined]
            (logging.ERROR, "websocket.view_failed")
        ]

    def test_client_learns_of_it(self, visit: Serve) -> None:
        """1011, where the view has not waited for the end."""

        def view(request: Any) -> None:
            return

        assert end_of(visit(accept_websocket(ends_with_none(view)))) == (1011, "")

    @pytest.mark.parametrize(
        "use",
        [
            lambda message: message.decode(),
            lambda message: message + b"",
            lambda message: message[0],
            lambda message: [*message],
        ],
    )
    @pytest.mark.parametrize(
        "decorate",
        [
            lambda view: view,
            never_cache,
            lambda view: type(
                "Own", (View,), {"get": lambda self, request: view(request)}
            ).as_view(),
            lambda view: type(
                "Own", (View,), {"get": method_decorator(never_cache)(lambda s, r: view(r))}
            ).as_view(),
        ],
        ids=["function", "decorated", "class", "decorated method"],
    )
    def test_the_none_at_the_end_in_the_views_own_code(
        self, visit: Serve, request_log: Log, use: Any, decorate: Any
    ) -> None:
        """Stays a quiet end, with one record at info."""

        def view(request: Any) -> None:
            while True:
                use(request.websocket.wait())

        made = visit(accept_websocket(decorate(view))).serve()
        made.client.close(1000)
        made.client.closing()
        runner_thread_ends()
        (record,) = request_log("django.request", "dwebsocket")
        assert (record.levelno, record.event) == (logging.INFO, "websocket.none_used")  # type: ignore[attr-defined]


def runner_thread_ends() -> None:
    """Wait until no view runs."""
    from dwebsocket.runners import thread

    assert thread.join(10)


class Stubborn:
    """A session whose `modified` cannot be set."""

    session_key = None

    @property
    def modified(self) -> bool:
        """Whether it was changed."""
        return False


def stubborn_session(get_response: Any) -> Any:
    """Middleware: give each request such a session."""

    def middleware(request: Any) -> Any:
        request.session = Stubborn()
        return get_response(request)

    return middleware


def failing(*args: Any, **kwargs: Any) -> Any:
    """Fail as a system without resources does."""
    raise RuntimeError("can't start new thread")


class TestBetweenTheTakeoverAndTheView:
    """A failure there leaves no client on a socket that is not served."""

    @pytest.fixture(params=["keep", "attach", "session", "context", "databases", "witness"])
    def broken(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[str]:
        """Something that fails."""
        match request.param:
            case "keep":
                monkeypatch.setattr(request_copy, "keep", failing)
            case "attach":
                monkeypatch.setattr("dwebsocket.websocket.WebSocket._attach", failing)
            case "context":
                monkeypatch.setattr("dwebsocket.request.context.enter_thread", failing)
            case "databases":
                monkeypatch.setattr(database, "close_old_connections", failing)
            case "witness":
                monkeypatch.setattr(runner, "_called_to_witness", failing)
        yield request.param
        monkeypatch.undo()

    @pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])
    def test_client_is_closed_and_the_log_says_why(
        self, visit: Serve, request_log: Log, broken: str, as_async: bool
    ) -> None:
        """1011, with the traceback."""
        if as_async and broken == "databases":
            pytest.skip("an async view asks for no database before it begins")
        called: list[Any] = []

        def view(request: Any) -> None:
            called.append(request)

        async def aview(request: Any) -> None:
            called.append(request)

        middleware = ["test_no_error_vanishes.stubborn_session"] if broken == "session" else []
        decorated = accept_websocket(aview if as_async else view)
        made = visit(decorated, middleware=middleware).serve()
        assert made.client.closing() == (1011, "")
        assert made.client.sock.recv(100) == b""
        assert called == []
        records = [r for r in request_log("django.request", "dwebsocket") if r.exc_info]
        assert records[0].levelno == logging.ERROR
        assert records[0].path == "/"  # type: ignore[attr-defined]

    def test_view_that_has_accepted_is_told(
        self, visit: Serve, request_log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its callback has no thread to run on: the view sees a connection that never opened."""
        monkeypatch.setitem(vars(THREAD), "at_end", failing_once(THREAD.at_end))
        ends: list[Any] = []

        @accept_websocket(accept=False)
        def view(request: Any) -> None:
            websocket = request.websocket
            websocket.on_close(ends.append, "closed")
            try:
                websocket.accept()
            finally:
                ends.append(websocket.close_code)

        made = visit(view).serve()
        assert made.client.closing() == (1011, "")
        runner_thread_ends()
        assert 1006 in ends
        assert [r.levelno for r in request_log("dwebsocket")][:1] == [logging.ERROR]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)], ids=repr)
    def test_process_that_is_told_to_end(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        """The client is closed, and the exception is passed on."""

        def interrupted(*args: Any) -> None:
            raise error

        monkeypatch.setattr("dwebsocket.runners.thread.run", interrupted)
        made = visit(accept_websocket(echo))
        with pytest.raises(type(error)):
            b"".join(made.response)
        assert made._read_head().startswith(b"HTTP/1.1 101 ")
        assert made.client.closing()[0] == 1001

    def test_exceptions_that_views_raise_keep_their_codes(self, visit: Serve) -> None:
        """The codes for exceptions of views are unchanged."""

        def view(request: Any) -> None:
            raise Http404

        assert end_of(visit(accept_websocket(view))) == (4404, "")


def failing_once(real: Callable[[Connection, Any], None]) -> Callable[[Connection, Any], None]:
    """Fail at the first call."""
    calls = iter([failing])

    def call(connection: Connection, tell: Any) -> None:
        next(calls, real)(connection, tell)

    return call
