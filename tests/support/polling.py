"""A client of the fallback that polls, on bare sockets: one request after the other."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from support.event_stream import Event, Stream, request_bytes
from support.raw_peer import RawPeer, Response
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Self

    from support.server import Server


class Poller(Stream):
    """One connection of the fallback whose client polls; read as a stream is."""

    transport = "polling"

    def __init__(self, server: Server, path: str, response: Response) -> None:
        self.server, self.path, self.response = server, path, response
        self.number = self.ack = 0
        #: Events that have come and were not read yet.
        self.events: list[dict[str, Any]] = []
        self.has_ended = False
        self.headers: dict[str, str] = {}
        self.cookies = response.cookies()
        opened = response.json()
        assert opened.keys() == {"id", "subprotocol"}
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
        """Open a connection; what its requests have in common are `headers`."""
        target = f"{path}?{urlencode([('transport', 'polling'), *query])}"
        with RawPeer(server.address) as peer:
            peer.send(request_bytes(target, server.host, headers, http) + early)
            response = peer.read_response()
        assert response.status == 200, response
        assert response.header("Content-Type") == "application/json"
        poller = cls(server, path, response)
        poller.headers = {**(headers or {})}
        return poller

    def __exit__(self, *exc: object) -> None:
        """Leave without a word."""

    # --- what comes ----------------------------------------------------------------------------

    def event(self) -> Event:
        """Read one event, with as many polls as it takes."""
        while not self.events:
            if self.has_ended:
                return "end", None
            self.take(self.poll())
        event = self.events.pop(0)
        ((kind, data),) = event.items()
        if kind == "close":
            # The acknowledgement of the last event has nothing more to get.
            assert not self.events
            assert self.poll().status == 410
            self.has_ended = True
        return kind, base64.b64decode(data, validate=True) if kind == "binary" else data

    def poll(self, ack: int | str | None = None, **how: Any) -> Response:
        """Make one poll, to its end."""
        with self.begin_poll(ack, **how) as peer:
            return peer.read_response()

    def begin_poll(
        self,
        ack: int | str | None = None,
        *,
        name: str | None = None,
        path: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> RawPeer:
        """Begin a poll, which may be held."""
        query = {
            "transport": "polling",
            "id": self.id if name is None else name,
            "ack": self.ack if ack is None else ack,
        }
        peer = RawPeer(self.server.address)
        target = f"{self.path if path is None else path}?{urlencode(query)}"
        peer.send(request_bytes(target, self.server.host, {**self.headers, **(headers or {})}))
        return peer

    @contextlib.contextmanager
    def held_poll(self) -> Iterator[RawPeer]:
        """Begin a poll, and wait until the site has nothing to answer it with."""

        def held() -> int:
            return self.server.stdout().count("a poll is held")

        before = held()
        with self.begin_poll() as peer:
            eventually(lambda: held() > before, what="the poll is held")
            yield peer

    def take(self, response: Response) -> None:
        """Take an answer in, to be acknowledged by the next poll."""
        assert response.status == 200, response
        answer = response.json()
        assert answer.keys() == {"n", "events"}
        assert answer["n"] == self.ack + len(answer["events"])
        self.events += answer["events"]
        self.ack = answer["n"]
