"""A client of the fallback on a bare socket: a stream of server-sent events, and POSTs."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from support.raw_peer import RawPeer, Response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from support.server import Server

Event = tuple[str, Any]


def request_bytes(
    path: str, host: str, headers: Mapping[str, str] | None = None, http: str = "HTTP/1.1"
) -> bytes:
    """Build a GET request."""
    fields = {"Host": host, "Accept": "text/event-stream", **(headers or {})}
    lines = [f"GET {path} {http}", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Stream:
    """One connection of the fallback with server-sent events."""

    transport = "sse"

    def __init__(self, server: Server, path: str, peer: RawPeer, response: Response) -> None:
        self.server = server
        self.path = path
        self.peer = peer
        self.response = response
        #: What has come of the events and was not read yet.
        self.text = bytearray()
        self.comments = 0
        self.number = 0
        self.cookies = response.cookies()
        self.headers: dict[str, str] = {}
        kind, opened = self.event()
        assert kind == "open", (kind, opened)
        self.id = opened["id"]
        self.subprotocol = opened["subprotocol"]

    @classmethod
    def open(
        cls,
        server: Server,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        http: str = "HTTP/1.1",
        query: Sequence[tuple[str, str]] = (),
        early: bytes = b"",
    ) -> Self:
        """Open a stream; what its requests have in common are `headers`."""
        peer = RawPeer(server.address)
        try:
            target = f"{path}?{urlencode([('transport', cls.transport), *query])}"
            peer.send(request_bytes(target, server.host, headers, http) + early)
            response = head_of(peer)
            assert response.status == 200, response
            assert (response.header("Content-Type") or "").startswith("text/event-stream")
            stream = cls(server, path, peer, response)
        except BaseException:
            peer.close()
            raise
        stream.headers = {**(headers or {})}
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.peer.close()

    # --- what comes ----------------------------------------------------------------------------

    def event(self) -> Event:
        """Read one event: a text, bytes, or the JSON of `open` and `close`. Counts comments."""
        while True:
            block = self._block()
            if block is None:
                return "end", None
            fields = [line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")]
            if not fields:
                self.comments += 1
                continue
            assert fields[0][0] == "event", block
            assert all(field[0] == "data" for field in fields[1:]), block
            data = "\n".join(field[1] for field in fields[1:])
            return _decoded(fields[0][1], data)

    def message(self) -> str | bytes:
        """Read one message."""
        kind, data = self.event()
        assert kind in ("message", "text", "binary"), (kind, data)
        return data

    def close_event(self) -> tuple[int, str]:
        """Read up to the close event, which must be the last; return its code and reason."""
        while True:
            kind, data = self.event()
            assert kind != "end", "the stream ended without a close event"
            if kind == "close":
                assert self.event()[0] == "end"
                return data["code"], data["reason"]

    def _block(self) -> str | None:
        while b"\n\n" not in self.text:
            if not self.fill():
                assert not self.text, bytes(self.text)
                return None
        end = self.text.index(b"\n\n")
        block = bytes(self.text[:end])
        del self.text[: end + 2]
        return block.decode()

    def fill(self) -> bool:
        """Read some more of the events; False at the end of the stream."""
        buffer = self.peer.buffer
        if not buffer and not self.peer._fill():
            return False
        if self.response.header("Transfer-Encoding") is None:
            self.text += buffer
            buffer.clear()
            return True
        # A proxy cuts the stream into chunks.
        while (end := buffer.find(b"\r\n")) < 0 or len(buffer) < end + 4 + int(buffer[:end], 16):
            if not self.peer._fill():
                return False
        size = int(buffer[:end], 16)
        self.text += buffer[end + 2 : end + 2 + size]
        del buffer[: end + 4 + size]
        return size > 0

    # --- what goes -----------------------------------------------------------------------------

    def send(self, *messages: str | bytes) -> None:
        """Post messages, which must be taken."""
        response = self.post(*messages)
        assert (response.status, response.body) == (204, b""), response

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Post a close, which must be taken."""
        close = {"close": {"code": code, "reason": reason}}
        response = self.post_body({"n": self.next(), "messages": [close]})
        assert response.status == 204, response

    def post(self, *messages: str | bytes, n: int | None = None, **how: Any) -> Response:
        """Post messages under the next number, or `n`; `how` as for `post_body`."""
        number = self.next() if n is None else n
        return self.post_body({"n": number, "messages": list(map(_part, messages))}, **how)

    def next(self) -> int:
        """Return the next number of a POST."""
        self.number += 1
        return self.number

    def post_body(
        self,
        body: Any,
        *,
        headers: Mapping[str, str | None] | None = None,
        name: str | None = None,
        path: str | None = None,
        chunked: bool = False,
    ) -> Response:
        """Post anything, with the CSRF token as a browser has it; `None` leaves a header out."""
        query = urlencode({"transport": self.transport, "id": self.id if name is None else name})
        cookies = dict(self.cookies)
        for each in filter(None, re.split("; ?", self.headers.get("Cookie", ""))):
            cookies.__setitem__(*each.split("=", 1))
        fields: dict[str, str | None] = {
            "Content-Type": "application/json",
            "Origin": f"http{'s' if self.server.kind.tls else ''}://{self.server.host}",
            **self.headers,
            "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()) or None,
            "X-CSRFToken": cookies.get("csrftoken"),
            **(headers or {}),
        }
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name: value for name, value in fields.items() if value is not None}
        target = f"{self.path if path is None else path}?{query}"
        return post(self.server, target, data, given, chunked=chunked)


def post(
    server: Server, path: str, body: bytes, headers: Mapping[str, str], *, chunked: bool = False
) -> Response:
    """Make one POST on a connection of its own; its body has a length, or comes in chunks."""
    with RawPeer(server.address) as peer:
        fields = {"Host": server.host, "Connection": "close"}
        if chunked:
            fields["Transfer-Encoding"] = "chunked"
            body = b"".join(map(_chunk, (body[:7], body[7:], b""))) if body else _chunk(b"")
        else:
            fields["Content-Length"] = str(len(body))
        lines = [f"POST {path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**fields, **headers}.items()]
        peer.send(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        return peer.read_response()


def head_of(peer: RawPeer) -> Response:
    """Read the head of a response whose body has no end; of another, the body as well."""
    while b"\r\n\r\n" not in peer.buffer:
        assert peer._fill(), bytes(peer.buffer)
    head, _, _ = bytes(peer.buffer).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200") or b"text/event-stream" not in head.lower():
        return peer.read_response()
    del peer.buffer[: len(head) + 4]
    lines = head.decode("latin-1").split("\r\n")
    headers = [
        (name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])
    ]
    return Response(int(lines[0].split()[1]), headers, b"")


def _decoded(kind: str, data: str) -> Event:
    if kind == "message":
        return kind, data
    if kind == "text":
        return kind, base64.b64decode(data, validate=True).decode()
    if kind == "binary":
        return kind, base64.b64decode(data, validate=True)
    return kind, json.loads(data)


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def _part(message: str | bytes) -> dict[str, str]:
    if isinstance(message, str):
        return {"text": message}
    return {"binary": base64.b64encode(message).decode()}
