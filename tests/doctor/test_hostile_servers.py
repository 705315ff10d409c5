"""The doctor against hostile servers: it ends, in time, and reports what it saw."""

from __future__ import annotations

import json
import re
import threading
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from support.hostile import ESCAPES, Hostile, accepting
from support.proxy import doctor
from support.raw_peer import RawPeer, handshake_request
from support.selection import later

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.server import Server

pytestmark = pytest.mark.extended("waits for servers that never answer")


def examine(hostile: Hostile, *arguments: str, scheme: str = "ws") -> dict[str, str]:
    """Run the doctor; give what it found about the server, by id."""
    done = doctor("--json", "--url", hostile.url(scheme), "--timeout", "5", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    findings = json.loads(done.stdout)["findings"]
    return {finding["id"]: finding["what"] for finding in findings}


class TestSlowness:
    """One byte each half second, for ever: `--timeout` is for the whole step."""

    @pytest.mark.parametrize(
        ("begins", "goes_on", "name"),
        [
            (b"", b"H", "unreachable"),
            (b"HTTP/1.1 200 OK\r\n", b"X", "unreachable"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", b"x", "handshake.forbidden"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 99\r\n\r\n", b"x", "handshake.forbidden"),
        ],
        ids=["status", "headers", "body", "promised-body"],
    )
    def test_answer(self, begins: bytes, goes_on: bytes, name: str) -> None:
        """Whatever part of it comes slowly."""

        def answers(request: bytes) -> Iterator[bytes]:
            yield begins
            yield from repeat(goes_on)

        with Hostile(answers, pause_s=0.5) as hostile:
            assert name in examine(hostile)

    def test_tls(self) -> None:
        """A record that never ends."""

        def answers(request: bytes) -> Iterator[bytes]:
            yield b"\x16\x03\x03\x40\x00"
            yield from repeat(b"\x02")

        with Hostile(answers, pause_s=0.5) as hostile:
            assert "unreachable" in examine(hostile, scheme="wss")

    @pytest.mark.parametrize("goes_on", [b"\x89", *later(b"\x82\x7f\0\0\0\xff\0\0\0\0")])
    def test_frames(self, goes_on: bytes) -> None:
        """The silence has its own length."""

        def answers(request: bytes) -> Iterator[bytes]:
            yield accepting(request)
            yield from repeat(goes_on)

        with Hostile(answers, pause_s=0.5) as hostile:
            found = examine(hostile, "--silence", "3")
        assert {"silence", "silence.broken"} & set(found)

    def test_answers_the_first_handshake_only(self) -> None:
        """Each handshake has its own time, and earlier findings stay in the report."""
        first = threading.Semaphore(2)

        def answers(request: bytes) -> Iterator[bytes]:
            if first.acquire(blocking=False):
                yield accepting(request)
                return
            yield from repeat(b"H")

        with Hostile(answers, pause_s=0.5) as hostile:
            found = examine(hostile)
        assert {"handshake", "unreachable"} <= set(found)


class TestTerminal:
    """Text of a server is shown as text: escape sequences have no effect."""

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 " + ESCAPES + b"\r\n\r\n",
            b"HTTP/1.1 403 no\r\nContent-Type: text/plain\r\n\r\n" + ESCAPES,
            b"HTTP/1.1 302 Found\r\nLocation: " + ESCAPES + b"\r\n\r\n",
            ESCAPES + b"\r\n\r\n",
            b"HTTP/1.1 404 " + b"long " * 10_000 + ESCAPES + b"\r\n\r\n",
        ],
        ids=["reason", "body", "location", "junk", "long"],
    )
    def test_escape_sequences(self, answer: bytes) -> None:
        """Neither on its output nor beside it, and no more than a few lines."""
        with Hostile(lambda request: iter([answer])) as hostile:
            done = doctor("--url", hostile.url(), "--timeout", "20", "--no-color")
        assert done.returncode == 1
        for output in (done.stdout, done.stderr):
            assert [line for line in output.split("\n") if not line.isprintable()] == []
            # Other findings may be long: they are about this machine.
            assert output.count("long ") < 1_000
        assert "\nfine [handshake]" not in done.stdout


def test_question_is_of_no_use_elsewhere(server: Server) -> None:
    """A server that is asked cannot get the report of another with the same `SECRET_KEY`."""
    with Hostile(lambda request: iter([b"HTTP/1.1 200 OK\r\n\r\n"])) as hostile:
        examine(hostile)
    asked = [
        value.decode()
        for request in hostile.requests
        for value in re.findall(rb"X-Websocket-Doctor: (.+)\r\n", request)
    ]
    assert asked
    for question in asked:
        with RawPeer(server.address) as peer:
            headers = {"X-Websocket-Doctor": question}
            peer.send(handshake_request("/echo/", server.host, headers=headers))
            report = peer.read_response().json()
            assert set(report) == {"request"}
            # Headers that the asker has sent by itself, and facts that its own handshakes show.
            assert set(report["request"]) == {
                *("protocol", "upgrade", "connection", "secure", "redirected"),
                *("origin_allowed", "made_up_address"),
            }
