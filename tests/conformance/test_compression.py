"""
RFC 7692: a server's duties by sections 5 to 7, and messages of every window and takeover.

The other side compresses with CPython's zlib and reads with exactly the window that was agreed on.
"""

from __future__ import annotations

import itertools
import zlib
from typing import TYPE_CHECKING

import pytest

from dwebsocket import _core
from support.deflate import RSV1, DeflatePeer, corpus, finished, raw
from support.raw_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawPeer,
    build_frame,
)

if TYPE_CHECKING:
    from support.server import Server

DEFAULT = "/echo-exact/"
FORGETFUL = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
# These views of the test project keep the context if the client lets them, or compress nothing.
KEEPING, PLAIN = "/echo-with-context/", "/echo-uncompressed/"


def answer(server: Server, offers: str, path: str = KEEPING) -> str | None:
    """Give the server's answer to offers of extensions."""
    with RawPeer.open(server, path, headers={"Sec-WebSocket-Extensions": offers}) as peer:
        assert peer.response is not None
        assert len(peer.response.header_all("Sec-WebSocket-Extensions")) <= 1
        peer.send_text("works all the same")
        assert peer.read_message() == b"works all the same"
        return peer.response.header("Sec-WebSocket-Extensions")


class TestNegotiation:
    """Sections 5 and 7.1."""

    @pytest.mark.parametrize(
        ("offer", "expected"),
        [
            ("", ""),
            # 7.1.1.1: accepted by naming it.
            ("; server_no_context_takeover", "; server_no_context_takeover"),
            # 7.1.1.2: may be answered, and is.
            ("; client_no_context_takeover", "; client_no_context_takeover"),
            # 7.1.2.1: with the same value or a smaller one.
            *((f"; server_max_window_bits={n}", f"; server_max_window_bits={n}") for n in (9, 15)),
            ('; server_max_window_bits="12"', "; server_max_window_bits=12"),
            # 7.1.2.2: only if the client has offered it.
            ("; client_max_window_bits", ""),
            ("; client_max_window_bits=10", "; client_max_window_bits=10"),
            ("; client_max_window_bits=8", "; client_max_window_bits=8"),
        ],
    )
    def test_parameters(self, server: Server, offer: str, expected: str) -> None:
        """Each is answered as its section says."""
        assert answer(server, "permessage-deflate" + offer) == "permessage-deflate" + expected

    @pytest.mark.parametrize(
        "offer",
        [
            "; server_max_window_bits=8",
            "; server_max_window_bits",
            "; server_max_window_bits=16",
            "; server_max_window_bits=010",
            "; client_max_window_bits=7",
            "; server_no_context_takeover=1",
            "; server_no_context_takeover; server_no_context_takeover",
            "; client_max_window_bits; client_max_window_bits=10",
            "; unknown",
        ],
    )
    def test_declined(self, server: Server, offer: str) -> None:
        """7.1: unknown, repeated or impossible parameters decline the offer, not the connection."""
        assert answer(server, "permessage-deflate" + offer) is None

    @pytest.mark.parametrize("offers", ["x-webkit-deflate-frame", "mux; a=1, b", ", x ,"])
    def test_other_extensions(self, server: Server, offers: str) -> None:
        """RFC 6455, 9.1: extensions that are not known are not accepted."""
        assert answer(server, offers) is None

    def test_order_of_preference(self, server: Server) -> None:
        """5: the first offer that can be kept to."""
        offers = (
            "permessage-deflate; server_max_window_bits=8, x; y, "
            "permessage-deflate; server_max_window_bits=10, permessage-deflate"
        )
        assert answer(server, offers) == "permessage-deflate; server_max_window_bits=10"

    def test_default(self, server: Server) -> None:
        """Nothing is taken over, in either direction, asked or not."""
        assert answer(server, "permessage-deflate; client_max_window_bits", DEFAULT) == FORGETFUL

    def test_off(self, server: Server) -> None:
        """A view without compression accepts no offer, and then RSV1 is what it always was."""
        assert answer(server, FORGETFUL, PLAIN) is None
        for path, headers in ((PLAIN, {"Sec-WebSocket-Extensions": FORGETFUL}), (DEFAULT, {})):
            with RawPeer.open(server, path, headers=headers) as peer:
                peer.send_frame(TEXT, raw(b"Hello"), rsv=RSV1)
                assert peer.read_to_eof().code == 1002


HELLO = {
    # The examples of section 7.2.3, and what else section 7.2.1 allows.
    "7.2.3.1 one block": bytes.fromhex("f248cdc9c90700"),
    "7.2.3.3 not compressed": bytes.fromhex("000500faff48656c6c6f00"),
    "7.2.3.4 final block": bytes.fromhex("f348cdc9c9070000"),
    "7.2.3.5 two blocks": bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")),
    "7.2.1 final block without padding": finished(b"Hello"),
    "7.2.1 several final blocks": finished(b"He") + finished(b"llo"),
    "7.2.1 an empty block at the end": raw(b"Hello") + b"\x00\x00\xff\xff\x00",
    "7.2.1 fixed codes": raw(b"Hello", strategy=zlib.Z_FIXED),
}


def test_a_smaller_window_is_told_unasked() -> None:
    """So the client need not keep more than that of what the server sends."""
    agreed = _core.Compression.negotiate(
        "permessage-deflate",
        threshold=0,
        level=3,
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=12,
        client_max_window_bits=15,
    )
    assert str(agreed) == "permessage-deflate; server_max_window_bits=12"


class TestMessages:
    """Sections 6 and 7.2."""

    @pytest.mark.parametrize("name", HELLO)
    @pytest.mark.parametrize("path", [DEFAULT, KEEPING])
    def test_blocks(self, server: Server, name: str, path: str) -> None:
        """Every kind of block, whole and in fragments of one byte."""
        payload = HELLO[name]
        with DeflatePeer.offering(server, path, "permessage-deflate") as peer:
            peer.send_frame(TEXT, payload, rsv=RSV1)
            assert peer.read_inflated()[:2] == (TEXT, b"Hello")
            last = len(payload) - 1
            for place in range(len(payload)):
                piece = payload[place : place + 1]
                first = place == 0
                peer.send_frame(
                    TEXT if first else CONTINUATION,
                    piece,
                    fin=place == last,
                    rsv=RSV1 if first else 0,
                )
            assert peer.read_inflated()[:2] == (TEXT, b"Hello")

    @pytest.mark.parametrize("payload", [b"\x00", b""])
    def test_empty(self, server: Server, payload: bytes) -> None:
        """7.2.3.6, and in the middle of fragments."""
        with DeflatePeer.offering(server, DEFAULT, FORGETFUL) as peer:
            peer.send_frame(BINARY, payload, rsv=RSV1)
            assert peer.read_frame() == Frame(BINARY, b"")
            peer.send_frame(TEXT, b"", fin=False, rsv=RSV1)
            peer.send_frame(CONTINUATION, raw(b"Hello"), fin=False)
            peer.send_frame(CONTINUATION, b"")
            assert peer.read_frame() == Frame(TEXT, b"Hello")

    def test_takeover(self, server: Server) -> None:
        """7.2.3.2: messages refer to earlier ones, in both directions."""
        message = next(corpus("json", 1000, 1))
        with DeflatePeer.offering(server, KEEPING, "permessage-deflate") as peer:
            sizes = []
            for _ in range(3):
                peer.send_deflated(message)
                frame = peer.read_frame()
                sizes.append(len(frame.payload))
                assert peer.inflated(frame) == message
            assert max(sizes[1:]) * 4 < sizes[0]

    def test_nothing_is_taken_over(self, server: Server) -> None:
        """7.1.1.2: a client that agreed to keep no context must not refer to earlier messages."""
        with DeflatePeer.offering(server, DEFAULT, FORGETFUL) as peer:
            peer.send_frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1)
            assert peer.read_message() == b"Hello"
            peer.send_frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1)
            assert peer.read_to_eof().code == 1007

    def test_plain_messages_in_between(self, server: Server) -> None:
        """6: a message may go without compression, and does not touch the context."""
        with DeflatePeer.offering(server, KEEPING, "permessage-deflate") as peer:
            for number in range(5):
                message = b"%d " % number * 300
                peer.send_deflated(message)
                assert peer.read_inflated() == (TEXT, message, True)
                peer.send_text("plain")
                assert peer.read_inflated() == (TEXT, b"plain", False)

    def test_control_frames_in_between(self, server: Server) -> None:
        """6.1: control frames are not compressed, and may stand between fragments."""
        payload = raw("grün ".encode() * 100)
        with DeflatePeer.offering(server, DEFAULT, FORGETFUL) as peer:
            peer.send_frame(TEXT, payload[:5], fin=False, rsv=RSV1)
            peer.send_frame(PING, b"there?")
            assert peer.read_frame() == Frame(PONG, b"there?")
            peer.send_frame(CONTINUATION, payload[5:])
            assert peer.read_inflated() == (TEXT, "grün ".encode() * 100, True)


def begun(payload: bytes, opcode: int = TEXT) -> bytes:
    """Make the first fragment of a compressed message."""
    return build_frame(opcode, payload, fin=False, rsv=RSV1)


def compressed(payload: bytes, opcode: int = TEXT) -> bytes:
    """Make a compressed message in one frame."""
    return build_frame(opcode, payload, rsv=RSV1)


VIOLATIONS = {
    "6.1 RSV1 on a continuation": (
        begun(raw(b"He")) + build_frame(CONTINUATION, raw(b"llo"), rsv=RSV1),
        1002,
    ),
    "6.1 RSV1 on a continuation of a plain message": (
        build_frame(TEXT, b"He", fin=False) + build_frame(CONTINUATION, b"llo", rsv=RSV1),
        1002,
    ),
    "6.1 RSV1 on a ping": (build_frame(PING, b"", rsv=RSV1), 1002),
    "6.1 RSV1 on a pong": (build_frame(PONG, b"", rsv=RSV1), 1002),
    "6.1 RSV1 on a close": (build_frame(CLOSE, b"\x03\xe8", rsv=RSV1), 1002),
    "RFC 6455, 5.2 RSV2": (build_frame(TEXT, b"", rsv=2), 1002),
    "RFC 6455, 5.2 RSV1 and RSV3": (build_frame(TEXT, raw(b"x"), rsv=5), 1002),
    "RFC 6455, 5.4 a message within another": (begun(raw(b"x")) + compressed(raw(b"y")), 1002),
    "7.2.2 reserved block": (compressed(b"\x07"), 1007),
    "7.2.2 wrong length": (compressed(b"\x00\x05\x00\x00\x00"), 1007),
    "7.2.2 looks back too far": (compressed(bytes.fromhex("f200110000")), 1007),
    "7.2.2 cut off": (compressed(raw(b"a message that is cut off")[:10], BINARY), 1007),
    "7.2.2 noise": (compressed(b"\xff" * 200, BINARY), 1007),
    "RFC 6455, 8.1 not UTF-8": (compressed(raw(b"good \xff")), 1007),
    "RFC 6455, 8.1 not UTF-8, failing fast": (begun(raw(b"good \xff") + b"\0\0\xff\xff"), 1007),
    "RFC 6455, 8.1 cut within a character": (compressed(raw("grü".encode()[:-1])), 1007),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violations(server: Server, name: str) -> None:
    """Each has its code, in a frame, before the end; in one write and byte by byte."""
    data, code = VIOLATIONS[name]
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        with DeflatePeer.offering(server, DEFAULT, FORGETFUL) as peer:
            peer.send_until_refused(pieces)
            assert peer.read_to_eof().code == code


CUT_OFF = {
    "in the middle of a block": raw(b"a message that is cut off")[:10],
    "before the end of a block": bytes.fromhex("f248cdc9c9"),
    "within a stored block": bytes.fromhex("001400ebff4865"),
    "behind a whole block": raw(b"whole") + b"\x00\x00\xff\xff" + raw(b"not whole")[:-4],
}


@pytest.mark.parametrize("name", CUT_OFF)
@pytest.mark.parametrize("before", [0, 2])
def test_cut_off(server: Server, name: str, before: int) -> None:
    """7.2.1, 7.2.2: with takeover, too, a message ends between two blocks, or it is none."""
    with DeflatePeer.offering(server, KEEPING, "permessage-deflate") as peer:
        for _ in range(before):
            peer.send_deflated(b"well formed " * 10)
            assert peer.read_inflated() == (TEXT, b"well formed " * 10, True)
        peer.send_until_refused([compressed(CUT_OFF[name], BINARY), compressed(raw(b"late"))])
        ending = peer.read_to_eof()
        assert (ending.code, len(ending.frames)) == (1007, 1)


class TestBombs:
    """The size of a message is bounded while it is inflated."""

    def test_limit(self, server: Server) -> None:
        """Just the limit passes; a byte more is 1009, however many fragments it takes."""
        with DeflatePeer.offering(server, "/at-most-1000/", FORGETFUL) as peer:
            peer.send_deflated(b"x" * 1000, fragments=3)
            assert peer.read_inflated() == (TEXT, b"x" * 1000, True)
            peer.send_deflated(b"x" * 1001, fragments=3)
            assert peer.read_to_eof().code == 1009

    def test_memory(self, server: Server) -> None:
        """A gigabyte in a megabyte makes the process no larger than the limit does."""

        def resident_kib() -> int:
            with open(f"/proc/{server.worker}/statm") as statm:
                return int(statm.read().split()[1]) * 4

        payload = raw(bytes(1 << 20)) + b"\0\0\xff\xff"
        before = resident_kib()
        with DeflatePeer.offering(server, DEFAULT, FORGETFUL) as peer:
            peer.send_until_refused(
                itertools.chain(
                    [begun(payload, BINARY)],
                    itertools.repeat(build_frame(CONTINUATION, payload, fin=False), 1000),
                )
            )
            assert peer.read_to_eof().code == 1009
        # The limit is 16 MiB, and a buffer that grows exists twice for a moment.
        assert resident_kib() - before < 48 * 1024

    def test_blocks_that_hold_nothing(self, server: Server) -> None:
        """They end, too: the compressed bytes of a message are bounded."""
        nothing = b"\x00\x00\x00\xff\xff" * 13000
        with DeflatePeer.offering(server, "/at-most-1000/", FORGETFUL) as peer:
            frames = [begun(nothing), build_frame(CONTINUATION, nothing, fin=False)]
            peer.send_until_refused(frames)
            assert peer.read_to_eof().code == 1009


# Client's and server's window, and whether the context is kept: every combination under
# --every-server, a few of them otherwise.
WINDOWS = [
    (f"permessage-deflate; client_max_window_bits={theirs}; server_max_window_bits={ours}{forget}")
    for theirs in range(8, 16)
    for ours in range(9, 16)
    for forget in ("", "; server_no_context_takeover; client_no_context_takeover")
]
FEW_WINDOWS = WINDOWS[:2] + WINDOWS[-2:] + WINDOWS[len(WINDOWS) // 2 :][:1]
SIZES = [16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the windows."""
    if "offer_of_windows" in metafunc.fixturenames:
        every = metafunc.config.getoption("--every-server")
        metafunc.parametrize("offer_of_windows", WINDOWS if every else FEW_WINDOWS)


def test_windows(server: Server, offer_of_windows: str, request: pytest.FixtureRequest) -> None:
    """Messages of all sizes and kinds come back, whatever was agreed on."""
    every = bool(request.config.getoption("--every-server"))
    sizes = SIZES if every else SIZES[:8]
    with DeflatePeer.offering(server, KEEPING, offer_of_windows) as peer:
        for kind, size in itertools.product(("json", "text", "noise"), sizes):
            opcode = BINARY if kind == "noise" else TEXT
            for number, message in enumerate(corpus(kind, size, 2)):
                peer.send_deflated(message, opcode, fragments=1 + number * 3)
                assert peer.read_inflated()[:2] == (opcode, message)


@pytest.mark.parametrize("path", [DEFAULT, KEEPING])
@pytest.mark.parametrize("kind", ["json", "text", "noise"])
def test_a_thousand_messages(
    server: Server, path: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """In a row, each answered before the next: no state of the codecs goes wrong."""
    every = bool(request.config.getoption("--every-server"))
    opcode = BINARY if kind == "noise" else TEXT
    with DeflatePeer.offering(server, path, "permessage-deflate") as peer:
        for size in SIZES if every else (1024,):
            for message in corpus(kind, size, 1000 if every else 200):
                peer.send_deflated(message, opcode)
                assert peer.read_inflated()[:2] == (opcode, message)


def test_many_at_once(server: Server) -> None:
    """Many connections share the pool of codecs, with messages unfinished on all of them."""
    messages = [b"%d " % number * 2000 for number in range(40)]
    peers = [DeflatePeer.offering(server, DEFAULT, FORGETFUL) for _ in messages]
    payloads = [peer.deflated(message) for peer, message in zip(peers, messages, strict=True)]
    for start, fin in ((True, False), (False, True)):
        for peer, payload in zip(peers, payloads, strict=True):
            piece = payload[:9] if start else payload[9:]
            peer.send_frame(
                TEXT if start else CONTINUATION, piece, fin=fin, rsv=RSV1 if start else 0
            )
    for peer, message in zip(peers, messages, strict=True):
        assert peer.read_inflated() == (TEXT, message, True)
        peer.close()
