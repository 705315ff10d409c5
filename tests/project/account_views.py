"""Views of users who sign in, sign out and change their password."""

from __future__ import annotations

import time
from typing import Any

from django.contrib.auth import logout, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from dwebsocket import accept_websocket

# How long some take between a change and its commit.
WORK_S = 0.3


@login_required
@accept_websocket
def private(request: HttpRequest) -> None:
    """Echo, to users only."""
    for message in request.websocket:
        if message is not None:
            request.websocket.send(message)


@accept_websocket
async def async_private(request: HttpRequest) -> None:
    """Echo in a task."""
    async for message in request.websocket:
        await request.websocket.asend(message)


async_private = transaction.non_atomic_requests(login_required(async_private))


@login_required
@accept_websocket
def counts_in_session(request: HttpRequest) -> None:
    """Note in the session how many messages came."""
    request.session["messages"] = sum(message is not None for message in request.websocket)


def audited_log_out(request: HttpRequest) -> HttpResponse:
    """Log out; a signal receiver of another app runs first, and takes its time."""
    logout(request)
    return HttpResponse("bye")


def changes_password(request: HttpRequest) -> HttpResponse:
    """Take another password, and some time until the response is there."""
    request.user.set_password(str(time.monotonic()))
    request.user.save()
    update_session_auth_hash(request, request.user)
    time.sleep(WORK_S)
    return HttpResponse("changed")


def _audit(request: HttpRequest, **_: Any) -> None:
    if "audited" in request.path:
        time.sleep(WORK_S)


user_logged_out.connect(_audit)

ALL = [private, async_private, counts_in_session, audited_log_out, changes_password]
