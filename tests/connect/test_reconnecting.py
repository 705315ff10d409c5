"""`connect(url, reconnect=True)`: one connection after the other."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from websockets.typing import Subprotocol

from dwebsocket import ConnectionFailed, HandshakeRefused, UsageError, aconnect, connect
from dwebsocket.client import reconnecting
from support.far_server import far_server
from support.hostile import Hostile, accepting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.server import ServerConnection


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of some milliseconds."""
    monkeypatch.setattr(reconnecting, "_FIRST_S", 0.001)
    monkeypatch.setattr(reconnecting, "_LONGEST_S", 0.01)


def greet(connection: ServerConnection) -> None:
    """Send one message and close."""
    connection.send("hello")


def flaky(request: bytes) -> Iterator[bytes]:
    """Refuse twice, then accept, then refuse for good."""
    FLAKY.append(request)
    match len(FLAKY):
        case 1:
            yield b"HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"
        case 2:
            yield b""
        case 3:
            yield accepting(request) + b"\x81\x02hi"
        case _:
            yield b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


FLAKY: list[bytes] = []


def test_each_pass_has_a_connection_of_its_own() -> None:
    """Which is closed behind it."""
    with far_server(greet) as url:
        seen = []
        for websocket in connect(url, reconnect=True):
            assert list(websocket) == ["hello"]
            seen.append(websocket)
            if len(seen) == 3:
                break
    assert len({id(websocket) for websocket in seen}) == 3
    assert all(websocket.closed for websocket in seen)


def test_a_pass_that_ends_early_closes_its_connection() -> None:
    """By `break`, too."""
    with far_server() as url:
        for websocket in connect(url, reconnect=True):
            assert not websocket.closed
            break
        assert websocket.close_code in (1000, 1001)


def test_what_will_pass_is_tried_again_and_what_will_not_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A busy server and a lost answer pass; 403 does not."""
    FLAKY.clear()
    caplog.set_level(logging.INFO, "dwebsocket.client")
    received = []
    with Hostile(flaky) as server, pytest.raises(HandshakeRefused) as refused:
        received.extend(chain.from_iterable(connect(server.url(), reconnect=True)))
    assert refused.value.status == 403
    assert received == ["hi"]
    assert len(FLAKY) == 4
    texts = [record.getMessage() for record in caplog.records]
    assert "refused the WebSocket with 503 Busy; next attempt in 0.0 s" in texts[0]
    assert "hung up before its answer was complete" in texts[1]


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "http"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "handshake"),
    ],
    ids=["no HTTP", "no WebSocket"],
)
def test_another_server_than_expected_is_not_tried_again(answer: bytes, step: str) -> None:
    """It would be the same for ever, and nobody would be told."""
    asked: list[bytes] = []

    def answers(request: bytes) -> Iterator[bytes]:
        asked.append(request)
        yield answer

    with Hostile(answers) as server, pytest.raises(ConnectionFailed) as failed:
        next(iter(connect(server.url(), reconnect=True)))
    assert failed.value.step == step
    assert len(asked) == 1


def test_a_server_says_when_to_come_back() -> None:
    """In seconds, or by a date."""
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=500), usegmt=True)
    assert 400 < reconnecting._seconds(soon) <= 500
    assert reconnecting._seconds("120") == 120
    for junk in (
        "",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "soon",
        "-5",
        "Wed, 99 Oct 2026",
    ):
        assert reconnecting._seconds(junk) == 0


def test_in_a_loop() -> None:
    """The same, with `async for`."""

    async def main(url: str) -> int:
        passes = 0
        async for websocket in aconnect(url, reconnect=True):
            assert [message async for message in websocket] == ["hello"]
            passes += 1
            if passes == 3:
                return passes
        raise AssertionError

    with far_server(greet) as url:
        assert asyncio.run(asyncio.wait_for(main(url), 60)) == 3

    async def refused(url: str) -> None:
        async for _ in aconnect(url, reconnect=True):
            pass

    FLAKY[:] = [b""] * 3
    with Hostile(flaky) as server, pytest.raises(HandshakeRefused):
        asyncio.run(asyncio.wait_for(refused(server.url()), 60))


def test_an_exception_of_the_body_ends_it() -> None:
    """And is not swallowed."""

    def body(url: str) -> None:
        for _ in connect(url, reconnect=True):
            raise ZeroDivisionError

    with far_server() as url, pytest.raises(ZeroDivisionError):
        body(url)


def test_pauses_grow_at_random_and_begin_again_after_a_good_connection() -> None:
    """A connection that ends at once is no good one: a server that crashes is left in peace."""
    backoff = reconnecting.Backoff()
    highest = 0.001
    for _ in range(10):
        assert 0 <= backoff.pause() <= highest
        backoff.succeed(lived=0.1)
        highest = min(2 * highest, 0.01)
    assert highest == 0.01
    backoff.succeed(lived=5)
    assert backoff.pause() <= 0.001
    # What the server asks for counts, up to the longest pause.
    assert backoff.pause(at_least=100) == 0.01


def test_failures_of_the_network_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, until the server is there."""
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(reconnecting.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        list(connect("ws://127.0.0.1:1/", reconnect=True))
    assert len(pauses) == 5
    assert issubclass(HandshakeRefused, ConnectionFailed)


def report(connection: ServerConnection) -> None:
    """Send what the client has asked for, and close."""
    request = connection.request
    assert request is not None
    connection.send(f"{request.path} {request.headers['X-Token']} {connection.subprotocol}")


class Fresh:
    """Functions that give something new each time, to be awaited or not."""

    def __init__(self, url: str, *, is_async: bool) -> None:
        self.server, self.is_async = url, is_async
        self.asked: Counter[str] = Counter()

    def _given(self, name: str, value: Callable[[int], Any]) -> Any:
        async def soon() -> Any:
            await asyncio.sleep(0)
            return now()

        def now() -> Any:
            self.asked[name] += 1
            return value(self.asked[name])

        return soon() if self.is_async else now()

    def url(self) -> Any:
        """Give a path for this attempt."""
        return self._given("url", lambda number: f"{self.server}/{number}")

    def headers(self) -> Any:
        """Give a token for this attempt."""
        return self._given("headers", lambda number: {"X-Token": f"token{number}"})

    def subprotocols(self) -> Any:
        """Give one for this attempt."""
        return self._given("subprotocols", lambda number: [f"v{number}"])


SUBPROTOCOLS = [Subprotocol(f"v{number}") for number in range(1, 4)]
REPORTED = [f"/{number} token{number} v{number}" for number in (1, 2, 3)]


def test_functions_are_asked_anew_at_each_attempt() -> None:
    """For the URL, the headers and the subprotocols; and once by `connect` alone."""
    with far_server(report, subprotocols=SUBPROTOCOLS) as server:
        fresh = Fresh(server, is_async=False)
        options: Any = {"headers": fresh.headers, "subprotocols": fresh.subprotocols}
        with connect(fresh.url, **options) as websocket:
            assert list(websocket) == REPORTED[:1]
            assert websocket.url == f"{server}/1"
        seen = []
        for websocket in connect(fresh.url, reconnect=True, **options):
            seen.extend(websocket)
            if len(seen) == 2:
                break
    assert seen == REPORTED[1:]


@pytest.mark.parametrize("is_async", [False, True])
def test_functions_are_asked_anew_in_a_loop(is_async: bool) -> None:
    """They may be async there."""

    async def main(server: str) -> list[Any]:
        fresh = Fresh(server, is_async=is_async)
        options: Any = {"headers": fresh.headers, "subprotocols": fresh.subprotocols}
        seen: list[Any] = []
        async with aconnect(fresh.url, **options) as websocket:
            seen.append(await websocket.areceive())
        async for websocket in aconnect(fresh.url, reconnect=True, **options):
            seen.extend([message async for message in websocket])
            if len(seen) == 3:
                break
        return seen

    with far_server(report, subprotocols=SUBPROTOCOLS) as server:
        assert asyncio.run(asyncio.wait_for(main(server), 60)) == REPORTED


def test_a_function_that_cannot_be_asked_now_is_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An `OSError` of it passes, as one of the network does; the log shows no secret of the URL."""
    caplog.set_level(logging.INFO, "dwebsocket.client")
    outcomes = iter([OSError("no route"), TimeoutError("too slow"), None, KeyboardInterrupt()])

    def headers() -> dict[str, str]:
        if (outcome := next(outcomes)) is not None:
            raise outcome
        return {}

    url = "ws://user:secret@127.0.0.1:1/a/?token=secret"
    with pytest.raises(KeyboardInterrupt):
        list(connect(url, reconnect=True, headers=headers))
    texts = [record.getMessage() for record in caplog.records]
    assert [text.partition(";")[0] for text in texts[:2]] == [
        "ws://127.0.0.1:1/a/: no route",
        "ws://127.0.0.1:1/a/: too slow",
    ]
    assert len(texts) == 3
    assert "secret" not in caplog.text


def broken() -> Any:
    """Fail as code does that is wrong."""
    raise KeyError("token")


async def later() -> Any:
    """Give something that has to be awaited."""
    return "ws://127.0.0.1:1/"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("url", "options", "kind", "text"),
    [
        ("ws://127.0.0.1:1/", {"headers": broken}, KeyError, "token"),
        ("ws://127.0.0.1:1/", {"headers": lambda: "X-Token"}, TypeError, "headers must be"),
        ("ws://127.0.0.1:1/", {"subprotocols": lambda: "v1"}, TypeError, "subprotocols must be"),
        (lambda: "http://127.0.0.1:1/", {}, ValueError, "write ws://host/path"),
        (lambda: None, {}, TypeError, "a URL must be a str"),
        (later, {}, TypeError, r"url is async: only aconnect\(\) awaits it"),
        ("ws://127.0.0.1:1/", {"headers": later}, TypeError, "headers is async"),
    ],
)
@pytest.mark.parametrize("reconnect", [False, True])
def test_a_wrong_function_is_an_error(
    reconnect: bool, url: Any, options: Any, kind: type[Exception], text: str
) -> None:
    """Its exception is raised, and so is that for a result that cannot be used."""
    with pytest.raises(kind, match=text):
        list(connect(url, reconnect=reconnect, **options))


def test_what_is_no_function_is_checked_at_once() -> None:
    """Before any function is asked."""
    with pytest.raises(ValueError, match="open_timeout"):
        connect(broken, reconnect=True, headers=broken, open_timeout=-1)
    with pytest.raises(ValueError, match="write ws://host/path"):
        aconnect("http://127.0.0.1:1/", headers=broken)


def test_an_iterator_beside_a_function_is_for_all_attempts() -> None:
    """It can be read once only."""
    with far_server(report) as server:
        names = iter([("X-Token", "same")])
        seen: list[Any] = []
        for websocket in connect(lambda: server, reconnect=True, headers=names):
            seen.extend(websocket)
            if len(seen) == 2:
                break
    assert seen == ["/ same None"] * 2


def test_in_an_event_loop_no_function_is_asked_for_nothing() -> None:
    """The call is wrong there."""

    async def main() -> None:
        with pytest.raises(UsageError, match="aconnect"):
            connect(broken)

    asyncio.run(main())


def test_cancelling_gives_up_on_a_function() -> None:
    """As on the rest of the opening."""

    async def main() -> None:
        async def headers() -> Any:
            is_asked.set()
            await asyncio.Event().wait()

        is_asked = asyncio.Event()
        opening = asyncio.ensure_future(
            anext(aiter(aconnect("ws://a/", reconnect=True, headers=headers)))
        )
        await is_asked.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(asyncio.wait_for(main(), 60))
