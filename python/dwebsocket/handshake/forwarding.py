"""
Posts for connections of other processes.

A server gives a POST to any of its workers. Each process is a *node*, whose number is in the ids of
its connections. It has a group of the default backend: other processes ask there, and get the
answer in theirs.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from django.db import close_old_connections, connections

from dwebsocket import _core, clock, unpatched
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.group_settings import DEFAULT
from dwebsocket.groups import backends
from dwebsocket.groups.arrivals import Arrivals, Subscription
from dwebsocket.groups.members import key_of
from dwebsocket.groups.names import OWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.backend import Backend

    # Text, bytes, or the code and reason of a close.
    Part = str | bytes | tuple[int | None, str]
    Act = Callable[[dict[str, Any]], Any]

#: Bytes of a node's number, with which the keys of its connections begin.
NODE_BYTES = 6
# The time between two looks for an answer: at first, and at most. Sleeping in looks suits every
# kind of thread, the green ones as well.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.001, 0.02
# After so long the backend is asked whether the other process lives.
_DOUBT_S = 0.3
# Where a backend has its node.
_NODE = "_node_of_fallback"


class Gone(Exception):
    """The process that had the connection is not there any more."""


class Node:
    """
    This process, as others reach it. Any thread may use it, but no event loop.

    Args:
        backend: Carries questions and answers.
    """

    def __init__(self, backend: Backend) -> None:
        self.number = secrets.token_bytes(NODE_BYTES)
        self._backend = backend
        self._lock = unpatched.lock()
        self._subscription: Subscription | None = None
        self._questions = itertools.count(1)
        # The answers to questions that are under way: None until there is one.
        self._answers: dict[int, Any] = {}

    def start(self) -> None:
        """
        Lets other processes reach this one.

        Raises:
            GroupUnavailable: The backend cannot be reached.
        """
        with self._lock:
            if self._subscription is None:
                name = _group(self.number)
                arrivals = Arrivals("fallback")
                self._subscription = Subscription(
                    arrivals, self._backend, name, key_of(name), self._take
                )
        self._subscription.start()

    def ask(self, number: bytes, question: dict[str, Any]) -> Any:
        """
        Gives the answer of another node to a question. Blocks for ``TIMEOUT`` at most.

        Raises:
            Gone: There is no such process.
            GroupUnavailable: The backend cannot be reached, or there is no answer in time.
        """
        self.start()
        mine = next(self._questions)
        self._answers[mine] = None
        try:
            self._tell(number, {**question, "from": self.number.hex(), "question": mine})
            return self._await(number, mine)
        finally:
            del self._answers[mine]

    def _await(self, number: bytes, mine: int) -> Any:
        begun, look, is_known = clock.now(), _FIRST_LOOK_S, False
        while (answer := self._answers[mine]) is None:
            waited = clock.now() - begun
            if waited > _DOUBT_S and not is_known:
                if not self._backend.count(_group(number)):
                    raise Gone
                is_known = True
            if waited > self._backend.settings.timeout:
                raise self._backend.unavailable("another process has not answered in time")
            time.sleep(look)
            look = min(2 * look, _LAST_LOOK_S)
        return answer

    def _tell(self, number: bytes, message: dict[str, Any]) -> None:
        text = json.dumps(message)
        if any(each.in_atomic_block for each in connections.all(initialized_only=True)):
            # What a database carries would leave with the commit of this request's transaction.
            _beside(lambda: self._backend.send(_group(number), text, []))
        else:
            self._backend.send(_group(number), text, [])

    def _take(self, message: str | bytes) -> None:
        """Takes a question or an answer. On the thread of arrivals."""
        found = json.loads(message)
        if (mine := found.get("answered")) is not None:
            if mine in self._answers:
                self._answers[mine] = found["answer"]
            return
        try:
            answer = _ACTS[found["act"]](found)
            answered = {"answered": found["question"], "answer": answer}
            self._backend.send(_group(bytes.fromhex(found["from"])), json.dumps(answered), [])
        finally:
            close_old_connections()


def _group(number: bytes) -> str:
    return f"{OWN}node:{number.hex()}"


def _beside(call: Callable[[], None]) -> None:
    """Calls a function in a thread of its own, with its own connections to the database."""
    import threading

    failures: list[GroupUnavailable] = []

    def run() -> None:
        try:
            call()
        except GroupUnavailable as error:
            failures.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="dwebsocket-fallback-post")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def node() -> Node:
    """
    Gives the node that this process is.

    Raises:
        ImproperlyConfigured: The default backend of groups is configured wrongly.
    """
    backend = backends.backend(DEFAULT)
    found: Node | None = backend.__dict__.get(_NODE)
    if found is None:
        # If two threads race, the first one's stays. In a forked child there are other backends.
        found = backend.__dict__.setdefault(_NODE, Node(backend))
    return found


def _post_here(found: dict[str, Any]) -> str:
    parts = [_part_of(kind, value) for kind, value in found["parts"]]
    return _core.post(bytes.fromhex(found["key"]), found["number"], parts)


#: What other processes may ask for.
_ACTS: dict[str, Act] = {"post": _post_here}


def post(key: bytes, number: int, parts: list[Part]) -> str:
    """
    Hands a post to its connection, in whichever process that is: as ``_core.post()``.

    Raises:
        Gone, GroupUnavailable: As :meth:`Node.ask`.
    """
    mine, owner = node(), key[:NODE_BYTES]
    if owner == mine.number:
        return _core.post(key, number, parts)
    question = {"act": "post", "key": key.hex(), "number": number, "parts": [*map(_told, parts)]}
    answer: str = mine.ask(owner, question)
    return answer


def _told(part: Part) -> tuple[str, Any]:
    """Gives a part as JSON can have it."""
    if isinstance(part, bytes):
        return "binary", part.hex()
    return ("text", part) if isinstance(part, str) else ("close", part)


def _part_of(kind: str, value: Any) -> Part:
    if kind == "binary":
        return bytes.fromhex(value)
    if kind == "text":
        text: str = value
        return text
    code, reason = value
    return code, reason
