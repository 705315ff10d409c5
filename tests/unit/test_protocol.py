"""`request.websocket.protocol`: the original's lower layer."""

from __future__ import annotations

import gc
import os
import select
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from peer import LiveWebSocket
from websockets.frames import Opcode

from dwebsocket import ConnectionClosed, UsageError, WebSocket
from dwebsocket.api.protocol import WebSocketProtocol13
from support.waiting import eventually

Open = Callable[..., LiveWebSocket]


class Spy(WebSocket):
    """Notes what its protocol asks it for, and has the end of a pipe for a descriptor."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, bytes]] = []
        self.pipe = os.pipe()

    def fileno(self) -> int:
        """Readable when a test has written to the pipe."""
        return self.pipe[0]

    def _ping(self, payload: bytes) -> None:
        self.asked.append(("ping", payload))

    def _pong(self, payload: bytes) -> None:
        self.asked.append(("pong", payload))

    def __del__(self) -> None:
        for descriptor in self.pipe:
            os.close(descriptor)


class TestReading:
    """Messages as frames."""

    def test_messages(self, open_websocket: Open) -> None:
        """With their opcodes; always bytes."""
        live = open_websocket()
        for message in ("tëxt", b"\xff"):
            live.client.send(message)
            live.client.send(message)
        protocol = live.websocket.protocol
        assert protocol.read() == (1, "tëxt".encode())
        assert protocol.read_frame() == (1, 1, "tëxt".encode())
        assert protocol.read_data() == (2, b"\xff")
        assert protocol.read_frame() == (1, 2, b"\xff")

    @pytest.mark.parametrize("call", ["read", "read_data"])
    def test_end(self, open_websocket: Open, call: str) -> None:
        """Is a close frame once, behind the messages; later there is nothing to read."""
        live = open_websocket()
        live.client.send("last")
        live.client.close(4001, "enough")
        read = getattr(live.websocket.protocol, call)
        assert read() == (1, b"last")
        assert read() == (8, None)
        with pytest.raises(EOFError):
            read()
        with pytest.raises(ConnectionClosed):
            read()

    @pytest.mark.parametrize(
        ("code", "reason", "payload"),
        [(4001, "enough", b"\x0f\xa1enough"), (1000, "", b"\x03\xe8"), (None, "", b"")],
    )
    def test_frame_of_the_end(
        self, open_websocket: Open, code: int | None, reason: str, payload: bytes
    ) -> None:
        """It has the payload of the close frame."""
        live = open_websocket()
        live.client.close(code, reason)
        assert live.websocket.protocol.read_frame() == (1, 8, payload)
        with pytest.raises(EOFError):
            live.websocket.protocol.read_frame()

    def test_vanished_client(self, open_websocket: Open) -> None:
        """Has sent no close frame."""
        live = open_websocket()
        live.client.vanish()
        assert live.websocket.protocol.read_frame() == (1, 8, b"")


class TestCanRead:
    """Whether something waits."""

    def test_now(self, open_websocket: Open) -> None:
        """Without waiting."""
        live = open_websocket()
        protocol = live.websocket.protocol
        assert protocol.can_read() is False
        live.client.send("hello")
        eventually(protocol.can_read, what="the message")
        assert protocol.read() == (1, b"hello")
        assert protocol.can_read(0) is False
        live.client.close()
        eventually(protocol.can_read, what="the end")

    def test_sleeps_on_the_descriptor(self, open_websocket: Open) -> None:
        """Until it is readable, or the time is up."""
        websocket: Any = open_websocket(Spy).websocket
        assert websocket.protocol.can_read(0.01) is False
        found: list[bool] = []
        thread = threading.Thread(
            target=lambda: found.append(websocket.protocol.can_read(timeout=None))
        )
        thread.start()
        os.write(websocket.pipe[1], b"!")
        thread.join(10)
        assert found == [True]
        assert websocket.protocol.can_read(10) is True

    def test_before_it_sleeps(self, open_websocket: Open) -> None:
        """It looks: what is there needs no descriptor."""
        live = open_websocket(Spy)
        live.client.send("hello")
        eventually(live.websocket.has_messages, what="the message")
        assert live.websocket.protocol.can_read(None) is True


class TestWriting:
    """Messages, pings, pongs and the close."""

    def test_messages(self, open_websocket: Open) -> None:
        """As text, or as binary where that is asked for."""
        live = open_websocket()
        write = live.websocket.protocol.write
        assert write("text") is True
        assert live.client.receive() == "text"
        assert write("bytes", binary=True) is True
        assert live.client.receive() == b"bytes"
        assert write(b"bytes", True) is True
        assert live.client.receive() == b"bytes"

    def test_pings(self, open_websocket: Open) -> None:
        """Are the WebSocket's to send."""
        websocket: Any = open_websocket(Spy).websocket
        websocket.protocol.write_ping()
        websocket.protocol.write_ping("there?")
        websocket.protocol.write_ping(payload=b"there?")
        websocket.protocol.write_pong(b"here")
        assert websocket.asked == [
            ("ping", b""), ("ping", b"there?"), ("ping", b"there?"), ("pong", b"here"),
        ]  # fmt: skip

    @pytest.mark.parametrize("call", ["close", "write_close"])
    def test_close(self, open_websocket: Open, call: str) -> None:
        """Closes the WebSocket; its code and reason are the protocol's."""
        live = open_websocket()
        protocol = live.websocket.protocol
        assert (protocol.close_code, protocol.close_reason) == (None, "")
        states = ("closed", "server_terminated", "client_terminated")
        assert [getattr(protocol, state) for state in states] == [False] * 3
        assert protocol.is_closed() is False
        getattr(protocol, call)(4001, b"enough")
        frame = live.client.frame()
        assert frame is not None
        assert (frame.opcode, frame.data) == (Opcode.CLOSE, b"\x0f\xa1enough")
        assert (protocol.close_code, protocol.close_reason) == (4001, "enough")
        assert [getattr(protocol, state) for state in states] == [True] * 3
        assert protocol.is_closed() is True
        getattr(protocol, call)()


class TestSock:
    """The object that `select` takes."""

    def test_descriptor(self, open_websocket: Open) -> None:
        """Is the WebSocket's."""
        websocket: Any = open_websocket(Spy).websocket
        sock = websocket.protocol.sock
        assert sock.fileno() == websocket.fileno()
        assert select.select([sock], [], [], 0)[0] == []
        os.write(websocket.pipe[1], b"!")
        assert sock in select.select([websocket.protocol.sock], [], [], 10)[0]

    def test_close(self, open_websocket: Open) -> None:
        """Closes the WebSocket."""
        live = open_websocket()
        live.websocket.protocol.sock.close()
        assert live.client.closing() == (1000, "")


class TestBelonging:
    """A protocol and its WebSocket."""

    def test_always_the_same(self, open_websocket: Open) -> None:
        """Two looks find the same objects, which can be kept in sets."""
        websocket = open_websocket().websocket
        assert websocket.protocol is websocket.protocol
        assert websocket.protocol.sock is websocket.protocol.sock
        assert len({websocket.protocol, websocket.protocol}) == 1
        assert websocket.protocol != open_websocket().websocket.protocol

    def test_many_threads(self, open_websocket: Open) -> None:
        """All find the same one."""
        websocket = open_websocket().websocket
        start = threading.Barrier(8)
        found: list[WebSocketProtocol13] = []

        def look() -> None:
            start.wait(10)
            found.append(websocket.protocol)

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(found) == 8
        assert len(set(found)) == 1

    @pytest.mark.parametrize("given", [False, True])
    def test_needs_no_collector(self, given: bool) -> None:
        """Both are gone with the WebSocket."""
        gc.disable()
        try:
            websocket = WebSocket(WebSocketProtocol13(None, {}) if given else None)
            assert websocket.protocol.sock is not None
            gone = weakref.ref(websocket), weakref.ref(websocket.protocol)
            del websocket
            assert [each() for each in gone] == [None, None]
        finally:
            gc.enable()

    def test_outlives_its_websocket(self) -> None:
        """The connection counts as closed then."""
        websocket = WebSocket()
        protocol = websocket.protocol
        del websocket
        assert protocol.is_closed() is True
        assert protocol.server_terminated is True
        assert (protocol.close_code, protocol.close_reason) == (None, "")
        assert protocol.write("lost") is False
        assert protocol.sock.fileno() == -1
        protocol.close()
        protocol.sock.close()
        for call in (protocol.can_read, protocol.accept_connection, protocol.write_ping):
            with pytest.raises(ConnectionClosed):
                call()

    def test_end_of_a_websocket_that_is_gone(self) -> None:
        """Is read once, too."""
        protocol = WebSocket().protocol
        assert protocol.read() == (8, None)
        with pytest.raises(EOFError):
            protocol.read()

    def test_without_a_websocket(self) -> None:
        """Without a connection its calls raise an error that says so."""
        protocol = WebSocketProtocol13(None, {})
        calls: list[Callable[[], object]] = [
            protocol.read, protocol.can_read, protocol.close, protocol.is_closed,
            protocol.accept_connection, lambda: protocol.write("lost"),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(UsageError, match=r"DefaultWebSocket\(protocol\) gives it one"):
                call()
