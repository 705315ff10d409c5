"""`asgi_websocket`: an ASGI application behind a view's WebSocket."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import PermissionDenied
from django.http import Http404
from visit import Serve, handshake

from dwebsocket import _core, asgi_websocket, group
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.runners import loop
from support.waiting import eventually

Log = Callable[..., Any]
Override = Callable[..., None]
Talk = Callable[[dict[str, Any], Any, Any], Any]

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}
BODY = {"type": "websocket.http.response.body"}


def text(message: str) -> dict[str, Any]:
    """Make the event of a text message."""
    return {"type": "websocket.send", "text": message}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Echo, as the specification has it, until the client goes."""
    assert (await receive())["type"] == "websocket.connect"
    await send(ACCEPT)
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


def deciding(*events: dict[str, Any], then: Any = None) -> Talk:
    """Make an application that sends `events`, and then calls `then(scope, receive, send)`."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for event in events:
            await send(event)
        if then is not None:
            await then(scope, receive, send)

    return application


class TestConversation:
    """An application that accepts."""

    @pytest.mark.parametrize("message", ["hello", "", "grüße", b"\xff\x00", b"", "x" * 70_000])
    def test_echo(self, visit: Serve, message: str | bytes) -> None:
        """Text stays text, binary stays binary, whatever the site's setting says."""
        made = visit(asgi_websocket(echo))
        assert isinstance(made.response, UpgradeResponse)
        made.serve()
        made.client.send(message)
        assert made.client.receive() == message

    def test_early_messages(self, visit: Serve) -> None:
        """What the client sent with its handshake is there, in order."""
        made = visit(asgi_websocket(echo), early=b"\x81\x82\0\0\0\0hi\x81\x83\0\0\0\0you").serve()
        assert [made.client.receive(), made.client.receive()] == ["hi", "you"]

    def test_acceptance(self, visit: Serve) -> None:
        """Its headers stand in the 101, and its subprotocol."""
        headers = [[b"x-room", b"7"], (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        application = deciding({**ACCEPT, "subprotocol": "b", "headers": headers})
        environ = handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
        made = visit(asgi_websocket(application), environ=environ).serve()
        assert made.header("x-room") == ["7"]
        assert made.header("set-cookie") == ["a=1", "b=2"]
        assert made.header("sec-websocket-protocol") == ["b"]

    def test_no_subprotocol(self, visit: Serve, override: Override) -> None:
        """The application's choice is the only one: the site's setting does not count."""
        override(WEBSOCKET_SUBPROTOCOLS=["a"])
        environ = handshake(HTTP_SEC_WEBSOCKET_PROTOCOL="a, b")
        made = visit(asgi_websocket(deciding(ACCEPT)), environ=environ).serve()
        assert made.header("sec-websocket-protocol") == []

    def test_late_acceptance(self, visit: Serve) -> None:
        """A task that receives already meanwhile gets the first message then."""
        received: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            first = asyncio.create_task(receive())
            await asyncio.sleep(0)
            await send(ACCEPT)
            received.append(await first)

        made = visit(asgi_websocket(application)).serve()
        made.client.send("first")
        assert made.client.closing() == (1000, "")
        assert received == [{"type": "websocket.receive", "text": "first"}]

    def test_a_task_that_sends_while_another_accepts(self, visit: Serve) -> None:
        """It waits until the connection is open."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            accepting = asyncio.create_task(send(ACCEPT))
            await asyncio.sleep(0)
            await send(text("hello"))
            await accepting

        made = visit(asgi_websocket(application)).serve()
        assert made.client.receive() == "hello"

    def test_cancelled_receive_loses_nothing(self, visit: Serve) -> None:
        """As Channels cancels the one that is under way when a consumer ends."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            waiting = asyncio.create_task(receive())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await send(text("now"))
            await send({**await receive(), "type": "websocket.send"})

        made = visit(asgi_websocket(application)).serve()
        assert made.client.receive() == "now"
        made.client.send("kept")
        assert made.client.receive() == "kept"

    def test_groups(self, visit: Serve) -> None:
        """The connection joins the decorator's groups when it is accepted."""

        async def publish(scope: Any, receive: Any, send: Any) -> None:
            await group("room-7").asend("to all")
            await receive()

        view = asgi_websocket(deciding(ACCEPT, then=publish), groups="room-{number}")
        made = visit(view, environ=handshake("/7/")).serve()
        assert made.client.receive() == "to all"


class TestEnd:
    """How a connection ends, for both sides."""

    @pytest.mark.parametrize(
        ("event", "end"),
        [
            (CLOSE, (1000, "")),
            ({**CLOSE, "code": 4000}, (4000, "")),
            ({**CLOSE, "code": 3003, "reason": "grüße"}, (3003, "grüße")),
        ],
    )
    def test_by_the_application(
        self, visit: Serve, event: dict[str, Any], end: tuple[int, str]
    ) -> None:
        """The client gets code and reason; the application gets them as its `disconnect`."""
        received: list[Any] = []

        async def note(scope: Any, receive: Any, send: Any) -> None:
            received.append(await receive())

        made = visit(asgi_websocket(deciding(ACCEPT, event, then=note))).serve()
        assert made.client.closing() == end
        assert loop.join(10)
        assert received == [
            {"type": "websocket.disconnect", "code": end[0], "reason": end[1]},
        ]

    @pytest.mark.parametrize("code", [999, 1005, 1006, 1015, 5000])
    def test_code_that_cannot_be(self, visit: Serve, code: int) -> None:
        """Raises in the application, whose connection stays open."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send(ACCEPT)
            with pytest.raises(ValueError, match=f"close code {code} must not be sent"):
                await send({**CLOSE, "code": code})
            await send(text("still here"))

        made = visit(asgi_websocket(application)).serve()
        assert made.client.receive() == "still here"

    def test_by_the_client(self, visit: Serve) -> None:
        """`disconnect` has its code and reason, behind the messages before it."""
        received: list[Any] = []

        async def note(scope: Any, receive: Any, send: Any) -> None:
            received.extend([await receive() for _ in range(2)])

        made = visit(asgi_websocket(deciding(ACCEPT, then=note))).serve()
        made.client.send("last words")
        made.client.close(4001, "bye")
        assert made.client.closing() == (4001, "")
        assert loop.join(10)
        assert received[1:] == [{"type": "websocket.disconnect", "code": 4001, "reason": "bye"}]

    @pytest.mark.parametrize(("code", "noted"), [(None, 1005), (False, 1006)])
    def test_without_a_code(self, visit: Serve, code: Any, noted: int) -> None:
        """1005 for a close frame without one, 1006 for a client that vanishes."""
        received: list[Any] = []

        async def note(scope: Any, receive: Any, send: Any) -> None:
            received.append(await receive())

        made = visit(asgi_websocket(deciding(ACCEPT, then=note))).serve()
        if code is None:
            made.client.close(None)
        else:
            made.client.vanish()
        assert loop.join(10)
        assert [event["code"] for event in received] == [noted]

    def test_client_that_has_gone(self, visit: Serve) -> None:
        """What is sent to it is dropped, however often; `disconnect` says that it has gone."""
        gone, received = threading.Event(), []

        async def talk_on(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.to_thread(gone.wait, 10)
            for _ in range(50):
                await send(text("anybody?"))
            received.append((await receive())["type"])
            await send(CLOSE)

        made = visit(asgi_websocket(deciding(ACCEPT, then=talk_on))).serve()
        made.client.vanish()
        gone.set()
        assert loop.join(30)
        assert received == ["websocket.disconnect"]

    def test_client_that_takes_nothing(self, visit: Serve) -> None:
        """`send` waits for it, and then gives it up with 1013, which `disconnect` says."""
        received: list[Any] = []

        async def pour(scope: Any, receive: Any, send: Any) -> None:
            waiting = asyncio.create_task(receive())
            while not waiting.done():
                await send({"type": "websocket.send", "bytes": bytes(100_000)})
            received.append(await waiting)

        view = asgi_websocket(
            deciding(ACCEPT, then=pour), send_buffer=200_000, send_timeout=0.2, close_timeout=0.1
        )
        visit(view).serve()
        assert loop.join(30)
        (end,) = received
        assert (end["type"], end["code"]) == ("websocket.disconnect", 1013)

    def test_returns(self, visit: Serve) -> None:
        """Without a close of its own: 1000."""
        made = visit(asgi_websocket(deciding(ACCEPT))).serve()
        assert made.client.closing() == (1000, "")

    def test_raises(self, visit: Serve, request_log: Log) -> None:
        """1011, and one record, as of any view."""

        async def fail(scope: Any, receive: Any, send: Any) -> None:
            raise LookupError("late")

        made = visit(asgi_websocket(deciding(ACCEPT, then=fail))).serve()
        assert made.client.closing() == (1011, "")
        assert loop.join(10)
        (record,) = request_log("django.request")
        assert record.getMessage() == "Internal Server Error in WebSocket: /"
        assert record.exc_info[0] is LookupError

    def test_breaks_the_rules(self, visit: Serve, request_log: Log) -> None:
        """An event that may not come now is such an error."""
        made = visit(asgi_websocket(deciding(ACCEPT, ACCEPT))).serve()
        assert made.client.closing() == (1011, "")
        assert loop.join(10)
        (record,) = request_log("django.request")
        assert "sent 'websocket.accept' after websocket.accept" in str(record.exc_info[1])


class TestRefusal:
    """An application that refuses, or fails to decide."""

    def response_to(self, visit: Serve, application: Talk, **environ: str) -> Any:
        """Visit an application that must not accept; give the response."""
        before = _core.open_connections()
        made = visit(asgi_websocket(application), environ=handshake(**environ))
        assert not isinstance(made.response, UpgradeResponse)
        eventually(lambda: _core.open_connections() == before, 60)
        return made.response

    def test_close(self, visit: Serve, request_log: Log) -> None:
        """403, and a `disconnect` at once."""
        received: list[Any] = []

        async def note(scope: Any, receive: Any, send: Any) -> None:
            await send(text("too late"))
            received.append(await receive())

        response = self.response_to(visit, deciding({**CLOSE, "code": 4003}, then=note))
        assert response.status_code == 403
        assert [(event["type"], event["code"]) for event in received] == [
            ("websocket.disconnect", 1006)
        ]
        (record,) = request_log("dwebsocket")
        assert record.getMessage() == "WebSocket refused with 403: /: The view rejected it."

    def test_a_task_that_receives_meanwhile(self, visit: Serve) -> None:
        """It gets the `disconnect`, too."""
        received: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            first = asyncio.create_task(receive())
            await asyncio.sleep(0)
            await send(CLOSE)
            received.append(await first)

        assert self.response_to(visit, application).status_code == 403
        assert [event["type"] for event in received] == ["websocket.disconnect"]

    def test_response(self, visit: Serve, request_log: Log) -> None:
        """The application's own, with its headers and cookies."""
        start = {
            "type": "websocket.http.response.start",
            "status": 402,
            "headers": [
                (b"content-type", b"text/plain"),
                (b"content-length", b"8"),
                (b"connection", b"close"),
                (b"vary", b"Cookie"),
                (b"vary", b"Origin"),
                (b"set-cookie", b"a=1; Path=/; HttpOnly"),
                (b"set-cookie", b"b=2"),
            ],
        }
        parts = [
            {"type": "websocket.http.response.body", "body": b"no ", "more_body": True},
            {"type": "websocket.http.response.body", "body": b"money"},
        ]

        async def wait(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "websocket.disconnect"

        response = self.response_to(visit, deciding(start, *parts, then=wait))
        assert (response.status_code, response.content) == (402, b"no money")
        assert dict(response.items()) == {"content-type": "text/plain", "vary": "Cookie, Origin"}
        assert [morsel.OutputString() for morsel in response.cookies.values()] == [
            "a=1; Path=/; HttpOnly",
            "b=2",
        ]
        (record,) = request_log("django.request")
        assert record.getMessage() == "Payment Required: /"

    def test_cookies_of_a_response(self, visit: Serve) -> None:
        """They go out as they came, also what Python does not know; middleware may replace one."""
        given = [
            "sid=1; Path=/; Secure; Partitioned",
            'prefs={"a": 1}; Path=/',
            "a=1; Path=/x",
            "a=2; Path=/y",
            "n=a b; path=/;HttpOnly;Priority=High",
            "two words=1",
            "path=here",
        ]
        headers = [(b"Set-Cookie", each.encode()) for each in given]
        start = {"type": "websocket.http.response.start", "status": 401, "headers": headers}
        response = self.response_to(visit, deciding(start, {**BODY, "body": b"no"}))

        def sent() -> list[str]:
            return [each.output(header="").strip() for each in response.cookies.values()]

        assert sent() == given
        assert response.cookies["prefs"].value == '{"a": 1}'
        copy = pickle.loads(pickle.dumps(response.cookies))
        assert [each.OutputString() for each in copy.values()] == given
        response.set_cookie("sid", "2")
        assert sent() == ["sid=2; Path=/", *given[1:]]

    @pytest.mark.parametrize("cookie", [b"a=1\r\nX-Other: 1", b"a=\xc3\xa4", b"a=\0"])
    def test_cookie_that_cannot_be_sent(self, visit: Serve, cookie: bytes) -> None:
        """The application is told."""
        told: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            headers = [(b"set-cookie", cookie)]
            await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
            try:
                await send(BODY)
            except ValueError as error:
                told.append(str(error))
                raise

        assert self.response_to(visit, application).status_code == 500
        assert told == ["the value of Set-Cookie holds a forbidden character"]

    @pytest.mark.parametrize(
        ("error", "status"), [(KeyError("x"), 500), (Http404(), 404), (PermissionDenied(), 403)]
    )
    def test_raises(self, visit: Serve, override: Override, error: Exception, status: int) -> None:
        """As in a view of a page."""

        async def application(scope: Any, receive: Any, send: Any) -> None:
            raise error

        override(DEBUG_PROPAGATE_EXCEPTIONS=False)
        assert self.response_to(visit, application).status_code == status

    @pytest.mark.parametrize(
        ("events", "stage"),
        [
            ([], "before websocket.accept"),
            (
                [{"type": "websocket.http.response.start", "status": 402}],
                "within a websocket.http.response",
            ),
        ],
    )
    def test_returns_before_it_decides(
        self, visit: Serve, request_log: Log, events: list[dict[str, Any]], stage: str
    ) -> None:
        """An error that names it."""
        assert self.response_to(visit, deciding(*events)).status_code == 500
        (record,) = request_log("django.request")
        assert str(record.exc_info[1]) == (
            f"test_asgi_views.deciding.<locals>.application returned {stage}: "
            "an ASGI application accepts or refuses"
        )

    def test_subprotocol_that_is_not_offered(self, visit: Serve, request_log: Log) -> None:
        """Raises in the application."""
        application = deciding({**ACCEPT, "subprotocol": "b"})
        response = self.response_to(visit, application, HTTP_SEC_WEBSOCKET_PROTOCOL="a")
        assert response.status_code == 500
        (record,) = request_log("django.request")
        assert "the client does not offer subprotocol 'b'" in str(record.exc_info[1])

    def test_origin(self, visit: Serve) -> None:
        """A page of another site is refused before the application starts."""
        response = self.response_to(visit, deciding(ACCEPT), HTTP_ORIGIN="http://evil.example")
        assert response.status_code == 403

    def test_too_late(self, visit: Serve, override: Override) -> None:
        """503 for the client; the application's acceptance finds it gone."""
        override(WEBSOCKET_HANDSHAKE_TIMEOUT=0.05)
        received: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            first = await asyncio.wait_for(receive(), 10)
            await send(ACCEPT)
            received.append(first)

        assert self.response_to(visit, application).status_code == 503
        assert loop.join(10)
        assert [event["type"] for event in received] == ["websocket.disconnect"]


class TestThreads:
    """Sync code of an application."""

    def test_as_many_as_the_setting_says(self, visit: Serve, override: Override) -> None:
        """Sync code of so many connections may wait for each other."""
        most = 40
        override(WEBSOCKET_CHANNELS_THREADS=most)
        together = threading.Barrier(most, timeout=20)

        async def block(scope: Any, receive: Any, send: Any) -> None:
            await sync_to_async(together.wait)()
            await send(text("all at once"))

        view = asgi_websocket(deciding(ACCEPT, then=block))
        clients = [visit(view).serve().client for _ in range(most)]
        assert [client.receive() for client in clients] == ["all at once"] * most

    def test_sends_from_there(self, visit: Serve) -> None:
        """By `async_to_sync`, as Channels' sync consumers do."""

        def talk(send: Any) -> None:
            for number in range(3):
                async_to_sync(send)(text(str(number)))

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await sync_to_async(async_to_sync(send))(ACCEPT)
            await sync_to_async(talk)(send)

        client = visit(asgi_websocket(application)).serve().client
        assert [client.receive() for _ in range(3)] == ["0", "1", "2"]

    def test_to_another_connection(self, visit: Serve) -> None:
        """A global list of connections, as in old tutorials."""
        sends: list[Any] = []

        async def chat(scope: Any, receive: Any, send: Any) -> None:
            sends.append(send)
            while (event := await receive())["type"] == "websocket.receive":
                for each in sends:
                    await each({**event, "type": "websocket.send"})

        view = asgi_websocket(deciding(ACCEPT, then=chat))
        first, second = (visit(view).serve().client for _ in range(2))
        eventually(lambda: len(sends) == 2)
        second.send("hello")
        assert [first.receive(), second.receive()] == ["hello", "hello"]
        first.vanish()
        second.send("are you there?")
        assert second.receive() == "are you there?"


class TestArguments:
    """What `asgi_websocket` takes."""

    def test_options(self, visit: Serve) -> None:
        """Those of the decorator."""
        made = visit(asgi_websocket(echo, max_message_size=10)).serve()
        made.client.send("x" * 11)
        assert made.client.closing()[0] == 1009

    @pytest.mark.parametrize("name", ["accept", "text_type", "subprotocols", "nonsense"])
    def test_unknown_options(self, name: str) -> None:
        """Also those that are the application's to decide."""
        with pytest.raises(TypeError, match=rf"asgi_websocket\(\) has no option '{name}'; it "):
            asgi_websocket(echo, **{name: True})

    def test_wrong_values(self) -> None:
        """The message names the option."""
        with pytest.raises(ValueError, match="max_message_size"):
            asgi_websocket(echo, max_message_size=-1)

    def test_no_application(self) -> None:
        """Something that cannot be called."""
        with pytest.raises(TypeError, match="takes an ASGI application, not str"):
            asgi_websocket("chat.consumers.ChatConsumer")  # type: ignore[arg-type]

    def test_view_has_its_name(self) -> None:
        """For logs, debuggers and lists of URLs."""
        view = asgi_websocket(echo)
        assert (view.__module__, view.__name__) == ("test_asgi_views", "echo")
        assert view.__doc__ == echo.__doc__

    def test_plain_request(self, visit: Serve) -> None:
        """400: there is nothing but WebSockets."""
        environ = handshake(HTTP_UPGRADE=None, HTTP_CONNECTION=None)
        assert visit(asgi_websocket(echo), environ=environ).response.status_code == 400
