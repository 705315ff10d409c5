"""The events of an ASGI application: which may come when, and what they do to the connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import ConnectionClosed, UsageError
from dwebsocket.runners.asgi_apps import events as module
from dwebsocket.runners.asgi_apps.events import Events, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

Event = dict[str, Any]

ACCEPT: Event = {"type": "websocket.accept"}
SEND: Event = {"type": "websocket.send", "text": "hi"}
CLOSE: Event = {"type": "websocket.close"}
START: Event = {"type": "websocket.http.response.start", "status": 402}
BODY: Event = {"type": "websocket.http.response.body"}
END: Event = {"type": "websocket.disconnect", "code": 1001, "reason": "bye"}
PART: Event = {"type": "websocket.http.response.body", "body": b"no ", "more_body": True}

# What brings an application to each stage.
WAY: dict[Stage, list[Event]] = {
    Stage.UNDECIDED: [],
    Stage.OPEN: [ACCEPT],
    Stage.RESPONDING: [START],
    Stage.OVER: [ACCEPT, CLOSE],
}
ALLOWED = {
    Stage.UNDECIDED: [ACCEPT, CLOSE, START],
    Stage.OPEN: [SEND, CLOSE],
    Stage.RESPONDING: [BODY],
    Stage.OVER: [SEND, CLOSE],
}


class Script:
    """A connection that notes what is done to it, and gives the messages of a test."""

    def __init__(self, *messages: str | bytes, end: ConnectionClosed | None = None) -> None:
        self.done: list[Any] = []
        self.messages = list(messages)
        self.end = end or ConnectionClosed(1001, "bye", "peer")
        self.refuses: Exception | None = None

    async def accept(self, subprotocol: str | None, headers: list[tuple[str, str]]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.done.append(("accept", subprotocol, headers))

    async def reject(self) -> None:
        self.done.append("reject")

    async def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.done.append(("respond", status, headers, body))

    async def receive(self) -> str | bytes:
        if not self.messages:
            raise self.end
        return self.messages.pop(0)

    async def send(self, message: str | bytes) -> None:
        self.done.append(("send", message))

    def drop(self, message: str | bytes) -> None:
        self.done.append(("drop", message))

    async def close(self, code: int, reason: str) -> None:
        self.done.append(("close", code, reason))


def with_events(
    peer: Script, talk: Callable[[Events], Coroutine[Any, Any, Any]]
) -> tuple[list[Any], Events]:
    """Run `talk(events)` over a connection; give what was done to it, and the events."""
    events = Events(peer)
    asyncio.run(talk(events))
    return peer.done, events


def done_by(*sent: Event) -> list[Any]:
    """Give what an application's events do to its connection."""

    async def talk(events: Events) -> None:
        for event in sent:
            await events.send(event)

    return with_events(Script(), talk)[0]


class Following:
    """Messages, each by another await of the same object; then the end, as the engine tells it."""

    def __init__(self, *messages: str | bytes) -> None:
        self.messages = list(messages)

    def __await__(self) -> Generator[None, None, str | bytes]:
        yield
        if not self.messages:
            raise StopAsyncIteration
        return self.messages.pop(0)


class TestReceive:
    """`receive`."""

    def test_from_an_object_that_gives_the_messages(self) -> None:
        """The peer is asked when the messages end."""
        received: list[Any] = []

        async def talk(events: Events) -> None:
            events.messages = Following("text", b"bytes")
            for _ in range(4):
                received.append(await events.receive())

        with_events(Script(), talk)
        assert received == [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "text"},
            {"type": "websocket.receive", "bytes": b"bytes"},
            END,
        ]

    def test_in_order(self) -> None:
        """`connect`, messages of both kinds, and then `disconnect`."""
        received: list[Any] = []

        async def talk(events: Events) -> None:
            received.extend([await events.receive() for _ in range(5)])

        with_events(Script("text", b"bytes", ""), talk)
        assert received == [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "text"},
            {"type": "websocket.receive", "bytes": b"bytes"},
            {"type": "websocket.receive", "text": ""},
            END,
        ]


class TestAfterTheEnd:
    """An application that asks for more events."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_LAST_S", 0.05)
        monkeypatch.setattr(module, "_PAUSE_S", 0.01)

    def run(self, application: Any) -> Events:
        """Run an application whose client has gone to its end."""
        events = Events(Script())
        asyncio.run(asyncio.wait_for(events.run(application, {}), 10))
        return events

    @pytest.mark.parametrize("awaited", [True, False], ids=["itself", "a task of it"])
    def test_is_ended(self, awaited: bool) -> None:
        """The event comes once. An application that asks again is ended after some time."""
        received: list[Any] = []
        began_at = time.monotonic()

        async def ask(receive: Any) -> None:
            try:
                while True:
                    received.append(await receive())
            finally:
                await asyncio.sleep(0)
                received.append("cleaned up")

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await (ask(receive) if awaited else asyncio.create_task(ask(receive)))

        self.run(application)
        assert received == [{"type": "websocket.connect"}, END, "cleaned up"]
        assert time.monotonic() - began_at >= 0.05

    def test_two_tasks(self) -> None:
        """One of two tasks gets the event."""
        received: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            got = await asyncio.gather(receive(), receive(), return_exceptions=True)
            received.extend(got)

        self.run(application)
        assert received[0] == END
        assert isinstance(received[1], asyncio.CancelledError)

    def test_by_short_waits(self) -> None:
        """An application that asks again and again is ended, too."""
        asked: list[int] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await receive()
            while True:
                asked.append(1)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(receive(), 0.01)

        self.run(application)
        assert len(asked) > 1

    def test_goes_on(self) -> None:
        """An application that takes no notice of its end is slowed down."""
        asked: list[float] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await receive()
            while len(asked) < 5:
                with contextlib.suppress(asyncio.CancelledError):
                    await receive()
                asked.append(time.monotonic())

        self.run(application)
        assert asked[-1] - asked[0] >= 4 * 0.01

    def test_works_on(self) -> None:
        """Work that asks for nothing goes on, beside a task that is ended."""
        done: list[str] = []

        async def ask(receive: Any) -> None:
            while True:
                await receive()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            asking = asyncio.create_task(ask(receive))
            await asyncio.wait({asking})
            await asyncio.sleep(0.05)
            done.append("written")

        self.run(application)
        assert done == ["written"]

    def test_is_cancelled(self) -> None:
        """Before that time a cancellation is that of its server."""
        events = Events(Script())

        async def application(scope: Any, receive: Any, send: Any) -> None:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await receive()
            await receive()
            await receive()

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(events.run(application, {}))


class TestSend:
    """`send`: each event, in the order that the specification asks for."""

    @pytest.mark.parametrize(
        ("event", "done"),
        [
            (ACCEPT, ("accept", None, [])),
            ({**ACCEPT, "subprotocol": None, "headers": None}, ("accept", None, [])),
            (
                {**ACCEPT, "subprotocol": "a", "headers": [[b"x-room", b"7"], (b"x", b"\xe9")]},
                ("accept", "a", [("x-room", "7"), ("x", "é")]),
            ),
            (CLOSE, "reject"),
            ({**CLOSE, "code": 4000, "reason": "no"}, "reject"),
        ],
    )
    def test_decides(self, event: Event, done: Any) -> None:
        """Before anything else the application accepts or refuses."""
        assert done_by(event) == [done]

    def test_response(self) -> None:
        """A refusal with a response goes out whole."""
        start = {**START, "headers": [(b"content-type", b"text/plain")]}
        assert done_by(start, PART, {**BODY, "body": bytearray(b"money")}) == [
            ("respond", 402, [("content-type", "text/plain")], b"no money")
        ]
        assert done_by(START, BODY) == [("respond", 402, [], b"")]

    @pytest.mark.parametrize(
        ("event", "message"),
        [
            ({"text": "né"}, "né"),
            ({"text": ""}, ""),
            ({"bytes": b"\xff"}, b"\xff"),
            ({"bytes": b""}, b""),
            ({"bytes": memoryview(b"view"), "text": None}, b"view"),
            ({"bytes": None, "text": "both keys"}, "both keys"),
        ],
    )
    def test_messages(self, event: Event, message: str | bytes) -> None:
        """Text or bytes; the other key may be there, too."""
        done = done_by(ACCEPT, {"type": "websocket.send", **event})
        assert done[1:] == [("send", message)]

    @pytest.mark.parametrize(
        ("event", "close"),
        [
            ({}, (1000, "")),
            ({"code": None, "reason": None}, (1000, "")),
            ({"code": 4007, "reason": "why"}, (4007, "why")),
        ],
    )
    def test_close(self, event: Event, close: tuple[int, str]) -> None:
        """The code and the reason, or 1000."""
        assert done_by(ACCEPT, {**CLOSE, **event})[1:] == [("close", *close)]

    @pytest.mark.parametrize("refusal", [[ACCEPT, CLOSE], [CLOSE], [START, BODY]])
    def test_after_the_end(self, refusal: list[Event]) -> None:
        """Closes have no effect, messages are dropped: they may have been on their way."""
        dropped = ("drop", "hi")
        assert done_by(*refusal, SEND, CLOSE, SEND) == [*done_by(*refusal), dropped, dropped]

    @pytest.mark.parametrize("stage", Stage, ids=lambda stage: stage.name)
    def test_order(self, stage: Stage) -> None:
        """Whatever may not come now is an error that says what is expected."""
        every = [ACCEPT, SEND, CLOSE, START, BODY, {"type": "websocket.reply"}, {}]
        for event in every:
            if event in ALLOWED[stage]:
                done_by(*WAY[stage], event)
                continue
            with pytest.raises(UsageError) as caught:
                done_by(*WAY[stage], event)
            names = " or ".join(allowed["type"] for allowed in ALLOWED[stage])
            assert str(caught.value) == (
                f"an ASGI application sent {event.get('type')!r} {stage.value}: expected is {names}"
            )

    @pytest.mark.parametrize(
        ("event", "kind", "text"),
        [
            ({**ACCEPT, "subprotocol": b"a"}, TypeError, "a subprotocol must be a str, not bytes"),
            (
                {**ACCEPT, "headers": [("x", b"y")]},
                TypeError,
                "the name of a header must be bytes, not str",
            ),
            (
                {**ACCEPT, "headers": [(b"x", 1)]},
                TypeError,
                "the value of a header must be bytes, not int",
            ),
            ({**START, "status": "402"}, TypeError, "a response must be an int, not str"),
            ({**START, "status": 101}, ValueError, "a status from 200 to 599, not 101"),
        ],
    )
    def test_wrong_values(self, event: Event, kind: type[Exception], text: str) -> None:
        """The error names what it found; the application may still decide otherwise."""

        async def talk(events: Events) -> None:
            with pytest.raises(kind, match=text):
                await events.send(event)
            assert events.stage is Stage.UNDECIDED

        with_events(Script(), talk)

    @pytest.mark.parametrize(
        ("event", "kind", "text"),
        [
            ({}, UsageError, "a 'websocket.send' has either text or bytes"),
            ({"text": "a", "bytes": b"b"}, UsageError, "either text or bytes"),
            ({"text": b"a"}, TypeError, "text of a 'websocket.send' must be a str, not bytes"),
            ({"bytes": "a"}, TypeError, "bytes of a 'websocket.send' must be bytes, not str"),
        ],
    )
    def test_wrong_messages(self, event: Event, kind: type[Exception], text: str) -> None:
        """They are found where they are sent, also when nobody would get them any more."""
        for way in ([ACCEPT], [CLOSE]):
            with pytest.raises(kind, match=text):
                done_by(*way, {"type": "websocket.send", **event})

    def test_acceptance_that_cannot_be(self) -> None:
        """As of a subprotocol that the client does not offer: the application may refuse then."""
        peer = Script()
        peer.refuses = ValueError("the client does not offer it")

        async def talk(events: Events) -> None:
            with pytest.raises(ValueError, match="does not offer"):
                await events.send({**ACCEPT, "subprotocol": "b"})
            assert not events.is_decided
            await events.send(CLOSE)

        assert with_events(peer, talk)[0] == ["reject"]


def test_response_that_cannot_be() -> None:
    """As with a header of two lines: nothing is decided."""
    peer = Script()
    peer.refuses = ValueError("a header of two lines")

    async def talk(events: Events) -> None:
        await events.send(START)
        with pytest.raises(ValueError, match="two lines"):
            await events.send(BODY)
        assert not events.is_decided

    assert with_events(peer, talk)[0] == []


@pytest.mark.parametrize(
    ("sent", "decided"),
    [([], False), ([ACCEPT], True), ([CLOSE], True), ([START], False), ([START, BODY], True)],
)
def test_is_decided(sent: list[Event], decided: bool) -> None:
    """An application that returns before has forgotten something."""

    async def talk(events: Events) -> None:
        for event in sent:
            await events.send(event)

    assert with_events(Script(), talk)[1].is_decided is decided
