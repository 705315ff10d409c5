"""The redis backend in the tests' own process, and members that are no WebSockets."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from django.test import override_settings

from dwebsocket import _core
from dwebsocket.conf import group_settings
from dwebsocket.groups.backends import redis
from support.redis import settings
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.redis import Redis


def backend(location: str | list[str], secret_key: str = "secret", **more: Any) -> redis.Backend:
    """Make a backend, as another process of the project has it."""
    own = group_settings.read({"default": settings(location, **more)})["default"]
    made = redis.Backend("default", own)
    with override_settings(SECRET_KEY=secret_key):
        # Made from the key, and kept.
        made.groups  # noqa: B018
        made.core  # noqa: B018
    return made


class Member:
    """A member of groups: a mailbox."""

    def __init__(self, of: redis.Backend, *names: str) -> None:
        self.backend = of
        self.key = os.urandom(16)
        self.mailbox = _core.Mailbox(64 * 1024 * 1024, _core.Hub(), 1)
        for name in names:
            assert of.add(name, self.mailbox, self.key)

    def come_back(self, name: str, since: tuple[int, int]) -> list[str | bytes]:
        """Become a member from a position on; give what was missed. Messages have numbers then."""
        self.backend.hold(name)
        at, missed, joined = since, list[str | bytes](), "behind"
        while joined == "behind":
            page = self.backend.read_history(name, at, (2**53, 3600.0))
            missed += [message for _, _, message, _ in page.rows]
            at = page.reached
            if page.is_last:
                joined = self.backend.join_at(name, self.mailbox, self.key, at, numbered=True)
        self.backend.release(name)
        assert joined == "joined"
        return missed

    def receive_numbered(self) -> tuple[int, str]:
        """Give the next message and its offset."""
        found = json.loads(self.receive())
        return int(found["position"].rpartition("-")[2]), found["data"]

    def receive_gap(self) -> int:
        """Be told that messages are missing; give the offset behind which the next ones are."""
        found = json.loads(self.receive())
        assert (found["recovered"], found["missed"]) == (False, 0), found
        return int(found["position"].rpartition("-")[2])

    def receive(self) -> str | bytes:
        """Give the next message."""
        found: list[str | bytes] = []

        def look() -> bool:
            if (message := self.mailbox.pop()) is not None:
                found.append(message)
            return bool(found)

        eventually(look, what="a message")
        return found[0]

    def nothing(self) -> bool:
        """Whether no message waits."""
        return self.mailbox.pop() is None

    def leave(self, name: str) -> None:
        """End a membership."""
        self.backend.discard(name, self.mailbox)


def head(of: redis.Backend, name: str) -> tuple[int, int]:
    """Give the newest position of a group."""
    return of.read_history(name, None, (0, 0.0)).head


def send(of: redis.Backend, name: str, message: str) -> None:
    """Publish a message."""
    of.send(name, message, [])


def publish_forged(server: Redis, name: str, payload: bytes) -> None:
    """Publish bytes on the channel of a group, as any client can."""
    channels = server.ask("PUBSUB", "CHANNELS").splitlines()
    (channel,) = [each for each in channels if each.endswith(f":{name}")]
    publish_as_stranger(server, channel, payload)


def publish_as_stranger(server: Redis, channel: str, payload: bytes) -> None:
    """Publish bytes on a channel, as any client can."""
    parts = [b"PUBLISH", channel.encode(), payload]
    command = b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(server.socket))
        client.sendall(command)
        assert client.recv(100).startswith(b":")


def until_it_works(call: Callable[[], Any]) -> Any:
    """Repeat a call while the backend is away, and give its result."""
    from dwebsocket.exceptions import GroupUnavailable

    def attempt() -> Any:
        try:
            return (call(),)
        except GroupUnavailable:
            return None

    return eventually(attempt, what="the backend is back")[0]
