"""Whatever a client puts into its request, a log record of it is one line of plain characters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from visit import Serve, handshake

from dwebsocket import _core, accept_websocket, asgi
from dwebsocket.runners import thread
from dwebsocket.telemetry.records import Record

Log = Callable[..., list[logging.LogRecord]]

# A line break, an escape sequence that clears the screen, its 8-bit form as servers that decode
# headers as Latin-1 let it pass, a title, a reversed direction of writing, a line separator.
ATTACKS = ["a\r\nERROR b", "\x1b[2J\x1b[31m", "\x9b2J", "\x1b]0;x\x07", "\u202egnp", "a\u2028b"]


def assert_plain(record: logging.LogRecord) -> None:
    """Check the texts of a record that people and programs read."""
    values: dict[str, Any] = record.__dict__
    for text in (record.getMessage(), *(values[name] for name in ("peer", "path", "reason"))):
        assert text.isprintable(), repr(text)


@accept_websocket
def waits(request: Any) -> None:
    """Wait for the end."""
    request.websocket.wait()


@accept_websocket
def fails(request: Any) -> None:
    """Fail with what the client sent."""
    raise ValueError(f"no number: {request.websocket.wait()}")


@pytest.mark.parametrize("attack", ATTACKS)
class TestEachRecord:
    """In the client's address, which proxies and servers take from a header, path and Origin."""

    def environ(self, attack: str, **more: Any) -> dict[str, Any]:
        """Give a handshake with the attack wherever a client can put it."""
        path = f"/{attack}".encode().decode("latin-1")
        # The part of the path that no URL pattern sees.
        return handshake("/", REMOTE_ADDR=attack, SCRIPT_NAME=path, **more)

    def test_refusal(self, visit: Serve, request_log: Log, attack: str) -> None:
        """The Origin is in the reason."""
        visit(waits, environ=self.environ(attack, HTTP_ORIGIN=f"http://{attack}"))
        (record,) = request_log("dwebsocket")
        assert record.__dict__["event"] == "websocket.refused"
        assert_plain(record)

    def test_end(self, visit: Serve, request_log: Log, attack: str) -> None:
        """The address is in the message."""
        made = visit(waits, environ=self.environ(attack)).serve()
        made.client.vanish()
        assert thread.join(10)
        (record,) = request_log("dwebsocket")
        assert record.__dict__["event"] == "websocket.lost"
        assert_plain(record)

    def test_view_that_fails(self, visit: Serve, request_log: Log, attack: str) -> None:
        """Its exception has the client's text; the traceback below the line is logging's own."""
        made = visit(fails, environ=self.environ(attack)).serve()
        made.client.send(attack)
        made.client.closing()
        assert thread.join(10)
        (record,) = request_log("dwebsocket", "django.request")
        assert record.__dict__["event"] == "websocket.view_failed"
        assert_plain(record)

    def test_before_django_sees_it(
        self, request_log: Log, monkeypatch: pytest.MonkeyPatch, attack: str
    ) -> None:
        """An ASGI server gives the address as its proxy headers say."""
        monkeypatch.setattr(asgi, "_listen_for_the_end", lambda: None)
        monkeypatch.setattr(_core, "is_leaving", lambda: True)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(event: Any) -> None:
            pass

        scope = {"type": "websocket", "path": f"/{attack}", "client": [attack, 7], "headers": []}
        asyncio.run(asgi.websocket_application(scope, receive, send))
        (record,) = request_log("dwebsocket")
        assert_plain(record)


@settings(max_examples=200, deadline=None)
@given(st.text(), st.text(), st.text())
def test_any_text(peer: str, path: str, reason: str) -> None:
    """Printable characters stay as they are, others are escaped."""
    request = RequestFactory().get("/", REMOTE_ADDR=peer)
    request.path = path
    made = Record.of("websocket.lost", request, 1006, reason)
    for before, after in ((peer, made.peer), (path, made.path), (reason, made.reason)):
        assert after.isprintable()
        if before.isprintable():
            assert after == before
