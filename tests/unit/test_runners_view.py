"""The life of a view behind its WebSocket."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import Http404
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from peer import LiveWebSocket

from dwebsocket import ConnectionClosed, accept_websocket
from dwebsocket.api.base import own_websocket
from dwebsocket.request import database
from dwebsocket.runners import view as runner
from dwebsocket.runners.green import GreenRunner

Open = Callable[..., LiveWebSocket]
Log = Callable[..., list[logging.LogRecord]]


@pytest.fixture
def signalled() -> Iterator[list[Any]]:
    """Collect what `got_request_exception` sends, with the exception as its receivers see it."""
    received: list[Any] = []

    def receive(sender: Any, request: Any, **kwargs: Any) -> None:
        received.append((sender, request, sys.exc_info()[1]))

    got_request_exception.connect(receive)
    yield received
    got_request_exception.disconnect(receive)


def make_request(path: str = "/there/") -> Any:
    """Make the request of a view."""
    return RequestFactory().get(path)


def run(live: LiveWebSocket, body: Callable[[Any], Any], *, as_async: bool = False) -> Any:
    """Run `body` as a view behind `live`, to its end; give its request."""
    request = make_request()
    if as_async:

        async def aview(request: Any) -> Any:
            return body(request)

        asyncio.run(runner.arun(aview, request, ((), {}), live.websocket))
    else:

        def view(request: Any) -> Any:
            return body(request)

        runner.run(view, request, ((), {}), live.websocket, {})
    return request


def raising(error: BaseException) -> Callable[[Any], Any]:
    """Make a view that raises."""

    def view(request: Any) -> None:
        raise error

    return view


both = pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])


@both
class TestEnds:
    """How a view's end becomes a close code, a log record and a signal."""

    @pytest.mark.parametrize("result", [None, "anything", 5])
    def test_returns(
        self, open_websocket: Open, request_log: Log, signalled: Any, as_async: bool, result: Any
    ) -> None:
        """1000, and nothing to say."""
        live = open_websocket()
        run(live, lambda request: result, as_async=as_async)
        assert live.client.closing() == (1000, "")
        assert (request_log("django.request", "dwebsocket"), signalled) == ([], [])

    def test_has_closed_itself(self, open_websocket: Open, as_async: bool) -> None:
        """The view's code stays."""
        live = open_websocket()
        run(live, lambda request: live.websocket.close(4000, "mine"), as_async=as_async)
        assert live.client.closing() == (4000, "mine")

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("boom"),
            KeyError("x"),
            AttributeError("hand-made"),
            SystemExit(3),
            KeyboardInterrupt(),
            asyncio.CancelledError(),
            ConnectionClosed(1001, "somebody else's"),
        ],
        ids=repr,
    )
    def test_raises(
        self,
        open_websocket: Open,
        request_log: Log,
        signalled: Any,
        as_async: bool,
        error: BaseException,
    ) -> None:
        """1011; logged and sent as for any request, and the server lives."""
        live = open_websocket()
        request = run(live, raising(error), as_async=as_async)
        assert live.client.closing() == (1011, "")
        (record,) = request_log("django.request")
        assert record.levelno == logging.ERROR
        assert record.getMessage() == "Internal Server Error in WebSocket: /there/"
        assert record.exc_info is not None
        assert record.exc_info[1] is error
        assert record.status_code == 500  # type: ignore[attr-defined]
        assert record.request is request  # type: ignore[attr-defined]
        assert signalled == [(None, request, error)]

    def test_denies_permission(
        self, open_websocket: Open, request_log: Log, signalled: Any, as_async: bool
    ) -> None:
        """1008 and a warning."""
        live = open_websocket()
        request = run(live, raising(PermissionDenied("not you")), as_async=as_async)
        assert live.client.closing() == (1008, "")
        (record,) = request_log("django.request")
        assert record.levelno == logging.WARNING
        assert record.getMessage() == "Forbidden (Permission denied) in WebSocket: /there/"
        assert record.status_code == 403  # type: ignore[attr-defined]
        assert record.request is request  # type: ignore[attr-defined]
        assert signalled == []

    def test_finds_nothing(
        self, open_websocket: Open, request_log: Log, signalled: Any, as_async: bool
    ) -> None:
        """4404 and a warning."""
        live = open_websocket()
        run(live, raising(Http404("no such room")), as_async=as_async)
        assert live.client.closing() == (4404, "")
        (record,) = request_log("django.request")
        assert record.levelno == logging.WARNING
        assert record.getMessage() == "Not Found in WebSocket: /there/"
        assert record.status_code == 404  # type: ignore[attr-defined]
        assert signalled == []

    def test_is_suspicious(
        self, open_websocket: Open, request_log: Log, signalled: Any, as_async: bool
    ) -> None:
        """1008 and an error in Django's security logger."""
        live = open_websocket()
        run(live, raising(SuspiciousOperation("a trick")), as_async=as_async)
        assert live.client.closing() == (1008, "")
        (record,) = request_log("django.security.SuspiciousOperation")
        assert (record.levelno, record.getMessage()) == (logging.ERROR, "a trick")
        assert signalled == []

    @pytest.mark.parametrize(
        ("error", "code", "reason"),
        [
            (RuntimeError("boom"), 1011, "RuntimeError: boom"),
            (PermissionDenied("not you"), 1008, "PermissionDenied: not you"),
            (Http404("no room"), 4404, "Http404: no room"),
            (SuspiciousOperation("a trick"), 1008, "SuspiciousOperation: a trick"),
            (RuntimeError("é" * 200), 1011, "RuntimeError: " + "é" * 54),
        ],
    )
    def test_tells_developers_the_reason(
        self,
        open_websocket: Open,
        override: Any,
        as_async: bool,
        error: Exception,
        code: int,
        reason: str,
    ) -> None:
        """With DEBUG, cut to what fits a close frame."""
        override(DEBUG=True)
        live = open_websocket()
        run(live, raising(error), as_async=as_async)
        assert live.client.closing() == (code, reason)

    def test_ends_quietly_when_its_connection_has(
        self, open_websocket: Open, request_log: Log, signalled: Any, as_async: bool
    ) -> None:
        """`ConnectionClosed` is the normal end of a push loop."""
        live = open_websocket()
        live.client.close(1001)

        def push(request: Any) -> None:
            while True:
                live.websocket.send("x", strict=True)

        run(live, push, as_async=as_async)
        assert (request_log("django.request"), signalled) == ([], [])

    def test_ends_quietly_before_anybody_knows_how(
        self, open_websocket: Open, request_log: Log, as_async: bool
    ) -> None:
        """A failed write is enough, though the end is not known yet."""
        live = open_websocket()

        def push(request: Any) -> None:
            live.websocket._was_refused = True
            raise ConnectionClosed

        run(live, push, as_async=as_async)
        assert request_log("django.request") == []

    def test_error_reporter_that_fails(
        self, open_websocket: Open, request_log: Log, as_async: bool
    ) -> None:
        """The client still learns that it went wrong, and the log has each error."""

        def fail(**kwargs: Any) -> None:
            raise ValueError("the reporter is broken")

        got_request_exception.connect(fail)
        live = open_websocket()
        try:
            run(live, raising(RuntimeError("boom")), as_async=as_async)
        finally:
            got_request_exception.disconnect(fail)
        assert live.client.closing() == (1011, "")
        (record,) = request_log("dwebsocket")
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == "the reporter is broken"
        assert str(record.exc_info[1].__context__) == "boom"  # type: ignore[union-attr]
        (record,) = request_log("django.request")
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == "boom"


@both
class TestSurroundings:
    """The surroundings of a view, and their reset after it."""

    def test_knows_its_own_websocket(self, open_websocket: Open, as_async: bool) -> None:
        """While it runs, not after."""
        live = open_websocket()
        seen = []
        run(live, lambda request: seen.append(own_websocket.get()), as_async=as_async)
        assert seen == [live.websocket]
        assert own_websocket.get() is None

    def test_database_connections_are_returned(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch, as_async: bool
    ) -> None:
        """Before and after, also when it raises; an async view without any has no thread for it."""
        done: list[str] = []
        monkeypatch.setattr(database, "close_old_connections", lambda: done.append("returned"))

        def view(request: Any) -> None:
            done.append("view")
            raise RuntimeError

        run(open_websocket(), view, as_async=as_async)
        assert done == (["view"] if as_async else ["returned", "view", "returned"])

    def test_changed_session_is_saved(self, open_websocket: Open, as_async: bool) -> None:
        """Once the view has ended."""
        session = SessionStore()
        session.create()
        assert self.session_after(open_websocket(), session, as_async) == {"said": "hello"}

    def test_session_without_a_cookie_is_not_saved(
        self, open_websocket: Open, as_async: bool
    ) -> None:
        """Without the cookie it could never be found."""
        session = SessionStore()
        self.session_after(open_websocket(), session, as_async)
        assert session.session_key is None

    def test_unchanged_session_is_not_saved(self, open_websocket: Open, as_async: bool) -> None:
        """Values that another request has written meanwhile stay."""
        session = SessionStore()
        session["said"] = "before"
        session.create()
        session.modified = False
        live = open_websocket()
        request = make_request()
        request.session = session

        def view(request: Any) -> None:
            request.session.get("said")
            elsewhere = SessionStore(session.session_key)
            elsewhere["said"] = "meanwhile"
            elsewhere.save()

        self.run_with(request, live, view, as_async)
        assert SessionStore(session.session_key)["said"] == "meanwhile"

    def test_session_that_has_ended_is_not_brought_back(
        self, open_websocket: Open, request_log: Log, as_async: bool
    ) -> None:
        """A user that has logged out stays logged out; the log mentions it."""
        session = SessionStore()
        session.create()
        key = session.session_key
        SessionStore(key).delete()
        self.session_after(open_websocket(), session, as_async)
        assert not SessionStore(key).exists(key)
        (record,) = request_log("dwebsocket")
        assert record.levelno == logging.INFO
        assert record.getMessage() == "The session ended while its WebSocket was open: /there/"

    def test_session_of_a_view_that_fails_is_not_saved(
        self, open_websocket: Open, as_async: bool
    ) -> None:
        """As Django does for responses with status 500."""
        session = SessionStore()
        session.create()
        live = open_websocket()
        request = make_request()
        request.session = session

        def view(request: Any) -> None:
            request.session["said"] = "hello"
            raise RuntimeError

        self.run_with(request, live, view, as_async)
        assert dict(SessionStore(session.session_key).items()) == {}

    def session_after(
        self, live: LiveWebSocket, session: SessionStore, as_async: bool
    ) -> dict[str, Any]:
        """Give the stored values after a view that changed the session."""
        request = make_request()
        request.session = session

        def view(request: Any) -> None:
            request.session["said"] = "hello"

        self.run_with(request, live, view, as_async)
        return dict(SessionStore(session.session_key).items())

    def run_with(self, request: Any, live: LiveWebSocket, view: Any, as_async: bool) -> None:
        """Run a view on a request of the test's."""
        if as_async:

            async def aview(request: Any) -> None:
                view(request)

            asyncio.run(runner.arun(aview, request, ((), {}), live.websocket))
        else:
            runner.run(view, request, ((), {}), live.websocket, {})


class TestWrongKind:
    """An async view that does not look like one."""

    def test_is_reported(self, open_websocket: Open, request_log: Log) -> None:
        """Otherwise it would never run, without any error."""

        class Hidden:
            async def __call__(self, request: Any) -> None:
                """Never get here."""

        live = open_websocket()
        runner.run(Hidden(), make_request(), ((), {}), live.websocket, {})
        assert live.client.closing() == (1011, "")
        (record,) = request_log("django.request")
        assert record.exc_info is not None
        message = str(record.exc_info[1])
        assert message.startswith(
            f"{__name__}.Hidden gave a coroutine but is no coroutine function"
        )
        assert "asgiref.sync.markcoroutinefunction" in message


class Plain(View):
    """A class-based view."""


class Async(View):
    """An async one."""

    async def get(self, request: Any) -> None:
        """Serve."""


def function(request: Any) -> None:
    """Serve."""


async def coroutine_function(request: Any) -> None:
    """Serve."""


class Callable_:
    """A view that is an object."""

    def __call__(self, request: Any) -> None:
        """Serve."""


class Decorated(Plain):
    """Its thread is named after it, not after `View`."""


def view_behind(cls: type[View]) -> Any:
    """Give the function that the decorator on `dispatch` gets."""
    seen: list[Any] = []

    def spy(view: Any) -> Any:
        seen.append(view)
        return view

    decorated = method_decorator(spy, name="dispatch")(type(cls.__name__, (cls,), {}))
    decorated.__module__ = __name__
    decorated.__qualname__ = cls.__qualname__
    response = decorated.as_view()(RequestFactory().get("/"))
    if asyncio.iscoroutine(response):
        response.close()
    return seen[-1]


@pytest.mark.parametrize(
    ("view", "name"),
    [
        (function, "function"),
        (coroutine_function, "coroutine_function"),
        (functools.partial(function, x=1), "function"),
        (accept_websocket(function), "function"),
        (Plain.as_view(), "Plain"),
        (accept_websocket(Plain.as_view()), "Plain"),
        (Callable_(), "Callable_"),
        (view_behind(Decorated), "Decorated"),
    ],
)
def test_name(view: Any, name: str) -> None:
    """Of the thread: where the view is written."""
    assert runner.name_of(view) == f"{__name__}.{name}"


@pytest.mark.parametrize(
    ("view", "is_async"),
    [
        (function, False),
        (coroutine_function, True),
        (functools.partial(coroutine_function, x=1), True),
        (accept_websocket(coroutine_function), True),
        (Plain.as_view(), False),
        (Async.as_view(), True),
        (view_behind(Plain), False),
        (view_behind(Async), True),
    ],
)
def test_is_async(view: Any, is_async: bool) -> None:
    """Also for methods of async classes, which only give a coroutine."""
    assert runner.is_async(view) is is_async


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_green_thread_that_is_told_to_end_the_process(
    open_websocket: Open, request_log: Log, error: BaseException
) -> None:
    """The exception is for the hub: 1001, and it is passed on without a record."""
    live = open_websocket()
    view = raising(error)
    with pytest.raises(type(error)) as caught:
        runner.run(view, make_request(), ((), {}), live.websocket, {}, GreenRunner.exits)
    assert caught.value is error
    assert live.client.closing() == (1001, "going away")
    assert request_log("django.request") == []


class Endless(GreenRunner):
    """Its views never end; it notes how long it may wait for them."""

    kind = "gevent"

    def __init__(self) -> None:
        self.waits: list[float] = []
        super().__init__(lambda hub: None, print, lambda: None)  # type: ignore[arg-type, return-value]

    def _current_hub(self) -> Any:
        return self

    def _current(self) -> Any:
        return None

    def _spawn(self, name: str, live: Any) -> Any:
        return name

    def _join(self, views: list[Any], timeout: float) -> None:
        assert len(self.waits) < 10
        self.waits.append(timeout)


def test_green_views_that_do_not_end_are_waited_for_once() -> None:
    """Also without any time they have a turn."""
    green = Endless()
    assert green.join(0)
    green.run("view", lambda: None)
    assert not green.join(0)
    assert green.waits == [0]
