"""`request.websocket`: every row of its table, over live connections."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import decimal
import json
import math
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from django.test import RequestFactory
from peer import LiveWebSocket

from dwebsocket import (
    ConnectionClosed,
    InvalidMessage,
    ReceiveTimeout,
    SendTimeout,
    UsageError,
    WebSocket,
)
from dwebsocket.request import database
from support.waiting import eventually

Open = Callable[..., LiveWebSocket]
Own = Callable[[WebSocket], None]

# Larger than what a Unix socket pair takes, so that a client that does not read blocks us.
HUGE = "x" * (4 * 1024 * 1024)

RECEIVING: dict[str, Callable[[WebSocket], Any]] = {
    "wait": lambda ws: ws.wait(),
    "read": lambda ws: ws.read(),
    "has_messages": lambda ws: ws.has_messages(),
    "count_messages": lambda ws: ws.count_messages(),
    "iteration": lambda ws: list(ws),
}


def arrived(live: LiveWebSocket, messages: int, *, ended: bool = False) -> None:
    """Let the engine read what the client has sent."""
    eventually(lambda: live.connection.waiting() == (messages, ended))


@pytest.fixture
def closed_here(open_websocket: Open, own: Own) -> LiveWebSocket:
    """One that this thread's view has closed."""
    live = open_websocket()
    own(live.websocket)
    live.websocket.close(4000)
    return live


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine does not make a call come late."""
    monkeypatch.setattr("dwebsocket.api.waiting.caller.GRACE_S", 60.0)


def end_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each call that comes after the report of an end raises."""
    monkeypatch.setattr("dwebsocket.api.waiting.caller.GRACE_S", 0.0)


def in_thread(call: Callable[[], Any]) -> Future[Any]:
    """Call in another thread, in this one's context."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(call))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


class StubEngine:
    """An engine whose answers are given in advance; the last one stays."""

    id = 0

    def __init__(self, **answers: list[Any]) -> None:
        self._answers = answers
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answers = self._answers[name]
            return answers.pop(0) if len(answers) > 1 else answers[0]

        return call


def stubbed(live: LiveWebSocket, **answers: list[Any]) -> WebSocket:
    """Give a WebSocket on a stub engine."""
    websocket = WebSocket()
    websocket._attach(StubEngine(**answers), live.websocket._options, None)  # type: ignore[arg-type]
    return websocket


class TestWait:
    """`wait()`, the original's main call."""

    @pytest.mark.parametrize("timeout", [None, -1, -0.5, 60, 60.5, math.inf])
    def test_gives_the_next_message(self, open_websocket: Open, timeout: float | None) -> None:
        """With any time that is not over."""
        live = open_websocket()
        future = in_thread(lambda: live.websocket.wait(timeout))
        live.client.send("hello")
        assert future.result(10) == b"hello"

    @pytest.mark.parametrize("timeout", [0, 0.0, 0.01])
    def test_gives_none_when_the_time_is_up(self, open_websocket: Open, timeout: float) -> None:
        """The connection stays usable, and is not closed."""
        live = open_websocket()
        assert live.websocket.wait(timeout) is None
        assert not live.websocket.is_closed()
        live.client.send("later")
        assert live.websocket.wait(10) == b"later"

    def test_zero_takes_what_is_here(self, open_websocket: Open) -> None:
        """Without waiting for more."""
        live = open_websocket()
        live.client.send("here")
        arrived(live, 1)
        assert live.websocket.wait(0) == b"here"

    def test_gives_messages_before_the_close_first(self, open_websocket: Open) -> None:
        """None comes only after the last of them, then again and again."""
        live = open_websocket()
        live.client.send("one")
        live.client.send("two")
        live.client.close()
        arrived(live, 2, ended=True)
        ws = live.websocket
        assert [ws.wait(), ws.wait(), ws.wait(), ws.wait()] == [b"one", b"two", None, None]

    @pytest.mark.parametrize("end", ["close", "vanish"])
    def test_returns_none_when_the_client_goes(self, open_websocket: Open, end: str) -> None:
        """However the client goes."""
        live = open_websocket()
        future = in_thread(live.websocket.wait)
        getattr(live.client, end)()
        assert future.result(10) is None

    def test_returns_in_every_thread_when_one_closes(self, open_websocket: Open) -> None:
        """No waiting thread outlives the connection."""
        live = open_websocket()
        futures = [in_thread(live.websocket.wait) for _ in range(3)]
        live.websocket.close()
        assert [future.result(10) for future in futures] == [None, None, None]

    def test_lets_other_threads_run(self, open_websocket: Open) -> None:
        """The interpreter is free while a thread waits: this thread sends the message."""
        live = open_websocket()
        started = threading.Event()

        def wait() -> Any:
            started.set()
            return live.websocket.wait()

        future = in_thread(wait)
        assert started.wait(10)
        live.client.send("done")
        assert future.result(10) == b"done"

    def test_each_message_goes_to_one_of_several_waiters(self, open_websocket: Open) -> None:
        """None is lost or given twice."""
        live = open_websocket()
        futures = [in_thread(live.websocket.wait) for _ in range(4)]
        for n in range(4):
            live.client.send(str(n))
        assert sorted(future.result(10) for future in futures) == [b"0", b"1", b"2", b"3"]

    @pytest.mark.parametrize("timeout", ["soon", object()])
    def test_refuses_a_timeout_that_is_no_number(self, open_websocket: Open, timeout: Any) -> None:
        """A mistake in the call is no end of the connection."""
        with pytest.raises(TypeError):
            open_websocket().websocket.wait(timeout)

    def test_refuses_a_timeout_that_is_not_a_number(self, open_websocket: Open) -> None:
        """NaN says nothing about how long."""
        with pytest.raises(ValueError, match="timeout must be None, 0 or a number of seconds"):
            open_websocket().websocket.wait(math.nan)


class TestIdle:
    """A view that sleeps for long gives its database connections back."""

    @pytest.fixture(autouse=True)
    def _released(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        calls: list[int] = []
        monkeypatch.setattr(database, "release_idle", lambda: calls.append(1))
        monkeypatch.setattr("dwebsocket.api.receiving.IDLE_AFTER_S", 0.005)
        self.calls = calls
        return calls

    @pytest.mark.parametrize("timeout", [None, 0.02])
    def test_in_its_own_view(self, open_websocket: Open, own: Own, timeout: float | None) -> None:
        """Once, and then it goes on waiting."""
        live = open_websocket()
        own(live.websocket)
        future = in_thread(lambda: live.websocket.wait(timeout))
        eventually(lambda: self.calls == [1])
        if timeout is None:
            live.client.send("at last")
            assert future.result(10) == b"at last"
        else:
            assert future.result(10) is None
        assert self.calls == [1]

    @pytest.mark.parametrize("timeout", [0, 0.005])
    def test_not_for_short_waits(self, open_websocket: Open, own: Own, timeout: float) -> None:
        """Opening a connection costs more than a short sleep saves."""
        live = open_websocket()
        own(live.websocket)
        assert live.websocket.wait(timeout) is None
        assert self.calls == []

    def test_not_in_another_view(self, open_websocket: Open, own: Own) -> None:
        """The thread's connections are not those of this WebSocket's view."""
        live, other = open_websocket(), open_websocket()
        own(other.websocket)
        assert live.websocket.wait(0.02) is None
        assert self.calls == []

    def test_a_message_that_comes_just_before_the_close_is_given(
        self, open_websocket: Open, own: Own
    ) -> None:
        """Both came between the two halves of the wait; `closed` alone would end the loop."""
        ws = stubbed(
            open_websocket(),
            pop=[None],
            take_coarse=[None],
            take=[b"last words", None],
            waiting=[(1, True), (0, True)],
            end=[(1000, "", "peer")],
        )
        own(ws)
        assert list(ws) == [b"last words", None]


class TestRead:
    """`read()`, which never waits."""

    def test_gives_a_message_the_fallback_and_the_end(self, open_websocket: Open) -> None:
        """In that order; None is the end, with a fallback too."""
        live = open_websocket()
        ws = live.websocket
        assert ws.read() is None
        assert ws.read("nothing yet") == "nothing yet"
        live.client.send("hello")
        arrived(live, 1)
        assert ws.read("fallback") == b"hello"
        live.client.send("queued")
        live.client.close()
        arrived(live, 1, ended=True)
        assert ws.read("fallback") == b"queued"
        assert ws.read("fallback") is None
        assert ws.read("fallback") is None

    def test_polling_loop_of_the_tutorials_ends(self, open_websocket: Open) -> None:
        """`has_messages`, `read`, stop at None."""
        live = open_websocket()
        live.client.send("one")
        live.client.close()
        arrived(live, 1, ended=True)
        got = []
        while True:
            if live.websocket.has_messages():
                message = live.websocket.read()
                if message is None:
                    break
                got.append(message)
        assert got == [b"one"]


class TestCounting:
    """`has_messages()` and `count_messages()`."""

    def test_count_whole_messages(self, open_websocket: Open) -> None:
        """A fragment is none yet."""
        live = open_websocket()
        ws = live.websocket
        assert (ws.count_messages(), ws.has_messages()) == (0, False)
        live.client.send("one")
        live.client.send("two")
        live.client.protocol.send_text(b"thr", fin=False)
        live.client._flush()
        arrived(live, 2)
        assert (ws.count_messages(), ws.has_messages()) == (2, True)
        live.client.protocol.send_continuation(b"ee", fin=True)
        live.client._flush()
        arrived(live, 3)
        assert ws.count_messages() == 3
        assert ws.read() == b"one"
        assert ws.count_messages() == 2

    def test_the_end_counts_once(self, open_websocket: Open) -> None:
        """Until it has been read."""
        live = open_websocket()
        ws = live.websocket
        live.client.send("one")
        live.client.close()
        arrived(live, 1, ended=True)
        assert (ws.count_messages(), ws.read()) == (2, b"one")
        assert (ws.count_messages(), ws.has_messages(), ws.read()) == (1, True, None)
        assert (ws.count_messages(), ws.has_messages()) == (0, False)

    def test_the_end_that_wait_has_given_is_read(self, open_websocket: Open) -> None:
        """`wait` reads it as `read` does."""
        live = open_websocket()
        live.websocket.close()
        assert live.websocket.count_messages() == 1
        assert live.websocket.wait() is None
        assert live.websocket.count_messages() == 0

    def test_count_is_an_int(self, open_websocket: Open) -> None:
        """Not a bool, also at the end."""
        live = open_websocket()
        assert type(live.websocket.count_messages()) is int
        live.websocket.close()
        assert type(live.websocket.count_messages()) is int
        assert type(live.websocket.has_messages()) is bool


class TestIteration:
    """`for message in websocket`."""

    def test_gives_a_final_none_once(self, open_websocket: Open) -> None:
        """As in the original: projects clean up on it."""
        live = open_websocket()
        live.client.send("one")
        live.client.send(b"\xff")
        live.client.close()
        messages = iter(live.websocket)
        assert list(messages) == [b"one", b"\xff", None]
        assert list(messages) == []

    def test_gives_no_none_with_text_as_str(self, open_websocket: Open) -> None:
        """New code is not surprised by a message that is none."""
        live = open_websocket(text_type=str)
        live.client.send("one")
        live.client.close()
        assert list(live.websocket) == ["one"]

    def test_an_empty_message_does_not_stop_it(self, open_websocket: Open) -> None:
        """Only the end stops it."""
        live = open_websocket()
        live.client.send("")
        live.client.send(b"")
        live.client.close()
        assert list(live.websocket) == [b"", b"", None]


class TestTypes:
    """Text and binary, in both modes."""

    def test_compatible_calls_give_bytes(self, open_websocket: Open) -> None:
        """Text too, as ever."""
        live = open_websocket()
        live.client.send("grüße")
        live.client.send(b"\xff\x00")
        assert live.websocket.wait() == "grüße".encode()
        assert live.websocket.wait() == b"\xff\x00"

    def test_compatible_calls_give_str_for_text_if_set(self, open_websocket: Open) -> None:
        """Binary stays bytes."""
        live = open_websocket(text_type=str)
        live.client.send("grüße")
        live.client.send(b"plain")
        assert live.websocket.wait() == "grüße"
        assert live.websocket.wait() == b"plain"

    @pytest.mark.parametrize("text_type", [str, bytes])
    def test_exact_calls_do_not_care(self, open_websocket: Open, text_type: type) -> None:
        """`receive` gives str for text and bytes for binary."""
        live = open_websocket(text_type=text_type)
        live.client.send("grüße")
        live.client.send(b"plain")
        assert live.websocket.receive() == "grüße"
        assert live.websocket.receive() == b"plain"

    @pytest.mark.parametrize(
        ("text_type", "message", "sent"),
        [
            (bytes, "grüße", "grüße"),
            (bytes, "", ""),
            (bytes, b"plain", "plain"),
            (bytes, b"", ""),
            (bytes, "grüße".encode(), "grüße"),
            (bytes, b"\xff\x00", b"\xff\x00"),
            (bytes, bytearray(b"plain"), "plain"),
            (bytes, memoryview(b"xplain")[1:], "plain"),
            (bytes, memoryview(b"p.l.a.i.n")[::2], "plain"),
            (bytes, memoryview(b"\xff"), b"\xff"),
            (str, "grüße", "grüße"),
            (str, b"plain", b"plain"),
            (str, b"", b""),
            (str, bytearray(b"plain"), b"plain"),
            (str, memoryview(b"plain"), b"plain"),
        ],
    )
    def test_send_chooses_the_kind(
        self, open_websocket: Open, text_type: type, message: Any, sent: str | bytes
    ) -> None:
        """Compatible: text whenever it can be. Exact: as the type says."""
        live = open_websocket(text_type=text_type)
        assert live.websocket.send(message) is True
        got = live.client.receive()
        assert (got, type(got)) == (sent, type(sent))

    def test_send_takes_subclasses(self, open_websocket: Open) -> None:
        """Django's SafeString is one of str."""
        from django.utils.safestring import mark_safe

        class Data(bytes):
            pass

        live = open_websocket()
        live.websocket.send(mark_safe("<b>"))
        live.websocket.send(Data(b"\xff"))
        assert (live.client.receive(), live.client.receive()) == ("<b>", b"\xff")

    @pytest.mark.parametrize("call", ["send", "send_text", "send_bytes", "write"])
    @pytest.mark.parametrize(
        ("message", "name"), [(None, "NoneType"), (5, "int"), ({}, "dict"), (["a"], "list")]
    )
    def test_sending_refuses_other_types_by_name(
        self, open_websocket: Open, call: str, message: Any, name: str
    ) -> None:
        """The connection stays as it was."""
        live = open_websocket()
        target = live.websocket.protocol if call == "write" else live.websocket
        with pytest.raises(TypeError, match=rf"str, bytes, bytearray or memoryview, not {name}$"):
            getattr(target, call)(message)
        assert not live.websocket.closed

    def test_other_types_are_refused_on_closed_connections_too(self, open_websocket: Open) -> None:
        """A mistake does not depend on the client's luck."""
        live = open_websocket()
        live.websocket.close()
        with pytest.raises(TypeError, match="not int"):
            live.websocket.send(7)

    def test_none_may_be_sent_to_the_gone_only(self, open_websocket: Open) -> None:
        """A loop that echoes sends the final None, too; before the end it is a mistake."""
        live = open_websocket()
        with pytest.raises(TypeError, match="not NoneType"):
            live.websocket.send(None)
        with pytest.raises(TypeError, match="not NoneType"):
            asyncio.run(live.websocket.asend(None))
        live.websocket.close()
        assert live.websocket.send(None) is False
        assert asyncio.run(live.websocket.asend(None)) is False
        with pytest.raises(ConnectionClosed):
            live.websocket.send(None, strict=True)

    def test_a_lone_surrogate_is_refused(self, open_websocket: Open) -> None:
        """It cannot be UTF-8."""
        with pytest.raises(UnicodeEncodeError):
            open_websocket().websocket.send("\ud800")


async def send_all(websocket: WebSocket, text: str) -> None:
    """Send a text by each call for async views."""
    await websocket.asend(text)
    await websocket.asend_text(text)
    await websocket.asend_json(json.loads(text))


class TestExactSending:
    """`send_text`, `send_bytes`, `send_json` and the original's `protocol.write`."""

    def test_send_text(self, open_websocket: Open) -> None:
        """Takes str and UTF-8."""
        live = open_websocket(text_type=str)
        live.websocket.send_text("a")
        live.websocket.send_text("ü".encode())
        live.websocket.send_text(bytearray(b"c"))
        assert [live.client.receive() for _ in range(3)] == ["a", "ü", "c"]

    def test_send_text_refuses_what_is_no_text(self, open_websocket: Open) -> None:
        """It would make the browser drop the connection."""
        with pytest.raises(ValueError, match="must be valid UTF-8"):
            open_websocket().websocket.send_text(b"\xff")

    def test_no_text_begins_as_those_of_the_server(self, open_websocket: Open) -> None:
        """What a view relays may be forged: a blank tells it apart, and changes no JSON."""
        forged = '{"group":"room-42","left":{"key":"1"}}'
        live, compatible = open_websocket(text_type=str), open_websocket()
        for websocket in (live.websocket, compatible.websocket):
            websocket.send(forged)
            websocket.send_text(forged)
            websocket.send_text(bytearray(forged.encode()))
            websocket.send_json(json.loads(forged))
            asyncio.run(send_all(websocket, forged))
        # What could be text goes out as text.
        compatible.websocket.send(bytearray(forged.encode()))
        for client, count in ((live.client, 7), (compatible.client, 8)):
            texts = [str(client.receive()) for _ in range(count)]
            assert {text[0] for text in texts} == {" "}
            assert all(json.loads(text) == json.loads(forged) for text in texts)
        live.websocket.send(forged.encode())
        live.websocket.send_bytes(forged.encode())
        assert [live.client.receive(), live.client.receive()] == [forged.encode()] * 2
        for text in (forged.replace("group", "groups"), "{", '[{"group":1}]', f" {forged}"):
            live.websocket.send(text)
            assert live.client.receive() == text

    def test_send_bytes(self, open_websocket: Open) -> None:
        """Is binary, also when it could be text."""
        live = open_websocket()
        for message in (b"plain", bytearray(b"a"), memoryview(b"b")):
            live.websocket.send_bytes(message)
        assert [live.client.receive() for _ in range(3)] == [b"plain", b"a", b"b"]

    def test_send_bytes_refuses_str(self, open_websocket: Open) -> None:
        """And says what to do."""
        with pytest.raises(
            TypeError, match=r"this takes bytes, not str: encode it, or use send_text"
        ):
            open_websocket().websocket.send_bytes("text")

    def test_send_json_writes_what_django_writes(self, open_websocket: Open) -> None:
        """Dates, decimals and UUIDs; keywords go to `json.dumps`."""
        live = open_websocket(text_type=str)
        data = {
            "day": datetime.date(2024, 2, 29),
            "price": decimal.Decimal("1.50"),
            "id": uuid.UUID(int=1),
            "ü": [None, True],
        }
        live.websocket.send_json(data)
        live.websocket.send_json({"ü": 1}, ensure_ascii=False, separators=(",", ":"))
        assert json.loads(str(live.client.receive())) == {
            "day": "2024-02-29",
            "price": "1.50",
            "id": "00000000-0000-0000-0000-000000000001",
            "ü": [None, True],
        }
        assert live.client.receive() == '{"ü":1}'

    def test_send_json_takes_an_encoder(self, open_websocket: Open) -> None:
        """In place of Django's."""

        class Encoder(json.JSONEncoder):
            def default(self, o: Any) -> str:
                return "mine"

        live = open_websocket()
        live.websocket.send_json(object(), cls=Encoder)
        assert live.client.receive() == '"mine"'
        with pytest.raises(TypeError, match="not JSON serializable"):
            live.websocket.send_json(object())

    def test_protocol_writes(self, open_websocket: Open) -> None:
        """The only way to send binary in the original."""
        live = open_websocket()
        write = live.websocket.protocol.write
        assert write(b"one", binary=True) is True
        assert write("two", True) is True
        assert write("three") is True
        assert write(b"four") is True
        got = [live.client.receive() for _ in range(4)]
        assert got == [b"one", b"two", "three", "four"]

    def test_protocol_tells_and_closes(self, open_websocket: Open) -> None:
        """`close_code` and `close_reason` as on the websocket."""
        live = open_websocket()
        protocol = live.websocket.protocol
        assert (protocol.closed, protocol.close_code, protocol.close_reason) == (False, None, "")
        protocol.close(4000, "why not")
        assert (protocol.closed, protocol.close_code, protocol.close_reason) == (
            True,
            4000,
            "why not",
        )
        assert protocol.write(b"x", binary=True) is False


class TestReceive:
    """`receive()`, which raises."""

    @pytest.mark.parametrize("timeout", [0, 0.001])
    def test_raises_when_the_time_is_up(self, open_websocket: Open, timeout: float) -> None:
        """And the connection stays usable."""
        live = open_websocket()
        with pytest.raises(ReceiveTimeout, match=f"^no message came within {timeout} s$"):
            live.websocket.receive(timeout)
        live.client.send("hello")
        assert live.websocket.receive(10) == "hello"

    def test_raises_only_when_the_queue_is_empty_after_the_close(
        self, open_websocket: Open
    ) -> None:
        """With the code, the reason and the side that began."""
        live = open_websocket()
        live.client.send("hello")
        live.client.close(4001, "enough")
        arrived(live, 1, ended=True)
        assert live.websocket.receive() == "hello"
        with pytest.raises(ConnectionClosed, match="closed with 4001: enough") as caught:
            live.websocket.receive()
        assert (caught.value.code, caught.value.reason, caught.value.by) == (4001, "enough", "peer")
        with pytest.raises(ConnectionClosed):
            live.websocket.receive(0)

    @pytest.mark.parametrize("timeout", [-1, -0.1, math.nan])
    def test_refuses_times_that_cannot_be(self, open_websocket: Open, timeout: float) -> None:
        """Only the compatible `wait` takes negative ones."""
        with pytest.raises(ValueError, match="timeout must be None, 0 or a number of seconds"):
            open_websocket().websocket.receive(timeout)

    def test_json(self, open_websocket: Open) -> None:
        """From text and from binary; keywords go to `json.loads`."""
        live = open_websocket()
        live.client.send('{"a": 1.5}')
        live.client.send(b"[1]")
        live.client.send("1.5")
        ws = live.websocket
        assert ws.receive_json() == {"a": 1.5}
        assert ws.receive_json() == [1]
        assert ws.receive_json(10, parse_float=decimal.Decimal) == decimal.Decimal("1.5")

    def test_what_is_no_json_is_consumed(self, open_websocket: Open) -> None:
        """The next call gets the next message."""
        live = open_websocket()
        live.client.send("{")
        live.client.send("1")
        with pytest.raises(InvalidMessage):
            live.websocket.receive_json()
        assert live.websocket.receive_json() == 1
        with pytest.raises(ReceiveTimeout):
            live.websocket.receive_json(0)


class TestHandle:
    """The original's undocumented `handle(opcode, data)`."""

    class Handling(WebSocket):
        def __init__(self) -> None:
            super().__init__()
            self.handled: list[tuple[int, Any]] = []

        def handle(self, opcode: int, data: Any) -> None:
            self.handled.append((opcode, data))

    def test_is_called_for_each_message_and_the_close(self, open_websocket: Open) -> None:
        """From `wait` and from `read`, once each, with what they return."""
        live = open_websocket(self.Handling)
        live.client.send("text")
        live.client.send(b"\xff")
        live.client.close(4000, "bye")
        arrived(live, 2, ended=True)
        ws: Any = live.websocket
        assert (ws.wait(), ws.read(), ws.read(), ws.wait()) == (b"text", b"\xff", None, None)
        assert ws.handled == [(1, b"text"), (2, b"\xff"), (8, b"\x0f\xa0bye")]

    def test_gets_str_in_the_exact_mode(self, open_websocket: Open) -> None:
        """As it is returned."""
        live = open_websocket(self.Handling, text_type=str)
        live.client.send("text")
        live.client.send(b"binary")
        ws: Any = live.websocket
        assert (ws.wait(), ws.wait()) == ("text", b"binary")
        assert ws.handled == [(1, "text"), (2, b"binary")]

    def test_gets_no_payload_for_a_close_without_a_frame(self, open_websocket: Open) -> None:
        """Nothing stood in it."""
        live = open_websocket(self.Handling)
        live.client.vanish()
        ws: Any = live.websocket
        assert ws.wait() is None
        assert ws.handled == [(8, b"")]

    def test_may_be_set_on_the_websocket(self, open_websocket: Open) -> None:
        """As duck-typed code does."""
        live = open_websocket()
        handled: list[tuple[int, Any]] = []
        live.websocket.handle = lambda *frame: handled.append(frame)  # type: ignore[method-assign]
        live.client.send("text")
        assert live.websocket.wait() == b"text"
        assert handled == [(1, b"text")]

    def test_does_nothing_by_default(self) -> None:
        """It is there to be overridden."""
        assert WebSocket().handle(1, b"") is None  # type: ignore[func-returns-value]

    def test_is_not_called_when_nothing_came(self, open_websocket: Open) -> None:
        """Time is no frame."""
        live = open_websocket(self.Handling)
        ws: Any = live.websocket
        assert (ws.wait(0.001), ws.read(), ws.handled) == (None, None, [])


class TestIsClosedBehindTheLastMessage:
    """A view that looks between a receiving call and its work loses nothing."""

    TAKES: ClassVar[dict[str, Callable[[Any], object]]] = {
        "wait": lambda ws: ws.wait(),
        "wait with a time": lambda ws: ws.wait(60),
        "read": lambda ws: ws.read(),
        "receive": lambda ws: ws.receive(),
        "iteration": lambda ws: next(iter(ws)),
    }

    @pytest.mark.parametrize("is_view", [True, False])
    @pytest.mark.parametrize("take", TAKES)
    def test_until_the_end_is_told(
        self, open_websocket: Open, own: Own, take: str, *, is_view: bool
    ) -> None:
        """Whether the message came alone or with the end; `closed` is exact meanwhile."""
        live = open_websocket()
        ws = live.websocket
        if is_view:
            own(ws)
        live.client.send("the only one")
        live.client.close()
        arrived(live, 1, ended=True)
        assert self.TAKES[take](ws) in (b"the only one", "the only one")
        assert (ws.closed, ws.is_closed(), ws.is_close()) == (True, False, False)
        assert ws.wait() is None
        assert ws.is_closed()

    def test_while_the_message_is_taken_before_the_end(
        self, open_websocket: Open, own: Own
    ) -> None:
        """The end may come in the middle of the view's work."""
        live = open_websocket()
        own(live.websocket)
        live.client.send("the only one")
        assert live.websocket.wait() == b"the only one"
        live.client.close()
        arrived(live, 0, ended=True)
        assert not live.websocket.is_closed()
        with pytest.raises(ConnectionClosed):
            live.websocket.receive()
        assert live.websocket.is_closed()

    def test_not_after_a_refused_send(self, open_websocket: Open, own: Own) -> None:
        """Nothing waits, and the caller knows."""
        live = open_websocket()
        own(live.websocket)
        live.client.send("the only one")
        assert live.websocket.wait() == b"the only one"
        live.client.close()
        arrived(live, 0, ended=True)
        assert live.websocket.send("an answer") is False
        assert live.websocket.is_closed()

    def test_of_tasks(self, open_websocket: Open, own: Own) -> None:
        """By the end of `areceive`, which each task of a loop may call."""
        live = open_websocket()
        ws = live.websocket
        own(ws)
        live.client.send("the only one")
        live.client.close()
        arrived(live, 1, ended=True)

        async def main() -> list[bool]:
            assert await ws.areceive() == "the only one"
            seen = [ws.is_closed()]
            with pytest.raises(ConnectionClosed):
                await asyncio.create_task(ws.areceive())
            return [*seen, ws.is_closed()]

        assert asyncio.run(main()) == [False, True]

    @pytest.mark.parametrize("receives_first", [True, False])
    @pytest.mark.parametrize("looks", [True, False])
    def test_an_iteration_that_has_ended(
        self, open_websocket: Open, own: Own, *, looks: bool, receives_first: bool
    ) -> None:
        """It is so at once, whatever the view has called before and meanwhile."""
        live = open_websocket()
        ws = live.websocket
        own(ws)
        for text in ("first", "second", "third"):
            live.client.send(text)
        live.client.close()
        arrived(live, 3, ended=True)

        async def main() -> list[str | bytes]:
            found = [await ws.areceive()] if receives_first else []
            async for message in ws:
                found.append(message)
                assert not (looks and receives_first and ws.is_closed())
            assert ws.is_closed()
            return found

        assert asyncio.run(main()) == ["first", "second", "third"]

    def test_not_where_the_server_closed(self, open_websocket: Open, own: Own) -> None:
        """No message of the client can be lost by it."""
        live = open_websocket()
        own(live.websocket)
        live.client.send("the only one")
        assert live.websocket.wait() == b"the only one"
        live.connection.close(1001, "")
        assert live.websocket.is_closed()

    def test_not_where_no_message_came(self, open_websocket: Open, own: Own) -> None:
        """There is nothing to lose."""
        live = open_websocket()
        own(live.websocket)
        assert live.websocket.wait(0) is None
        live.client.close()
        arrived(live, 0, ended=True)
        assert live.websocket.is_closed()

    def test_not_when_another_thread_was_told(self, open_websocket: Open, own: Own) -> None:
        """The end is read once, as in the original."""
        live = open_websocket()
        own(live.websocket)
        live.client.send("the only one")
        assert live.websocket.wait() == b"the only one"
        live.client.close()
        helper = threading.Thread(target=live.websocket.wait)
        helper.start()
        helper.join()
        assert live.websocket.is_closed()

    @pytest.mark.parametrize(
        "belongs",
        [
            True,
            pytest.param(
                False,
                marks=pytest.mark.skipif(
                    bool(getattr(sys.flags, "thread_inherit_context", False)),
                    reason="a thread that inherits the view's context is a part of the view",
                ),
            ),
        ],
    )
    def test_of_a_view_that_only_sends(
        self, open_websocket: Open, own: Own, *, belongs: bool
    ) -> None:
        """It is so at once, whoever else receives."""
        live = open_websocket()
        own(live.websocket)
        live.client.send("for a helper")
        if belongs:
            live.websocket._view_request = RequestFactory().get("/")
            live.websocket.start(live.websocket.receive).join()
        else:
            helper = threading.Thread(target=live.websocket.wait)
            helper.start()
            helper.join()
        live.client.close()
        arrived(live, 0, ended=True)
        assert live.websocket.is_closed()


class TestClose:
    """`close()` and the attributes afterwards."""

    def test_is_normal_by_default(self, open_websocket: Open) -> None:
        """1000, without a reason."""
        live = open_websocket()
        ws = live.websocket
        assert (ws.closed, ws.is_closed(), ws.is_close()) == (False, False, False)
        assert (ws.close_code, ws.close_reason) == (None, "")
        ws.close()
        assert (ws.closed, ws.is_closed(), ws.is_close()) == (True, True, True)
        assert (ws.close_code, ws.close_reason) == (1000, "")
        assert live.client.closing() == (1000, "")

    @pytest.mark.parametrize("reason", ["grüße", "grüße".encode(), bytearray("grüße".encode())])
    def test_takes_code_and_reason(self, open_websocket: Open, reason: Any) -> None:
        """The reason as str or bytes; it is str afterwards."""
        live = open_websocket()
        live.websocket.close(4321, reason)
        assert (live.websocket.close_code, live.websocket.close_reason) == (4321, "grüße")
        assert live.client.closing() == (4321, "grüße")

    def test_what_was_sent_before_goes_out(self, open_websocket: Open) -> None:
        """Also when the client has read nothing of it yet."""
        live = open_websocket(send_buffer=2 * len(HUGE))
        live.websocket.send(HUGE)
        live.websocket.close()
        assert live.client.receive() == HUGE
        assert live.client.receive() is None

    def test_twice_is_harmless(self, open_websocket: Open) -> None:
        """The first code counts."""
        live = open_websocket()
        live.websocket.close(4000)
        live.websocket.close(4001, "again")
        assert live.websocket.close_code == 4000
        assert live.client.closing() == (4000, "")

    def test_after_the_client_is_harmless(self, open_websocket: Open) -> None:
        """The client's code counts."""
        live = open_websocket()
        live.client.close(4002, "mine")
        arrived(live, 0, ended=True)
        live.websocket.close(4000, "ours")
        assert (live.websocket.close_code, live.websocket.close_reason) == (4002, "mine")

    @pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 4999])
    def test_codes_that_may_be_sent(self, open_websocket: Open, code: int) -> None:
        """RFC 6455 section 7.4 and its registry."""
        live = open_websocket()
        live.websocket.close(code)
        assert live.client.closing() == (code, "")

    @pytest.mark.parametrize(
        "code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535, 65536, 10**30]
    )
    def test_codes_that_must_not_be_sent(self, open_websocket: Open, code: int) -> None:
        """Each is refused by value, and nothing is closed."""
        live = open_websocket()
        with pytest.raises(ValueError, match=str(code)):
            live.websocket.close(code)
        assert not live.websocket.closed

    @pytest.mark.parametrize("code", ["1000", 1000.0, True, b"1"])
    def test_codes_that_are_no_numbers(self, open_websocket: Open, code: Any) -> None:
        """The type is named."""
        with pytest.raises(TypeError, match=rf"must be an int, not {type(code).__name__}"):
            open_websocket().websocket.close(code)

    @pytest.mark.parametrize("reason", ["x" * 123, "é" * 61 + "x"])
    def test_longest_reason(self, open_websocket: Open, reason: str) -> None:
        """123 bytes of UTF-8 fit."""
        live = open_websocket()
        live.websocket.close(1000, reason)
        assert live.client.closing() == (1000, reason)

    @pytest.mark.parametrize("reason", ["x" * 124, b"x" * 124, "é" * 62, b"\xff"])
    def test_reasons_that_do_not_fit(self, open_websocket: Open, reason: str | bytes) -> None:
        """Too long, or no UTF-8."""
        live = open_websocket()
        with pytest.raises(ValueError, match=r"123|utf-8"):
            live.websocket.close(1000, reason)
        assert not live.websocket.closed

    def test_reason_of_another_type(self, open_websocket: Open) -> None:
        """The type is named."""
        with pytest.raises(TypeError, match="not int"):
            open_websocket().websocket.close(1000, 5)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("sent", "seen"), [(4000, 4000), (None, 1005)])
    def test_code_of_the_client(self, open_websocket: Open, sent: int | None, seen: int) -> None:
        """1005 stands for a close frame without one."""
        live = open_websocket()
        live.client.close(sent)
        assert live.websocket.wait() is None
        assert live.websocket.close_code == seen

    def test_code_of_a_client_that_vanished(self, open_websocket: Open) -> None:
        """1006, and neither side began."""
        live = open_websocket()
        live.client.vanish()
        with pytest.raises(ConnectionClosed) as caught:
            live.websocket.receive()
        assert (live.websocket.close_code, caught.value.by) == (1006, "lost")


class TestSendingToTheGone:
    """COMPAT section 6: loops that never look, and loops over all clients."""

    def test_tells_whether_it_was_handed_over(self, open_websocket: Open) -> None:
        """True while open, False when closed, for every call."""
        live = open_websocket()
        ws = live.websocket
        calls: list[Callable[[], bool]] = [
            lambda: ws.send("a"),
            lambda: ws.send_text("a"),
            lambda: ws.send_bytes(b"a"),
            lambda: ws.send_json(1),
            lambda: ws.protocol.write("a"),
        ]
        assert [call() for call in calls] == [True] * 5
        ws.close()
        assert [call() for call in calls] == [False] * 5

    @pytest.mark.parametrize("call", ["send", "send_text", "send_bytes", "send_json"])
    def test_strict_raises_at_once(self, open_websocket: Open, call: str) -> None:
        """From anywhere."""
        live = open_websocket()
        live.websocket.close(4000, "over")
        with pytest.raises(ConnectionClosed, match="closed with 4000: over"):
            getattr(live.websocket, call)(b"a" if call == "send_bytes" else "a", strict=True)

    @pytest.mark.parametrize("is_own", [True, False])
    def test_strict_raises_though_nobody_knows_yet_how_it_ended(
        self, open_websocket: Open, own: Own, is_own: bool
    ) -> None:
        """The socket refused a write before the engine read the reason."""
        ws = stubbed(open_websocket(), post=[False], send=[False], end=[None], ended_for=[None])
        if is_own:
            own(ws)
        with pytest.raises(ConnectionClosed) as caught:
            ws.send("x", strict=True)
        assert (caught.value.code, caught.value.by) == (1006, "lost")

    def test_never_raises_elsewhere(
        self, open_websocket: Open, own: Own, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A loop over all users must not break at one that has gone."""
        end_grace(monkeypatch)
        live, mine = open_websocket(), open_websocket()
        live.websocket.close()
        own(mine.websocket)
        assert [live.websocket.send("x") for _ in range(3)] == [False, False, False]
        assert in_thread(lambda: live.websocket.send("x")).result(10) is False

    def test_raises_in_the_own_view_after_a_warning(
        self, closed_here: LiveWebSocket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """First False; False again within a second of the close; then it raises."""
        live = closed_here
        assert [live.websocket.send("x") for _ in range(3)] == [False, False, False]
        end_grace(monkeypatch)
        with pytest.raises(ConnectionClosed, match="4000"):
            live.websocket.send("x")

    def test_gives_one_warning_however_long_it_is_closed(
        self, closed_here: LiveWebSocket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first `send` after the close does not raise."""
        end_grace(monkeypatch)
        live = closed_here
        assert live.websocket.send("x") is False
        with pytest.raises(ConnectionClosed):
            live.websocket.send("x")

    @pytest.mark.parametrize("look", ["wait", "read", "has_messages", "count_messages"])
    def test_a_receiving_call_takes_the_warning_back(
        self, closed_here: LiveWebSocket, monkeypatch: pytest.MonkeyPatch, look: str
    ) -> None:
        """A caller that receives is about to find the end."""
        live = closed_here
        assert live.websocket.send("x") is False
        RECEIVING[look](live.websocket)
        end_grace(monkeypatch)
        assert live.websocket.send("x") is False

    def test_also_from_a_thread_of_the_own_view(
        self, closed_here: LiveWebSocket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`sync_to_async` and `asyncio.to_thread` carry the context along."""
        end_grace(monkeypatch)
        live = closed_here

        def send_twice() -> bool:
            sent = live.websocket.send("x")
            with pytest.raises(ConnectionClosed):
                live.websocket.send("x")
            return sent

        assert in_thread(send_twice).result(10) is False

    @pytest.mark.parametrize("call", list(RECEIVING))
    def test_receiving_raises_when_the_end_was_told_long_ago(
        self, open_websocket: Open, own: Own, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """A loop that never looks for None does not spin for ever."""
        live = open_websocket()
        own(live.websocket)
        live.client.close(4000)
        assert live.websocket.wait() is None
        RECEIVING[call](live.websocket)
        end_grace(monkeypatch)
        with pytest.raises(ConnectionClosed, match="4000"):
            RECEIVING[call](live.websocket)

    @pytest.mark.parametrize("call", list(RECEIVING))
    def test_receiving_elsewhere_raises_too(
        self, open_websocket: Open, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        """A helper thread has a loop, too."""
        end_grace(monkeypatch)
        live = open_websocket()
        live.client.close()
        assert live.websocket.wait() is None
        with pytest.raises(EOFError):
            RECEIVING[call](live.websocket)

    def test_time_counts_from_the_report_not_from_the_end(
        self, closed_here: LiveWebSocket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An end that was not reported is no reason to raise."""
        end_grace(monkeypatch)
        live = closed_here
        assert live.websocket.has_messages()
        assert live.websocket.count_messages() == 1
        assert live.websocket.read("fallback") is None
        with pytest.raises(ConnectionClosed):
            live.websocket.has_messages()


class TestSlowClients:
    """A client that reads too slowly."""

    def test_own_view_waits_and_then_raises(self, open_websocket: Open, own: Own) -> None:
        """Nothing is queued by the call that raises, and the connection stays usable."""
        live = open_websocket(send_buffer=1000, send_timeout=0.01)
        own(live.websocket)
        assert live.websocket.send(HUGE)
        with pytest.raises(SendTimeout, match="WEBSOCKET_SEND_BUFFER and WEBSOCKET_SEND_TIMEOUT"):
            live.websocket.send("more")
        assert not live.websocket.closed
        assert live.client.receive() == HUGE
        assert live.websocket.send("again")
        assert live.client.receive() == "again"

    @pytest.mark.parametrize("run", [lambda call: call(), lambda call: in_thread(call).result(20)])
    def test_a_message_that_finds_no_room_leaves_it_to_smaller_ones(
        self, run: Callable[[Callable[[], Any]], Any], open_websocket: Open, own: Own
    ) -> None:
        """On the main thread and on others."""
        live = open_websocket(send_buffer=1 << 20, send_timeout=0.05)
        own(live.websocket)

        def fill() -> None:
            while live.websocket.send(HUGE[:400_000]):
                pass

        with pytest.raises(SendTimeout):
            run(fill)
        assert run(lambda: live.websocket.send("small")) is True

    def test_own_view_goes_on_when_room_is_made(self, open_websocket: Open, own: Own) -> None:
        """No time limit: it waits as long as it takes."""
        live = open_websocket(send_buffer=1000, send_timeout=None)
        own(live.websocket)
        assert live.websocket.send(HUGE)
        future = in_thread(lambda: live.websocket.send("more"))
        assert live.client.receive() == HUGE
        assert future.result(10) is True
        assert live.client.receive() == "more"

    def test_own_view_learns_that_the_client_went(self, open_websocket: Open, own: Own) -> None:
        """A sender that waits gets the error."""
        live = open_websocket(send_buffer=1000, send_timeout=None)
        own(live.websocket)
        assert live.websocket.send(HUGE)
        future = in_thread(lambda: live.websocket.send("more"))
        live.client.vanish()
        assert future.result(10) is False

    def test_anybody_else_closes_it(self, open_websocket: Open) -> None:
        """Others never wait for it."""
        live = open_websocket(send_buffer=1000, send_timeout=0.1)
        assert live.websocket.send(HUGE)
        assert live.websocket.send("more") is False
        assert live.websocket.close_code == 1013

    def test_event_loop_does_not_wait(self, open_websocket: Open, own: Own) -> None:
        """The plain `send` of an async view must not block the loop; `asend` waits."""
        live = open_websocket(send_buffer=1000, send_timeout=None)
        own(live.websocket)

        async def main() -> list[bool]:
            return [live.websocket.send(HUGE), live.websocket.send("more")]

        assert asyncio.run(main()) == [True, False]
        assert live.websocket.close_code == 1013


class TestAsync:
    """The async twins."""

    def test_receive_and_send(self, open_websocket: Open) -> None:
        """Exact types, JSON, text and bytes."""
        live = open_websocket()
        for message in ("text", b"plain", '{"a": 1}'):
            live.client.send(message)

        async def main() -> list[Any]:
            ws = live.websocket
            got = [await ws.areceive(), await ws.areceive(10), await ws.areceive_json()]
            sent = [
                await ws.asend("a"),
                await ws.asend_text(b"b"),
                await ws.asend_bytes(b"c"),
                await ws.asend_json({"d": 1}),
            ]
            await ws.aclose(4000, "done")
            return [*got, *sent, await ws.asend("late")]

        assert asyncio.run(main()) == ["text", b"plain", {"a": 1}, True, True, True, True, False]
        got = [live.client.receive() for _ in range(4)]
        assert got == ["a", "b", b"c", '{"d": 1}']
        assert live.client.closing() == (4000, "done")

    def test_iteration_stops_at_the_end(self, open_websocket: Open) -> None:
        """Quietly, however it ended."""
        live = open_websocket()
        live.client.send("one")
        live.client.send(b"two")
        live.client.vanish()

        async def main() -> list[Any]:
            return [message async for message in live.websocket]

        assert asyncio.run(main()) == ["one", b"two"]

    @pytest.mark.parametrize("timeout", [0, 0.001])
    def test_receive_raises_when_the_time_is_up(self, open_websocket: Open, timeout: float) -> None:
        """As the sync one."""
        live = open_websocket()
        with pytest.raises(ReceiveTimeout, match=f"^no message came within {timeout} s$"):
            asyncio.run(live.websocket.areceive(timeout))
        with pytest.raises(ValueError, match="timeout must be"):
            asyncio.run(live.websocket.areceive(-1))

    def test_receive_raises_at_the_end(self, open_websocket: Open) -> None:
        """Also a task that waits already."""
        live = open_websocket()

        async def main() -> None:
            task = asyncio.create_task(live.websocket.areceive())
            await asyncio.sleep(0)
            live.client.close(4000)
            with pytest.raises(ConnectionClosed, match="4000"):
                await task
            with pytest.raises(ConnectionClosed, match="4000"):
                await live.websocket.areceive_json()

        asyncio.run(main())

    def test_cancellation_loses_nothing(self, open_websocket: Open) -> None:
        """The next task gets the message."""
        live = open_websocket()

        async def main() -> Any:
            task = asyncio.create_task(live.websocket.areceive())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            live.client.send("kept")
            return await live.websocket.areceive(10)

        assert asyncio.run(main()) == "kept"

    def test_several_tasks_share_a_connection(self, open_websocket: Open) -> None:
        """Each message goes to one."""
        live = open_websocket()

        async def main() -> list[Any]:
            tasks = [asyncio.create_task(live.websocket.areceive()) for _ in range(5)]
            await asyncio.sleep(0)
            for n in range(5):
                live.client.send(str(n))
            return await asyncio.gather(*tasks)

        assert sorted(asyncio.run(main())) == ["0", "1", "2", "3", "4"]

    def test_tasks_keep_their_own_order(self, open_websocket: Open) -> None:
        """Messages of one sender stay in order, whole."""
        live = open_websocket()

        async def talk(name: str) -> None:
            for n in range(50):
                assert await live.websocket.asend(f"{name}{n}")

        async def main() -> None:
            await asyncio.gather(talk("a"), talk("b"))

        asyncio.run(main())
        got = [str(live.client.receive()) for _ in range(100)]
        for name in "ab":
            assert [m for m in got if m[0] == name] == [f"{name}{n}" for n in range(50)]

    @pytest.mark.parametrize("call", ["wait", "receive", "iteration", "receive_json", "can_read"])
    def test_blocking_calls_are_refused_in_a_loop(self, open_websocket: Open, call: str) -> None:
        """The message says what to use."""
        live = open_websocket()

        async def main() -> None:
            if call == "iteration":
                list(live.websocket)
            elif call == "can_read":
                assert not live.websocket.protocol.can_read()
                live.websocket.protocol.can_read(0.01)
            else:
                getattr(live.websocket, call)()

        with pytest.raises(UsageError, match=r"use `await websocket\.areceive\(\)` or `async for`"):
            asyncio.run(main())

    def test_calls_that_do_not_block_work_in_a_loop(self, open_websocket: Open) -> None:
        """`read`, `wait(0)`, counting, `close`."""
        live = open_websocket()
        live.client.send("one")
        live.client.send("two")
        arrived(live, 2)

        async def main() -> list[Any]:
            ws = live.websocket
            result = [ws.has_messages(), ws.count_messages(), ws.read(), ws.wait(0), ws.wait(0)]
            ws.close()
            return result

        assert asyncio.run(main()) == [True, 2, b"one", b"two", None]

    def test_own_view_waits_for_room(self, open_websocket: Open, own: Own) -> None:
        """Without blocking the loop: a task reads as the client meanwhile."""
        live = open_websocket(send_buffer=1000, send_timeout=None)
        own(live.websocket)

        async def main() -> list[Any]:
            assert await live.websocket.asend(HUGE)
            sending = asyncio.create_task(live.websocket.asend("more"))
            await asyncio.sleep(0)
            read = [await asyncio.to_thread(live.client.receive) for _ in range(2)]
            return [await sending, len(read[0] or ""), read[1]]

        assert asyncio.run(main()) == [True, len(HUGE), "more"]

    def test_own_view_gives_up_in_time(self, open_websocket: Open, own: Own) -> None:
        """Nothing is queued by the call that raises."""
        live = open_websocket(send_buffer=1000, send_timeout=0.01)
        own(live.websocket)

        async def main() -> None:
            await live.websocket.asend(HUGE)
            with pytest.raises(SendTimeout, match="WEBSOCKET_SEND_TIMEOUT"):
                await live.websocket.asend("more")

        asyncio.run(main())
        assert not live.websocket.closed
        assert live.client.receive() == HUGE
        assert live.websocket.send("next")
        assert live.client.receive() == "next"

    def test_others_never_wait_for_room(self, open_websocket: Open) -> None:
        """The client that cannot keep up is closed."""
        live = open_websocket(send_buffer=1000)

        async def main() -> list[bool]:
            return [await live.websocket.asend(HUGE), await live.websocket.asend("more")]

        assert asyncio.run(main()) == [True, False]
        assert live.websocket.close_code == 1013

    def test_push_loop_ends_by_exception(
        self, closed_here: LiveWebSocket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The rule of the own view holds for `asend`, also in its tasks."""
        end_grace(monkeypatch)
        live = closed_here

        async def main() -> bool:
            sent = await live.websocket.asend("x")
            with pytest.raises(ConnectionClosed):
                await asyncio.create_task(live.websocket.asend("x"))
            return sent

        assert asyncio.run(main()) is False

    def test_strict(self, open_websocket: Open) -> None:
        """Raises at once."""
        live = open_websocket()
        live.websocket.close()
        with pytest.raises(ConnectionClosed):
            asyncio.run(live.websocket.asend("x", strict=True))


class TestThreads:
    """Any thread may call any method."""

    def test_messages_of_several_senders_never_mix(self, open_websocket: Open) -> None:
        """Each sender's messages arrive whole and in order."""
        live = open_websocket()

        def talk(name: str) -> None:
            for n in range(200):
                assert live.websocket.send(f"{name}{n}".ljust(300, name))

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(talk, name) for name in "abcd"]
            got = [str(live.client.receive()) for _ in range(800)]
            for future in futures:
                future.result(10)
        for name in "abcd":
            expected = [f"{name}{n}".ljust(300, name) for n in range(200)]
            assert [m for m in got if m[0] == name] == expected


class TestBeforeItIsOpen:
    """A WebSocket that has no connection yet."""

    @pytest.mark.parametrize(
        "use",
        [
            lambda ws: ws.wait(),
            lambda ws: ws.read(),
            lambda ws: ws.has_messages(),
            lambda ws: ws.count_messages(),
            list,
            lambda ws: ws.receive(),
            lambda ws: ws.send("x"),
            lambda ws: ws.send_json({}),
            lambda ws: ws.is_closed(),
            lambda ws: ws.fileno(),
            lambda ws: ws.pump([]),
            lambda ws: ws.ping(),
            lambda ws: ws.wait_closed(1),
            lambda ws: ws.protocol.write(b"x"),
            lambda ws: asyncio.run(ws.areceive()),
            lambda ws: asyncio.run(ws.asend("x")),
            lambda ws: asyncio.run(ws.aping()),
            lambda ws: asyncio.run(ws.await_closed()),
        ],
    )
    def test_every_use_is_refused(self, use: Callable[[WebSocket], Any]) -> None:
        """And the message says where it is open."""
        with pytest.raises(UsageError, match="not open yet: use it inside its view"):
            use(WebSocket())

    def test_closing_does_nothing(self) -> None:
        """A project's own middleware closes what it has made, opened or not."""
        WebSocket().close()

    def test_its_identity_stays(self, open_websocket: Open) -> None:
        """`str`, `repr` and `hash` are those of its whole life: registries have them as keys."""
        early = WebSocket()
        before = str(early), repr(early), hash(early)
        live = open_websocket()
        early._attach(live.connection, live.websocket._options, None)  # type: ignore[arg-type]
        assert (str(early), repr(early), hash(early)) == before
        name = str(live.websocket)
        assert name == f"<WebSocket {live.connection.id}>"
        live.websocket.close(4000)
        assert str(live.websocket) == name
        assert live.websocket == live.websocket
        assert len({early, live.websocket, WebSocket()}) == 3


def test_subprotocol(open_websocket: Open) -> None:
    """The subprotocol that both sides agreed on, or None."""
    assert open_websocket(subprotocol="chat").websocket.subprotocol == "chat"
    assert open_websocket().websocket.subprotocol is None


def test_early_bytes_come_first(open_websocket: Open) -> None:
    """A message that the client sent right behind its handshake is like any other."""
    live = open_websocket(early=b"\x81\x85\x00\x00\x00\x00hello")
    live.client.send("second")
    assert (live.websocket.wait(), live.websocket.wait()) == (b"hello", b"second")


def test_waiting_without_end_costs_no_processor_time(open_websocket: Open) -> None:
    """A parked thread does nothing until it is woken."""
    live = open_websocket()

    def wait() -> tuple[Any, float]:
        before = time.thread_time()
        return live.websocket.wait(), time.thread_time() - before

    future = in_thread(wait)
    assert not threading.Event().wait(0.1)
    live.client.send("x")
    message, took = future.result(10)
    assert message == b"x"
    assert took < 0.05


class TestClientsThatAreTooMuch:
    """Limits on what a client sends reach the engine."""

    @pytest.mark.parametrize(
        ("options", "sent", "code"),
        [
            ({"max_frame_size": 10}, b"\x82\x8b\0\0\0\0" + b"x" * 11, 1009),
            ({"max_fragments": 2}, b"\x02\x80\0\0\0\0" + b"\0\x80\0\0\0\0" * 2, 1009),
            (
                {"max_messages_per_second": 1, "rate_timeout": 0.1},
                b"\x82\x80\0\0\0\0" * 200,
                1008,
            ),
            (
                {"max_bytes_per_second": 200_000, "rate_timeout": 0.1},
                b"\x82\xff" + (600_000).to_bytes(8, "big") + b"\0" * 600_004,
                1008,
            ),
        ],
    )
    def test_are_closed(self, open_websocket: Open, options: Any, sent: bytes, code: int) -> None:
        """With the code that says why."""
        live = open_websocket(**options)
        live.client.send_raw(sent)
        assert live.client.closing()[0] == code

    def test_have_to_wait(self, open_websocket: Open) -> None:
        """When the view is slower than they are, and nothing is lost."""
        live = open_websocket(receive_buffer=1000)
        sent = [b"%099d" % number for number in range(100)]
        # The system's buffer may not hold them all either.
        sending = in_thread(lambda: [live.client.send(message) for message in sent])
        # The one that fills the buffer is taken whole.
        arrived(live, 11)
        assert [live.websocket.wait(10) for _ in sent] == sent
        sending.result(10)
        live.client.close()
        assert live.websocket.wait(10) is None
