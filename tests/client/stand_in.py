"""
A stand-in for what views do with `resume=True` and `fallback=True`: the wire only, no Django.

It numbers the messages of one group, tells a client that comes back whether it could catch up, and
serves WebSockets, server-sent events and long polling at one URL. Tests tell it what to break.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from support.server import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

GROUP = "room-42"
MODULES = ROOT / "python" / "dwebsocket" / "static"
PAGES = {".html": "text/html", ".js": "text/javascript"}


class Connection:
    """One client: what it is to get, in order, and what of its POSTs has been applied."""

    def __init__(self, transport: str) -> None:
        self.id = secrets.token_hex(8)
        self.transport = transport
        self.events: list[dict[str, Any]] = []
        self.forgotten = 0
        self.more = asyncio.Event()
        self.last_post = 0
        self.cut: Callable[[], object] = lambda: None

    def put(self, **event: Any) -> None:
        """Have the client get an event."""
        self.events.append(event)
        self.more.set()

    async def next(self, number: int) -> list[dict[str, Any]]:
        """Wait for events behind a number."""
        while len(self.events) + self.forgotten <= number:
            self.more.clear()
            await self.more.wait()
        return self.events[number - self.forgotten :]


class StandIn:
    """
    The server; use as a context manager.

    Attributes:
        opened: The transport and the query of each connection.
        received: The transport and the message of each message.
        referers: What each connection names as its page.
        posts: The headers of each POST.
        websockets: Whether handshakes are answered.
        buffers: Whether a proxy keeps what belongs to a stream.
        post_status: What POSTs are answered with, None: they are applied.
        lost_answers: How many POSTs are applied without an answer.
        pages: Texts by their path.
    """

    def __init__(self) -> None:
        self.epoch, self.offset = "e-1", 0
        self.entries: list[tuple[int, str | bytes]] = []
        self.opened: list[tuple[str, list[tuple[str, str]]]] = []
        self.received: list[tuple[str, str | bytes]] = []
        self.referers: list[str | None] = []
        self.posts: list[dict[str, str]] = []
        self.websockets, self.buffers = True, False
        self.post_status: int | None = None
        self.lost_answers = 0
        self.pages: dict[str, str] = {}
        self.connections: dict[str, Connection] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # --- what tests do ------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self._start)
        return self

    def __exit__(self, *exc: object) -> None:
        self.cut()
        self.call(self._runner.cleanup)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on the server's thread."""

        async def run() -> Any:
            result = function(*arguments)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    def publish(self, *messages: str | bytes) -> None:
        """Number messages, keep them and send them to all."""
        self.call(self._publish, messages)

    def say(self, message: Any) -> None:
        """Send a message that is not numbered."""
        text = message if isinstance(message, str) else json.dumps(message)
        self.call(lambda: [each.put(text=text) for each in self.connections.values()])

    def close(self, code: int, reason: str = "") -> None:
        """Close all connections."""
        close = {"code": code, "reason": reason}
        self.call(lambda: [each.put(close=close) for each in self.connections.values()])

    def cut(self) -> None:
        """Break all connections, without a word."""
        self.call(lambda: [each.cut() for each in list(self.connections.values())])

    def begin_epoch(self, epoch: str) -> None:
        """Forget all messages, and number anew."""
        self.epoch, self.offset, self.entries = epoch, 0, []

    # --- groups -------------------------------------------------------------------------------

    def _publish(self, messages: tuple[str | bytes, ...]) -> None:
        for message in messages:
            self.offset += 1
            self.entries.append((self.offset, message))
            for connection in self.connections.values():
                connection.put(text=self._numbered(self.offset, message))

    def _numbered(self, offset: int, message: str | bytes) -> str:
        data: dict[str, Any] = {"group": GROUP, "position": f"{self.epoch}-{offset}"}
        if isinstance(message, bytes):
            return json.dumps({**data, "data": _base64(message), "binary": True})
        return json.dumps({**data, "data": message})

    def _join(self, connection: Connection, request: web.Request) -> None:
        self.opened.append((connection.transport, list(request.query.items())))
        self.referers.append(request.headers.get("Referer"))
        since = [value for value in request.query.getall("since", []) if value.startswith(GROUP)]
        missed: list[tuple[int, str | bytes]] = []
        recovered = True
        if since:
            epoch, _, offset = since[0].removeprefix(f"{GROUP}:").rpartition("-")
            missed = [entry for entry in self.entries if entry[0] > int(offset)]
            recovered = epoch == self.epoch and len(missed) == self.offset - int(offset)
            missed = missed if recovered else []
        position = f"{self.epoch}-{self.offset}"
        told = {"recovered": recovered, "missed": len(missed), "position": position}
        own = {"id": connection.id} if "former" in request.query else {}
        for entry in missed:
            connection.put(text=self._numbered(*entry))
        connection.put(text=json.dumps({"group": GROUP, **told, **own}))
        self.connections[connection.id] = connection

    # --- requests -----------------------------------------------------------------------------

    async def _start(self) -> None:
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/ws/{rest:.*}", self._answer)
        application.router.add_static("/static", MODULES)
        application.router.add_get("/{name:.*}", self._page)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.address: tuple[str, int] = self._runner.addresses[0]
        self.url = "http://{}:{}".format(*self.address)

    async def _page(self, request: web.Request) -> web.Response:
        if (text := self.pages.get(request.path)) is None:
            return web.Response(status=404)
        kind = PAGES.get(Path(request.path).suffix, "text/html")
        response = web.Response(text=text, content_type=kind)
        response.set_cookie("csrftoken", "the-token")
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.query.get("transport", "websocket")
        if request.method == "POST":
            return await self._post(request)
        if transport == "sse":
            return await self._stream(request)
        if transport == "polling":
            return await self._poll(request)
        if not self.websockets:
            return web.Response(text="a page")
        return await self._websocket(request)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        connection = Connection("websocket")
        websocket = web.WebSocketResponse(protocols=("chat",))
        await websocket.prepare(request)
        assert request.transport is not None
        connection.cut = request.transport.abort
        self._join(connection, request)
        writer = asyncio.create_task(self._write(connection, websocket))
        try:
            async for message in websocket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self._receive(connection, message.data)
        finally:
            writer.cancel()
            self.connections.pop(connection.id, None)
        return websocket

    async def _write(self, connection: Connection, websocket: web.WebSocketResponse) -> None:
        number = 0
        while True:
            for event in await connection.next(number):
                number += 1
                if close := event.get("close"):
                    await websocket.close(code=close["code"], message=close["reason"].encode())
                    return
                await websocket.send_str(event["text"])

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.buffers:
            # Until the server ends: it hears nothing of a client that has had enough.
            await asyncio.Event().wait()
        connection = Connection("sse")
        assert request.transport is not None
        connection.cut = request.transport.abort
        opened = {"id": connection.id, "subprotocol": request.query.get("protocol", "")}
        await response.write(_event("open", json.dumps(opened)))
        self._join(connection, request)
        number = 0
        try:
            while True:
                for event in await connection.next(number):
                    number += 1
                    if "close" in event:
                        await response.write(_event("close", json.dumps(event["close"])))
                        return response
                    await response.write(_event("message", event["text"]))
        finally:
            self.connections.pop(connection.id, None)

    async def _poll(self, request: web.Request) -> web.Response:
        if (number := request.query.get("ack")) is None:
            connection = Connection("polling")
            connection.cut = lambda: self.connections.pop(connection.id, None)
            self._join(connection, request)
            subprotocol = request.query.get("protocol", "")
            return web.json_response({"id": connection.id, "subprotocol": subprotocol})
        found = self.connections.get(request.query["id"])
        if found is None:
            return web.Response(status=410)
        ack = int(number)
        del found.events[: ack - found.forgotten]
        found.forgotten = ack
        try:
            events = await asyncio.wait_for(found.next(ack), 1)
        except asyncio.TimeoutError:
            events = []
        if self.connections.get(found.id) is None:
            return web.Response(status=410)
        if any("close" in event for event in events):
            self.connections.pop(found.id)
        return web.json_response({"n": ack + len(events), "events": events})

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.posts.append(dict(request.headers))
        if self.post_status is not None:
            return web.Response(status=self.post_status)
        connection = self.connections.get(request.query["id"])
        if connection is None:
            return web.Response(status=410)
        if body["n"] == connection.last_post + 1:
            connection.last_post += 1
            for message in body["messages"]:
                if close := message.get("close"):
                    connection.put(close=close)
                elif "text" in message:
                    self._receive(connection, message["text"])
                else:
                    self._receive(connection, base64.b64decode(message["binary"]))
        if self.lost_answers:
            self.lost_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=204)

    def _receive(self, connection: Connection, message: str | bytes) -> None:
        self.received.append((connection.transport, message))
        if isinstance(message, str) and message.startswith('{"id"'):
            asked = json.loads(message)
            connection.put(text=json.dumps({"id": asked["id"], "data": {"got": asked["data"]}}))


def _event(name: str, data: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {name}\n{lines}\n".encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
