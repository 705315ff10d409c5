"""`manage.py websocket_load`: figures, and what it refuses."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import resource
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from websockets.exceptions import ConnectionClosed

from dwebsocket.compat import rich
from dwebsocket.management.commands.websocket_load import Command
from dwebsocket.management.terminal.load import percentiles
from support.far_server import far_server
from support.hostile import Hostile, accepting
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.server import ServerConnection


@pytest.fixture(autouse=True)
def _answers_may_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with much to do."""
    monkeypatch.setattr("dwebsocket.management.terminal.load._LAST_S", 60.0)


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """A server that echoes."""
    with far_server() as url:
        yield url


def load(url: str, **options: Any) -> dict[str, Any]:
    """Run the command and give its figures."""
    out = io.StringIO()
    call_command(Command(), url, json=True, stdout=out, **options)
    figures: dict[str, Any] = json.loads(out.getvalue())
    return figures


def test_each_message_is_answered(echo: str) -> None:
    """All are counted, and none is late."""
    figures = load(echo, clients=5, rate=100, seconds=0.1, ramp=0.05)
    assert (figures["opened"], figures["sent"], figures["received"]) == (5, 50, 50)
    assert (figures["failures"], figures["closes"]) == ({}, {})
    assert figures["received_per_second"] > 0
    for name in ("answer_ms", "handshake_ms"):
        times = figures[name]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]


def test_clients_may_be_quiet(echo: str) -> None:
    """With a rate of 0; and without waiting for answers."""
    figures = load(echo, clients=3, rate=0, seconds=0.05, ramp=0)
    assert (figures["opened"], figures["sent"], figures["answer_ms"]) == (3, 0, None)
    figures = load(echo, clients=3, rate=10, seconds=0.1, ramp=0, size=100, no_answers=True)
    assert (figures["sent"], figures["answer_ms"]) == (3, None)


def test_a_server_that_closes_is_counted() -> None:
    """By its codes."""

    def leave(connection: ServerConnection) -> None:
        connection.close(4009, "full")

    with far_server(leave) as url:
        figures = load(url, clients=2, rate=1, seconds=60, ramp=0)
    assert figures["closes"] == {"4009": 2}


def floods(request: bytes) -> Iterator[bytes]:
    """Open, and send messages without end."""
    yield accepting(request)
    while True:
        yield b"\x81\x02hi" * 1000


def dribbles(request: bytes) -> Iterator[bytes]:
    """Send a response whose head never ends."""
    yield b"HTTP/1.1 101 Switching Protocols\r\n"
    while True:
        yield b"X: y\r\n"


def closes_with_lines(request: bytes) -> Iterator[bytes]:
    """Close with a reason that looks like a line of the figures."""
    reason = b"\x0f\xa1\nopened    1000"
    yield accepting(request) + bytes((0x88, len(reason))) + reason


@pytest.mark.parametrize(("answers", "pause_s"), [(floods, 0), (dribbles, 0.01)])
def test_a_server_that_goes_on_for_ever(
    answers: Callable[[bytes], Iterator[bytes]], pause_s: float
) -> None:
    """Holds the command no longer than its options say, and its memory stays small."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Hostile(answers, pause_s=pause_s) as server:
        options = {"clients": 3, "rate": 20, "seconds": 0.5, "ramp": 0, "timeout": 1.0}
        with contextlib.suppress(CommandError):
            figures = load(server.url(), **options)
            assert figures["opened"] == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_no_line_of_a_server_looks_like_one_of_ours() -> None:
    """As the reason of a close, which tells why a message was not sent."""
    out = io.StringIO()
    with Hostile(closes_with_lines) as server:
        options = {"clients": 1, "rate": 1000, "seconds": 0.5, "ramp": 0, "no_answers": True}
        call_command(Command(), server.url(), stdout=out, **options)
    assert [line for line in out.getvalue().splitlines() if line.startswith("opened")] == [
        "opened    1"
    ]


def test_an_interrupted_load_tells_what_it_has_seen() -> None:
    """And ends its clients at once, those that are open by a close frame."""
    begun, codes = [], []
    interrupt = threading.Lock()

    def talk(connection: ServerConnection) -> None:
        begun.append(connection)
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                connection.send(message)
                if interrupt.acquire(blocking=False):
                    os.kill(os.getpid(), signal.SIGINT)
        codes.append(connection.close_code)

    with far_server(talk) as url:
        figures = load(url, clients=3, rate=100, seconds=3600, ramp=0)
        # Before Python 3.11 asyncio is interrupted anywhere, even within the code of a client.
        least = figures["opened"] if sys.version_info >= (3, 11) else 1
        eventually(lambda: len(codes) >= least and 1000 in codes)
    assert 1 <= figures["opened"] <= len(begun)
    assert figures["sent"] >= figures["received"]
    # 1001, or an end without a close frame: that client was still opening its connection.
    assert {1000} <= set(codes) <= {1000, 1001, 1006}


def test_bars_are_shown_on_a_terminal(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rich where it is installed, else as a line."""
    err, out = io.StringIO(), io.StringIO()
    monkeypatch.setattr(err, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setattr("dwebsocket.management.terminal.load._TELL_S", 0.01)
    options: dict[str, Any] = {"clients": 2, "rate": 10, "seconds": 1, "ramp": 0, "stdout": out}
    call_command(Command(stderr=err), echo, **options)
    if importlib.util.find_spec("rich") is not None:
        assert "messages" in err.getvalue()
    monkeypatch.setattr(rich, "bars", lambda totals: contextlib.nullcontext())
    err.truncate(0)
    call_command(Command(stderr=err), echo, **options)
    assert "2 of 2 open, " in err.getvalue()


def test_a_server_that_refuses_is_an_error() -> None:
    """When no client comes through."""
    refusal = b"HTTP/1.1 503 \x07Busy\r\nContent-Length: 0\r\n\r\n"
    out = io.StringIO()
    with (
        Hostile(lambda _: iter([refusal.replace(b"\x07", b"")])) as server,
        pytest.raises(CommandError, match="no client could connect"),
    ):
        call_command(Command(), server.url(), ramp=0, stdout=out, no_color=True)
    assert "10 failed: the server refused the WebSocket with 503 Busy" in out.getvalue()


def test_the_table_names_the_figures(echo: str) -> None:
    """For people."""
    out = io.StringIO()
    call_command(Command(), echo, clients=1, seconds=0.01, stdout=out, no_color=True)
    labels = [line.split()[0] for line in out.getvalue().splitlines()]
    assert labels == ["opened", "sent", "received", "handshake", "answer"]


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ws://example.com/", {}, "example.com is not this machine: --yes says"),
        ("http://localhost/", {}, "write ws://host/path"),
        ("ws://localhost/", {"clients": 0}, "--clients must be 1 or more"),
        ("ws://localhost/", {"rate": -1}, "--rate must be 0 or more"),
        ("ws://localhost/", {"rate": math.inf}, "--rate must be 0 or more.* not inf"),
        ("ws://localhost/", {"rate": math.nan}, "--rate must be 0 or more.* not nan"),
        ("ws://localhost/", {"seconds": math.inf}, "--seconds must be 0 or more.* not inf"),
        ("ws://localhost/", {"seconds": math.nan}, "--seconds must be 0 or more.* not nan"),
        ("ws://localhost/", {"ramp": math.inf}, "--ramp must be 0 or more.* not inf"),
        ("ws://localhost/", {"size": -1}, "--size must be 0 or more.* not -1"),
        ("ws://localhost/", {"size": 2**40}, "--size must be 0 or more, 1073741824 at most"),
        ("ws://localhost/", {"timeout": -1}, "--timeout must be 0 or more.* not -1"),
        ("wss://localhost/", {"cert": "/nowhere"}, "--cert: .*No such file"),
        ("wss://localhost/", {"cafile": "/nowhere"}, "--cafile: .*No such file"),
        ("ws://localhost/", {"clients": 10**9}, "more open files than the"),
        ("ws://localhost/", {"proxy": "http://127.0.0.1:1"}, "--proxy is taken for another mach"),
        (
            "ws://localhost/",
            {"proxy": "socks5://x", "yes": True},
            "--proxy: 'socks5://x' is no address of an HTTP proxy: .* or use --proxy none to",
        ),
    ],
)
def test_what_is_refused(url: str, options: dict[str, Any], message: str) -> None:
    """Before anything is connected."""
    with pytest.raises(CommandError, match=message):
        load(url, **options)


def test_the_environments_proxy_is_not_asked(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For this machine."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    figures = load(echo, clients=1, rate=0, seconds=0, ramp=0)
    assert (figures["opened"], figures["failures"]) == (1, {})


def test_percentiles() -> None:
    """Of all values, in milliseconds."""
    assert percentiles([]) is None
    assert percentiles([n / 1000 for n in range(1, 101)]) == {
        "p50": 51.0,
        "p90": 91.0,
        "p99": 100.0,
        "max": 100.0,
    }
