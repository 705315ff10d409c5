"""ASGI applications without Django, each at a path of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

# What the last application at each path has noted, for requests over HTTP.
SEEN: dict[str, Any] = {}
# Applications that wait for a request for /go/.
WAITING: list[asyncio.Event] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve the application of the path; over HTTP what the last one at the path saw."""
    if scope["type"] == "lifespan":
        return await _follow_lifespan(scope, receive, send)
    path = scope["path"].removeprefix(scope["root_path"])
    name = path.strip("/").partition("/")[0]
    if scope["type"] == "http":
        if name == "go":
            for event in WAITING:
                event.set()
        body = json.dumps(SEEN.get(path, {"pid": os.getpid()})).encode()
        if name == "unread":
            # More than the system takes for a client that reads nothing.
            body = bytes(2**25)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        return await send({"type": "http.response.body", "body": body})
    assert (await receive()) == {"type": "websocket.connect"}
    return await globals()[name](scope, receive, send)


async def _follow_lifespan(scope: Any, receive: Any, send: Any) -> None:
    while True:
        event = await receive()
        scope["state"].update(number=7, visits=[])
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Echo, and note the end."""
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})
    note(scope, event)


async def asks_again(scope: Any, receive: Any, send: Any) -> None:
    """Note each event, and the end by the server."""
    await send({"type": "websocket.accept"})
    events = []
    try:
        while True:
            events.append(await receive())
    finally:
        await asyncio.sleep(0.5)
        note(scope, [*events, "ended"])


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
        "number": scope["state"]["number"],
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
    note(scope, await receive())


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
        note(scope, type(error).__name__)


async def floods(scope: Any, receive: Any, send: Any) -> None:
    """Send large messages for ever."""
    await send({"type": "websocket.accept"})
    sent = 0
    try:
        while True:
            await asyncio.wait_for(send({"type": "websocket.send", "bytes": bytes(2**18)}), 1)
            sent += 1
    except TimeoutError:
        note(scope, sent)


def note(scope: Any, value: Any) -> None:
    """Keep what an application saw, for a request to its path."""
    SEEN[scope["path"].removeprefix(scope["root_path"])] = value


def _plain(value: Any) -> Any:
    """Make JSON of a scope: bytes as Latin-1."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


async def whole_scope(scope: Any, receive: Any, send: Any) -> None:
    """Send the scope."""
    await send({"type": "websocket.accept"})
    told = {name: _plain(value) for name, value in scope.items()}
    await send({"type": "websocket.send", "text": json.dumps(told)})


async def visits(scope: Any, receive: Any, send: Any) -> None:
    """Send the state, and change it."""
    state = scope["state"]
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps(state)})
    state["visits"].append(state["number"])
    state["number"] += 1


async def closes_as_told(scope: Any, receive: Any, send: Any) -> None:
    """Close with what the client asks for, and note the event after it."""
    await send({"type": "websocket.accept"})
    wanted = json.loads((await receive())["text"])
    await send({"type": "websocket.close", **wanted})
    note(scope, await receive())


async def sends_behind_close(scope: Any, receive: Any, send: Any) -> None:
    """Close, and note what another message and another close raise."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "123"})
    await send({"type": "websocket.close"})
    raised = []
    for event in ({"type": "websocket.send", "text": "late"}, {"type": "websocket.close"}):
        try:
            await send(event)
            raised.append(None)
        except OSError as error:
            raised.append(type(error).__name__)
    note(scope, raised)


async def accepts_twice(scope: Any, receive: Any, send: Any) -> None:
    """Accept what is open."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.accept"})


async def returns_something(scope: Any, receive: Any, send: Any) -> Any:
    """Return a value."""
    await send({"type": "websocket.accept"})
    return 123


async def sends_first(scope: Any, receive: Any, send: Any) -> None:
    """Send before accepting."""
    await send({"type": "websocket.send", "text": "123"})


async def agrees_on_another(scope: Any, receive: Any, send: Any) -> None:
    """Accept with a subprotocol that the client does not offer."""
    await send({"type": "websocket.accept", "subprotocol": "other"})


async def refuses_and_waits(scope: Any, receive: Any, send: Any) -> None:
    """Refuse, and note the event behind."""
    await send({"type": "websocket.close"})
    note(scope, await receive())


def _start(status: int, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}


def _body(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "websocket.http.response.body", "body": body, "more_body": more}


async def denies_and_waits(scope: Any, receive: Any, send: Any) -> None:
    """Refuse with a response in parts, whose headers have no length, and note the event behind."""
    cookies = [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
    await send(_start(400, *cookies, (b"X-Raw", b"caf\xe9")))
    for part in (b"x" * 10, b"", b"y" * 10):
        await send(_body(part, more=True))
    await send(_body(b""))
    note(scope, await receive())


async def denies_with_700(scope: Any, receive: Any, send: Any) -> None:
    """Refuse with a status that there is not."""
    await send(_start(700))


async def denies_with_lines(scope: Any, receive: Any, send: Any) -> None:
    """Refuse with a header of two lines."""
    await send(_start(402, (b"x-why", b"money\r\nx-other: yes")))
    await send(_body(b"pay"))


async def denies_without_body(scope: Any, receive: Any, send: Any) -> None:
    """Begin a response only."""
    await send(_start(404))


async def denies_twice(scope: Any, receive: Any, send: Any) -> None:
    """Begin a response twice, note the error, and send the body."""
    await send(_start(404))
    try:
        await send(_start(402))
    except RuntimeError as error:
        note(scope, str(error))
    await send(_body(b"not here"))


async def waits_first(scope: Any, receive: Any, send: Any) -> None:
    """Wait for the next event before deciding."""
    note(scope, "waiting")
    event = await receive()
    note(scope, event)
    print("it waited for", event, file=sys.stderr, flush=True)


async def accepts_late(scope: Any, receive: Any, send: Any) -> None:
    """Accept after a request for /go/, echo, and note the end."""
    note(scope, "waiting")
    await _go()
    try:
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
        note(scope, event)
    except OSError as error:
        note(scope, type(error).__name__)
        raise


async def gives_up(scope: Any, receive: Any, send: Any) -> None:
    """Accept within a time that is too short; after a request for /go/ do what the path says."""
    try:
        await asyncio.wait_for(send({"type": "websocket.accept"}), 0.05)
    except asyncio.TimeoutError:
        note(scope, "given up")
    await _go()
    then = scope["path"].strip("/").rpartition("/")[2]
    if then == "fails":
        raise RuntimeError("this application has had no time")
    await send({"type": f"websocket.{then}"})


async def decides_twice(scope: Any, receive: Any, send: Any) -> None:
    """Accept in one task; do what the path says in another one as long as that waits."""
    accepting = asyncio.create_task(send({"type": "websocket.accept"}))
    await asyncio.sleep(0)
    note(scope, "waiting")
    if scope["path"].endswith("/send/"):
        await send({"type": "websocket.send", "text": "at last"})
    await send({"type": "websocket.close", "code": 4007})
    await accepting
    note(scope, await receive())


async def accepts_anew(scope: Any, receive: Any, send: Any) -> None:
    """Accept with a header that there is not, and then without it."""
    try:
        await send({"type": "websocket.accept", "headers": [(b"x-why", b"two\r\nlines")]})
    except ValueError:
        await send({"type": "websocket.accept"})


async def reads_late(scope: Any, receive: Any, send: Any) -> None:
    """Read after a request for /go/, and note all events."""
    await send({"type": "websocket.accept"})
    await _go()
    events = [await receive()]
    while events[-1]["type"] != "websocket.disconnect":
        events.append(await receive())
    note(scope, [event.get("text") or [event.get("code"), event.get("reason")] for event in events])


async def ends_late(scope: Any, receive: Any, send: Any) -> None:
    """Go on for a while when the client has gone."""
    await send({"type": "websocket.accept"})
    event = await receive()
    note(scope, event)
    await asyncio.sleep(0.5)
    print("it has ended behind", event["code"], file=sys.stderr, flush=True)


async def _go() -> None:
    WAITING.append(asyncio.Event())
    await WAITING[-1].wait()
