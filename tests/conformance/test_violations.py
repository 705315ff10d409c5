"""
Violations of RFC 6455, and the close code that answers each.

Every violation gets a close frame with its exact code before the connection ends with EOF: never a
bare FIN, never a reset. Every whole of bytes is also sent a byte at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.raw_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Ending,
    Frame,
    RawPeer,
    build_frame,
    close_payload,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.server import Server

FORBIDDEN_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
NOT_UTF8 = {
    "lone continuation byte": b"\x80",
    "byte that never occurs": b"\xff",
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "cut at the end": "é".encode()[:1],
}


def violations() -> dict[str, tuple[bytes, int]]:
    """Return every violation by name: the bytes and the code that answers them."""
    start = build_frame(TEXT, b"begun", fin=False)
    found = {
        "unmasked text": (build_frame(TEXT, b"open", mask=None), 1002),
        "unmasked ping": (build_frame(PING, b"open", mask=None), 1002),
        "unmasked close": (build_frame(CLOSE, close_payload(1000), mask=None), 1002),
        "fragmented ping": (build_frame(PING, b"", fin=False), 1002),
        "fragmented close": (build_frame(CLOSE, close_payload(1000), fin=False), 1002),
        "ping of 126 bytes": (build_frame(PING, b"x" * 126), 1002),
        "close of 126 bytes": (build_frame(CLOSE, close_payload(1000, "x" * 124)), 1002),
        "ping of 64-bit length": (build_frame(PING, length=1 << 20), 1002),
        "stray continuation": (build_frame(CONTINUATION, b"of what"), 1002),
        "stray first continuation": (build_frame(CONTINUATION, b"of what", fin=False), 1002),
        "text within text": (start + build_frame(TEXT, b"another"), 1002),
        "binary within text": (start + build_frame(BINARY, b"another", fin=False), 1002),
        "continuation after the end": (
            start + build_frame(CONTINUATION, b"end") + build_frame(CONTINUATION, b"too much"),
            1002,
        ),
        "5 bytes in 16 bits": (build_frame(TEXT, b"small", form=16), 1002),
        "125 bytes in 16 bits": (build_frame(BINARY, b"x" * 125, form=16), 1002),
        "300 bytes in 64 bits": (build_frame(BINARY, b"x" * 300, form=64), 1002),
        "length of 2^63": (build_frame(BINARY, length=1 << 63), 1002),
        "length of 2^64 - 1": (build_frame(BINARY, length=(1 << 64) - 1), 1002),
        "length of 2^62": (build_frame(BINARY, length=1 << 62), 1009),
        "length of 2^40": (build_frame(TEXT, length=1 << 40), 1009),
        "close of one byte": (build_frame(CLOSE, b"\x03"), 1002),
        "close with broken reason": (build_frame(CLOSE, b"\x03\xe8\xff"), 1007),
    }
    for rsv in range(1, 8):
        found[f"text with rsv {rsv:03b}"] = (build_frame(TEXT, b"bits", rsv=rsv), 1002)
    found["ping with rsv 100"] = (build_frame(PING, b"bits", rsv=4), 1002)
    found["continuation with rsv 100"] = (start + build_frame(CONTINUATION, b"", rsv=4), 1002)
    for opcode in (*range(0x3, 0x8), *range(0xB, 0x10)):
        found[f"opcode {opcode:X}"] = (build_frame(opcode), 1002)
    for code in FORBIDDEN_CODES:
        found[f"close with {code}"] = (build_frame(CLOSE, close_payload(code)), 1002)
    for name, data in NOT_UTF8.items():
        found[f"text: {name}"] = (build_frame(TEXT, b"good " + data), 1007)
        found[f"fragments: {name}"] = (
            build_frame(TEXT, b"good ", fin=False) + build_frame(CONTINUATION, data),
            1007,
        )
    return found


VIOLATIONS = violations()


def outcome(server: Server, pieces: Iterable[bytes], path: str = "/echo/") -> Ending:
    """Send pieces, one write each, and return how the connection ended."""
    with RawPeer.open(server, path) as peer:
        peer.send_until_refused(pieces)
        return peer.read_to_eof()


@pytest.mark.parametrize("name", VIOLATIONS)
class TestViolations:
    """One close frame with the code, nothing else, EOF."""

    def test_in_one_write(self, server: Server, name: str) -> None:
        """The usual way in which bytes arrive."""
        data, code = VIOLATIONS[name]
        assert outcome(server, [data]).code == code

    def test_early(self, server: Server, name: str) -> None:
        """Together with the handshake."""
        data, code = VIOLATIONS[name]
        with RawPeer.open(server, "/echo/", early=data) as peer:
            assert peer.read_to_eof().code == code

    def test_after_good_messages(self, server: Server, name: str) -> None:
        """Whole messages before the violation are answered before the close frame."""
        data, code = VIOLATIONS[name]
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_text("good")
            assert peer.read_frame() == Frame(TEXT, b"good")
            peer.send(data)
            assert peer.read_to_eof().code == code


@pytest.mark.parametrize(
    "name", ["text with rsv 010", "close with 1005", "length of 2^63", "text: surrogate"]
)
def test_violation_byte_by_byte(server: Server, name: str) -> None:
    """The verdict does not depend on how the bytes are cut; what follows it is not read."""
    data, code = VIOLATIONS[name]
    ending = outcome(server, (data[i : i + 1] for i in range(len(data))))
    assert [frame.code for frame in ending.frames if frame.opcode == CLOSE] == [code]


class TestFailingFast:
    """The verdict comes as soon as it is certain, not when the message is whole."""

    def test_invalid_utf8_inside_a_fragment(self, server: Server) -> None:
        """The rest of the frame is still to come, and the rest of the message, too."""
        claimed = build_frame(TEXT, b"good \xff bad", fin=False, length=1000, form=16)
        assert outcome(server, [claimed]).code == 1007

    def test_invalid_utf8_across_frames(self, server: Server) -> None:
        """A character begun in one fragment and not continued in the next."""
        first = build_frame(TEXT, "日".encode()[:2], fin=False)
        second = build_frame(CONTINUATION, b"xyz", fin=False)
        assert outcome(server, [first, second]).code == 1007

    def test_length_over_the_limit(self, server: Server) -> None:
        """The header alone is enough; not one byte of payload is sent."""
        header = build_frame(BINARY, length=1001, form=16)
        assert outcome(server, [header], "/at-most-1000/").code == 1009

    def test_fragments_over_the_limit(self, server: Server) -> None:
        """The limit is the message's: it counts what came in earlier fragments."""
        first = build_frame(BINARY, b"x" * 600, fin=False)
        header = build_frame(CONTINUATION, length=401, form=16)
        assert outcome(server, [first, header], "/at-most-1000/").code == 1009

    @pytest.mark.parametrize("length", [1 << 20, 1 << 40, (1 << 63) - 1])
    def test_large_length_allocates_nothing(self, server: Server, length: int) -> None:
        """Fifty headers that claim a lot do not make the process larger."""

        def resident_kib() -> int:
            with open(f"/proc/{server.worker}/statm") as statm:
                return int(statm.read().split()[1]) * 4

        header = build_frame(BINARY, length=length, form=64)
        before = resident_kib()
        with RawPeer.open_many(server, "/echo/", 50) as peers:
            for peer in peers:
                peer.send(header)
            if length > 16 << 20:
                assert {peer.read_to_eof().code for peer in peers} == {1009}
            else:
                for peer in peers:
                    peer.send(b"x")
            assert resident_kib() - before < 20_000


class TestAllowed:
    """Unusual traffic that keeps to the rules."""

    def test_message_at_the_limit(self, server: Server) -> None:
        """The limit itself is allowed, whole and in fragments."""
        with RawPeer.open(server, "/at-most-1000/") as peer:
            peer.send_frame(TEXT, b"x" * 1000)
            assert peer.read_message() == b"x" * 1000
            peer.send_frame(TEXT, b"x" * 400, fin=False)
            peer.send_frame(CONTINUATION, b"x" * 600)
            assert peer.read_message() == b"x" * 1000

    def test_characters_cut_by_fragments(self, server: Server) -> None:
        """Every byte of a text may be a fragment of its own."""
        text = "aé日🙂".encode()
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_frame(TEXT, text[:1], fin=False)
            for i in range(1, len(text)):
                peer.send_frame(CONTINUATION, text[i : i + 1], fin=False)
            peer.send_frame(CONTINUATION, b"")
            assert peer.read_message() == text

    @pytest.mark.parametrize("code", [1000, 1003, 1007, 1012, 1014, 3000, 4999])
    def test_close_codes(self, server: Server, code: int) -> None:
        """Codes that a peer may send are answered with the same."""
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_close(code, "x" * 123)
            assert peer.read_to_eof().code == code

    def test_pings_are_answered_in_order(self, server: Server) -> None:
        """Each ping gets its pong with the same payload, also of none and of 125 bytes."""
        payloads = [b"", b"x" * 125, *(b"ping %d" % n for n in range(50)), b"\xff\x00"]
        with RawPeer.open(server, "/never-read/") as peer:
            peer.send(b"".join(build_frame(PING, payload) for payload in payloads))
            assert [peer.read_frame() for _ in payloads] == [
                Frame(PONG, payload) for payload in payloads
            ]

    def test_unsolicited_pongs_are_ignored(self, server: Server) -> None:
        """A pong that answers nothing changes nothing, also between fragments."""
        with RawPeer.open(server, "/echo/") as peer:
            peer.send_frame(PONG, b"unasked")
            peer.send_frame(TEXT, b"one ", fin=False)
            peer.send_frame(PONG, b"unasked")
            peer.send_frame(CONTINUATION, b"two")
            assert peer.read_frame() == Frame(TEXT, b"one two")

    def test_message_byte_by_byte(self, server: Server) -> None:
        """Frames may come in packets of one byte."""
        with RawPeer.open(server, "/echo/") as peer:
            for byte in build_frame(TEXT, b"x" * 200) + build_frame(PING, b"?"):
                peer.send(bytes([byte]))
            seen = [peer.read_frame(), peer.read_frame()]
            assert sorted(frame.payload for frame in seen) == [b"?", b"x" * 200]


class TestManyFragments:
    """The number of fragments of a message is limited, too."""

    def test_100_000_tiny_fragments(self, server: Server) -> None:
        """More than 80,000 fragments end with 1009, in bounded time and memory."""
        middle = build_frame(CONTINUATION, b"x", fin=False)
        data = build_frame(TEXT, b"x", fin=False) + middle * 99_998 + build_frame(CONTINUATION)
        assert outcome(server, [data]).code == 1009

    def test_10_000_tiny_fragments(self, server: Server) -> None:
        """Fewer are a message like any other."""
        middle = build_frame(CONTINUATION, b"x", fin=False)
        data = build_frame(TEXT, b"x", fin=False) + middle * 9_998 + build_frame(CONTINUATION, b"x")
        with RawPeer.open(server, "/echo/") as peer:
            peer.send(data)
            assert peer.read_message() == b"x" * 10_000

    def test_10_000_messages(self, server: Server) -> None:
        """As many small messages are no offence: the view's pace is the client's pace."""
        with RawPeer.open(server, "/whole/") as peer:
            peer.send(build_frame(BINARY, b"x") * 1000 * 10)
            assert [peer.read_message() for _ in range(10_000)] == [b"1"] * 10_000


def test_server_is_unharmed(server: Server) -> None:
    """After all of that at once the same worker still echoes and leaves nothing behind."""
    with server.nothing_left():
        for data, code in VIOLATIONS.values():
            assert outcome(server, [data]).code == code
    with RawPeer.open(server, "/echo/") as peer:
        peer.send_text("still fine")
        assert peer.read_message() == b"still fine"
