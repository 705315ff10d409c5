"""A site of several tenants, of the kind that keeps the present one for each thread."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from django.urls import path

from dwebsocket import WebSocketHandler, accept_websocket, asgi_websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

_thread = threading.local()
#: What the code of connections has found, as pairs of its place and the tenant there.
SEEN: list[tuple[str, str]] = []


def tenant() -> str:
    """Give the present tenant; that of a thread at rest is `nobody`."""
    return getattr(_thread, "tenant", "nobody")


def tenant_of(request: Any) -> str:
    """Give the tenant that a request names."""
    return str(request.headers["X-Tenant"])


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Work for a tenant."""
    before = tenant()
    _thread.tenant = name
    try:
        yield
    finally:
        _thread.tenant = before


def context(request: Any) -> Any:
    """The value of WEBSOCKET_CONTEXT."""
    return entered(tenant_of(request))


def realm(request: Any) -> str | None:
    """The value of WEBSOCKET_REALM; without a request that of the thread, if it has one."""
    if request is not None:
        return tenant_of(request)
    return None if tenant() == "nobody" else tenant()


def see(place: str) -> None:
    """Note the tenant of this place: that of the lease, if there is one."""
    lease = _lease.get()
    SEEN.append((place, tenant() if lease is None else lease.tenant))


class Lease:
    """An object that is of no use after the end of its context."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant


_lease: ContextVar[Lease | None] = ContextVar("lease", default=None)


@contextmanager
def context_of_lease(request: Any) -> Iterator[None]:
    """A value of WEBSOCKET_CONTEXT that keeps such an object in a context variable."""
    lease = Lease(tenant_of(request))
    token = _lease.set(lease)
    try:
        yield
    finally:
        _lease.reset(token)
        lease.tenant = "ended"


class Middleware:
    """Enters the tenant around each request, as the packages do."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer it."""
        with context(request):
            return self.get_response(request)


# -- views -----------------------------------------------------------------------------------------


@accept_websocket
def sync_view(request: Any) -> None:
    """Uses everything that runs beside a sync view."""
    websocket = request.websocket
    see("view")
    websocket.on_close(see, "on_close")
    websocket.on_close(asee, "async on_close")
    websocket.start(see, "start").join()
    ticked = threading.Event()
    websocket.every(0.01, lambda: (see("every"), ticked.set()))
    ticked.wait(10)
    for message in websocket:
        see("message")
        websocket.send(message)


@accept_websocket
async def async_view(request: Any) -> None:
    """Uses everything that runs beside an async view."""
    websocket = request.websocket
    see("view")
    await asyncio.sleep(0)
    see("view goes on")
    await sync_to_async(see)("thread")
    websocket.on_close(see, "on_close")
    websocket.on_close(asee, "async on_close")
    await (await websocket.astart(asee, "start"))
    ticked = asyncio.Event()

    async def tick() -> None:
        await asee("every")
        ticked.set()

    websocket.every(0.01, tick)
    await asyncio.wait_for(ticked.wait(), 10)
    async for message in websocket:
        see("message")
        await websocket.asend(message)


async def asee(place: str) -> None:
    """As `see`, in a coroutine and on the thread of its ORM."""
    await asyncio.sleep(0)
    see(place)
    await sync_to_async(see)(f"thread of {place}")


@accept_websocket
def raises(request: Any) -> None:
    """Fails."""
    raise ValueError("the view's")


@accept_websocket
async def araises(request: Any) -> None:
    """Fails, after a pause."""
    await asyncio.sleep(0)
    raise ValueError("the view's")


@accept_websocket
async def waits_between(request: Any) -> None:
    """Tells its tenant at each message."""
    async for _ in request.websocket:
        await request.websocket.asend(tenant())


@accept_websocket
def waits(request: Any) -> None:
    """Waits for the end."""
    request.websocket.wait()


@accept_websocket
def joins(request: Any) -> None:
    """Waits as a member of a group."""
    request.websocket.join("room")
    request.websocket.send("joined")
    request.websocket.wait()


class Handler(WebSocketHandler):
    """Notes where its methods run."""

    every = 0.01

    def connect(self) -> None:
        """Before the handshake is answered."""
        see("connect")

    def receive(self, message: str | bytes) -> None:
        """A message."""
        see("receive")
        self.websocket.send(message)

    def tick(self) -> None:
        """From time to time."""
        see("tick")

    def disconnect(self, code: int, reason: str) -> None:
        """The end."""
        see("disconnect")


class AsyncHandler(WebSocketHandler):
    """As `Handler`, in an event loop."""

    every = 0.01

    async def connect(self) -> None:
        """Before the handshake is answered."""
        await asee("connect")

    async def receive(self, message: str | bytes) -> None:
        """A message."""
        await asee("receive")
        await self.websocket.asend(message)

    async def tick(self) -> None:
        """From time to time."""
        await asee("tick")

    async def disconnect(self, code: int, reason: str) -> None:
        """The end."""
        await asee("disconnect")


class Mixed(AsyncHandler):
    """At home in a loop, with sync methods besides."""

    connect = Handler.connect
    tick = Handler.tick
    disconnect = Handler.disconnect


class Consumer(WebsocketConsumer):
    """A consumer of Channels on threads."""

    def connect(self) -> None:
        """The handshake."""
        see("connect")
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A message."""
        see("receive")
        self.send(text_data=text_data)

    def disconnect(self, code: int) -> None:
        """The end."""
        see("disconnect")


class AsyncConsumer(AsyncWebsocketConsumer):
    """A consumer of Channels in the event loop."""

    async def connect(self) -> None:
        """The handshake."""
        see("connect")
        await database_sync_to_async(see)("thread of connect")
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A message."""
        see("receive")
        await database_sync_to_async(see)("thread of receive")
        await self.send(text_data=text_data)

    async def disconnect(self, code: int) -> None:
        """The end."""
        see("disconnect")
        await database_sync_to_async(see)("thread of disconnect")


urlpatterns = [
    path("sync/", sync_view),
    path("async/", async_view),
    path("raises/", raises),
    path("araises/", araises),
    path("between/", waits_between),
    path("waits/", waits),
    path("joins/", joins),
    path("handler/", Handler.as_view()),
    path("async-handler/", AsyncHandler.as_view()),
    path("mixed/", Mixed.as_view()),
    path("consumer/", asgi_websocket(Consumer.as_asgi())),
    path("async-consumer/", asgi_websocket(AsyncConsumer.as_asgi())),
    path("own-consumer/", asgi_websocket(AsyncConsumer.as_asgi(), thread_per_connection=True)),
]

# -- of the kind that keeps the tenant in a context variable ---------------------------------------

_variable: ContextVar[str] = ContextVar("tenant", default="nobody")
#: How often it was entered.
ENTRIES: list[str] = []


class OfVariable:
    """A context manager, sync and async, that sets a context variable."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        ENTRIES.append(self._name)
        self._token = _variable.set(self._name)

    def __exit__(self, *exception: object) -> None:
        _variable.reset(self._token)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exception: object) -> None:
        self.__exit__()


def context_of_variable(request: Any) -> Any:
    """A value of WEBSOCKET_CONTEXT."""
    return OfVariable(tenant_of(request))


@accept_websocket
async def switches(request: Any) -> None:
    """Works for another tenant over a pause."""
    async for _ in request.websocket:
        async with OfVariable("other"):
            await asyncio.sleep(0)
            await request.websocket.asend(await sync_to_async(_variable.get)())
        await request.websocket.asend(_variable.get())


class OfDatabase:
    """A context manager that is of no use in coroutines, but to the thread of their ORM."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._before = tenant()
        _thread.tenant = self._name

    def __exit__(self, *exception: object) -> None:
        _thread.tenant = self._before

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exception: object) -> None:
        pass


def context_of_database(request: Any) -> Any:
    """A value of WEBSOCKET_CONTEXT."""
    return OfDatabase(tenant_of(request))


@accept_websocket
async def queries(request: Any) -> None:
    """Tells the tenant in the coroutine and on the thread of its ORM."""
    await request.websocket.asend(f"{tenant()}, {await sync_to_async(tenant)()}")


_note: ContextVar[str] = ContextVar("note", default="")


@accept_websocket
async def notes(request: Any) -> None:
    """Passes a note to the thread and back, and tells it with the tenant of the thread."""
    loop = asyncio.get_running_loop()

    def work() -> str:
        # The step of the coroutine that made this call has ended when the loop calls something.
        is_left = threading.Event()
        loop.call_soon_threadsafe(is_left.set)
        assert is_left.wait(10)
        _note.set(f"{_note.get()} and back")
        lease = _lease.get()
        return "nobody" if lease is None else lease.tenant

    _note.set("there")
    tenant = await sync_to_async(work)()
    await request.websocket.asend(f"{tenant}: {_note.get()}")


urlpatterns += [path("switches/", switches), path("queries/", queries), path("notes/", notes)]

# -- wrong ones ------------------------------------------------------------------------------------

NO_FUNCTION = "a text"


def no_manager(request: Any) -> str:
    """Gives something else."""
    return "acme"


async def coroutine(request: Any) -> Any:
    """Is to be no coroutine function."""


@contextmanager
def unable(request: Any) -> Iterator[None]:
    """Cannot be entered."""
    raise LookupError("no such tenant")
    yield


@contextmanager
def swallowing(request: Any) -> Iterator[None]:
    """Takes the exceptions of the code within."""
    try:
        yield
    except ValueError:
        SEEN.append(("swallowed", "ValueError"))


def nameless(request: Any) -> None:
    """Names no realm."""


def numbered(request: Any) -> Any:
    """Names a realm by a number."""
    return 7


def long_named(request: Any) -> str:
    """Names a realm by a text that is too long."""
    return "x" * 101
