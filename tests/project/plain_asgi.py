"""ASGI applications without Django, each at a path of its own."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

# What the last application at a path saw, for a request over HTTP.
SEEN: dict[str, Any] = {}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve the application of the path; over HTTP what the last one at the path saw."""
    if scope["type"] == "lifespan":
        return await _follow_lifespan(scope, receive, send)
    name = scope["path"].strip("/")
    if scope["type"] == "http":
        body = json.dumps(SEEN.get(name, {"pid": os.getpid()})).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        return await send({"type": "http.response.body", "body": body})
    assert (await receive()) == {"type": "websocket.connect"}
    return await globals()[name](scope, receive, send)


async def _follow_lifespan(scope: Any, receive: Any, send: Any) -> None:
    while True:
        event = await receive()
        scope["state"]["number"] = 7
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Echo, and note the end, twice."""
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
    SEEN["echo"] = [event, await receive()]


async def scope(scope: Any, receive: Any, send: Any) -> None:
    """Send what the scope has."""
    await send(
        {
            "type": "websocket.accept",
            "subprotocol": scope["subprotocols"][-1],
            "headers": [(b"x-name", b"value")],
        }
    )
    told = {
        "state": scope["state"],
        "query": scope["query_string"].decode(),
        "offered": scope["subprotocols"],
        "extensions": sorted(scope["extensions"]),
        "scheme": scope["scheme"],
        "client": scope["client"][0],
    }
    await send({"type": "websocket.send", "text": json.dumps(told)})


async def closes(scope: Any, receive: Any, send: Any) -> None:
    """Close with a code and a reason."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": 4007, "reason": "enough"})
    SEEN["closes"] = await receive()


async def raises(scope: Any, receive: Any, send: Any) -> None:
    """Fail behind an open connection."""
    await send({"type": "websocket.accept"})
    raise RuntimeError("this application is broken")


async def fails(scope: Any, receive: Any, send: Any) -> None:
    """Fail before deciding."""
    raise RuntimeError("this application cannot decide")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    """Return without closing."""
    await send({"type": "websocket.accept"})


async def undecided(scope: Any, receive: Any, send: Any) -> None:
    """Return without deciding."""


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    """Refuse as ASGI has it without a response."""
    await send({"type": "websocket.close"})


async def denies(scope: Any, receive: Any, send: Any) -> None:
    """Refuse with a response, in two parts."""
    headers = [(b"content-type", b"text/plain"), (b"x-why", b"money")]
    await send({"type": "websocket.http.response.start", "status": 402, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"pay ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"first"})


async def sends_late(scope: Any, receive: Any, send: Any) -> None:
    """Send to a client that has gone."""
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
    try:
        await send({"type": "websocket.send", "text": "late"})
    except OSError as error:
        SEEN["sends_late"] = type(error).__name__


async def floods(scope: Any, receive: Any, send: Any) -> None:
    """Send large messages for ever."""
    await send({"type": "websocket.accept"})
    sent = 0
    try:
        while True:
            await asyncio.wait_for(send({"type": "websocket.send", "bytes": bytes(2**18)}), 1)
            sent += 1
    except TimeoutError:
        SEEN["floods"] = sent
