"""Connections to other servers."""

from dwebsocket import (
    ClientConnection,
    ConnectionFailed,
    ConnectionTimeout,
    HandshakeRefused,
    aconnect,
    connect,
)


def first_message(url: str) -> str | bytes | int | None:
    """In a thread."""
    try:
        with connect(url, headers={"X-Key": "k"}, subprotocols=["v1"], open_timeout=5) as feed:
            subscribe(feed)
            return feed.receive(timeout=5)
    except ConnectionTimeout:
        return None
    except HandshakeRefused as refused:
        return refused.status
    except ConnectionFailed as failed:
        return str(failed)


def subscribe(feed: ClientConnection) -> None:
    """Sends in every way."""
    feed.send("text")
    feed.send_bytes(b"binary")
    feed.send_json({"a": 1})


def all_messages(url: str) -> list[str | bytes]:
    """With reconnecting."""
    found: list[str | bytes] = []
    for feed in connect(url, reconnect=True):
        found.extend(feed)
    return found


async def afirst_message(url: str) -> str | bytes:
    """In an event loop."""
    async with aconnect(url) as feed:
        await feed.asend("text")
        return await feed.areceive(timeout=5)


async def aall_messages(url: str) -> list[str | bytes]:
    """With reconnecting."""
    found: list[str | bytes] = []
    async for feed in aconnect(url, reconnect=True):
        async for message in feed:
            found.append(message)
    return found


def with_functions() -> ClientConnection:
    """Called for each attempt."""
    return connect(
        lambda: "ws://localhost/",
        headers=lambda: {"Authorization": "Bearer 1"},
        subprotocols=lambda: ["v1"],
    )


async def fresh_url() -> str:
    """As a server hands them out."""
    return "ws://localhost/"


async def fresh_headers() -> dict[str, str]:
    """With a token that expires."""
    return {"Authorization": "Bearer 1"}


async def awith_functions() -> str | bytes:
    """Async ones."""
    async with aconnect(fresh_url, headers=fresh_headers) as feed:
        return await feed.areceive()
