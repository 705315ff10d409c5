"""`dwebsocket.uvicorn`: what a server that ends does with handshakes, without that server."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from support.fresh import failures

# Clients whose server ends when their tasks have had STEPS steps. The application accepts after
# PAUSES of its own.
PROGRAM = r"""
import asyncio, logging, socket
from uvicorn.config import Config
from uvicorn.server import ServerState
from dwebsocket.uvicorn import WebSocketProtocol

logging.disable()

async def application(scope, receive, send):
    await receive()
    for _ in range(PAUSES):
        await asyncio.sleep(0)
    await send({"type": "websocket.accept"})
    await receive()

async def main():
    state, loop = ServerState(), asyncio.get_running_loop()
    config = Config(application, ws=WebSocketProtocol, lifespan="off")
    clients = []
    for _ in range(2):
        client, server = socket.socketpair()
        client.settimeout(60)
        clients.append(client)
        await loop.connect_accepted_socket(lambda: WebSocketProtocol(config, state, {}), server)
    for protocol in state.connections:
        protocol.data_received(
            b"GET /chat HTTP/1.1\r\nHost: testserver\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n"
        )
    for _ in range(STEPS):
        await asyncio.sleep(0)
    for protocol in list(state.connections):
        protocol.shutdown()
    for client in clients:
        found = await loop.run_in_executor(None, client.makefile("rb").read)
        client.close()
        heads = [line for line in found.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        assert [head[9:12] for head in heads] == EXPECTED, found
        assert (b"\x88\x0c\x03\xe9going away" in found) == (EXPECTED == [b"101"]), found
    while state.connections or state.tasks:
        await asyncio.sleep(0.01)

asyncio.run(asyncio.wait_for(main(), 60))
"""


@pytest.mark.skipif(find_spec("uvicorn") is None, reason="needs uvicorn")
def test_a_server_that_ends_right_after_a_request() -> None:
    """However far their tasks are, no client is left out, and each gets one answer."""
    cases = ((0, 0, []), (0, 1, []), (1, 0, [b"101"]), (1, 1, [b"503"]), (1, 3, [b"503"]))
    given = [f"STEPS, PAUSES, EXPECTED = {case}" for case in cases]
    assert failures([each + PROGRAM for each in given]) == {}
