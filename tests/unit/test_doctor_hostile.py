"""The doctor reads the bytes of a hostile server: nothing breaks, nothing is kept."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from dwebsocket.operations.doctor import live
from support.hostile import ESCAPES, Hostile, accepting
from support.memory import PeakMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


def examine(hostile: Hostile, silence: float) -> dict[str, str]:
    """Give the doctor's findings there, by id."""
    visit = live.Target(hostile.url(), silence=silence, timeout=2)
    return {finding.id: finding.what for finding in live.examine(visit)}


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class TestNonsense:
    """No traceback, a finding."""

    @pytest.mark.parametrize(
        ("answer", "name"),
        [
            ("HTTP/1.1 \xb2\xb9\xb2 OK\r\n\r\n".encode("latin-1"), "unreachable"),
            (b"HTTP/1.1 " + b"9" * 5000 + b" OK\r\n\r\n", "unreachable"),
            (b"HTTP/1.1 20 OK\r\n\r\n", "unreachable"),
            (b"HTTP/1.1 -10 OK\r\n\r\n", "unreachable"),
            (b"\r\n\r\n", "unreachable"),
            (b"\0" * 200_000, "unreachable"),
            (HEAD + "Content-Length: \xb2\r\n\r\n".encode("latin-1"), "handshake"),
            (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", "handshake"),
            (HEAD + b"Content-Length: -1\r\n\r\n{}", "handshake"),
            (HEAD + b"\r\n" + b"[" * 200_000, "handshake"),
            (HEAD + b"\r\n" + b'{"server":' * 20_000, "handshake"),
            (HEAD + b'\r\n{"server": 7}', "handshake"),
            (HEAD + b'\r\n{"server": {}, "request": []}', "handshake"),
            (HEAD + b"X-Websocket-Doctor: \xff\r\n\r\n{}", "handshake"),
            (HEAD + b"\r\n" + b"9" * 6000, "handshake"),
        ],
        ids=range(15),
    )
    def test_answer(self, answer: bytes, name: str) -> None:
        """No digits that are none, no numbers without an end, no report of a stranger."""
        with Hostile(lambda request: iter([answer])) as hostile:
            assert name in examine(hostile, 0)

    @pytest.mark.parametrize(
        "frames",
        [
            b"\x89\x7e\x00\x80" + b"x" * 128,
            b"\x89\x7f\0\0\0\0\0\1\0\0" + b"x" * 65536,
            b"\x09\x01x",
            b"\x88\x7e\x01\x00" + b"x" * 256,
            b"\x83\x00",
            b"\xc1\x00",
            b"\x81\x80\0\0\0\0",
            ESCAPES,
        ],
        ids=range(8),
    )
    def test_frames(self, frames: bytes) -> None:
        """Pings that are too long, parts of them, unknown kinds, masks: no WebSocket."""

        def answers(request: bytes) -> Iterator[bytes]:
            yield accepting(request) + frames

        with Hostile(answers, pause_s=0.5) as hostile:
            assert "silence.broken" in examine(hostile, 20)


class TestMemory:
    """A limit for everything that is kept of the answer."""

    @pytest.mark.parametrize(
        ("begins", "goes_on"),
        [
            (b"", b"x" * MIB),
            (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100_000),
            (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * MIB),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", b"x" * MIB),
            (b"101", b"\x82\x7f\0\0\x7f\xff\xff\xff\xff\xff" + b"x" * MIB),
            (b"101", b"\x82\x00" * 500_000),
            (b"101", b"\x89\x01x" * 500_000),
        ],
        ids=["junk", "headers", "body", "long-body", "frame", "empty-frames", "pings"],
    )
    def test_without_an_end(self, begins: bytes, goes_on: bytes) -> None:
        """However fast it comes."""

        def answers(request: bytes) -> Iterator[bytes]:
            yield accepting(request) if begins == b"101" else begins
            yield from repeat(goes_on)

        with Hostile(answers) as hostile, PeakMemory() as memory:
            assert examine(hostile, 2)
        assert memory.added < 32 * MIB
