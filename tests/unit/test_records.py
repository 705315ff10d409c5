"""The log records of refusals and of ends by a fault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import logging.config
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory
from visit import Serve, handshake
from waiting_views import awaits, waits

from dwebsocket import _core, accept_websocket, asgi, event_counts, group
from dwebsocket.handshake import refusal
from dwebsocket.runners import loop, thread
from dwebsocket.servers.asgi import CarriedHandshake
from dwebsocket.servers.asgi.replies import Reply
from dwebsocket.telemetry import records
from dwebsocket.telemetry.records import EVENTS, Record, printable
from dwebsocket.testing.clock import Clock
from dwebsocket.users.registry import Visitor, Who
from support.waiting import eventually

Log = Callable[..., list[logging.LogRecord]]
Override = Callable[..., None]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "logging.md"


def fields(record: Any) -> tuple[Any, ...]:
    """Give the fields of a record, without the connection's number."""
    assert isinstance(record.connection, (int, type(None)))
    return record.event, record.peer, record.path, record.code, record.reason


def test_the_settings_of_the_page() -> None:
    """They show records with our attributes, and others of the same logger."""
    (block,) = re.findall(r"^```python\n(LOGGING = .*?)^```", DOCS.read_text(), re.DOTALL | re.M)
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    made = namespace["LOGGING"]["formatters"]["websocket"]
    formatter = logging.config.DictConfigurator({}).configure_formatter(made)
    own = logging.makeLogRecord({"msg": "gone", "event": "websocket.lost", "connection": 7})
    other = logging.makeLogRecord({"msg": "no sessions"})
    assert "websocket.lost connection=7" in formatter.format(own)
    assert formatter.format(own).endswith("gone")
    assert formatter.format(other).endswith("no sessions")


@pytest.fixture(autouse=True)
def _each_record_is_counted(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Each record that a test has caused, and nothing else."""

    def counts() -> Counter[tuple[str, int]]:
        return Counter(
            {
                (event, code): count
                for event, by_code in event_counts().items()
                for code, count in by_code.items()
            }
        )

    caplog.set_level(logging.DEBUG, logger="dwebsocket")
    before = counts()
    yield
    ended(None)
    assert thread.join(10)
    records = caplog.get_records("call")
    logged = [vars(record) for record in records if hasattr(record, "event")]
    assert counts() - before == Counter((each["event"], each["code"]) for each in logged)


def ended(made: Any) -> None:
    """Wait until the view has ended."""
    assert thread.join(10)
    assert loop.join(10)


def test_page_lists_every_event() -> None:
    """And no other."""
    named = re.findall(r"^\| `((?:websocket|channel)\.\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert named == list(EVENTS)


def test_refusal(visit: Serve, request_log: Log) -> None:
    """One record, with the status as its code."""
    visit(waits, environ=handshake(HTTP_ORIGIN="http://evil.example", REMOTE_ADDR="192.0.2.1"))
    (record,) = request_log("dwebsocket")
    event, peer, path, code, reason = fields(record)
    assert (event, peer, path, code) == ("websocket.refused", "192.0.2.1", "/", 403)
    assert "evil.example" in reason
    assert record.__dict__["status_code"] == 403


def test_refusal_without_a_logging_of_the_project() -> None:
    """It is on stderr also without DEBUG, where Django's LOGGING shows no warning of a request."""
    code = """
import django
from django.conf import settings
from django.test import RequestFactory
settings.configure(ALLOWED_HOSTS=["*"])
django.setup()
from dwebsocket import require_websocket
print(require_websocket(lambda request: None)(RequestFactory().get("/chat/")).status_code)
"""
    inherited = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=inherited, capture_output=True, text=True, check=True
    )
    assert done.stdout == "400\n"
    line = "WebSocket refused with 400: /chat/: This address is for WebSockets only.\n"
    assert done.stderr == line


def test_flood_of_refusals(visit: Serve, request_log: Log) -> None:
    """Not each is logged, all are counted; a later line says how many were not."""
    refused = event_counts()["websocket.refused"].get(403, 0)

    def refuse(host: str) -> None:
        visit(waits, environ=handshake(HTTP_ORIGIN=f"http://{host}"))

    records._floods.clear()
    for _ in range(150):
        refuse("one.example")
    # Another status is none of them, nor is another cause.
    visit(waits, environ=handshake(HTTP_SEC_WEBSOCKET_VERSION="8"))
    refusal.refuse(RequestFactory().get("/"), 403, "The view rejected it.", cause="view")
    Clock().advance(1)
    refuse("two.example")
    lines = [record.getMessage() for record in request_log("dwebsocket")]
    assert sum("with 426" in line for line in lines) == 1
    assert sum("with 403: /: The view rejected it." in line for line in lines) == 1
    logged = [line for line in lines if "with 403" in line and "view" not in line]
    assert 101 <= len(logged) < 151
    assert "two.example" in logged[-1]
    unlogged = [
        int(found[1]) for line in logged if (found := re.search(r"\(and (\d+) more\)$", line))
    ]
    assert sum(unlogged) == 151 - len(logged)
    assert event_counts()["websocket.refused"][403] == refused + 152
    # For the fixture above, which cannot know.
    records._counts["websocket.refused"][403] = refused + len(logged) + 1
    records._floods.clear()


@pytest.mark.parametrize("view", [waits, awaits])
class TestEnds:
    """One record of ours, with the connection's number."""

    def one(self, request_log: Log) -> Any:
        """Give the only record."""
        (record,) = request_log("dwebsocket", "django.request")
        return record

    @pytest.mark.parametrize(
        ("sent", "code", "reason"),
        [
            (b"\xc1\x80\0\0\0\0", 1002, "RSV1"),
            (b"\x81\x81\0\0\0\0\xff", 1007, "UTF-8"),
            (b"\x82\xff" + b"\x7f" * 8 + b"\0\0\0\0", 1009, "bytes"),
        ],
    )
    def test_violation(
        self, visit: Serve, request_log: Log, view: Any, sent: bytes, code: int, reason: str
    ) -> None:
        """With the code and the reason that the client got."""
        made = visit(view, environ=handshake("/?secret=1", REMOTE_ADDR="192.0.2.1")).serve()
        made.client.send_raw(sent)
        told = made.client.closing()
        ended(made)
        record = self.one(request_log)
        assert fields(record) == ("websocket.violation", "192.0.2.1", "/", *told)
        assert record.levelno == logging.INFO
        assert record.connection > 0
        assert told[0] == code
        assert record.getMessage() == (
            f"WebSocket {record.connection} of 192.0.2.1 on / ended with {code}: {told[1]}"
        )

    def test_lost(self, visit: Serve, request_log: Log, view: Any) -> None:
        """A client that vanished."""
        made = visit(view).serve()
        made.client.vanish()
        ended(made)
        assert fields(self.one(request_log))[::3] == ("websocket.lost", 1006)

    def test_too_fast(self, visit: Serve, request_log: Log, override: Override, view: Any) -> None:
        """A client that floods."""
        override(WEBSOCKET_MAX_MESSAGES_PER_SECOND=1, WEBSOCKET_RATE_TIMEOUT=0.1)

        @accept_websocket
        def takes(request: Any) -> None:
            for _ in request.websocket:
                pass

        made = visit(takes if view is waits else view).serve()
        made.client.send_raw(b"\x82\x80\0\0\0\0" * 200)
        assert made.client.closing()[0] == 1008
        ended(made)
        assert fields(self.one(request_log))[::3] == ("websocket.too_fast", 1008)

    @pytest.mark.parametrize("code", [1000, 1008, 1011, 1013, 4000])
    @pytest.mark.parametrize("by", ["group", "user"])
    def test_closed_by_the_project(
        self, visit: Serve, request_log: Log, view: Any, code: int, by: str
    ) -> None:
        """Neither the client's fault nor ours, whatever the code."""
        made = visit(view).serve()
        websocket = made.response.websocket
        if by == "group":
            websocket.join("all")
            group("all").close(code, "bye")
        else:
            Visitor(Who("", "", None), [], websocket).close(code, "bye")
        assert made.client.closing()[0] == code
        ended(made)
        record = self.one(request_log)
        assert fields(record)[::3] == ("websocket.signed_out", code)
        assert record.levelno == logging.INFO

    def test_wanted_ends_leave_no_record(self, visit: Serve, request_log: Log, view: Any) -> None:
        """The client's close frame, whatever its code."""
        for code in (None, 1000, 1001, 4000):
            made = visit(view).serve()
            made.client.close(code)
            made.client.closing()
        ended(made)
        assert request_log("dwebsocket", "django.request") == []


def test_too_slow(visit: Serve, request_log: Log, override: Override) -> None:
    """A client that takes nothing from another's `send`."""
    override(WEBSOCKET_SEND_TIMEOUT=0.1)
    opened: list[Any] = []

    @accept_websocket
    def view(request: Any) -> None:
        opened.append(request.websocket)
        request.websocket.wait()

    made = visit(view).serve()
    eventually(lambda: bool(opened))
    while opened[0].send("x" * 100_000):
        pass
    ended(made)
    (record,) = request_log("dwebsocket")
    assert fields(record)[::3] == ("websocket.too_slow", 1013)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_too_slow_for_its_own_view(
    visit: Serve, request_log: Log, override: Override, kind: str
) -> None:
    """Which lets the exception through: it has only sent."""
    override(WEBSOCKET_SEND_TIMEOUT=0.1)

    @accept_websocket
    def view(request: Any) -> None:
        while True:
            request.websocket.send("x" * 100_000)

    @accept_websocket
    async def aview(request: Any) -> None:
        while True:
            await request.websocket.asend("x" * 100_000)

    made = visit(view if kind == "sync" else aview).serve()
    ended(made)
    (record,) = request_log("dwebsocket", "django.request")
    assert fields(record)[::3] == ("websocket.too_slow", 1013)
    assert record.exc_info is None
    assert made.response.websocket.close_code == 1013


def test_view_that_fails(visit: Serve, request_log: Log) -> None:
    """One record, that of Django's logger; in DEBUG the client sees the exception."""

    @accept_websocket
    def view(request: Any) -> None:
        raise KeyError("here")

    visit(view).serve().client.closing()
    ended(None)
    (record,) = request_log("dwebsocket", "django.request")
    assert fields(record)[0] == "websocket.view_failed"
    assert fields(record)[3:] == (1011, "KeyError('here')")


def test_refusal_before_django_sees_it(request_log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ASGI server that can send 403 only is refused at once when the process ends."""
    monkeypatch.setattr(asgi, "_listen_for_the_end", lambda: None)
    monkeypatch.setattr(_core, "is_leaving", lambda: True)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event["type"])

    scope = {"type": "websocket", "path": "/chat/", "client": ["192.0.2.1", 7], "headers": []}
    asyncio.run(asgi.websocket_application(scope, receive, send))
    assert sent == ["websocket.close"]
    (record,) = request_log("dwebsocket")
    assert fields(record)[:4] == ("websocket.refused", "192.0.2.1", "/chat/", 403)
    assert record.levelno == logging.INFO


@pytest.mark.parametrize(
    ("is_leaving", "outcome"),
    [(True, contextlib.nullcontext()), (False, pytest.raises(RuntimeError))],
)
def test_refusal_that_the_server_does_not_take(
    monkeypatch: pytest.MonkeyPatch, is_leaving: bool, outcome: Any
) -> None:
    """A server that ends may have answered by itself, as uvicorn does: that is no error."""
    monkeypatch.setattr(_core, "is_leaving", lambda: is_leaving)

    async def receive() -> Any:
        """Never called here."""

    async def send(event: Any) -> None:
        raise RuntimeError("it has been answered")

    async def refuse() -> None:
        await Reply({}, send, CarriedHandshake({}, receive, send)).reject()

    with outcome:
        asyncio.run(refuse())


def test_silent_logger(visit: Serve, request_log: Log) -> None:
    """Records of a silent logger are counted all the same."""
    logger = logging.getLogger("dwebsocket")
    before = event_counts()["websocket.refused"].get(403, 0)
    logger.disabled = True
    try:
        for _ in range(3):
            visit(waits, environ=handshake(HTTP_ORIGIN="null"))
    finally:
        logger.disabled = False
    assert request_log("dwebsocket") == []
    assert event_counts()["websocket.refused"][403] == before + 3
    # For the fixture above, which cannot know.
    records._counts["websocket.refused"][403] = before


def test_counts_are_a_copy() -> None:
    """Changing the copy does not change ours; every event is there."""
    event_counts()["websocket.lost"][1006] = -1
    assert event_counts()["websocket.lost"].get(1006) != -1
    assert list(event_counts()) == list(EVENTS)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_counts_anew() -> None:
    """Events of its parent are not counted."""
    refused = Record("websocket.refused", None, "", "/", 403, "")
    refused.log(logging.DEBUG, "refused %s: %s")
    pid = os.fork()
    if not pid:
        os._exit(any(event_counts().values()))
    assert os.waitpid(pid, 0)[1] == 0


def test_nothing_forges_a_line() -> None:
    """Whatever the client writes into its path."""
    request = RequestFactory().get("/")
    request.path = "/7/\nERROR all is lost\x1b[2J"
    event = Record.of("websocket.lost", request, 1006, "bad\r\nreason", 7)
    assert event.path == "/7/\\nERROR all is lost\\x1b[2J"
    assert event.reason == "bad\\r\\nreason"


@pytest.mark.parametrize(
    ("text", "shown"), [("grüße /ü", "grüße /ü"), ("a\nb", "a\\nb"), ("\u2028", "\\u2028")]
)
def test_printable(text: str, shown: str) -> None:
    """Only characters that no line of a log may hold are escaped."""
    assert printable(text) == shown
