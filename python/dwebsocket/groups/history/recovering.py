"""Joining a group with a history: first what was missed, then what comes, without a gap."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwebsocket import _core
from dwebsocket.api.waiting.steps import Call
from dwebsocket.exceptions import ConnectionClosed
from dwebsocket.groups import backends, history, membership_signals
from dwebsocket.groups.history import Page, Recovery
from dwebsocket.groups.members import key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.http import HttpRequest

    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.groups.backends.contract import Backend, Joined, Member
    from dwebsocket.groups.history import Position, Row
    from dwebsocket.groups.membership_signals import Named

_TRY_AGAIN_LATER = 1013
# A client that is sent what it misses misses more meanwhile. After so many times it is too slow.
_MOST_ROUNDS = 1000
# Characters, or bytes, of messages that are made before the client has taken others.
_TOGETHER = 128 * 1024


class Recovering:
    """
    The messages that one :func:`join` has to send, and how far the client has got.

    Attributes:
        is_recovering: Whether the client has given a position.
        at: The position up to which the client has got everything.
        missed: How many messages it was sent.
        recovered: Whether it has got everything since its position.
    """

    def __init__(
        self,
        group: Named,
        *,
        since: str | None,
        partial: bool,
        numbered: bool,
        former: str | None,
        tells: bool = False,
        own_id: str | None = None,
    ) -> None:
        """
        Begins.

        Args:
            group: The group.
            since: As of ``join``, as are ``partial``, ``numbered`` and ``former``.
            tells: Whether the client is told what has become of it: after what it has missed,
                before anything else, and again when more is lost before it is a member.
            own_id: The connection's ``id``, for clients that are told it as well.

        Raises:
            TypeError: ``since`` or ``former`` is no ``str``.
            UsageError: The group has no history.
        """
        backend = backends.backend(group.using)
        self.kept = history.needs(backend.settings, group.name, "join()")
        self._name = group.name
        self.is_recovering = since is not None
        #: The first thing to read: without a position, only where the group is.
        self.limits = self.kept.limits if self.is_recovering else (0, 0.0)
        self.since = None if since is None else history.read_position(since)
        self._partial = partial
        self.numbered = numbered
        self._former = None if former is None else key_of(former)
        self._tells = tells
        self._own = {} if own_id is None else {"id": own_id}
        self._has_told = False
        self.at: Position = (0, 0)
        self.missed = 0
        self.recovered = not self.is_recovering

    def first(self, page: Page) -> Iterator[str | bytes]:
        """Returns the messages to send first."""
        self.at = page.reached
        self.recovered = not self.is_recovering or (
            self.since is not None and history.is_whole(page, self.since)
        )
        if self.is_recovering and (self.recovered or self._partial):
            yield from self._messages(page.rows)
        else:
            # Nothing old is sent, nor the rest of it.
            self.at = page.head
        yield from self._tell_at_the_end_of(page)

    def more(self, page: Page) -> Iterator[str | bytes]:
        """Returns those that were published meanwhile, or did not fit on the page before."""
        if not history.is_whole(page, self.at):
            self.note_gap()
            if self._tells:
                # First: a client that goes before it learns of the gap must not come back from
                # after it.
                yield self._told((page.head[0], page.rows[0][0] - 1) if page.rows else page.head)
        self.at = page.reached
        yield from self._messages(page.rows)
        yield from self._tell_at_the_end_of(page)

    def note_gap(self) -> None:
        """Notes that messages since its position were gone before they could be read."""
        if self.is_recovering or self._tells:
            self.recovered = False

    def _tell_at_the_end_of(self, page: Page) -> Iterator[str]:
        """Tells the client when it has got all, which is before it is a member: then more comes."""
        if self._tells and not self._has_told and page.is_last:
            yield self._told(self.at)

    def _told(self, at: Position) -> str:
        self._has_told = True
        return json.dumps(
            {
                "group": self._name,
                "recovered": self.recovered,
                "missed": self.missed,
                "position": history.text_of(at),
                **self._own,
            },
            ensure_ascii=False,
        )

    def _messages(self, rows: list[Row]) -> Iterator[str | bytes]:
        epoch = self.at[0]
        for offset, _, message, exclude in rows:
            if self._former in exclude:
                continue
            self.missed += 1
            yield (
                _core.numbered(self._name, (epoch, offset), message) if self.numbered else message
            )


def join(
    websocket: Any, group: Named, member: Member, recovering: Recovering
) -> Steps[Recovery | None]:
    """
    Makes a connection a member; None when it is over.

    Raises:
        GroupUnavailable: The backend cannot be reached. One that was a member is one as before; or
            it had left, to come back, and is closed: else it would miss messages without a word.
    """
    backend, name, key = backends.backend(group.using), group.name, key_of(websocket.id)
    is_new = membership_signals.is_new(group, member)
    was_member = backend.groups.is_member(name, member)
    yield Call(backend.hold, backend.ahold, name)
    try:
        stays = (yield from _stay(backend, name, member, recovering)) if was_member else None
        try:
            page: Page = stays or (yield _read(backend, name, recovering.since, recovering.limits))
            with held(member, page.size):
                yield from send_all(websocket, member, recovering.first(page))
            for _ in range(_MOST_ROUNDS):
                joined: Joined = "behind"
                if page.is_last:
                    at, numbered = recovering.at, recovering.numbered
                    joined = yield Call(
                        backend.join_at, backend.ajoin_at, name, member, key, at, numbered=numbered
                    )
                if joined != "behind":
                    break
                page = yield _read(backend, name, recovering.at, recovering.kept.limits)
                with held(member, page.size):
                    yield from send_all(websocket, member, recovering.more(page))
            else:
                websocket.close(1013, "too slow")
                joined = "over"
        except ConnectionClosed:
            joined = "over"
        except BaseException:
            if was_member and stays is None:
                websocket.close(_TRY_AGAIN_LATER, "try again later")
            raise
    finally:
        backend.release(name)
    if joined == "over":
        return None
    if not backend.groups.is_whole_since(name, recovering.at):
        # Messages that came before this process had a member are not kept any more.
        recovering.note_gap()
    if is_new:
        yield from membership_signals.note_joined(group, websocket)
    return Recovery(recovering.recovered, recovering.missed, history.text_of(recovering.at))


def _stay(
    backend: Backend, name: str, member: Member, recovering: Recovering
) -> Steps[Page | None]:
    """Has a member that joins again go on; returns from where. With a position it leaves: None."""
    # Before it leaves: the backend may be away.
    yield Call(backend.catch_up, backend.acatch_up, name)
    if recovering.is_recovering:
        # It would get twice what it has got as a member.
        backend.discard(name, member)
        return None
    groups = backend.groups
    at = groups.number(name, member) if recovering.numbered else groups.position_of(name)
    return None if at is None else Page(at, [], at)


def _read(backend: Backend, name: str, after: Position | None, limits: tuple[int, float]) -> Call:
    return Call(backend.read_history, backend.aread_history, name, after, limits)


def add(websocket: Any, group: Named, member: Member) -> Steps[bool]:
    """
    Makes a connection a member for what is published from now on; false when it is over.

    Raises:
        GroupUnavailable: As :func:`join`.
    """
    if backends.backend(group.using).groups.is_member(group.name, member):
        return True
    recovering = Recovering(group, since=None, partial=False, numbered=False, former=None)
    found = yield from join(websocket, group, member, recovering)
    return found is not None


@contextmanager
def held(member: Member, size: int) -> Iterator[None]:
    """Counts messages of so many bytes, and as many of texts made of them, as buffered."""
    if not isinstance(member, _core.Connection):
        yield
        return
    hold = member.hold(2 * size)
    try:
        yield
    finally:
        hold.release()


def send_all(websocket: Any, member: Member, messages: Iterable[str | bytes]) -> Steps[None]:
    """Sends messages to a member, many in one write, made as the client takes those before them."""
    rest = iter(messages)
    while left := _some(rest):
        while left := _send_together(member, left):
            message = left.pop(0)
            is_binary = isinstance(message, bytes) or None
            yield Call(websocket._send, websocket._asend, message, is_binary, strict=True)


def _some(messages: Iterator[str | bytes]) -> list[str | bytes]:
    """Takes messages of a few bytes altogether; none at the end."""
    found: list[str | bytes] = []
    size = 0
    while size < _TOGETHER and (message := next(messages, None)) is not None:
        found.append(message)
        size += len(message)
    return found


def _send_together(member: Member, messages: list[str | bytes]) -> list[str | bytes]:
    """Sends messages while there is room, many in one write; returns those that are left."""
    if isinstance(member, _core.Connection):
        while messages and (sent := member.send_together(messages)):
            messages = messages[sent:]
    return messages


@dataclass(frozen=True)
class Resumption:
    """
    The facts in a client's URL about the connection that it had before.

    Attributes:
        positions: Where it got to in each group: ``?since=room-42:epoch-offset``, once a group.
        former: The ``id`` of that connection: ``?former=…``. Empty when the client does not know
            one yet, None when it does not ask for the ``id`` of its connections.
    """

    positions: dict[str, str]
    former: str | None

    @classmethod
    def of(cls, request: HttpRequest) -> Resumption:
        """Reads the URL. A text without a colon names a group and is no position of it."""
        each_since = map(str, request.GET.getlist("since"))
        split = (since.rpartition(":") if ":" in since else (since, "", "") for since in each_since)
        positions = {name: position for name, _, position in split if name}
        return cls(positions, request.GET.get("former"))
