"""
Posts and polls for connections of other processes.

A server gives a request to any of its workers. Each process is a node
(:mod:`dwebsocket.groups.backends.node`), whose number is in the ids of its connections. A poll is
held by the process that got it, and is answered by a second message.
"""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import close_old_connections

from dwebsocket import _core, conf
from dwebsocket.api.base import made_once
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends
from dwebsocket.groups.backends import node as nodes
from dwebsocket.groups.backends.node import NODE_BYTES, Doubtful, Gone
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from dwebsocket.groups.backends.contract import Backend

__all__ = ["NODE_BYTES", "Doubtful", "Gone", "node", "poll", "post"]

_log = logging.getLogger("dwebsocket")

# Where a backend has its node.
_NODE = "_node_of_fallback"


class _Hold(NamedTuple):
    """
    A poll that this process holds for a connection of another one.

    Attributes:
        question: The number of the question.
        pending: The poll.
        ack: The events that its client has.
        end: When it needs no answer any more.
    """

    question: int
    pending: _core.PendingPoll
    ack: int
    end: float


class Node(nodes.Node):
    """
    This process, as others reach it with posts and polls.

    Args:
        backend: Carries questions and answers.
    """

    def __init__(self, backend: Backend) -> None:
        acts = {"post": _post_here, "poll": self._poll_here}
        super().__init__(backend, acts, "fallback")
        # The last polls that this process holds for connections of others, by the connection's
        # key.
        self._holds: dict[bytes, _Hold] = {}

    def poll(
        self, owner: bytes, key: bytes, ack: int, hold: _core.PendingPoll, timeout: float
    ) -> Any:
        """
        Answers a poll whose connection another node has: as ``_core.poll()``.

        Args:
            timeout: Seconds, after which ``hold`` needs no answer.

        Raises:
            Doubtful, Gone, GroupUnavailable: As :meth:`ask`.
        """
        now = clock.now()
        for each, former in list(self._holds.items()):
            if former.end < now:
                self._holds.pop(each, None)
        # A client has one poll at a time.
        self._give_way(key)
        mine = next(self._questions)
        end = now + timeout + self._backend.settings.timeout
        self._holds[key] = _Hold(mine, hold, ack, end)
        found = None
        try:
            question = {"act": "poll", "key": key.hex(), "ack": ack, "hold": mine}
            found = self.ask(owner, question)
        finally:
            if found != "held":
                self._holds.pop(key, None)
        return found

    def _give_way(self, key: bytes) -> None:
        """Ends a poll that is held: its client polls again."""
        if (held := self._holds.pop(key, None)) is not None:
            held.pending.give_way(json.dumps({"n": held.ack, "events": []}).encode())

    def note_interruption(self) -> None:
        """Has the clients whose answers may have been lost poll again."""
        super().note_interruption()
        for key in list(self._holds):
            self._give_way(key)

    def _pass_on(self, hold: _core.PendingPoll, found: dict[str, Any]) -> None:
        """Returns the answer of ``hold``, when there is one, to the hold elsewhere."""

        def take() -> None:
            self._arrivals.leave(token)
            if (body := hold.take()) is None:
                return
            held = {"held": found["hold"], "key": found["key"], "body": body.decode()}
            try:
                try:
                    self.answer(found["from"], held)
                except GroupUnavailable:
                    # A link that was cut is there again, as a rule, and the client waits.
                    self.answer(found["from"], held)
            except GroupUnavailable as error:
                # The events stay until they are acknowledged.
                _log.warning("The answer to a poll did not reach its process: %s", error)
            finally:
                close_old_connections()

        hub, token = self._arrivals.enter(take)
        hold.watch(hub, token)

    def _poll_here(self, found: dict[str, Any]) -> Any:
        hold = _core.PendingPoll()
        answer = _core.poll(bytes.fromhex(found["key"]), found["ack"], hold)
        if answer == "held":
            self._pass_on(hold, found)
        return answer

    def take(self, found: dict[str, Any]) -> None:
        """Takes a message as every node does, and the answers to held polls, too."""
        if (number := found.get("held")) is None:
            super().take(found)
        elif (held := self._holds.get(bytes.fromhex(found["key"]))) and held.question == number:
            held.pending.answer(found["body"].encode())


def node() -> Node:
    """
    Returns the node that this process is.

    Raises:
        ImproperlyConfigured: The default backend of groups is configured wrongly.
    """
    backend = backends.backend(DEFAULT)

    def make() -> Node:
        # A process may hold bodies and answers before it has a connection of its own.
        _core.limit_buffered(conf.get("MAX_BUFFERED"))
        return Node(backend)

    # In a forked child there are other backends.
    return made_once(backend, _NODE, make)


def is_elsewhere(key: bytes) -> bool:
    """Whether another process has, or had, the connection with a key."""
    return key[:NODE_BYTES] != node().number


def _post_here(found: dict[str, Any]) -> str:
    frames = base64.b64decode(found["frames"])
    return _core.post(bytes.fromhex(found["key"]), found["number"], frames)


def poll(key: bytes, ack: int, hold: _core.PendingPoll, timeout: float) -> str:
    """
    Answers a poll by ``hold``, in whichever process its connection is: as ``_core.poll()``.

    Args:
        timeout: Seconds, after which ``hold`` needs no answer.

    Raises:
        Doubtful, Gone, GroupUnavailable: As :meth:`Node.ask`.
    """
    if not is_elsewhere(key):
        return _core.poll(key, ack, hold)
    answer: str = node().poll(key[:NODE_BYTES], key, ack, hold, timeout)
    return answer


def post(key: bytes, read: _core.Post) -> str:
    """
    Hands a post that was read to its connection, in whichever process that is: as ``_core.post()``.

    Raises:
        Doubtful, Gone, GroupUnavailable: As :meth:`Node.ask`.
    """
    if not is_elsewhere(key):
        return read.put(key)
    frames = base64.b64encode(read.frames).decode()
    question = {"act": "post", "key": key.hex(), "number": read.number, "frames": frames}
    answer: str = node().ask(key[:NODE_BYTES], question)
    return answer
