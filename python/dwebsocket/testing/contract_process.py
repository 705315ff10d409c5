"""
Another process of the project, which :mod:`dwebsocket.testing.contract` drives, and its views.

It reads commands from its standard input and answers each on its standard output, both as lines of
JSON. The environment variable ``DWEBSOCKET_CONTRACT`` has its settings.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.urls import path

from dwebsocket import _core, accept_websocket
from dwebsocket.groups import Group, backends
from dwebsocket.testing import WebSocketClient, websockets_of_a_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.typing import WebSocketRequest

#: The environment variable with the settings, as JSON.
SETTINGS = "DWEBSOCKET_CONTRACT"
#: The environment variable with the seconds that its clock is ahead.
AHEAD = "DWEBSOCKET_CONTRACT_AHEAD"
_LONG = 1000
_TIMEOUT_S = 60.0


def described(message: str | bytes | None) -> Any:
    """Returns a message as JSON can carry it: a long one by its hash."""
    if message is None:
        return None
    kind = "text" if isinstance(message, str) else "binary"
    data = message.encode() if isinstance(message, str) else message
    if len(data) > _LONG:
        return [kind, len(data), hashlib.sha256(data).hexdigest()]
    return [kind, data.hex()]


def configure() -> None:
    """Sets Django up with the settings of the environment."""
    if not settings.configured:
        settings.configure(**json.loads(os.environ[SETTINGS]))
        django.setup()
    _core.step_clock(float(os.environ.get(AHEAD, "0")))


# -- the views: connections that are members of groups ---------------------------------------------


def _groups(request: WebSocketRequest) -> list[Group]:
    """Returns the groups that the test wants, also those of users."""
    return [_group(name) for name in request.GET.getlist("group")]


@accept_websocket
def member(request: WebSocketRequest) -> None:
    """Joins, says its id, and obeys: ``leave``, ``join NUMBER``; repeats everything else."""
    websocket, groups = request.websocket, _groups(request)
    websocket.join(*groups)
    websocket.send(websocket.id)
    for message in websocket:
        if message == "leave":
            websocket.leave(*groups)
        elif str(message).startswith("join "):
            websocket.join(*(f"{groups[0].name}-{n}" for n in range(int(str(message)[5:]))))
        websocket.send(message)


@accept_websocket
async def async_member(request: WebSocketRequest) -> None:
    """Serves a member as :func:`member`, by the async calls."""
    websocket, groups = request.websocket, _groups(request)
    await websocket.ajoin(*groups)
    await websocket.asend(websocket.id)
    async for message in websocket:
        if message == "leave":
            await websocket.aleave(*groups)
        await websocket.asend(message)


# The stubs of Django know no views that return nothing.
_views: dict[str, Any] = {"member/": member, "async-member/": async_member}
urlpatterns = [path(route, view) for route, view in _views.items()]


# -- publishers: each sends all messages, in order -------------------------------------------------


def _group(name: str) -> Group:
    return Group(name, "default")


def _send_all(name: str, messages: list[str]) -> None:
    for message in messages:
        _group(name).send(message)


def _in_thread(name: str, messages: list[str]) -> None:
    thread = threading.Thread(target=_send_all, args=(name, messages))
    thread.start()
    thread.join()


def _in_task(name: str, messages: list[str]) -> None:
    async def main() -> None:
        for message in messages:
            await _group(name).asend(message)

    asyncio.run(main())


def _in_child(name: str, messages: list[str]) -> None:
    """In a forked child of a process that has used its groups."""
    # The parent has published, so it has whatever its backend needs for that.
    _send_all(f"{name} of the parent", ["x"])
    warnings.simplefilter("ignore", DeprecationWarning)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _send_all(name, messages)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed"


def _in_pool(name: str, messages: list[str]) -> None:
    """In the processes of a spawned pool, one after the other."""
    with multiprocessing.get_context("spawn").Pool(2, initializer=configure) as pool:
        for message in messages:
            pool.apply(_send_all, (name, [message]))
        pool.close()
        pool.join()


#: Where messages can be published from. Where gevent or eventlet has patched the standard library,
#: threads are green threads.
PUBLISHERS: dict[str, Callable[[str, list[str]], None]] = {
    "main thread": _send_all,
    "thread": _in_thread,
    "task": _in_task,
    "forked child": _in_child,
    "spawned pool": _in_pool,
}


# -- commands --------------------------------------------------------------------------------------


class _Process:
    """The commands."""

    def __init__(self) -> None:
        self._client = WebSocketClient()
        self._members: list[Any] = []

    def publish(self, how: str, name: str, messages: list[str]) -> None:
        PUBLISHERS[how](name, messages)

    def send_large(self, name: str, text: str, times: int) -> None:
        _send_all(name, [text * times])

    def send_excluding(self, name: str, message: str, ids: list[str]) -> None:
        """Publishes to all but some."""
        _group(name).send(message, exclude=ids)

    def close(self, name: str, code: int, reason: str) -> None:
        _group(name).close(code, reason)

    def count(self, name: str) -> int:
        return _group(name).count()

    def members(self, name: str) -> list[list[Any]]:
        """Returns the users that are present, each with the number of connections."""
        return [[each.key, len(each.connections)] for each in _group(name).members()]

    def open(self, path: str) -> tuple[int, str]:
        """Opens a member; returns its number and its id."""
        member = self._client.websocket(path, timeout=_TIMEOUT_S)
        member.__enter__()
        self._members.append(member)
        return len(self._members) - 1, str(member.receive())

    def receive(self, number: int, count: int) -> list[Any]:
        """Returns the next messages of a member."""
        return [described(self._members[number].receive()) for _ in range(count)]

    def wait_closed(self, number: int) -> tuple[int, str]:
        """Returns the end of a member."""
        member = self._members[number]
        return member.wait_closed(), member.close_reason

    def vanish(self, number: int) -> None:
        """Lets the client of a member vanish."""
        self._members[number].vanish()


def main() -> None:
    """Obeys until the input ends."""
    configure()
    with websockets_of_a_test(), backends.swapped(backends.Backends(backends.make)):
        process = _Process()
        while line := sys.stdin.readline():
            name, *arguments = json.loads(line)
            try:
                answer = {"result": getattr(process, name)(*arguments)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
