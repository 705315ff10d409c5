"""Views that use the database while others do, sync and async."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import path

from dwebsocket import require_websocket

if TYPE_CHECKING:
    from collections.abc import Callable


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
async def async_user(request: HttpRequest) -> None:
    """Say who is signed in."""
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
    """Say who is signed in, below Django's decorator."""
    await request.websocket.asend((await request.auser()).username)
    await request.websocket.areceive()


urlpatterns = [
    path("counts/", counts),
    path("counts-on/", counts_on),
    path("async-user/", async_user),
    path("async-below-login-required/", async_below_login_required),
    path("async-below-own-decorator/", _asks_first(async_user)),
]
