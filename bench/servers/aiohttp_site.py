"""Subject aiohttp: its web server on uvloop, on the listening socket whose descriptor is given."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop
from aiohttp import WSMsgType, web

members = []


async def echo(request):
    """Send every message back."""
    websocket = web.WebSocketResponse(compress=False, max_msg_size=2**24)
    await websocket.prepare(request)
    async for message in websocket:
        if message.type == WSMsgType.TEXT:
            await websocket.send_str(message.data)
        else:
            await websocket.send_bytes(message.data)
    return websocket


async def chat(request):
    """Send every message to all members."""
    websocket = web.WebSocketResponse(compress=False)
    await websocket.prepare(request)
    members.append(websocket)
    try:
        async for message in websocket:
            for member in list(members):
                await member.send_str(message.data)
    finally:
        members.remove(websocket)
    return websocket


async def ready(request):
    """Answer the benchmark's question."""
    return web.Response(text="ready")


application = web.Application()
application.add_routes([web.get("/ready", ready), web.get("/echo", echo), web.get("/chat", chat)])
asyncio.set_event_loop(uvloop.new_event_loop())
web.run_app(application, sock=socket.socket(fileno=int(sys.argv[1])), access_log=None, print=None)
