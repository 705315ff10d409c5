"""`dwebsocket.testing` beyond the sample project: errors and wrong use."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import time
import unittest
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, transaction
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.test import SimpleTestCase
from django.urls import path
from django.views.generic import RedirectView

from dwebsocket import (
    ConnectionClosed,
    ReceiveTimeout,
    UsageError,
    WebSocketHandler,
    _core,
    accept_websocket,
    testing,
)
from dwebsocket.api import callbacks
from dwebsocket.api.waiting import loop_hub
from dwebsocket.groups import groups_sent
from dwebsocket.testing import (
    AsyncWebSocketClient,
    Clock,
    DatabaseBusy,
    LiveWebSocketClient,
    RoomError,
    ViewStillRuns,
    WebSocketClient,
    WebSocketLeak,
    WebSocketRefused,
    WebSocketTestMixin,
    WireError,
    databases,
    websockets_of_a_test,
)
from dwebsocket.testing.wire import CLOSE, PONG, TEXT, Wire
from support.hostile import Hostile, accepting
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from visit import Serve

Open = Any
STAY = threading.Event()
BEGUN = threading.Event()
ENDS: list[str] = []


@accept_websocket(text_type=str)
def echo(request: Any) -> None:
    for message in request.websocket:
        request.websocket.send(message)


@accept_websocket
def stay(request: Any) -> None:
    STAY.wait()


@accept_websocket(text_type=str)
def slow(request: Any) -> None:
    while True:
        try:
            request.websocket.receive(timeout=60)
        except ReceiveTimeout:
            request.websocket.send("idle")
        except ConnectionClosed:
            time.sleep(0.01)
            ENDS.append("gone")
            return
        else:
            # Its own work, which no clock steps.
            time.sleep(0.01)
            request.websocket.send("done")


@accept_websocket(text_type=str)
async def aslow(request: Any) -> None:
    while True:
        try:
            await request.websocket.areceive(timeout=60)
        except ReceiveTimeout:
            await request.websocket.asend("idle")
        except ConnectionClosed:
            await asyncio.sleep(0.01)
            ENDS.append("gone")
            return
        else:
            await asyncio.sleep(0.01)
            await request.websocket.asend("done")


class Handler(WebSocketHandler):
    def receive(self, message: str | bytes) -> None:
        time.sleep(0.01)
        ENDS.append(str(message))


class AsyncHandler(WebSocketHandler):
    async def receive(self, message: str | bytes) -> None:
        await asyncio.sleep(0.01)
        ENDS.append(str(message))


@accept_websocket
def fails(request: Any) -> None:
    request.websocket.wait()
    BEGUN.wait(60)
    try:
        raise ZeroDivisionError
    finally:
        threading.Timer(0.2, STAY.set).start()


def page(request: Any) -> HttpResponse:
    BEGUN.set()
    STAY.wait(60)
    if "fails" in request.GET:
        raise KeyError("of the page")
    return HttpResponse("the page")


def stream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse([b"a page"])


@accept_websocket
def absent(request: Any) -> None:
    raise Http404("nothing here")


@pytest.fixture
def site(override: Callable[..., None]) -> Iterator[WebSocketClient]:
    """A client for the views above."""
    redirect = RedirectView.as_view(url="/log-in/?next=/redirect/")
    views = {"echo": echo, "stay": stay, "absent": absent, "redirect": redirect}
    views |= {"stream": stream, "slow": slow, "aslow": aslow, "fails": fails, "page": page}
    views |= {"handler": Handler.as_view(), "ahandler": AsyncHandler.as_view()}
    override(ROOT_URLCONF=tuple(path(f"{name}/", view) for name, view in views.items()))
    STAY.clear()
    with websockets_of_a_test():
        yield WebSocketClient()
        STAY.set()


def failing() -> None:
    """Stand in for a call that finds bytes which are none of a WebSocket."""
    raise WireError("broken")


class TestWebSocket:
    """Calls at the wrong time."""

    def test_is_not_open_before_it_is_entered(self, site: WebSocketClient) -> None:
        """The error says so."""
        ws = site.websocket("/echo/")
        assert repr(ws) == "<ClientWebSocket not open yet>"
        with pytest.raises(UsageError, match="enter it by `with`"):
            ws.send("hello")

    def test_redirect_shows_where_it_leads(self, site: WebSocketClient) -> None:
        """In its `repr`, and in the error of each call."""
        with site.websocket("/redirect/") as ws:
            assert repr(ws) == "<ClientWebSocket refused with 302 to /log-in/?next=/redirect/>"
            with pytest.raises(
                WebSocketRefused, match=r"^the .* with 302 to /log-in/\?next=/redir"
            ):
                ws.send("hello")

    @pytest.mark.parametrize("path", ["/redirect/", "/stream/"])
    @pytest.mark.parametrize("copied", [copy.copy, lambda it: pickle.loads(pickle.dumps(it))])
    def test_refusal_can_be_pickled(self, site: WebSocketClient, path: str, copied: Any) -> None:
        """As Django's parallel test runner does with each error, also where the body streams."""
        with site.websocket(path) as ws, pytest.raises(WebSocketRefused) as raised:
            ws.send("hello")
        copy_of_it = copied(raised.value)
        assert str(copy_of_it) == str(raised.value)
        assert copy_of_it.response.status_code == ws.response.status_code
        assert copy_of_it.response.headers == ws.response.headers

    @pytest.mark.parametrize("copied", [copy.copy, lambda it: pickle.loads(pickle.dumps(it))])
    def test_error_of_a_room_can_be_pickled(self, copied: Any) -> None:
        """With its code and text."""
        error = copied(RoomError("denied", "You may not."))
        assert (str(error), error.code, error.text) == (
            "denied: You may not.",
            "denied",
            "You may not.",
        )

    def test_is_entered_once(self, site: WebSocketClient) -> None:
        """Each handshake is a WebSocket of its own."""
        with site.websocket("/echo/") as ws:
            assert repr(ws) == "<ClientWebSocket open>"
        assert repr(ws) == "<ClientWebSocket closed with 1000>"
        with pytest.raises(UsageError, match="another one"), ws:
            pass

    def test_is_closed_behind_its_block(self, site: WebSocketClient) -> None:
        """Its attributes can still be read."""
        with site.websocket("/echo/") as ws:
            pass
        assert (ws.closed, ws.close_code, ws.close_reason) == (True, 1000, "")
        for use in (lambda: ws.send("late"), ws.receive, ws.ping):
            with pytest.raises(ConnectionClosed):
                use()

    def test_error_in_the_block_wins(self, site: WebSocketClient) -> None:
        """Over those of closing."""
        with pytest.raises(KeyError, match="mine"):
            with site.websocket("/stay/", timeout=0.05):
                raise KeyError("mine")
        STAY.set()

    @pytest.mark.parametrize(("query", "expected"), [("", "the page"), ("?fails", "of the page")])
    def test_its_exception_is_that_of_no_other_call(
        self, site: WebSocketClient, query: str, expected: str
    ) -> None:
        """Of this client, which is under way: that raises its own."""
        BEGUN.clear()
        got = []

        def meet() -> None:
            with site.websocket("/fails/") as ws:
                ws.send("go")
                try:
                    got.append(site.get(f"/page/{query}").content.decode())
                except KeyError as error:
                    got.append(error.args[0])
                ws.wait_closed()

        with pytest.raises(ZeroDivisionError):
            meet()
        assert got == [expected]

    @pytest.mark.parametrize(
        ("code", "error"), [(99999, ValueError), (-1, ValueError), ("a", TypeError)]
    )
    def test_a_code_that_cannot_be(
        self, site: WebSocketClient, code: Any, error: type[Exception]
    ) -> None:
        """The WebSocket stays as it is."""
        with site.websocket("/echo/") as ws:
            with pytest.raises(error, match="a close code"):
                ws.close(code)
            ws.send("x")
            assert ws.receive() == "x"

    def test_large_messages_cross(self, site: WebSocketClient) -> None:
        """More than the sockets hold, in both directions at once."""
        message = b"x" * 4_000_000
        with site.websocket("/echo/") as ws:
            ws.send(message)
            ws.send(message)
            assert ws.receive() == ws.receive() == message

    def test_wrong_type(self, site: WebSocketClient) -> None:
        """Is the caller's mistake."""
        with site.websocket("/echo/") as ws, pytest.raises(TypeError, match="not int"):
            ws.send(5)  # type: ignore[arg-type]

    def test_timeout_says_where_the_view_is(self, site: WebSocketClient) -> None:
        """With the line."""
        with site.websocket("/stay/") as ws:
            with pytest.raises(ReceiveTimeout, match=r"within 0\.01 s(.|\n)*STAY\.wait\(\)"):
                eventually_receive(ws)
            STAY.set()

    def test_not_found_in_the_view_is_a_close_code(self, site: WebSocketClient) -> None:
        """As `client.get` gives a response for it."""
        with site.websocket("/absent/") as ws:
            assert ws.wait_closed() == 4404


def at_its_line(client: WebSocketClient) -> Any:
    """Open a WebSocket whose view has come to the line at which it stays."""
    ws: Any = client.websocket("/stay/").__enter__()
    wait_for_its_line(ws)
    return ws


def wait_for_its_line(ws: Any) -> None:
    """Wait for the view to come to its line."""
    eventually(lambda: "STAY.wait" in ws._watch.whereabouts(), what="the view at its line")


def eventually_receive(ws: Any) -> None:
    """Receive once the view has come to its line."""
    wait_for_its_line(ws)
    ws.receive(timeout=0.01)


class TestScope:
    """`websockets_of_a_test`."""

    def test_closes_what_is_left_open(self, site: WebSocketClient) -> None:
        """And waits for the views."""
        with websockets_of_a_test():
            ws = site.websocket("/echo/").__enter__()
        assert ws.close_code in (1000, None)
        assert ws._watch is not None
        assert ws._watch.over.done()

    @pytest.mark.parametrize("where", ["aslow", "ahandler"])
    def test_does_not_wait_for_the_loop_that_it_blocks(
        self, site: WebSocketClient, where: str
    ) -> None:
        """It says so at once."""

        async def main() -> None:
            scope = websockets_of_a_test()
            scope.__enter__()
            ws = await AsyncWebSocketClient().websocket(f"/{where}/").__aenter__()
            await ws.send("hello")
            with pytest.raises(ViewStillRuns, match="in the event loop of the test"):
                scope.__exit__(None, None, None)
            # Now the view has the loop again, and ends.
            await asyncio.to_thread(eventually, lambda: _core.open_connections() == 0)

        asyncio.run(main())

    def test_leaves_those_of_others_alone(self, site: WebSocketClient) -> None:
        """Such as an outer one's."""
        with site.websocket("/echo/") as ws:
            with websockets_of_a_test():
                pass
            ws.send("still here")
            assert ws.receive() == "still here"

    def test_names_a_view_that_stays(self, site: WebSocketClient) -> None:
        """All others are closed first."""
        scope = websockets_of_a_test()
        scope.__enter__()
        stuck = at_its_line(site)
        stuck.timeout = 0.05
        other = site.websocket("/echo/").__enter__()
        with pytest.raises(ViewStillRuns, match=r"test_testing\.stay is at"):
            scope.__exit__(None, None, None)
        assert stuck._sock is other._sock is None
        assert other._watch is not None
        assert other._watch.over.done()
        STAY.set()

    def test_all_ends_behind_a_view_that_stays(self, site: WebSocketClient) -> None:
        """Threads, hubs of closed loops, and the other views."""

        async def main() -> object:
            loop_hub.current()
            return asyncio.get_running_loop()

        scope = websockets_of_a_test()
        scope.__enter__()
        at_its_line(site).timeout = 0.05
        callbacks.call_later(0, bool)
        loop: Any = asyncio.run(main())
        with pytest.raises(ViewStillRuns, match=r"test_testing\.stay is at"):
            scope.__exit__(None, None, None)
        assert loop not in loop_hub._hubs
        assert callbacks._thread._hub is None
        STAY.set()

    def test_client_that_fails_does_not_leave_others_open(self, site: WebSocketClient) -> None:
        """As one whose server violates the protocol."""
        scope = websockets_of_a_test()
        scope.__enter__()
        broken = site.websocket("/echo/").__enter__()
        other = site.websocket("/echo/").__enter__()
        broken._exchange = failing  # type: ignore[method-assign]
        with pytest.raises(WireError, match="broken"):
            scope.__exit__(None, None, None)
        for websocket in (broken, other):
            assert websocket._sock is None
            assert websocket._watch is not None
            assert websocket._watch.over.done()

    def test_closes_connections_of_other_clients(self, visit: Serve) -> None:
        """A page of a browser that serves the next test, too."""

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.receive()

        with websockets_of_a_test():
            client = visit(view).serve().client
        assert client.closing()[0] == 1001

    def test_names_a_view_of_other_clients_that_stays(self, visit: Serve) -> None:
        """Not its connection, which says less."""
        begun, end = threading.Event(), threading.Event()

        @accept_websocket
        def view(request: Any) -> None:
            begun.set()
            end.wait(60)

        scope = websockets_of_a_test(timeout=0.05)
        scope.__enter__()
        visit(view).serve()
        begun.wait(60)
        with pytest.raises(ViewStillRuns, match=r"is at:\n(.|\n)*end\.wait"):
            scope.__exit__(None, None, None)
        end.set()

    def test_names_a_connection_that_stays(self) -> None:
        """Whichever object holds it."""
        eventually(lambda: _core.open_connections() == 0, what="no connection of another test")
        with pytest.raises(WebSocketLeak, match="1 of its connections"):
            with websockets_of_a_test(timeout=0.01):
                permit = _core.Permit.claim(None)
        assert permit is not None
        permit.release()

    def test_waits_no_more_for_a_view_that_has_had_its_time(self, site: WebSocketClient) -> None:
        """The end of its block has waited for it, and its test has the error."""
        with websockets_of_a_test(timeout=60):
            with pytest.raises(ReceiveTimeout, match=r"test_testing\.stay is at"):
                with site.websocket("/stay/", timeout=0.05) as ws:
                    eventually_receive(ws)
        scope = websockets_of_a_test(timeout=0.05)
        scope.__enter__()
        with pytest.raises(ViewStillRuns):
            with site.websocket("/stay/", timeout=0.05):
                permit = _core.Permit.claim(None)
        with pytest.raises(WebSocketLeak, match="1 of its connections"):
            scope.__exit__(None, None, None)
        permit.release()
        STAY.set()

    def test_takes_connections_again_after_a_drain(self, site: WebSocketClient) -> None:
        """A process under test has many tests."""
        with websockets_of_a_test():
            _core.drain(1012, "", 60)
            with site.websocket("/echo/") as late:
                assert late.response.status_code == 503
        with site.websocket("/echo/") as ws:
            assert not ws.refused


class TestMixin:
    """`WebSocketTestMixin`, run by unittest itself."""

    def run(self, case: type[unittest.TestCase]) -> unittest.TestResult:
        """Run the test of a case."""
        result = unittest.TestResult()
        case("test")(result)
        return result

    def test_leak_fails_its_test(self, site: WebSocketClient) -> None:
        """Behind the test's own clean-ups."""

        class Case(WebSocketTestMixin, SimpleTestCase):
            websocket_timeout = 0.05

            def test(self) -> None:
                self.addCleanup(lambda: None)
                at_its_line(self.client)

        result = self.run(Case)
        assert len(result.errors + result.failures) == 1
        assert "test_testing.stay is at" in (result.errors + result.failures)[0][1]
        STAY.set()

    @pytest.mark.parametrize("where", ["method", "class", "in the test", "in setUp"])
    def test_skipped_test_leaves_nothing(self, site: WebSocketClient, where: str) -> None:
        """Later tests have their own groups and connections to databases."""
        sharing, recorded = databases._users, groups_sent.recorded

        class Case(WebSocketTestMixin, SimpleTestCase):
            def setUp(self) -> None:
                if where == "in setUp":
                    self.skipTest("here")

            def test(self) -> None:
                self.skipTest("here")

        if where == "method":
            Case.test = unittest.skip("here")(Case.test)  # type: ignore[method-assign]
        result = self.run(unittest.skip("here")(Case) if where == "class" else Case)
        assert [reason for _, reason in result.skipped] == ["here"]
        assert (databases._users, groups_sent.recorded) == (sharing, recorded)

    def test_wrong_refusals_fail(self, site: WebSocketClient) -> None:
        """The message has the response that came instead."""

        class Case(WebSocketTestMixin, SimpleTestCase):
            def test(self) -> None:
                with self.subTest():
                    self.assertWebSocketRefused("/echo/")
                with self.subTest():
                    self.assertWebSocketRefused("/nowhere/", 403)
                assert self.assertWebSocketRefused("/nowhere/", 404).status_code == 404

        messages = [text for _, text in self.run(Case).failures]
        assert "/echo/ has opened a WebSocket" in messages[0]
        assert "/nowhere/ was refused with 404, not with 403" in messages[1]
        assert len(messages) == 2


class TestDatabases:
    """`shared_databases`, here in a transaction of the test."""

    @pytest.fixture(autouse=True)
    def _transaction(self) -> Iterator[None]:
        with transaction.atomic():
            yield
            transaction.set_rollback(True)
        connection.close()

    def in_thread(self, work: Callable[[], object]) -> object:
        """Run something in another thread and give what it gives or raises."""
        found: list[object] = []

        def run() -> None:
            try:
                found.append(work())
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
        return found[0]

    def test_a_client_that_vanishes_without_a_block_shares_until_the_end_of_its_test(
        self, override: Callable[..., None]
    ) -> None:
        """It is given up there, as one that is still open."""

        @accept_websocket
        def view(request: Any) -> None:
            request.websocket.wait()

        override(ROOT_URLCONF=(path("", view),), MIDDLEWARE=[])
        with websockets_of_a_test():
            live = WebSocketClient().websocket("/")
            live.__enter__()
            live.vanish()
            assert databases.is_sharing()
        assert not databases.is_sharing()

    def test_threads_use_one_connection(self) -> None:
        """While it lasts; closing and forgetting does nothing elsewhere."""
        from django.db import connections

        mine = connections["default"]
        with databases.shared_databases():

            def work() -> object:
                seen = connections["default"]
                connections["default"] = seen
                del connections["default"]
                connections.close_all()
                return connections["default"]

            assert self.in_thread(work) is mine
            assert not mine.closed_in_transaction
            assert databases.is_sharing()
        assert self.in_thread(lambda: connections["default"]) is not mine
        assert not databases.is_sharing()
        assert "close" not in vars(mine)
        assert mine.execute_wrappers == []

    def test_threads_take_turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error for a thread that waits for too long names the other one."""
        monkeypatch.setattr(databases, "_TIMEOUT_S", 0.02)

        def count() -> object:
            with connection.cursor() as cursor:
                return cursor.execute("SELECT 1").fetchone()

        with databases.shared_databases():
            with transaction.atomic():
                error = self.in_thread(count)
            assert isinstance(error, DatabaseBusy)
            assert "test_threads_take_turns" in str(error)
            assert self.in_thread(count) == (1,)
            with self.of_a_test_case():
                assert self.in_thread(count) == (1,)

    def of_a_test_case(self) -> Any:
        """The transaction around a test, which Hypothesis begins for each example."""
        atomic: Any = transaction.atomic()
        atomic._from_testcase = True
        return atomic

    @pytest.mark.parametrize("is_handler", [False, True])
    def test_a_view_that_decides_has_its_turns_while_the_request_waits(
        self, is_handler: bool, monkeypatch: pytest.MonkeyPatch, override: Any
    ) -> None:
        """The request is in a transaction meanwhile, by ATOMIC_REQUESTS; the view is not."""

        def count() -> str:
            with connection.cursor() as cursor:
                return str(cursor.execute("SELECT 1").fetchone()[0])

        @accept_websocket(accept=False)
        def view(request: Any) -> None:
            found = count()
            request.websocket.accept()
            request.websocket.wait()
            request.websocket.send(found)

        class Handler(WebSocketHandler):
            def connect(self) -> None:
                self.found = count()

            def receive(self, message: str) -> None:
                self.websocket.send(self.found)

        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        view_of = Handler.as_view() if is_handler else view
        override(ROOT_URLCONF=(path("", view_of),), MIDDLEWARE=[])
        with WebSocketClient().websocket("/") as ws:
            ws.send("?")
            assert ws.receive() == "1"

    def test_transactions_may_cross_its_ends(self) -> None:
        """Those that began before, and those that go on behind."""
        outer, inner = transaction.atomic(), transaction.atomic()
        outer.__enter__()
        with databases.shared_databases():
            outer.__exit__(None, None, None)
            inner.__enter__()
        inner.__exit__(None, None, None)

    def test_a_scope_within_an_async_test_shares_the_tests_connections(
        self, override: Callable[..., None]
    ) -> None:
        """Django runs the test in a loop on a thread of its own, which has none of them."""
        from django.db import connections

        mine, found = connections["default"], []

        @accept_websocket
        async def view(request: Any) -> None:
            found.append(await sync_to_async(lambda: connections["default"])())
            await request.websocket.asend("looked")

        async def test() -> None:
            with websockets_of_a_test():
                for _ in range(2):
                    async with AsyncWebSocketClient().websocket("/") as ws:
                        await ws.receive()

        override(ROOT_URLCONF=(path("", view),), MIDDLEWARE=[])
        async_to_sync(test)()
        assert found == [mine, mine]
        assert not databases.is_sharing()

    def test_what_becomes_the_tests_own_later_is_shared_too(self) -> None:
        """Every thread that asks for it then gets it."""
        from django.db import connections

        transaction.set_rollback(True)
        mine = connections["default"]
        with databases.shared_databases(), databases.shared_databases():
            assert self.in_thread(lambda: connections["default"]) is mine


class TestCompression:
    """A client that offers it."""

    @pytest.mark.parametrize("takeover", [True, False])
    @pytest.mark.parametrize(
        "offer",
        [
            True,
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        ],
    )
    def test_messages(
        self,
        site: WebSocketClient,
        override: Callable[..., None],
        offer: bool | str,
        takeover: bool,
    ) -> None:
        """They come as they went, whatever was agreed on."""
        override(
            WEBSOCKET_COMPRESSION={
                "server_no_context_takeover": not takeover,
                "client_no_context_takeover": not takeover,
            }
        )
        with site.websocket("/echo/", compression=offer) as ws:
            assert ws.headers["sec-websocket-extensions"].startswith("permessage-deflate")
            for message in ("once and again " * 100, "", "once and again " * 100, "short"):
                ws.send(message)
                assert ws.receive() == message

    def test_is_not_there_unless_offered(self, site: WebSocketClient) -> None:
        """Nor where the site does not want it."""
        with site.websocket("/echo/") as ws:
            assert "sec-websocket-extensions" not in ws.headers

    def test_is_not_there_where_it_is_off(
        self, site: WebSocketClient, override: Callable[..., None]
    ) -> None:
        """The offer stays without an answer."""
        override(WEBSOCKET_COMPRESSION=False)
        with site.websocket("/echo/", compression=True) as ws:
            assert "sec-websocket-extensions" not in ws.headers
            ws.send("plain")
            assert ws.receive() == "plain"


class TestWire:
    """Bytes that servers must not send."""

    @pytest.mark.parametrize(
        "data",
        [
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        ],
    )
    def test_wrong_head(self, data: bytes) -> None:
        """Is not taken for a WebSocket."""
        with pytest.raises(WireError):
            Wire().feed(data)

    @pytest.mark.parametrize(
        "data", [b"\x81\x81mask!", b"\xc1\x00", b"\x80\x00", b"\x01\x00\x01\x00", b"\x83\x00"]
    )
    def test_wrong_frame(self, data: bytes) -> None:
        """Masked, compressed, out of order, of no known kind."""
        wire = Wire()
        wire.headers = {}
        with pytest.raises(WireError):
            wire.feed(data)

    def test_end_without_a_word(self) -> None:
        """Is 1006, but not after a close frame."""
        wire = Wire()
        wire.feed(b"")
        assert wire.close == (1006, "")
        wire = Wire()
        wire.headers = {}
        wire.feed(b"\x88\x00")
        wire.feed(b"")
        assert wire.close == (1005, "")
        assert bytes(wire.outgoing)[0] == 0x80 | CLOSE

    def test_silent_client(self) -> None:
        """It reads pings and sends no pongs."""
        silent, polite = Wire(answer_pings=False), Wire()
        for wire in (silent, polite):
            wire.headers = {}
            wire.feed(b"\x89\x01x")
            assert wire.pings == 1
        assert not silent.outgoing
        assert polite.outgoing[0] == 0x80 | PONG

    def test_message_of_fragments(self) -> None:
        """A control frame may stand between them."""
        wire = Wire()
        wire.headers = {}
        wire.feed(bytes((TEXT, 1)) + b"a" + b"\x8a\x00" + b"\x80\x01b")
        assert list(wire.messages) == ["ab"]
        assert wire.pongs == [b""]


class TestClock:
    """`Clock`."""

    @pytest.mark.parametrize("seconds", [-1, float("nan")])
    def test_time_does_not_go_back(self, seconds: float) -> None:
        """A mistake of the caller."""
        with pytest.raises(ValueError, match=str(seconds)):
            Clock().advance(seconds)

    @pytest.mark.parametrize("view", ["slow", "aslow"])
    def test_waits_for_what_the_view_has_not_read(self, site: WebSocketClient, view: str) -> None:
        """A message that was sent before is handled before the time passes."""
        with site.websocket(f"/{view}/") as ws:
            for _ in range(20):
                ws.send("work")
                ws.send_frame(TEXT, b"wo", is_final=False)
                ws.send_frame(0, b"rk")
                Clock().advance(61)
                assert [ws.receive(), ws.receive(), ws.receive()] == ["done", "done", "idle"]

    @pytest.mark.parametrize("handler", ["handler", "ahandler"])
    def test_waits_for_what_a_handler_has_not_read(
        self, site: WebSocketClient, handler: str
    ) -> None:
        """Also without any time that passes."""
        with site.websocket(f"/{handler}/") as ws:
            for _ in range(20):
                ENDS.clear()
                ws.send("work")
                Clock().advance(0)
                assert ENDS == ["work"]

    @pytest.mark.parametrize("view", ["slow", "aslow"])
    def test_waits_for_a_view_whose_client_has_gone(self, site: WebSocketClient, view: str) -> None:
        """It learns of that first."""
        for _ in range(20):
            with site.websocket(f"/{view}/") as ws:
                ENDS.clear()
                ws.vanish()
                Clock().advance(61)
                assert ENDS == ["gone"]

    def test_views_that_wait_for_something_else_do_not_hold_it(self, site: WebSocketClient) -> None:
        """For long."""
        with site.websocket("/stay/"):
            Clock().advance(1)
            STAY.set()

    def test_hubs_of_closed_loops_are_dropped(self) -> None:
        """Even while an object still holds such a loop."""
        import asyncio

        async def main() -> object:
            loop_hub.current()
            return asyncio.get_running_loop()

        loop: Any = asyncio.run(main())
        assert loop in loop_hub._hubs
        loop_hub.forget_closed()
        assert loop not in loop_hub._hubs


def test_async_client_needs_nothing_around_it(site: WebSocketClient) -> None:
    """Neither a scope nor a loop that was prepared before."""
    import asyncio

    async def main() -> list[object]:
        async with AsyncWebSocketClient().websocket("/echo/") as ws:
            await ws.send("hello")
            await ws.send_json({})
            await ws.ping()
            return [await ws.receive(), await ws.receive_json()]

    assert asyncio.run(main()) == ["hello", {}]


def test_public_names() -> None:
    """Sorted, and there."""
    assert testing.__all__ == sorted(testing.__all__)
    assert all(hasattr(testing, name) for name in testing.__all__)


def test_live_client_needs_an_address() -> None:
    """Of a test server."""
    with pytest.raises(ValueError, match="begins with http://"):
        LiveWebSocketClient("https://example.com")
    with pytest.raises(TypeError, match="REMOTE_ADDR"):
        LiveWebSocketClient("http://localhost:1").websocket("/", REMOTE_ADDR="::1")


class TestLive:
    """`LiveWebSocketClient`, at servers that are not ours."""

    def test_page_of_a_refusal_is_whole(self) -> None:
        """With its status and its headers: a page with all frames of an error is long."""
        page = b"<pre>" + b"x" * 300_000
        head = b"HTTP/1.1 500 Broken\r\nX-A: b\r\nContent-Length: %d\r\n\r\n" % len(page)
        with Hostile(lambda _: iter([head + page])) as server:
            client = LiveWebSocketClient(server.url("http"))
            with client.websocket("/", headers={"sec-websocket-version": "8"}) as ws:
                assert ws.refused
                assert (ws.response.status_code, ws.response.content) == (500, page)
                assert (ws.response.reason_phrase, ws.response["X-A"]) == ("Broken", "b")
        # The test's own headers replace even those of the handshake.
        (request,) = server.requests
        assert request.lower().count(b"sec-websocket-version: 8\r\n") == 1
        assert b"version: 13" not in request.lower()

    def test_wrong_key(self) -> None:
        """Is not taken for a WebSocket."""
        head = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
        with Hostile(lambda _: iter([head])) as server:
            client = LiveWebSocketClient(server.url("http"))
            with pytest.raises(WireError, match="this handshake's key"):
                client.websocket("/").__enter__()

    def test_frames_are_the_tests_own(self) -> None:
        """Also those that came together with the 101, and those that break a rule."""
        is_over = threading.Event()

        def answers(request: bytes) -> Iterator[bytes]:
            yield accepting(request) + b"\x89\x01x\x81\x02hi"
            is_over.wait(20)
            yield b"\x88\x02\x03\xea"

        with Hostile(answers) as server:
            client = LiveWebSocketClient(server.url("http"))
            with client.websocket("/", answer_pings=False) as ws:
                assert ws.receive() == "hi"
                assert ws.pings_received == 1
                ws.send_frame(0x3, b"reserved")
                is_over.set()
                assert ws.wait_closed() == 1002

    @pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n"])
    def test_no_answer(self, answer: bytes) -> None:
        """Is an error of the connection."""
        with Hostile(lambda _: iter([answer])) as server:
            client = LiveWebSocketClient(server.url("http"))
            with pytest.raises(ConnectionError):
                client.websocket("/").__enter__()


def test_plain_requests_are_served_as_ever(override: Callable[..., None]) -> None:
    """The client is Django's."""
    override(ROOT_URLCONF=(path("", lambda request: HttpResponse("plain")),))
    assert WebSocketClient().get("/").content == b"plain"
