"""Views that decide themselves whether the handshake is accepted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from visit import Serve, handshake

from dwebsocket import (
    ConnectionClosed,
    UsageError,
    WebSocketHandler,
    _core,
    accept_websocket,
    asgi_websocket,
    require_websocket,
)
from dwebsocket.handshake import upgrade
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.runners import loop, thread
from dwebsocket.telemetry import tally
from support.waiting import eventually

Log = Callable[..., Any]
Body = Callable[[Any], Any]

BOTH = pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])


def view_of(body: Body, *, as_async: bool, decorate: Any = None) -> Any:
    """Make a view that decides by calling `body`, which may give a coroutine in an async view."""
    if as_async:

        async def aview(request: HttpRequest) -> Any:
            result = body(request)
            return await result if asyncio.iscoroutine(result) else result

        view: Any = aview
    else:

        def view(request: HttpRequest) -> Any:
            return body(request)

    return (decorate or accept_websocket)(accept=False)(view)


def opening(request: Any, *args: Any, then: Body = lambda request: None, **kwargs: Any) -> Any:
    """Accept in either kind of view, and go on."""
    websocket = request.websocket
    if websocket._decision.is_async:

        async def accept() -> Any:
            await websocket.aaccept(*args, **kwargs)
            return then(request)

        return accept()
    websocket.accept(*args, **kwargs)
    return then(request)


@BOTH
class TestAccept:
    """The view takes the connection."""

    def test_talks(self, visit: Serve, as_async: bool) -> None:
        """After `accept` it is any other view."""

        def hello(request: Any) -> None:
            request.websocket.send("hello")

        made = visit(view_of(lambda r: opening(r, then=hello), as_async=as_async))
        assert isinstance(made.response, UpgradeResponse)
        made.serve()
        assert made.client.receive() == "hello"
        assert made.client.closing() == (1000, "")

    def test_waits_for_the_101(self, visit: Serve, as_async: bool) -> None:
        """`accept` comes back when the client has its answer, and not before."""
        opened = threading.Event()
        view = view_of(
            lambda request: opening(request, then=lambda request: opened.set()), as_async=as_async
        )
        made = visit(view)
        assert not opened.is_set()
        made.serve()
        assert opened.wait(10)

    def test_headers_and_cookies(self, visit: Serve, as_async: bool) -> None:
        """Those of the view stand beside those of middleware."""
        headers = [("X-Room", "7"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
        made = visit(
            view_of(lambda request: opening(request, headers=headers), as_async=as_async),
            middleware=["test_decision.stamp"],
        ).serve()
        assert made.header("X-Room") == ["7"]
        assert made.header("Set-Cookie") == ["a=1", "b=2"]
        assert made.header("X-Stamp") == ["here"]

    @pytest.mark.parametrize(("chosen", "agreed"), [("b", ["b"]), (None, ["a"])])
    def test_subprotocol(
        self,
        visit: Serve,
        override: Callable[..., None],
        as_async: bool,
        chosen: str | None,
        agreed: list[str],
    ) -> None:
        """The view's choice, or else that of the settings."""
        seen: list[Any] = []

        def decide(request: Any) -> Any:
            seen.append(request.websocket.offered_subprotocols)
            return opening(
                request, chosen, then=lambda request: seen.append(request.websocket.subprotocol)
            )

        override(WEBSOCKET_SUBPROTOCOLS=["a"])
        environ = handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="b, a")
        made = visit(view_of(decide, as_async=as_async), environ=environ).serve()
        assert made.header("Sec-WebSocket-Protocol") == agreed
        made.client.closing()
        assert seen == [("b", "a"), agreed[0]]

    def test_raises_after(self, visit: Serve, request_log: Log, as_async: bool) -> None:
        """An error behind the open connection is reported as ever."""

        def fail(request: Any) -> None:
            raise RuntimeError("late")

        made = visit(view_of(lambda r: opening(r, then=fail), as_async=as_async)).serve()
        assert made.client.closing() == (1011, "")
        (record,) = request_log("django.request")
        assert record.getMessage() == "Internal Server Error in WebSocket: /"

    def test_response_that_is_replaced(self, visit: Serve, as_async: bool) -> None:
        """The view gets an exception, as no connection will open, and ends quietly."""
        seen: list[Any] = []

        def decide(request: Any) -> Any:
            if as_async:
                return areport(request, seen)
            try:
                request.websocket.accept()
            except ConnectionClosed as error:
                seen.append((error.code, request.websocket.is_closed()))
                raise

        made = visit(view_of(decide, as_async=as_async), middleware=["test_decision.replace"])
        assert made.response.status_code == 418
        made.response = None
        gc.collect()
        assert thread.join(10)
        assert loop.join(10)
        assert seen == [(1006, True)]


async def areport(request: Any, seen: list[Any]) -> None:
    """Accept, and note the outcome."""
    try:
        await request.websocket.aaccept()
    except ConnectionClosed as error:
        seen.append((error.code, request.websocket.is_closed()))
        raise


def stamp(get_response: Any) -> Any:
    """Middleware: leave a mark."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        response["X-Stamp"] = "here"
        return response

    return middleware


def replace(get_response: Any) -> Any:
    """Middleware: answer something else."""

    def middleware(request: HttpRequest) -> HttpResponse:
        get_response(request)
        return HttpResponse("teapot", status=418)

    return middleware


def sign_out(get_response: Any) -> Any:
    """Middleware: no user is signed in."""
    from django.contrib.auth.models import AnonymousUser

    def middleware(request: Any) -> HttpResponse:
        request.user = AnonymousUser()
        return get_response(request)

    return middleware


@BOTH
class TestRefuse:
    """The view answers like that of a page; nothing was taken over."""

    def status(self, visit: Serve, body: Body, *, as_async: bool, **kwargs: Any) -> Any:
        """Visit a view that must not open; give the response. The server's socket is whole."""
        before = _core.open_connections()
        made = visit(view_of(body, as_async=as_async), **kwargs)
        assert not isinstance(made.response, UpgradeResponse)
        # The view, which has answered, may be about to end.
        eventually(lambda: _core.open_connections() == before, 60)
        made.server.sendall(b"as ever")
        assert made.client.sock.recv(100) == b"as ever"
        return made.response

    @pytest.mark.parametrize("status", [403, 404, 413, 429, 431, 501, 503])
    def test_reject(self, visit: Serve, request_log: Log, as_async: bool, status: int) -> None:
        """A record, and a response that names no reason of the package."""

        def decide(request: Any) -> Any:
            return (
                request.websocket.areject(status) if as_async else request.websocket.reject(status)
            )

        response = self.status(visit, decide, as_async=as_async)
        assert (response.status_code, response.content) == (status, b"The view rejected it.\n")
        (record,) = request_log("dwebsocket")
        assert record.getMessage() == (f"WebSocket refused with {status}: /: The view rejected it.")

    def test_goes_on_after_reject(self, visit: Serve, as_async: bool) -> None:
        """As after a close: nothing comes, nothing goes."""
        seen: list[Any] = []

        def decide(request: Any) -> None:
            websocket = request.websocket
            websocket.reject()
            seen.extend([websocket.is_closed(), websocket.close_code, websocket.read()])
            seen.append(websocket.send("late"))
            websocket.close()

        assert self.status(visit, decide, as_async=as_async).status_code == 403
        assert thread.join(10)
        assert loop.join(10)
        assert seen == [True, 1006, None, False]

    def test_response(self, visit: Serve, as_async: bool) -> None:
        """Any response is sent as it is."""
        response = HttpResponse("buy more", status=402, headers={"X-Price": "5"})
        given = self.status(visit, lambda request: response, as_async=as_async)
        assert (given.status_code, given.content, given["X-Price"]) == (402, b"buy more", "5")

    def test_redirect(self, visit: Serve, as_async: bool) -> None:
        """A redirect, too."""
        given = self.status(
            visit, lambda request: HttpResponseRedirect("/login/"), as_async=as_async
        )
        assert (given.status_code, given["Location"]) == (302, "/login/")

    @pytest.mark.parametrize(
        ("error", "status"), [(PermissionDenied(), 403), (Http404(), 404), (KeyError("x"), 500)]
    )
    def test_exception(
        self,
        visit: Serve,
        override: Callable[..., None],
        request_log: Log,
        as_async: bool,
        error: Exception,
        status: int,
    ) -> None:
        """Django's responses to exceptions, and its log records."""

        def decide(request: Any) -> None:
            raise error

        override(DEBUG_PROPAGATE_EXCEPTIONS=False)
        given = self.status(visit, decide, as_async=as_async)
        assert given.status_code == status
        assert len(request_log("django.request")) == 1

    def test_nothing(self, visit: Serve, request_log: Log, as_async: bool) -> None:
        """A view that forgets to decide gets an error that says so."""
        assert self.status(visit, lambda request: None, as_async=as_async).status_code == 500
        (record,) = request_log("django.request")
        assert "returned None without accept() or reject()" in str(record.exc_info[1])


def test_login_required_below_ours(visit: Serve) -> None:
    """Decides before the connection opens, like above ours."""
    view = accept_websocket(accept=False)(login_required(lambda request: None))
    made = visit(view, middleware=["test_decision.sign_out"])
    assert made.response.status_code == 302


def test_plain_requests_are_as_ever(visit: Serve) -> None:
    """The view has no WebSocket to decide on."""
    view = view_of(lambda request: HttpResponse(str(request.websocket)), as_async=False)
    made = visit(view, environ=handshake(**dict.fromkeys(HEADERS)))
    assert made.response.content == b"None"
    required = view_of(lambda request: None, as_async=False, decorate=require_websocket)
    made = visit(required, environ=handshake(**dict.fromkeys(HEADERS)))
    assert made.response.status_code == 400


HEADERS = [
    "HTTP_UPGRADE",
    "HTTP_CONNECTION",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_SEC_WEBSOCKET_VERSION",
]


def test_bad_handshakes_do_not_reach_the_view(visit: Serve) -> None:
    """They are validated first."""
    called: list[Any] = []
    view = view_of(called.append, as_async=False)
    made = visit(view, environ=handshake(HTTP_ORIGIN="http://evil.example"))
    assert made.response.status_code == 403
    assert called == []


def test_no_thread_for_the_view(
    visit: Serve, request_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not too late for a response yet."""

    def refuse(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("dwebsocket.runners.thread.run", refuse)
    made = visit(view_of(lambda request: None, as_async=False))
    assert made.response.status_code == 503
    (record,) = request_log("dwebsocket")
    assert "No thread for another view: can't start new thread" in record.getMessage()


@BOTH
class TestTooLate:
    """A view that does not decide in time is not waited for."""

    @pytest.mark.parametrize("decide", ["accept", "reject"])
    def test_given_up(
        self,
        visit: Serve,
        override: Callable[..., None],
        request_log: Log,
        as_async: bool,
        decide: str,
    ) -> None:
        """The client is refused; the view's acceptance finds the client gone."""
        override(WEBSOCKET_HANDSHAKE_TIMEOUT=0.05)
        answered = threading.Event()
        told: list[str] = []

        async def adecide(websocket: Any) -> None:
            await asyncio.to_thread(answered.wait, 10)
            await getattr(websocket, f"a{decide}")()

        def late(request: Any) -> Any:
            websocket = request.websocket

            async def atell() -> None:
                try:
                    await adecide(websocket)
                except ConnectionClosed as error:
                    told.append(str(error))

            if as_async:
                return atell()
            answered.wait(10)
            try:
                getattr(websocket, decide)()
            except ConnectionClosed as error:
                told.append(str(error))
            return None

        made = visit(view_of(late, as_async=as_async))
        answered.set()
        assert (made.response.status_code, made.response["Retry-After"]) == (503, "5")
        assert thread.join(10)
        assert loop.join(10)
        assert len(told) == (decide == "accept")
        (record,) = request_log("dwebsocket")
        assert "did not decide within WEBSOCKET_HANDSHAKE_TIMEOUT (0.05 s)" in record.getMessage()
        assert _core.open_connections() == 0

    @pytest.mark.parametrize("timeout", [60, None])
    def test_in_time(self, visit: Serve, as_async: bool, timeout: float | None) -> None:
        """Nothing is given up that is decided in time."""

        def patient(*, accept: bool) -> Any:
            return accept_websocket(accept=accept, handshake_timeout=timeout)

        made = visit(view_of(opening, as_async=as_async, decorate=patient)).serve()
        assert made.client.closing() == (1000, "")


@BOTH
class TestMisuse:
    """Calls that can never work raise an error that names the right one."""

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (lambda ws: ws.send("x"), "not open yet: accept() it first"),
            (lambda ws: ws.read(), "not open yet: accept() it first"),
            (lambda ws: ws.close(), "not open yet: accept() it first"),
            (lambda ws: (ws.reject(404), ws.reject()), "was rejected with 404 already"),
            (lambda ws: ws.reject(200), "a status from 400 to 599, not 200"),
            (lambda ws: ws.reject(True), "a status from 400 to 599, not True"),
        ],
    )
    def test_by_view(self, visit: Serve, as_async: bool, body: Body, words: str) -> None:
        """Each is an exception in the view."""
        seen: list[str] = []

        def decide(request: Any) -> None:
            try:
                body(request.websocket)
            except (UsageError, ValueError) as error:
                seen.append(str(error))
            if request.websocket._is_undecided:
                request.websocket.reject()

        assert visit(view_of(decide, as_async=as_async)).response.status_code in (403, 404)
        assert thread.join(10)
        assert loop.join(10)
        assert words in seen[0]

    @pytest.mark.parametrize(
        ("arguments", "error", "words"),
        [
            (("chat",), ValueError, "does not offer subprotocol 'chat', but none"),
            ((None, {"X-A": "1\r\nX-B: 2"}), ValueError, "X-A"),
            ((None, [("X A", "1")]), ValueError, "X A"),
        ],
    )
    def test_arguments(
        self, visit: Serve, as_async: bool, arguments: Any, error: type, words: str
    ) -> None:
        """A wrong argument is refused by the call itself, and the view can go on."""
        seen: list[str] = []

        async def adecide(request: Any) -> Any:
            with pytest.raises(error) as raised:
                await request.websocket.aaccept(*arguments)
            seen.append(str(raised.value))
            return HttpResponse("instead")

        def decide(request: Any) -> Any:
            if as_async:
                return adecide(request)
            with pytest.raises(error) as raised:
                request.websocket.accept(*arguments)
            seen.append(str(raised.value))
            return HttpResponse("instead")

        made = visit(view_of(decide, as_async=as_async))
        assert made.response.content == b"instead"
        assert words in seen[0]

    def test_twice(self, visit: Serve, as_async: bool) -> None:
        """A view decides once."""
        seen: list[str] = []

        def again(request: Any) -> None:
            for call in (request.websocket.reject, lambda: request.websocket.reject(400)):
                with pytest.raises(UsageError) as raised:
                    call()
                seen.append(str(raised.value))

        made = visit(view_of(lambda r: opening(r, then=again), as_async=as_async)).serve()
        assert made.client.closing()[0] == 1000
        assert seen == ["this handshake was accepted already: a view decides once"] * 2

    def test_wrong_twin(self, visit: Serve, as_async: bool) -> None:
        """Sync calls are for sync views, async ones for async views."""
        seen: list[str] = []

        def decide(request: Any) -> HttpResponse:
            websocket = request.websocket
            try:
                if as_async:
                    websocket.accept()
                else:
                    asyncio.run(websocket.aaccept())
            except UsageError as error:
                seen.append(str(error))
            return HttpResponse("instead")

        visit(view_of(decide, as_async=as_async))
        word = "use `await websocket.aaccept()`" if as_async else "use accept()"
        assert word in seen[0]


@pytest.mark.parametrize("call", ["accept", "reject"])
def test_views_that_do_not_decide(visit: Serve, call: str) -> None:
    """The error says how they could."""
    seen: list[str] = []

    @accept_websocket
    def view(request: Any) -> None:
        with pytest.raises(UsageError) as raised:
            getattr(request.websocket, call)()
        seen.append(str(raised.value))

    made = visit(view).serve()
    assert made.client.closing()[0] == 1000
    assert "decorate this one with @accept_websocket(accept=False)" in seen[0]


@pytest.mark.parametrize("value", [None, 0, "no"])
def test_argument_of_the_decorator(value: Any) -> None:
    """Is True or False."""
    with pytest.raises(ValueError, match=r"accept_websocket\(accept=…\) must be True or False"):
        accept_websocket(accept=value)


def test_view_that_is_cancelled_while_it_waits(visit: Serve) -> None:
    """Its connection, opened without a view, is closed at once, and counts as open no more."""
    tasks: list[Any] = []

    async def decide(request: Any) -> None:
        tasks.append((asyncio.get_running_loop(), asyncio.current_task()))
        await request.websocket.aaccept()

    made = visit(accept_websocket(accept=False)(decide))
    ((its_loop, task),) = tasks
    its_loop.call_soon_threadsafe(task.cancel)
    assert loop.join(10)
    made.serve()
    assert made.client.closing()[0] == 1011
    assert tally.open_websockets() == []


async def gives_up(request: Any) -> None:
    """Wait for the opening with a time limit, and close."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(request.websocket.aaccept(), 0.01)
    with pytest.raises(ValueError, match="1005"):
        request.websocket.close(1005)
    request.websocket.close(4001, "too late")


async def application_that_gives_up(scope: Any, receive: Any, send: Any) -> None:
    """The same for an ASGI application."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(send({"type": "websocket.accept"}), 0.01)
    await send({"type": "websocket.close", "code": 4001, "reason": "too late"})


@pytest.mark.parametrize(
    "view",
    [accept_websocket(accept=False)(gives_up), asgi_websocket(application_that_gives_up)],
    ids=["view", "application"],
)
def test_a_view_that_has_accepted_may_close_before_it_is_open(visit: Serve, view: Any) -> None:
    """It may wait for the opening by a time limit of its own."""
    made = visit(view)
    assert loop.join(10)
    made.serve()
    assert made.client.closing() == (4001, "too late")


def say_transaction(request: Any) -> HttpResponse:
    """Say whether this is in a transaction."""
    return HttpResponse(str(connection.in_atomic_block))


class SaysTransaction(WebSocketHandler):
    """A handler that decides, and has a page."""

    def connect(self) -> HttpResponse:
        """Refuse."""
        return HttpResponse("refused")

    def get(self, request: Any) -> HttpResponse:
        """Answer with the page."""
        return say_transaction(request)


@method_decorator(accept_websocket(accept=False), name="dispatch")
class SaysTransactionAsWell(View):
    """A class whose dispatch decides."""

    def get(self, request: Any) -> HttpResponse:
        """Answer with the page, or refuse."""
        return say_transaction(request)


DECIDING: dict[str, Callable[[], Any]] = {
    "function": lambda: accept_websocket(accept=False)(say_transaction),
    "decorated": lambda: never_cache(accept_websocket(accept=False)(never_cache(say_transaction))),
    "handler": SaysTransaction.as_view,
    "dispatch": SaysTransactionAsWell.as_view,
}


@pytest.mark.parametrize("kind", DECIDING)
class TestTransactions:
    """Under ATOMIC_REQUESTS."""

    @pytest.fixture(autouse=True)
    def _atomic(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)

    def test_a_request_waits_in_none(
        self, visit: Serve, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """On SQLite one that has read keeps the view from writing."""
        seen: list[bool] = []

        @contextlib.contextmanager
        def look() -> Iterator[None]:
            seen.append(connection.in_atomic_block)
            yield

        monkeypatch.setattr(upgrade, "around_wait", look)
        assert visit(DECIDING[kind]()).response.status_code == 200
        assert seen == [False]

    def test_a_page_has_its_own(self, visit: Serve, kind: str) -> None:
        """As any page, unless the project takes it away."""
        plain, view = RequestFactory().get("/").environ, DECIDING[kind]()
        assert visit(view, environ={**plain}).response.content == b"True"
        view = transaction.non_atomic_requests(view)
        assert visit(view, environ={**plain}).response.content == b"False"
