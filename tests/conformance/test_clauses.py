"""
RFC 6455, clause by clause: a server's duties by sections 4 to 8.

Each test and each line of a table names its clause. Violations come with the exact code, in a close
frame, before the end of the stream; `test_violations.py` has many more of each kind.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from typing import TYPE_CHECKING

import pytest

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
    close_payload,
    handshake_request,
)

if TYPE_CHECKING:
    from support.raw_peer import Response
    from support.server import Server

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def respond(server: Server, request: bytes) -> Response:
    """Give the response to a handshake, good or bad."""
    with RawPeer(server.address) as peer:
        peer.send(request)
        return peer.read_response()


REFUSED = {
    "4.2.1 item 1: GET": ({"method": "OPTIONS"}, 400),
    "4.2.1 item 1: HTTP/1.1 or higher": ({"http": "HTTP/1.0"}, 400),
    "4.2.1 item 1: methods have a case": ({"method": "get"}, 400),
    "4.2.1 item 2: Host": ({"headers": {"Host": None}}, 400),
    "4.2.1 item 2: one Host": ({"extra": [("Host", "localhost")]}, 400),
    "4.2.1 item 3: Upgrade": ({"headers": {"Upgrade": None}}, 400),
    "4.2.1 item 3: Upgrade names websocket": ({"headers": {"Upgrade": "h2c"}}, 400),
    "4.2.1 item 4: Connection": ({"headers": {"Connection": None}}, 400),
    "4.2.1 item 4: Connection names Upgrade": ({"headers": {"Connection": "keep-alive"}}, 400),
    "4.2.1 item 5: key": ({"headers": {"Sec-WebSocket-Key": None}}, 400),
    "4.2.1 item 5: key of 16 bytes": ({"headers": {"Sec-WebSocket-Key": "c2hvcnQ="}}, 400),
    "4.2.1 item 5, 11.3.1: one key": ({"extra": [("Sec-WebSocket-Key", KEY)]}, 400),
    "4.2.1 item 6: version": ({"headers": {"Sec-WebSocket-Version": None}}, 426),
    "4.2.1 item 6, 4.4: version 13": ({"headers": {"Sec-WebSocket-Version": "8"}}, 426),
    "4.2.1 item 6, 11.3.5: one version": ({"extra": [("Sec-WebSocket-Version", "13")]}, 426),
    "4.2.1 item 8, 4.3: subprotocols": ({"headers": {"Sec-WebSocket-Protocol": "a b"}}, 400),
    "4.2.1 item 8, 4.3: at least one": ({"headers": {"Sec-WebSocket-Protocol": ""}}, 400),
    "4.1 item 10: all different": ({"headers": {"Sec-WebSocket-Protocol": "a, a"}}, 400),
    **{
        f"4.2.1 item 9, 4.3, 9.1: extensions, {value!r}": (
            {"headers": {"Sec-WebSocket-Extensions": value}},
            400,
        )
        for value in ("", ",", ";", "x;", "x y", "x; y=", 'x; y="z', 'x; y="a b"')
    },
    "4.2.2 item 4: origin": ({"headers": {"Origin": "http://evil.example"}}, 403),
}


class TestOpening:
    """Section 4."""

    @pytest.mark.parametrize("clause", REFUSED)
    def test_refused(self, server: Server, clause: str) -> None:
        """An HTTP error instead of the 101; 426 names the version that would do (4.2.2, 4.4)."""
        changes, status = REFUSED[clause]
        request = handshake_request("/echo-exact/", server.host, **changes)  # type: ignore[arg-type]
        response = respond(server, request)
        assert response.status == status
        assert response.header("Sec-WebSocket-Accept") is None
        assert response.header("Sec-WebSocket-Version") == ("13" if status == 426 else None)

    @pytest.mark.parametrize("body", [b"hello", build_frame(TEXT, b"hello")])
    @pytest.mark.parametrize("header", ["Content-Length", "Transfer-Encoding"])
    def test_body(self, server: Server, header: str, body: bytes) -> None:
        """RFC 9110, 7.8: frames begin behind the request; its body is not taken for frames."""
        value = str(len(body)) if header == "Content-Length" else "chunked"
        sent = body if header == "Content-Length" else b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        request = handshake_request("/echo-exact/", server.host, headers={header: value})
        assert respond(server, request + sent).status == 400

    def test_response(self, server: Server) -> None:
        """4.2.2 item 5: status, Upgrade, Connection, the key's proof; no more than asked for."""
        headers = {"Sec-WebSocket-Key": KEY}
        response = respond(server, handshake_request("/echo-exact/", server.host, headers=headers))
        assert response.status == 101
        assert (response.header("Upgrade") or "").lower() == "websocket"
        assert (response.header("Connection") or "").lower() == "upgrade"
        proof = hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        assert response.header("Sec-WebSocket-Accept") == base64.b64encode(proof).decode()
        assert response.header("Sec-WebSocket-Protocol") is None
        assert response.header("Sec-WebSocket-Extensions") is None

    def test_case_and_lists(self, server: Server) -> None:
        """4.2.1 items 3 and 4: tokens in any case, anywhere in a list."""
        headers = {"Upgrade": "WebSocket", "Connection": "keep-alive, uPGRADE"}
        request = handshake_request("/echo-exact/", server.host, headers=headers)
        assert respond(server, request).status == 101

    def test_several_lines(self, server: Server) -> None:
        """4.2.1 items 3, 4, 8, 9, 11.3.2, 11.3.4: lists may come in several headers of a name."""
        lines = [
            *(("Upgrade", "h2c"), ("Connection", "keep-alive"), ("Sec-WebSocket-Protocol", "x")),
            *(("Sec-WebSocket-Protocol", "chat.v1"), ("Sec-WebSocket-Extensions", "x; y=1")),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ]
        response = respond(server, handshake_request("/subprotocol/", server.host, extra=lines))
        assert response.status == 101
        assert response.header_all("Sec-WebSocket-Protocol") == ["chat.v1"]
        (extension,) = response.header_all("Sec-WebSocket-Extensions")
        assert extension.startswith("permessage-deflate")

    def test_other_headers(self, server: Server) -> None:
        """4.2.1 items 7 and 10: a request without Origin, or with unknown headers, is fine."""
        headers = {"X-Unknown": '; ,="', "Cookie": "a=b; c", "Authorization": "Basic eDp5"}
        request = handshake_request("/echo-exact/", server.host, headers=headers)
        assert respond(server, request).status == 101

    def test_absolute_form(self, server: Server) -> None:
        """4.2.1 item 1: the resource may be named by an absolute URI."""
        url = server.url("/echo-exact/", "http")
        assert respond(server, handshake_request(url, server.host)).status == 101

    def test_byte_by_byte(self, server: Server) -> None:
        """4.2.1: however the request comes."""
        with RawPeer(server.address) as peer:
            for byte in handshake_request("/echo-exact/", server.host):
                peer.send(bytes([byte]))
            assert peer.read_response().status == 101

    def test_subprotocol(self, server: Server) -> None:
        """4.2.2 item 5.5: one of those that the client offered, or none."""
        for offered, chosen in (("x, chat.v1", "chat.v1"), ("x", None)):
            headers = {"Sec-WebSocket-Protocol": offered}
            request = handshake_request("/subprotocol/", server.host, headers=headers)
            assert respond(server, request).header("Sec-WebSocket-Protocol") == chosen


def stream(*frames: bytes) -> bytes:
    """Join frames."""
    return b"".join(frames)


BEGUN = build_frame(TEXT, b"begun", fin=False)
FAILED = {
    "5.1: a client masks": (build_frame(TEXT, b"open", mask=None), 1002),
    "5.2: RSV1": (build_frame(TEXT, b"x", rsv=4), 1002),
    "5.2: RSV2": (build_frame(TEXT, b"x", rsv=2), 1002),
    "5.2: RSV3": (build_frame(TEXT, b"x", rsv=1), 1002),
    **{f"5.2: opcode {op:X}": (build_frame(op), 1002) for op in (*range(3, 8), *range(11, 16))},
    "5.2: shortest form, 16 bits": (build_frame(TEXT, b"x", form=16), 1002),
    "5.2: shortest form, 64 bits": (build_frame(BINARY, b"x" * 126, form=64), 1002),
    "5.2: highest bit of the length": (build_frame(BINARY, length=1 << 63), 1002),
    "5.4: nothing to continue": (build_frame(CONTINUATION, b"x"), 1002),
    "5.4: nothing to continue, unfinished": (build_frame(CONTINUATION, b"x", fin=False), 1002),
    "5.4: messages are not interleaved": (stream(BEGUN, build_frame(TEXT, b"x")), 1002),
    "5.4, 5.5: control frames are not fragmented": (build_frame(PING, fin=False), 1002),
    "5.5: control frames have 125 bytes at most": (build_frame(PONG, b"x" * 126), 1002),
    "5.5.1: a close code has two bytes": (build_frame(CLOSE, b"\x03"), 1002),
    "5.5.1: a reason is UTF-8": (build_frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "7.4.1: 1004 is reserved": (build_frame(CLOSE, close_payload(1004)), 1002),
    "7.4.1: 1005 is not sent": (build_frame(CLOSE, close_payload(1005)), 1002),
    "7.4.1: 1006 is not sent": (build_frame(CLOSE, close_payload(1006)), 1002),
    "7.4.1: 1015 is not sent": (build_frame(CLOSE, close_payload(1015)), 1002),
    "7.4.2: 0-999 are not used": (build_frame(CLOSE, close_payload(999)), 1002),
    "7.4.2: 1016-2999 are reserved": (build_frame(CLOSE, close_payload(2999)), 1002),
    "7.4.2: 5000 and more are not defined": (build_frame(CLOSE, close_payload(5000)), 1002),
    "5.6, 8.1: text is UTF-8": (build_frame(TEXT, b"\xc0\xaf"), 1007),
    "8.1: over all fragments": (stream(BEGUN, build_frame(CONTINUATION, b"\xed\xa0\x80")), 1007),
}


@pytest.mark.parametrize("clause", FAILED)
def test_failed(server: Server, clause: str) -> None:
    """7.1.7: the connection is failed with a close frame, and what follows is not answered."""
    data, code = FAILED[clause]
    with RawPeer.open(server, "/echo-exact/") as peer:
        peer.send_until_refused([data, build_frame(TEXT, b"late"), build_frame(PING, b"late")])
        ending = peer.read_to_eof()
        assert ending.code == code
        assert len(ending.frames) == 1
        # 5.5.1 and 5.5: the server's own close frame keeps to the rules.
        assert ending.frames[0].reason
        assert len(ending.frames[0].payload) <= 125


class TestFrames:
    """Section 5."""

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536, 65537])
    def test_lengths(self, server: Server, size: int) -> None:
        """5.1, 5.2: any length, answered unmasked and in the shortest form (the reader insists)."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            for opcode in (TEXT, BINARY):
                peer.send_frame(opcode, b"*" * size)
                assert peer.read_frame() == Frame(opcode, b"*" * size)

    def test_masks(self, server: Server) -> None:
        """5.3: every key, the one of zeros too."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"):
                peer.send_frame(TEXT, b"masked", mask=mask)
                assert peer.read_frame() == Frame(TEXT, b"masked")

    def test_fragments(self, server: Server) -> None:
        """5.4: the type is the first fragment's; empty ones count; control frames in between."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            for opcode in (TEXT, BINARY):
                peer.send_frame(opcode, b"", fin=False)
                for letter in b"fragment":
                    peer.send_frame(CONTINUATION, bytes([letter]), fin=False)
                    peer.send_frame(PING, bytes([letter]))
                    assert peer.read_frame() == Frame(PONG, bytes([letter]))
                peer.send_frame(CONTINUATION, b"")
                assert peer.read_frame() == Frame(opcode, b"fragment")

    def test_ping(self, server: Server) -> None:
        """5.5.2, 5.5.3: answered with the same data; of several in a row, the latest at least."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            for data in (b"", b"Hello", bytes(range(125))):
                peer.send_frame(PING, data)
                assert peer.read_frame() == Frame(PONG, data)
            peer.send(stream(*(build_frame(PING, b"%d" % n) for n in range(10))))
            while (frame := peer.read_frame()) != Frame(PONG, b"9"):
                assert frame.opcode == PONG

    def test_unasked_pong(self, server: Server) -> None:
        """5.5.3: needs no answer."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            peer.send_frame(PONG, b"a sign of life")
            peer.send_text("next")
            assert peer.read_frame() == Frame(TEXT, b"next")

    def test_binary_may_be_anything(self, server: Server) -> None:
        """5.6: its content is not checked."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            peer.send_frame(BINARY, bytes(range(256)))
            assert peer.read_frame() == Frame(BINARY, bytes(range(256)))


CLOSES = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]


class TestClosing:
    """Sections 5.5.1 and 7."""

    @pytest.mark.parametrize("code", CLOSES)
    def test_answer(self, server: Server, code: int) -> None:
        """5.5.1, 7.1.2: the same code comes back; 7.1.1: then the server ends the connection."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            peer.send_close(code, "reason " + "x" * 116)
            ending = peer.read_to_eof()
            assert (ending.code, len(ending.frames)) == (code, 1)

    def test_without_code(self, server: Server) -> None:
        """5.5.1, 7.1.5: an empty close is answered with an empty one."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            peer.send_close(None)
            assert peer.read_to_eof().frames == [Frame(CLOSE, b"")]

    def test_nothing_counts_after_it(self, server: Server) -> None:
        """5.5.1: frames behind a client's close frame are not answered, not even a second close."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            late = (build_frame(CLOSE, close_payload(4001)), build_frame(PING), build_frame(TEXT))
            peer.send_until_refused([build_frame(CLOSE, close_payload(4000)), *late])
            ending = peer.read_to_eof()
            assert (ending.code, len(ending.frames)) == (4000, 1)

    def test_within_a_message(self, server: Server) -> None:
        """5.4, 7.1.4: a close in the middle of a message is a clean one."""
        with RawPeer.open(server, "/echo-exact/") as peer:
            peer.send(BEGUN)
            peer.send_close(1001)
            assert peer.read_to_eof().code == 1001

    def test_by_the_server(self, server: Server) -> None:
        """7.1.1, 7.1.2: the server's close frame is its last; the client's answer ends it."""
        with RawPeer.open(server, "/closes-first/") as peer:
            frame = peer.read_frame()
            assert (frame.opcode, frame.code) == (CLOSE, 4001)
            peer.send_close(4001)
            assert peer.read_to_eof().frames == []

    def test_view_that_goes_on(self, server: Server) -> None:
        """5.5.1, 6.1: messages that it sends behind its close do not go out."""
        with RawPeer.open(server, "/closes-and-goes-on/") as peer:
            assert peer.read_frame() == Frame(TEXT, b"before")
            assert peer.read_frame().code == 4001
            # The server may have hung up: it waits for its close timeout only.
            with contextlib.suppress(ConnectionError):
                peer.send_text("not read any more")
                peer.send_close(4001)
            assert peer.read_to_eof().frames == []

    def test_no_answer(self, server: Server) -> None:
        """7.1.1: the server ends the connection even if its close is never answered."""
        with RawPeer.open(server, "/closes-first/") as peer:
            assert peer.read_frame().code == 4001
            peer.send_text("not an answer")
            ending = peer.read_to_eof()
            assert (ending.frames, ending.reset) == ([], False)

    @pytest.mark.parametrize("path", ["/raises/", "/returns-at-once/"])
    def test_codes_of_the_server(self, server: Server, path: str) -> None:
        """7.4.1: 1011 for an unexpected error, 1000 when all is done."""
        with RawPeer.open(server, path) as peer:
            assert peer.read_to_eof().code == (1011 if path == "/raises/" else 1000)

    def test_too_big(self, server: Server) -> None:
        """7.4.1: 1009."""
        with RawPeer.open(server, "/at-most-1000/") as peer:
            peer.send(build_frame(BINARY, length=1001))
            assert peer.read_to_eof().code == 1009
