"""Messages that a client should not have sent, such as what is no JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.signals import got_request_exception
from peer import LiveWebSocket

from dwebsocket import InvalidMessage, WebSocketError, accept_websocket, event_counts

if TYPE_CHECKING:
    from visit import Serve

Open = Callable[..., LiveWebSocket]
Log = Callable[..., list[logging.LogRecord]]

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "views.md"
# Texts that are no JSON, and the parser's error for each.
BAD: list[tuple[str | bytes, str]] = [
    ("{", "the message is no JSON: Expecting property name"),
    ("", "the message is no JSON: Expecting value"),
    (b"\xff\xfe\xff", "the message is no JSON: 'utf-16-le' codec"),
    (b"[\xff]", "the message is no JSON: 'utf-8' codec can't decode"),
    ("[" * 200_000, "the message is no JSON: it is nested too deeply"),
    ("9" * 10_000, "the message is no JSON: Exceeds the limit"),
]

both = pytest.mark.parametrize("as_async", [False, True], ids=["sync", "async"])


def receive_json(live: LiveWebSocket, *, as_async: bool, **kwargs: Any) -> Any:
    """Receive one message by the one call or its twin."""
    if as_async:
        return asyncio.run(live.websocket.areceive_json(60, **kwargs))
    return live.websocket.receive_json(60, **kwargs)


@both
class TestReceiveJson:
    """`receive_json` and `areceive_json`."""

    @pytest.mark.parametrize(("message", "text"), BAD, ids=[text for _, text in BAD])
    def test_what_is_no_json(
        self, open_websocket: Open, as_async: bool, message: str | bytes, text: str
    ) -> None:
        """It counts as the client's mistake, and the message is consumed."""
        live = open_websocket()
        live.client.send(message)
        live.client.send("1")
        with pytest.raises(InvalidMessage) as caught:
            receive_json(live, as_async=as_async)
        assert str(caught.value).startswith(text)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, WebSocketError)
        assert receive_json(live, as_async=as_async) == 1

    def test_cause(self, open_websocket: Open, as_async: bool) -> None:
        """The parser's own exception has the message and the place."""
        live = open_websocket()
        live.client.send('{"a": ,}')
        with pytest.raises(InvalidMessage) as caught:
            receive_json(live, as_async=as_async)
        cause = caught.value.__cause__
        assert isinstance(cause, json.JSONDecodeError)
        assert (cause.doc, cause.pos) == ('{"a": ,}', 6)

    def test_error_of_a_hook_is_the_projects(self, open_websocket: Open, as_async: bool) -> None:
        """Keywords go to `json.loads`; exceptions of hooks are passed on as they are."""

        class Wrong(ValueError):
            pass

        def hook(parsed: Any) -> Any:
            raise Wrong

        live = open_websocket()
        live.client.send("{}")
        with pytest.raises(Wrong):
            receive_json(live, as_async=as_async, object_hook=hook)


class TestViewThatLetsItThrough:
    """The client gets 1007, and the log has one line."""

    @both
    def test_ends_with_1007(self, visit: Serve, request_log: Log, as_async: bool) -> None:
        """At info, without a traceback, and without the signal for error trackers."""
        signalled: list[Any] = []

        def note(**kwargs: Any) -> None:
            signalled.append(kwargs)

        def view(request: Any) -> None:
            request.websocket.receive_json()

        async def aview(request: Any) -> None:
            await request.websocket.areceive_json()

        before = event_counts()["websocket.violation"].get(1007, 0)
        got_request_exception.connect(note)
        try:
            made = visit(accept_websocket(aview if as_async else view)).serve()
            made.client.send("{")
            code, reason = made.client.closing()
        finally:
            got_request_exception.disconnect(note)
        assert code == 1007
        assert reason.startswith("the message is no JSON: Expecting property name")
        (record,) = request_log("dwebsocket", "django.request")
        assert (record.name, record.levelno, record.exc_info) == ("dwebsocket", logging.INFO, None)
        assert "the message is no JSON" in record.getMessage()
        assert (record.event, record.code, record.path) == ("websocket.violation", 1007, "/")  # type: ignore[attr-defined]
        assert signalled == []
        assert event_counts()["websocket.violation"][1007] == before + 1

    def test_one_that_raises_it_itself(self, visit: Serve) -> None:
        """For other messages that a client should not have sent. The reason fits a close frame."""

        def view(request: Any) -> None:
            raise InvalidMessage("é" * 100)

        made = visit(accept_websocket(view)).serve()
        assert made.client.closing() == (1007, "é" * 61)

    def test_helper_that_does(self, visit: Serve, request_log: Log) -> None:
        """Ends its view's connection likewise."""

        def view(request: Any) -> None:
            request.websocket.start(request.websocket.receive_json).join(10)

        made = visit(accept_websocket(view)).serve()
        made.client.send("{")
        assert made.client.closing()[0] == 1007
        (record,) = request_log("dwebsocket", "django.request")
        assert record.levelno == logging.INFO

    def test_control_characters_forge_no_line_of_the_log(
        self, visit: Serve, request_log: Log
    ) -> None:
        """The text may be the client's."""

        def view(request: Any) -> None:
            raise InvalidMessage("one\nERROR two")

        visit(accept_websocket(view)).serve().client.closing()
        (record,) = request_log("dwebsocket", "django.request")
        assert "one\\nERROR two" in record.getMessage()


def orders() -> Any:
    """Give the view of the page on views, with a shorter timeout than there."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if "def orders" in block]
    assert "timeout=60" in block
    space: dict[str, Any] = {"__name__": __name__, "space": Patience}
    exec(block.replace("timeout=60", "timeout=space.timeout"), space)
    return space["orders"]


class Patience:
    """How long the view of the page waits."""

    timeout = 60.0


class TestViewOfThePage:
    """It does what it says, and never fails."""

    def test_client_that_talks(self, visit: Serve, request_log: Log) -> None:
        """Is answered."""
        made = visit(orders()).serve()
        made.client.send('{"id": 7}')
        assert json.loads(str(made.client.receive())) == {"accepted": 7}
        made.client.close(1000)
        assert made.client.closing()[0] == 1000
        assert request_log("dwebsocket", "django.request") == []

    def test_client_that_is_idle(
        self, visit: Serve, request_log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is closed with 4000 and the reason "idle", and nothing is logged."""
        monkeypatch.setattr(Patience, "timeout", 0.05)
        made = visit(orders()).serve()
        assert made.client.closing() == (4000, "idle")
        assert request_log("dwebsocket", "django.request") == []

    @pytest.mark.parametrize("message", ["{", "[]", "5", '{"number": 7}'])
    def test_client_that_sends_something_else(
        self, visit: Serve, request_log: Log, message: str
    ) -> None:
        """It is closed with 1007."""
        made = visit(orders()).serve()
        made.client.send(message)
        assert made.client.closing()[0] == 1007
        assert [r.levelno for r in request_log("dwebsocket", "django.request")] == [logging.INFO]
