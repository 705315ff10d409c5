"""Rooms on servers: over WebSockets, and over the fallback for clients without them."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest

from support.event_stream import Stream
from support.polling import Poller
from support.raw_peer import RawPeer
from support.server import GUNICORN_GTHREAD, UVICORN

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.server import Server

pytestmark = [
    pytest.mark.parametrize("server", [GUNICORN_GTHREAD, UVICORN], indirect=True, ids=str),
    pytest.mark.parametrize("kind", ["sync", "async"]),
]


def converse(name: str, send: Callable[[str], Any], receive: Callable[[], Any]) -> None:
    """Join a room, say something, leave it, and ask for what there is not."""

    def take() -> Any:
        return json.loads(receive())

    def ask(**request: Any) -> None:
        send(json.dumps(request))

    ask(id=1, join=name, info={"name": "me"})
    answer = take()
    assert answer["id"] == 1
    assert answer["ok"]["count"] == 1
    ask(id=2, to=name, event="say", data={"n": 1})
    found = sorted((take(), take()), key=lambda message: "id" in message)
    assert found == [
        {"room": name, "position": None, "data": '{"n": 1}'},
        {"id": 2, "ok": "say"},
    ]
    ask(id=3, leave=name)
    assert take() == {"id": 3, "ok": {}}
    ask(id=4, join="nothing")
    assert take()["error"]["code"] == "unknown"
    ask(ping=1)
    assert take() == {"pong": 1}


def test_a_conversation(server: Server, kind: str) -> None:
    """Over a WebSocket of a client that offers no subprotocol."""
    with RawPeer.open(server, f"/live-rooms/{kind}/") as peer:
        converse(f"{kind}-{secrets.token_hex(4)}", peer.send_text, peer.read_message)


def test_a_conversation_by_polling(server: Server, kind: str) -> None:
    """With the same messages."""
    query = [("subprotocol", "dwebsocket.rooms.1")]
    poller = Poller.open(server, f"/live-rooms/{kind}/", query=query)
    converse(f"{kind}-{secrets.token_hex(4)}", poller.send, poller.message)
    poller.close(1000, "")


@pytest.mark.parametrize("client", [Stream, Poller])
def test_twenty_joins_in_one_post(server: Server, kind: str, client: type[Stream]) -> None:
    """Each has its answer, in order; then what comes in any of the rooms."""
    names = [f"{kind}-{secrets.token_hex(4)}" for _ in range(20)]
    with client.open(server, f"/live-rooms/{kind}/") as page:
        page.send(*(json.dumps({"id": number, "join": name}) for number, name in enumerate(names)))
        answers = [json.loads(page.message()) for _ in names]
        assert [(each["id"], each["ok"]["count"]) for each in answers] == [
            (number, 1) for number in range(len(names))
        ]
        page.send(*(json.dumps({"to": name, "event": "say", "data": name}) for name in names))
        assert [json.loads(page.message()) for _ in names] == [
            {"room": name, "position": None, "data": json.dumps(name)} for name in names
        ]


@pytest.mark.parametrize("client", [Stream, Poller])
def test_an_event_goes_on_as_it_was_written(
    server: Server, kind: str, client: type[Stream]
) -> None:
    """Over each transport, both ways, also with lines within it."""
    name = f"{kind}-{secrets.token_hex(4)}"

    def receive(source: Any, wanted: str) -> str:
        while True:
            found = source.message() if source is page else source.read_message().decode()
            if wanted in found:
                return str(found)

    with (
        client.open(server, f"/live-rooms/{kind}/") as page,
        RawPeer.open(server, f"/live-rooms/{kind}/") as peer,
    ):
        ways = ((page, page.send, peer), (peer, peer.send_text, page))
        for source, send, _ in ways:
            send(json.dumps({"id": 1, "join": name}))
            receive(source, '"id"')
        for number in range(20):
            for _, send, other in ways:
                data = f'[{number},\n"\\u00e9é" ]'
                send(f'{{"to":"{name}", "event":"typing", "data": {data}}}')
                assert f'"data":{data},' in receive(other, '"event"')
