"""
Questions to other processes, and their answers, over a backend of groups.

Each process that asks or answers is a *node*: it has a number, and a group of its own in which
questions to it and answers for it arrive. Several nodes may listen to one further group, in which
all of them are asked at once.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from django.db import close_old_connections, connections

from dwebsocket.compat import unpatched
from dwebsocket.compat.django_commits import is_in_transaction
from dwebsocket.compat.system import renew_at_fork
from dwebsocket.compat.threading import SimpleQueue
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups.arrivals import Arrivals, Subscription
from dwebsocket.groups.members import key_of
from dwebsocket.groups.names import OWN
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dwebsocket.groups.backends.contract import Backend

    Act = Callable[[dict[str, Any]], Any]

#: Bytes of a node's number, with which the keys of its connections begin.
NODE_BYTES = 6
# Seconds between two looks for an answer, for green threads, and between two readings of the clock,
# which a test may step.
_GREEN_LOOK_S, _LOOK_S = 0.01, 1.0
# After so long the backend is asked whether the other process lives. It is gone when the backend
# knows of it at none of these times: a backend may come to know of a process late.
_DOUBTS_S = (0.3, 0.9, 1.5)
# After a question without an answer in time a process is asked nothing for so long. It may have
# been stopped, or cut off, also where the backend does not know of it.
_PAUSE_S = 5.0
# So many processes that are gone are remembered.
_MOST_GONE = 1000

_nodes: WeakSet[Node] = WeakSet()
_lock = unpatched.lock()


class Gone(Exception):
    """The process that had the connection is not there any more."""


class Doubtful(Exception):
    """The process has not answered another question yet, or did not do so in time just now."""


class _Without(NamedTuple):
    """
    The answers that a question to all was left without.

    Attributes:
        waited: Seconds that it took to find that out.
        answered: The numbers of the nodes that have answered.
        missing: How many have not.
    """

    waited: float
    answered: frozenset[str]
    missing: int

    def allows(self, timeout: float, expected: int, found: list[dict[str, Any]]) -> bool:
        """Whether only those that were silent before are missing among the answers ``found``."""
        return (
            timeout <= self.waited
            and len(found) >= expected - self.missing
            and self.answered <= _who(found)
        )


def _who(answers: list[dict[str, Any]]) -> frozenset[str]:
    # A process of an older version does not say its number.
    return frozenset(each.get("by", "") for each in answers)


class Node:
    """
    This process, as others reach it. Any thread may use it, but no event loop.

    Args:
        backend: Carries questions and answers.
        acts: What others may ask for: functions of the question, by its ``act``. They run on the
            thread of the node, and give what JSON can have.
        about: Its purpose: names its thread.
    """

    def __init__(self, backend: Backend, acts: Mapping[str, Act], about: str) -> None:
        self.number = secrets.token_bytes(NODE_BYTES)
        self._backend = backend
        self._acts = acts
        self._arrivals = Arrivals(about)
        self._lock = unpatched.lock()
        # By the names of the groups in which questions and answers arrive.
        self._subscriptions: dict[str, Subscription] = {}
        self._questions = itertools.count(1)
        # The answers to questions that are under way.
        self._answers: dict[int, SimpleQueue[Any]] = {}
        # The numbers of other nodes: of those that are gone, the oldest first, and of those that
        # have not answered in time, with the moment until which no further question is asked. Who
        # waits for an answer occupies a thread of the server, perhaps its only one.
        self._gone: dict[bytes, float] = {}
        self._doubtful: dict[bytes, float] = {}
        # Where the one question waits for its answer whose node the backend does not know: a client
        # may make any numbers up.
        self._unknown: SimpleQueue[Any] | None = None
        # By the names of groups: what the last question to all was left without.
        self._without: dict[str, _Without] = {}
        with _lock:
            _nodes.add(self)

    def note_interruption(self) -> None:
        """Notes that messages to this node may have been lost. Never waits."""
        # A process that was silent may have answered.
        self._doubtful.clear()
        for answers in list(self._answers.values()):
            answers.put(None)

    def start(self) -> None:
        """
        Lets other processes reach this one.

        Raises:
            GroupUnavailable: The backend cannot be reached.
        """
        self._subscribe(_group(self.number))

    def listen(self, name: str) -> None:
        """
        Answers also what is asked in the group ``name``, of all nodes that listen there.

        Raises:
            GroupUnavailable: The backend cannot be reached.
        """
        self.start()
        self._subscribe(name)

    def _subscribe(self, name: str) -> None:
        with self._lock:
            subscription = self._subscriptions.get(name)
            if subscription is None:
                subscription = self._subscriptions[name] = Subscription(
                    self._arrivals, self._backend, name, key_of(name), self._take
                )
        subscription.start()

    def ask(self, number: bytes, question: dict[str, Any]) -> Any:
        """
        Returns the answer of another node to a question. Blocks for ``TIMEOUT`` at most.

        One question at a time waits for a node that does not answer at once.

        Raises:
            Gone: There is no such process. Without waiting, when that was found a moment ago.
            Doubtful: Another question waits for it, or waited in vain a moment ago.
            GroupUnavailable: The backend cannot be reached, or there is no answer in time.
        """
        if clock.now() < self._gone.get(number, 0.0):
            raise Gone
        if clock.now() < self._doubtful.get(number, 0.0):
            raise Doubtful
        self.start()
        mine = next(self._questions)
        answers = self._answers[mine] = SimpleQueue()
        try:
            tell = partial(self._tell, _group(number), self._signed(question, mine))
            tell()
            return self._await(number, answers, tell)
        finally:
            del self._answers[mine]
            if self._unknown is answers:
                self._unknown = None

    def ask_all(self, name: str, question: dict[str, Any], timeout: float) -> tuple[list[Any], int]:
        """
        Returns the answers of all nodes that listen to the group ``name``, and how many these are.

        Blocks until all have answered, ``timeout`` seconds at most. A process that hangs costs one
        question that time: until it answers again, later ones wait for the others alone.

        Raises:
            GroupUnavailable: The backend cannot be reached.
        """
        self.start()
        mine = next(self._questions)
        answers = self._answers[mine] = SimpleQueue()
        found: list[dict[str, Any]] = []
        try:
            expected = self._backend.count(name)
            self._tell(name, self._signed(question, mine))
            end = clock.now() + timeout
            known = self._without.get(name)
            while len(found) < expected and (left := end - clock.now()) > 0:
                if known is not None and known.allows(timeout, expected, found):
                    break
                with suppress(Empty):
                    found.append(_next_of(answers, left))
                # An interruption is no answer.
                found = [each for each in found if each is not None]
            while not answers.empty():
                # Of processes that began after the count.
                if (answer := answers.get()) is not None:
                    found.append(answer)
        finally:
            del self._answers[mine]
        expected = max(expected, len(found))
        if len(found) == expected:
            self._without.pop(name, None)
        else:
            waited = timeout if known is None else max(timeout, known.waited)
            self._without[name] = _Without(waited, _who(found), expected - len(found))
        return [each["answer"] for each in found], expected

    def _signed(self, question: dict[str, Any], mine: int) -> dict[str, Any]:
        sent_at = time.time()
        return {**question, "from": self.number.hex(), "question": mine, "sent_at": sent_at}

    def _await(self, number: bytes, answers: SimpleQueue[Any], tell: Callable[[], None]) -> Any:
        begun, timeout, is_doubted = clock.now(), self._backend.settings.timeout, False
        # Within a short timeout they come earlier: who is gone must be found out before it is over.
        scale = min(1.0, timeout / _DOUBTS_S[-1])
        doubts = [seconds * scale for seconds in _DOUBTS_S]
        while True:
            waited = clock.now() - begun
            if doubts and waited >= doubts[0]:
                lives, is_first = (
                    self._backend.count(_group(number)) > 0,
                    len(doubts) == len(_DOUBTS_S),
                )
                # A process that is known is only busy, at first.
                if not (is_doubted or (lives and is_first)):
                    self._doubt(number, begun + timeout, None if lives else answers)
                    is_doubted = True
                doubts = doubts[1:]
                if lives:
                    # The other process may have been cut off when it was asked.
                    tell()
                if lives and not is_first:
                    doubts = []
                elif not doubts:
                    self._forget(number)
                    raise Gone
            if waited >= timeout:
                self._doubtful[number] = clock.now() + _PAUSE_S
                raise self._backend.unavailable("another process has not answered in time")
            with suppress(Empty):
                answer = _next_of(answers, min([timeout, *doubts[:1]]) - waited)
                if answer is not None:
                    break
                # The question may have been lost, or its answer. A process that gets a question
                # twice acts once: posts have numbers, and a poll ends the one before.
                tell()
        self._doubtful.pop(number, None)
        return answer["answer"]

    def _doubt(self, number: bytes, until: float, unknown: SimpleQueue[Any] | None) -> None:
        """Lets this question be the only one to a node, or to all that are not known."""
        with self._lock:
            if clock.now() < self._doubtful.get(number, 0.0):
                raise Doubtful
            if unknown is not None:
                if self._unknown is not None:
                    raise Doubtful
                self._unknown = unknown
            self._doubtful[number] = until

    def _forget(self, number: bytes) -> None:
        with self._lock:
            self._doubtful.pop(number, None)
            self._gone.pop(number, None)
            self._gone[number] = clock.now() + _PAUSE_S
            if len(self._gone) > _MOST_GONE:
                del self._gone[next(iter(self._gone))]

    def _tell(self, name: str, message: dict[str, Any]) -> None:
        text = json.dumps(message)
        if any(map(is_in_transaction, connections.all(initialized_only=True))):
            # A database would send it with the commit of this request's transaction.
            with self._backend.starting():
                _on_a_thread(lambda: self._backend.send(name, text, []))
        else:
            self._backend.send(name, text, [])

    def _take(self, message: str | bytes) -> None:
        self.take(json.loads(message))

    def take(self, found: dict[str, Any]) -> None:
        """Takes a question or an answer. On the thread of arrivals."""
        if (mine := found.get("answered")) is not None:
            if (answers := self._answers.get(mine)) is not None:
                answers.put(found)
            else:
                # Too late, the asking thread has gone on. But the process does answer.
                self._without.clear()
            return
        if not self._backend.is_recent(found["sent_at"]):
            return
        try:
            answer = self._acts[found["act"]](found)
            mine = {"answered": found["question"], "answer": answer, "by": self.number.hex()}
            self.answer(found["from"], mine)
        finally:
            close_old_connections()

    def answer(self, number: str, message: dict[str, Any]) -> None:
        """
        Sends a message to the node of a number, in hexadecimal digits.

        Raises:
            GroupUnavailable: The backend cannot be reached.
        """
        self._backend.send(_group(bytes.fromhex(number)), json.dumps(message), [])


def note_interruption(backend: Backend) -> None:
    """Tells the nodes of a backend that messages may have been lost."""
    with _lock:
        nodes = list(_nodes)
    for each in nodes:
        if each._backend is backend:
            each.note_interruption()


def _next_of(answers: SimpleQueue[Any], seconds: float) -> Any:
    """Returns the next answer. Raises Empty when there was none for so long, or less."""
    if unpatched.patched_by() is None:
        return answers.get(timeout=max(0.0, min(seconds, _LOOK_S)))
    try:
        return answers.get(timeout=0)
    except Empty:
        # Other green threads run meanwhile; the thread that answers may be one of the system.
        time.sleep(min(seconds, _GREEN_LOOK_S))
        raise


def _group(number: bytes) -> str:
    return f"{OWN}node:{number.hex()}"


def _on_a_thread(call: Callable[[], None]) -> None:
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

    thread = threading.Thread(target=run, name="dwebsocket-question")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


renew_at_fork(globals(), _nodes=WeakSet, _lock=unpatched.lock)
