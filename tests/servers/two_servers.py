"""
Run two uvicorn servers in one process; the first one stops. Prints what their clients see.

Arguments: `protocol`, or `django` for our application on uvicorn's own protocol.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def echo(scope, receive, send):
    """Echo, without Django."""
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


def django_application():
    """Give an application of Django with an echoing view."""
    from django.conf import settings

    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="for tests only")
    from django.urls import path

    from dwebsocket import require_websocket
    from dwebsocket.asgi import get_asgi_application

    @require_websocket
    async def view(request):
        async for message in request.websocket:
            await request.websocket.asend(message)

    globals()["urlpatterns"] = [path("", view)]
    return get_asgi_application()


async def started(application, **options):
    """Give a server, the task that it is, and its address."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", **options))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    return server, task, f"ws://127.0.0.1:{port}/"


async def talk(client):
    """Give the answer to a message, or the close code."""
    try:
        await client.send("hello")
        return await client.recv()
    except ConnectionClosed as end:
        return end.rcvd.code


async def main(kind):
    """Start both, and stop one."""
    if kind == "protocol":
        application, options = echo, {"ws": "dwebsocket.uvicorn:WebSocketProtocol"}
    else:
        application, options = django_application(), {"lifespan": "on"}
    first, first_task, first_url = await started(application, **options)
    second, second_task, second_url = await started(application, **options)
    async with connect(first_url) as leaving, connect(second_url) as staying:
        seen = [await talk(leaving), await talk(staying)]
        first.should_exit = True
        await leaving.wait_closed()
        seen.append(leaving.close_code)
        await first_task
        seen.append(await talk(staying))
        try:
            async with connect(second_url) as new:
                seen.append(await talk(new))
        except InvalidStatus as refusal:
            seen.append(refusal.response.status_code)
        second.should_exit = True
        await staying.wait_closed()
        seen.append(staying.close_code)
    await second_task
    print(json.dumps(seen))


asyncio.run(main(sys.argv[1]))
