"""A server is not trusted: whatever it sends, a call ends with a documented error."""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING

import pytest

from dwebsocket import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionTimeout,
    HandshakeRefused,
    ReceiveTimeout,
    connect,
)
from support.hostile import Hostile, accepting
from support.memory import PeakMemory

if TYPE_CHECKING:
    from collections.abc import Iterator


def frame(first: int, payload: bytes) -> bytes:
    """Give an unmasked frame."""
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    return bytes((first, 126)) + struct.pack("!H", len(payload)) + payload


def with_header(line: bytes, replaced: bytes = b"") -> object:
    """Answers with an accepting 101 that has another line."""

    def answer(request: bytes) -> Iterator[bytes]:
        head = accepting(request)
        yield (
            head.replace(replaced, line)
            if replaced
            else head.replace(b"Upgrade: websocket\r\n", b"Upgrade: websocket\r\n" + line)
        )

    return answer


HANDSHAKE, HTTP, NETWORK = "handshake", "http", "network"


@pytest.mark.parametrize(
    ("answers", "reason", "step"),
    [
        (with_header(b"Upgrade: h2c", b"Upgrade: websocket"), "Upgrade header", HANDSHAKE),
        (
            with_header(b"Connection: close", b"Connection: Upgrade"),
            "Connection header",
            "handshake",
        ),
        (
            with_header(b"Sec-WebSocket-Accept: x", b"Sec-WebSocket-Accept: "),
            "request's key",
            "handshake",
        ),
        (with_header(b"Sec-WebSocket-Protocol: b\r\n"), '"b", which was not offered', HANDSHAKE),
        (with_header(b"Sec-WebSocket-Extensions: x\r\n"), "this was not offered", HANDSHAKE),
        (with_header(b"X-Long: " + b"x" * 100_000 + b"\r\n"), "more than 65536 bytes", HTTP),
        (with_header(b"X: y\r\n" * 1000), "too many headers", HTTP),
        (lambda _: iter([b"SSH-2.0-OpenSSH\r\n"]), "no HTTP response", HTTP),
        (lambda _: iter([b"HTTP/1.0 101 x\r\n\r\n"]), "not HTTP/1.1", HTTP),
        (lambda _: iter([b"HTTP/1.1 102 x\r\n\r\n" * 1000]), "interim answers only", HTTP),
        (
            lambda _: iter([b"HTTP/1.1 101 Switch"]),
            "hung up before its answer was complete",
            "network",
        ),
        (lambda _: iter(()), "hung up before its answer", NETWORK),
    ],
)
def test_handshakes_that_are_none(answers: object, reason: str, step: str) -> None:
    """The reason is named, and the step that has failed."""
    with Hostile(answers) as server, pytest.raises(ConnectionFailed, match=reason) as failed:  # type: ignore[arg-type]
        connect(server.url(), subprotocols=["a"])
    assert failed.value.step == step


@pytest.mark.parametrize("pause_s", [0, 0.001])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x85mask\x00\x00\x00\x00\x00", 1002),
        (frame(0x83, b""), 1002),
        (frame(0xA1, b""), 1002),
        (frame(0x80, b"no message"), 1002),
        (frame(0x09, b"in pieces"), 1002),
        (frame(0x81, b"\xff"), 1007),
        (frame(0xC1, b"no deflate"), 1007),
        (frame(0x82, bytes(2000)), 1009),
        (frame(0x88, b"\x03"), 1002),
        (frame(0x88, struct.pack("!H", 1005)), 1002),
    ],
    ids=lambda value: value[:6].hex() if isinstance(value, bytes) else str(value),
)
def test_frames_that_break_a_rule(sent: bytes, code: int, pause_s: float) -> None:
    """End the connection with the code of the rule, however they are cut."""

    def answers(request: bytes) -> Iterator[bytes]:
        head = accepting(request)
        # Agrees on what was offered, so that RSV1 has a meaning.
        head = head[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        if pause_s:
            yield head
            for index in range(min(len(sent), 50)):
                yield sent[index : index + 1]
            yield sent[50:]
        else:
            yield head + sent

    with (
        Hostile(answers, pause_s=pause_s) as server,
        connect(server.url(), max_message_size=1000) as websocket,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            websocket.receive(20)
        assert (closed.value.code, closed.value.by) == (code, "local")


def test_a_bomb_is_stopped_at_the_limit() -> None:
    """While it is inflated: 1000 bytes are not worth a megabyte here."""
    import zlib

    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(10 << 20)) + compressor.flush(zlib.Z_SYNC_FLUSH)

    def answers(request: bytes) -> Iterator[bytes]:
        head = accepting(request)[:-2]
        yield head + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        yield frame(0xC2, bomb.removesuffix(b"\x00\x00\xff\xff"))

    with (
        Hostile(answers) as server,
        connect(server.url(), max_message_size=1 << 20) as websocket,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            websocket.receive(20)
        assert closed.value.code == 1009


def test_a_server_that_is_cut_off_in_a_message() -> None:
    """What came before is given; then the end is the loss."""

    def answers(request: bytes) -> Iterator[bytes]:
        yield accepting(request) + frame(0x81, b"whole") + b"\x81\x05ha"

    with Hostile(answers) as server, connect(server.url()) as websocket:
        assert websocket.receive(20) == "whole"
        with pytest.raises(ConnectionClosed) as closed:
            websocket.receive(20)
        assert (closed.value.code, closed.value.by) == (1006, "lost")
        assert "the server" in closed.value.reason


def test_early_frames_belong_to_the_connection() -> None:
    """Those that come together with the 101."""

    def answers(request: bytes) -> Iterator[bytes]:
        yield accepting(request) + frame(0x81, b"1") + frame(0x82, b"2") + frame(0x88, b"")

    with Hostile(answers) as server, connect(server.url()) as websocket:
        assert list(websocket) == ["1", b"2"]
        assert websocket.close_code == 1005


def test_a_server_that_answers_byte_by_byte() -> None:
    """Is taken when it is in time, and given up when it is not: the time is for all of it."""

    def answers(request: bytes) -> Iterator[bytes]:
        for byte in accepting(request) + frame(0x81, b"late"):
            yield bytes((byte,))

    with (
        Hostile(answers, pause_s=0.001) as server,
        connect(server.url(), open_timeout=60) as websocket,
    ):
        assert websocket.receive(20) == "late"
    with Hostile(answers, pause_s=0.1) as server, pytest.raises(ConnectionTimeout) as failed:
        connect(server.url(), open_timeout=0.5)
    assert failed.value.step is None


def test_a_length_allocates_nothing() -> None:
    """A frame of 2 GiB is refused by its head alone, or waits for bytes that never come."""
    head = b"\x82\x7f" + (2 << 30).to_bytes(8, "big")
    stop = threading.Event()

    def answers(request: bytes) -> Iterator[bytes]:
        yield accepting(request) + head
        stop.wait(20)

    with Hostile(answers) as server, PeakMemory() as memory:
        with connect(server.url()) as websocket, pytest.raises(ConnectionClosed) as closed:
            websocket.receive(20)
        assert (closed.value.code, closed.value.by) == (1009, "local")
        with connect(server.url(), max_message_size=4 << 30) as websocket:
            with pytest.raises(ReceiveTimeout):
                websocket.receive(0.1)
        stop.set()
    assert memory.added < 64 << 20


def test_redirects_are_answers() -> None:
    """They are not followed, so they cannot loop."""

    def answers(request: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 302 Found\r\nLocation: /echo/\r\nContent-Length: 0\r\n\r\n"

    with Hostile(answers) as server, pytest.raises(HandshakeRefused) as refused:
        connect(server.url())
    assert refused.value.headers is not None
    assert (refused.value.status, refused.value.headers["Location"]) == (302, "/echo/")
    assert len(server.requests) == 1


def test_headers_without_an_end() -> None:
    """Are too many bytes before long, whatever the timeout."""

    def answers(request: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 101 Switching Protocols\r\n"
        while True:
            yield b"X: " + b"y" * 1000 + b"\r\n"

    with Hostile(answers) as server, pytest.raises(ConnectionFailed, match="65536 bytes"):
        connect(server.url(), open_timeout=None)
