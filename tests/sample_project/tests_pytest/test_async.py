"""Async tests, by pytest-asyncio and by anyio."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from chat import handlers, views
from chat.models import Note
from dwebsocket.testing import ViewStillRuns


@pytest.mark.asyncio
async def test_async_view(async_websocket_client):
    async with async_websocket_client.websocket("/aecho/") as ws:
        await ws.send("hello")
        assert await ws.receive(timeout=5) == "hello"
        await ws.send_bytes(b"\x00")
        assert await ws.receive() == b"\x00"
        await ws.ping()
        await ws.send("bye")
        assert await ws.wait_closed() == 4000


@pytest.mark.asyncio
async def test_sync_view(async_websocket_client):
    async with async_websocket_client.websocket("/echo/", subprotocols=["chat.v1"]) as ws:
        await ws.send_json([1, 2])
        assert await ws.receive_json() == [1, 2]
        assert ws.subprotocol == "chat.v1"


@pytest.mark.asyncio
async def test_two_clients_at_once(async_websocket_client):
    client = async_websocket_client
    async with client.websocket("/arooms/a/") as ada, client.websocket("/arooms/a/") as grace:
        welcome = "welcome to a"
        assert await asyncio.gather(ada.receive(), grace.receive()) == [welcome, welcome]
        await ada.send("hello")
        assert await asyncio.gather(ada.receive(), grace.receive()) == ["hello", "hello"]


@pytest.mark.asyncio
async def test_database(async_websocket_client, db):
    await Note.objects.acreate(text="from the test")
    async with async_websocket_client.websocket("/anotes/") as ws:
        assert await ws.receive_json() == ["from the test"]
        await ws.send("from the view")
        assert await ws.receive_json() == 2


@pytest.mark.asyncio
async def test_user(async_websocket_client, db):
    # `acreate_user` and `aforce_login`, from Django 5.0 on.
    user = await sync_to_async(User.objects.create_user)("ada")
    await sync_to_async(async_websocket_client.force_login)(user)
    async with async_websocket_client.websocket("/me/") as ws:
        assert (await ws.receive_json())["user"] == "ada"


@pytest.mark.asyncio
async def test_exception(async_websocket_client):
    async with async_websocket_client.websocket("/afail/") as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"
        with pytest.raises(ValueError, match="cannot stand 'hello'"):
            await ws.receive()


@pytest.mark.asyncio
async def test_timeout_of_a_view(async_websocket_client, websocket_clock):
    async with async_websocket_client.websocket("/apatient/") as ws:
        await websocket_clock.aadvance(61)
        assert await ws.receive() == "too slow"


@pytest.mark.asyncio
async def test_view_that_never_ends(async_websocket_client):
    views.begun.clear()
    views.release.clear()
    with pytest.raises(ViewStillRuns, match=r"chat\.views\.astuck"):  # noqa: PT012
        async with async_websocket_client.websocket("/astuck/") as ws:
            assert await asyncio.to_thread(views.begun.wait, 60)
            ws.timeout = 0.05
    views.release.set()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


@pytest.mark.anyio
async def test_anyio(async_websocket_client):
    async with async_websocket_client.websocket("/aecho/") as ws:
        await ws.send("hello")
        assert await ws.receive() == "hello"
    assert ws.close_code == 1000


@pytest.mark.anyio
async def test_anyio_database(async_websocket_client, db):
    async with async_websocket_client.websocket("/anotes/") as ws:
        assert await ws.receive_json() == []
        await ws.send("from the view")
        assert await ws.receive_json() == 1


@pytest.fixture(params=["/aecho/", "/aclubs/red/", "/mixed-clubs/red/"])
def open_one(request, db):
    """Open a WebSocket that the test leaves open."""
    handlers.ends.clear()

    async def open_one(client):
        user = await sync_to_async(User.objects.create_user)("ada")
        await sync_to_async(client.force_login)(user)
        ws = await client.websocket(request.param).__aenter__()
        await ws.send("here?")
        await ws.receive()

    yield open_one
    assert handlers.ends == ({} if request.param == "/aecho/" else {request.param: (1000, "")})


@pytest.mark.asyncio
async def test_left_open(open_one, async_websocket_client):
    await open_one(async_websocket_client)


@pytest.mark.asyncio(loop_scope="module")
async def test_left_open_in_a_loop_that_goes_on(open_one, async_websocket_client):
    await open_one(async_websocket_client)


@pytest.mark.anyio
async def test_left_open_anyio(open_one, async_websocket_client):
    await open_one(async_websocket_client)
