"""Views that use the database while others do, sync and async."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import TYPE_CHECKING

from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from dwebsocket import WebSocketHandler, require_websocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import QuerySet


def counts(request: HttpRequest) -> HttpResponse:
    """Count users for a page."""
    return HttpResponse(str(User.objects.count()))


@require_websocket
def counts_on(request: HttpRequest) -> None:
    """Count users again and again."""
    while True:
        request.websocket.send(str(User.objects.count()))
        time.sleep(0.02)


@require_websocket
def asks_and_polls(request: HttpRequest) -> None:
    """Count users at once and for each message, and never wait for long."""
    message = b"at once"
    while not request.websocket.closed:
        if message is not None:
            request.websocket.send(str(User.objects.count()))
        message = request.websocket.wait(1)


@require_websocket
def asks_and_sends(request: HttpRequest) -> None:
    """Count users at once, and then only send."""
    request.websocket.send(str(User.objects.count()))
    while True:
        time.sleep(0.1)
        request.websocket.send("tick")


@require_websocket
def asks_and_reads(request: HttpRequest) -> None:
    """Count users at once, and then look for messages."""
    request.websocket.send(str(User.objects.count()))
    while not request.websocket.is_closed():
        time.sleep(0.1)
        if request.websocket.has_messages():
            request.websocket.read()


@require_websocket
async def async_asks(request: HttpRequest) -> None:
    """Count users at once and for each message."""
    await request.websocket.asend(str(await User.objects.acount()))
    async for _ in request.websocket:
        await request.websocket.asend(str(await User.objects.acount()))


@require_websocket
def asks_despite_errors(request: HttpRequest) -> None:
    """Count users for each message, whatever becomes of it."""
    for _ in request.websocket.messages():
        try:
            request.websocket.send(str(User.objects.count()))
        except DatabaseError:
            request.websocket.send("failed")


@require_websocket
async def async_asks_despite_errors(request: HttpRequest) -> None:
    """Do the same."""
    async for _ in request.websocket:
        try:
            await request.websocket.asend(str(await User.objects.acount()))
        except DatabaseError:
            await request.websocket.asend("failed")


@require_websocket
async def async_slow(request: HttpRequest) -> None:
    """Ask the database something that takes long."""
    await request.websocket.asend("asking")
    await sync_to_async(time.sleep)(60)


def _numbered(count: int) -> QuerySet[User]:
    """Make so many users, and a query for them; other views may have made more."""
    users = [User(username=f"number {number:02}") for number in range(count)]
    User.objects.bulk_create(users, ignore_conflicts=True)
    return User.objects.filter(username__startswith="number ").order_by("username")[:count]


@require_websocket
async def async_iterates(request: HttpRequest) -> None:
    """Send a row of a query for each message."""
    rows = await sync_to_async(_numbered)(10)
    async for row in rows.aiterator(chunk_size=1):
        await request.websocket.areceive()
        await request.websocket.asend(row.username[-2:])


async def _ask() -> int:
    return await User.objects.acount()


@require_websocket
def runs_a_loop(request: HttpRequest) -> None:
    """Run event loops of its own, in which the ORM is asked."""
    answers = [asyncio.run(_ask()), async_to_sync(_ask)(), User.objects.count()]
    request.websocket.send(str(len(set(answers))))


@require_websocket
async def async_goes_on(request: HttpRequest) -> None:
    """Go on when the connection has ended, and report the outcome at the end of the process."""

    async def say() -> None:
        await asyncio.sleep(0)
        print("async callback")

    request.websocket.on_close(say)
    request.websocket.on_close(print, "callback")
    await request.websocket.asend(str(await User.objects.acount()))
    try:
        await asyncio.sleep(600)
    finally:
        print("cleaned up")
        if "orm" in request.GET:
            await User.objects.acount()


_local = threading.local()


def _leave_name(name: str) -> str:
    found = getattr(_local, "name", "nobody")
    _local.name = name
    return found


@require_websocket
def leaves_name(request: HttpRequest) -> None:
    """Send the name in a thread-local, and leave the user's there."""
    request.websocket.send(_leave_name(request.GET["name"]))


@require_websocket
async def async_leaves_name(request: HttpRequest) -> None:
    """Do the same where the ORM works."""
    await request.websocket.asend(await sync_to_async(_leave_name)(request.GET["name"]))


@require_websocket
def helper_leaves_name(request: HttpRequest) -> None:
    """Do the same beside the view."""

    def leave() -> None:
        request.websocket.send(_leave_name(request.GET["name"]))

    request.websocket.start(leave).join()


@require_websocket
def in_transaction(request: HttpRequest) -> None:
    """Send for long within a transaction, and say whether that was one."""
    with transaction.atomic():
        first = _backend()
        while request.websocket.wait(1) is None:
            request.websocket.send("tick")
        request.websocket.send(str(_backend() == first))


@require_websocket
def while_iterating(request: HttpRequest) -> None:
    """Send the rows of a query, slowly."""
    for row in _numbered(50).iterator(chunk_size=1):
        time.sleep(0.1)
        request.websocket.send(row.username[-2:])


@require_websocket
def waits_while_iterating(request: HttpRequest) -> None:
    """Send a row of a query for each message, however late that comes."""
    for row in _numbered(5).iterator(chunk_size=1):
        request.websocket.wait()
        request.websocket.send(row.username[-2:])


def _backend() -> object:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()


class NamesBackend(WebSocketHandler):
    """Send the process of the database server that answers."""

    def receive(self, message: str | bytes) -> None:
        """Ask it for each message."""
        self.websocket.send(str(_backend()))


class AsyncNamesBackend(WebSocketHandler):
    """Do the same where the ORM works."""

    async def receive(self, message: str | bytes) -> None:
        """Ask it for each message."""
        await self.websocket.asend(str(await sync_to_async(_backend)()))


@require_websocket
async def async_user(request: HttpRequest) -> None:
    """Send the name of the signed-in user."""
    user = await request.auser()
    await request.websocket.asend(user.username)
    await request.websocket.areceive()


def _asks_first(view: Callable[..., object]) -> Callable[..., object]:
    """Do as an async decorator that lets users in only."""

    @functools.wraps(view)
    async def wrapper(request: HttpRequest) -> object:
        user = await request.auser()
        return await view(request) if user.is_authenticated else HttpResponse(status=403)

    return wrapper


@login_required
@require_websocket
async def async_below_login_required(request: HttpRequest) -> None:
    """Send the name of the signed-in user, below Django's decorator."""
    await request.websocket.asend((await request.auser()).username)
    await request.websocket.areceive()


urlpatterns = [
    path("counts/", counts),
    path("counts-on/", counts_on),
    path("asks-and-polls/", asks_and_polls),
    path("asks-and-sends/", asks_and_sends),
    path("asks-and-reads/", asks_and_reads),
    path("async-asks/", async_asks),
    path("asks-despite-errors/", asks_despite_errors),
    path("async-asks-despite-errors/", async_asks_despite_errors),
    path("handler/", NamesBackend.as_view()),
    path("async-handler/", AsyncNamesBackend.as_view()),
    path("async-slow/", async_slow),
    path("async-iterates/", async_iterates),
    path("leaves-name/", leaves_name),
    path("async-goes-on/", async_goes_on),
    path("runs-a-loop/", runs_a_loop),
    path("async-leaves-name/", async_leaves_name),
    path("helper-leaves-name/", helper_leaves_name),
    path("in-transaction/", in_transaction),
    path("while-iterating/", while_iterating),
    path("waits-while-iterating/", waits_while_iterating),
    path("async-user/", async_user),
    path("async-below-login-required/", async_below_login_required),
    path("async-below-own-decorator/", _asks_first(async_user)),
]
