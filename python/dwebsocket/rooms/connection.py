"""
One connection's rooms: what becomes of each message of its client.

Everything here is written as steps, which a thread runs and a task awaits (see
:mod:`dwebsocket.api.waiting.steps`). They run one at a time. A join takes a seat in the room's
group, which is *held* at first: the engine keeps what comes, the client gets the answer and what it
has missed, and then the seat is opened. So the answer comes first, and there is no gap and nothing
twice.
"""

from __future__ import annotations

import json
import logging
import random
from collections import deque
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied
from django.core.signals import got_request_exception
from django.http import Http404

from dwebsocket import _core, conf
from dwebsocket.api.waiting.steps import Call
from dwebsocket.compat.django_auth import renew_user
from dwebsocket.conf.group_settings import DEFAULT, PresenceLimits
from dwebsocket.exceptions import ConnectionClosed, GroupUnavailable, SendTimeout
from dwebsocket.groups import backends, history, membership_signals, presence, seats
from dwebsocket.groups.api import Group, group
from dwebsocket.groups.history import recovering
from dwebsocket.groups.members import joinable, key_of, member_of
from dwebsocket.request import worlds
from dwebsocket.rooms import hooks, wire
from dwebsocket.rooms.hooks import Hook
from dwebsocket.rooms.joined import Joined
from dwebsocket.rooms.room import Room, class_of, is_written
from dwebsocket.rooms.wire import Malformed, Refused, Request
from dwebsocket.telemetry import clock, tracing
from dwebsocket.telemetry.records import Record, count, more_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.groups.backends.contract import Backend
    from dwebsocket.groups.history import Position
    from dwebsocket.websocket import WebSocket

    # A backend, and how many evictions had come there.
    Evictions = tuple[Backend, int]

_log = logging.getLogger("dwebsocket")
_requests = logging.getLogger("django.request")

_MALFORMED, _POLICY, _TOO_BIG = 1007, 1008, 1009
# A message that is larger than an event may be is looked at, to be refused, up to so many more
# characters.
_LOOKED_AT = 1024 * 1024
# One that is no event, and is longer, counts as one: it takes as long.
_LONG = 4096
_TOO_MANY = "too many large messages"
# To check that no setting has changed takes as long as to read an event, and to look the user up
# takes a query: they count for so many seconds.
_SETTINGS_S, _USER_S = 1.0, 1.0
# Evictions may have been missed: within so many seconds `allow` is asked again.
_SPREAD_S = 10.0
# Bytes of a join without its info, at most as a rule; and how many times as long a client may write
# what it says of itself: with escapes, or blanks.
_JOIN_BYTES, _WRITTEN_TIMES = 1024, 8
# While a member joins, messages are published, and have to be read. After so many rounds of that it
# is too slow.
_MOST_ROUNDS = 1000


class Limits(NamedTuple):
    """The project's settings for rooms, and the period of the recheck."""

    rate: float
    burst: float
    rooms: int
    info: int
    event: int
    members: int
    recheck: float | None

    @property
    def waiting(self) -> int:
        """Bytes of requests that may wait: as many joins as there may be rooms, and an event."""
        return self.event + self.rooms * (_JOIN_BYTES + self.info)

    @property
    def unusual(self) -> int:
        """Characters of a message in no usual form, which Python reads."""
        return self.event + _JOIN_BYTES


_SETTINGS = (
    *("ROOMS_RATE", "ROOMS_BURST", "MAX_ROOMS", "MAX_ROOM_INFO", "MAX_ROOM_EVENT"),
    *("MAX_ROOM_MEMBERS", "AUTH_RECHECK"),
)


class Rooms:
    """The rooms of one connection."""

    def __init__(
        self,
        websocket: WebSocket,
        request: Any,
        classes: Sequence[type[Room]],
        owner: seats.Owner,
        *,
        is_async: bool,
    ) -> None:
        """
        Begins without rooms.

        Args:
            websocket: The connection.
            request: Its request.
            classes: The rooms that it may join.
            owner: It is told when a seat has ended by itself.
            is_async: Whether a class has coroutine functions, so that all steps are awaited.
        """
        self._websocket = websocket
        self._key = key_of(websocket.id)
        self._request = request
        self._classes = classes
        self._is_async = is_async
        self._joined = Joined(websocket, request, self._renewed)
        self.now = clock.now()
        # The backends of its rooms, by alias.
        self._backends: dict[str, Backend] = {}
        self._read_settings()
        limits = self._limits
        self._joins = _core.Bucket(limits.rate, limits.burst)
        self._events = _core.Bucket(limits.rate, limits.burst)
        # Joins that wait for their turn, and what concerns their rooms after them.
        self._waiting: deque[Request] = deque()
        self._checked_at = self.now
        # When `allow` is asked before that is due; None for never.
        self._ask_at: float | None = None
        # Until when `allow` may see the user as it was looked up.
        self._user_until = self.now + _USER_S
        #: When :meth:`run_due` is to be called; None for never.
        self.due: float | None = None
        self._number = seats.new_number(owner)
        # The key of its user in each backend, by alias: to make one takes two hashes.
        self._keys: dict[str, str] = {}
        # What the engine passes on of rooms in which all events have the same sender.
        self._passages: dict[tuple[type[Room], Backend], _core.Passage] = {}
        #: Rooms that have ended while the connection came from another process.
        self.ended: list[Room] = []
        self._let_events_pass(is_wanted=True)

    def _read_settings(self) -> None:
        """Notes the settings, which count for a second, or until a test changes them."""
        self._changes = conf.changes
        self._backends.clear()
        self._settings_until = self.now + _SETTINGS_S
        self._settings = now = conf.present()
        limits: Limits | None = now[1].get(Limits)
        if limits is None:
            limits = now[1][Limits] = Limits(*(conf.get(name, now) for name in _SETTINGS))
        self._limits = limits

    def _note_due(self) -> None:
        """Notes when :meth:`run_due` is due."""
        due = self._recheck_at() if self._joined else None
        if self._waiting:
            turn = clock.now() + self._joins.wait()
            due = turn if due is None else min(due, turn)
        self.due = due

    # -- messages ----------------------------------------------------------------------------------

    def receive(self, message: str | bytes) -> Steps[None] | None:
        """
        Takes one message of the client, most events in this one call.

        Returns:
            What is left to do, at once; None if nothing is.
        """
        if len(message) > self._limits.event and (refused := self._refuse_large(message)):
            return refused
        #: The time of the latest message, or of the latest :meth:`run_due`.
        self.now = now = clock.now()
        if now > self._settings_until or self._changes != conf.changes:
            self._read_settings()
        may_take = not self._waiting and (self.due is None or now < self.due)
        event = wire.read_event(message)
        if event is None or self._is_async or not may_take:
            return self._receive(message, event, may_take=may_take)
        name, event_name, request_id, data, size = event
        room = self._joined.get(name)
        if (
            room is None
            or event_name in room.events
            or room._seat is None
            or room._seat.is_over
            or room._bucket is not None
            or size > self._limits.event
            or not self._events.take()
        ):
            return self._take(wire.event_request(event))
        try:
            value, _ = wire.scan(data, 0)
            result = room.receive(event_name, value)
            if type(result) is CoroutineType:
                hooks.refuse(result)
            text = "" if request_id is None else _core.answer(wire.text, request_id, result)
        except (ConnectionClosed, SendTimeout):
            raise
        except Exception as error:
            return self._answer_error(request_id, self._refused(error, name))
        if text:
            self._websocket.send(text)
        return None

    def _refuse_large(self, message: str | bytes) -> Steps[None] | None:
        """Ends a connection whose messages would hold the GIL for too long only to be looked at."""
        if len(message) > self._limits.event + _LOOKED_AT:
            return self._close(_TOO_BIG, "message too big")
        return None if self._events.take() else self._close(_POLICY, _TOO_MANY)

    def _receive(
        self, message: str | bytes, event: wire.EventParts | None, *, may_take: bool
    ) -> Steps[None]:
        is_large = _LONG < len(message) <= self._limits.event
        if event is None and is_large and not self._events.take():
            return self._close(_POLICY, _TOO_MANY)
        try:
            most = self._limits.unusual
            request = wire.event_request(event) if event else wire.read(message, most)
        except Malformed as error:
            return self._close(_MALFORMED, str(error))
        if may_take and request.kind == "event":
            return self._take(request)
        return self._take_in_turn(request)

    def _take_in_turn(self, request: Request) -> Steps[None]:
        """Takes a message after what is due, or has it wait."""
        if self.due is not None and self.due <= self.now:
            # The tick may come a moment later.
            yield from self.run_due()
        if request.kind == "ping":
            yield self._send('{"pong":1}')
        elif (self._waiting or request.kind == "join") and self._has_to_wait(request):
            self._waiting.append(request)
            if len(self._waiting) > self._limits.rooms or self._too_many_wait():
                yield from self._take_leaves()
                if request.kind != "leave" and self._too_many_wait():
                    self._waiting.pop()
                    refused = Refused("limit", "Too many joins are waiting.")
                    yield from self._answer_error(request.id, refused)
            self._note_waiting()
        else:
            yield from self._take(request)
        self._note_due()

    def _too_many_wait(self) -> bool:
        """Whether more requests wait than may. Events take no places of joins."""
        joins = sum(each.kind == "join" for each in self._waiting)
        most = max(joins, len(self._waiting) - joins)
        return most > self._limits.rooms or self._memory() > self._limits.waiting

    def _memory(self) -> int:
        return sum(each.memory for each in self._waiting)

    def _note_waiting(self) -> None:
        """Lets events pass only while nothing waits, and counts what does."""
        self._let_events_pass(is_wanted=not self._waiting)
        self._count_waiting()

    def _count_waiting(self) -> None:
        """Counts what waits among what is buffered."""
        connection = self._websocket._connection
        if isinstance(connection, _core.Connection):
            connection.count_held(self._memory())

    def _take_leaves(self) -> Steps[None]:
        """Takes the leaves that wait, and refuses earlier requests about the same rooms."""
        waiting, self._waiting = self._waiting, deque()
        last = {each.room: at for at, each in enumerate(waiting) if each.kind == "leave"}
        over: list[Request] = []
        for at, each in enumerate(waiting):
            (over if at <= last.get(each.room, -1) else self._waiting).append(each)
        for each in over:
            if each.kind == "leave":
                yield from self._take(each)
            else:
                yield from self._answer_error(each.id, Refused("invalid", "This room was left."))

    def _close(self, code: int, reason: str) -> Steps[None]:
        # After the answers that it has got.
        yield Call(self._websocket.close, self._websocket.aclose, code, reason)

    def run_due(self) -> Steps[None]:
        """Does what is due: joins that have waited, the end of rooms, and the recheck."""
        self.now = clock.now()
        self._read_settings()
        for room in self._joined.each(self._joined.ended()):
            yield from self._leave(room)
        while self._waiting:
            if self._waiting[0].kind == "join" and not self._joins.take():
                break
            yield from self._take(self._waiting.popleft())
        self._note_waiting()
        if (at := self._recheck_at()) is not None and clock.now() >= at:
            self._checked_at, self._ask_at = clock.now(), None
            yield from self._recheck()
        self._note_due()

    def _recheck_at(self) -> float | None:
        """When it is to be asked again who may be in the rooms; None for never."""
        if not (period := self._limits.recheck):
            return None
        at, soon = self._checked_at + period, self._ask_at
        return at if soon is None else min(at, soon)

    def ask_again(self, using: str) -> bool:
        """
        Has ``allow`` asked soon, if a room is of this backend. Any thread may call it.

        Returns:
            Whether :meth:`run_due` has to be called to note that.
        """
        if self._ask_at is not None or using not in self._joined.aliases():
            return False
        # All connections of a process are told at once.
        self._ask_at = clock.now() + random.uniform(0.0, _SPREAD_S)  # noqa: S311
        return True

    def end(self) -> Steps[None]:
        """Leaves all rooms: the connection has ended."""
        self._waiting.clear()
        self._count_waiting()
        seats.forget(self._number)
        for room in self._joined:
            yield from self._leave(room)

    def new(self, cls: type[Room], name: str) -> Room:
        """Returns a room of this connection, which is not joined yet."""
        return cls(self._websocket, self._request, name)

    def _renewed(self, name: str) -> Room | None:
        """Makes the object of a joined room anew; None if its group is not known, or no more."""
        # To find out which class has it takes longer than all else.
        is_sure = len(self._classes) == 1
        room = self.new(self._classes[0], name) if is_sure else self._find(name)
        if room is None or is_written(room, "group_name"):
            # Such an object stays while the room is joined: a join or a leave is under way.
            return None
        room._backend = self._backend(DEFAULT)
        return room

    def resume(self) -> Steps[None]:
        """Goes on with rooms of another process."""
        for room in self._joined.each(self._joined.names()):
            self._offer(room)
            yield from self._call_quietly(room, "resumed")
        while self.ended:
            yield from self._leave(self.ended.pop())
        yield from self.run_due()

    def part(self) -> None:
        """Releases what is here of rooms with which another process goes on."""
        self._waiting.clear()
        self._count_waiting()
        seats.forget(self._number)
        for room in self._joined:
            self._joined.remove(room)
            self._give_up(room)

    def _has_to_wait(self, request: Request) -> bool:
        waiting = self._waiting
        if waiting and any(each.room == request.room for each in waiting):
            return True
        return request.kind == "join" and (bool(waiting) or not self._joins.take())

    def _take(self, request: Request) -> Steps[None]:
        known = self._joined.get(request.room)
        if known is not None and _is_over(known):
            # Evicted, and the notice is still on its way.
            yield from self._leave(known)
            known = None
        try:
            if request.kind == "join":
                # It answers by itself, before what it has missed.
                yield from self._join(request, known)
                return
            result: Any = {}
            if request.kind == "leave":
                if known is not None:
                    yield from self._leave(known)
            elif known is None:
                raise Refused("invalid", "This room is not joined.")
            elif request.kind == "update":
                yield from self._update(known, request)
            else:
                own, most = known._bucket, self._limits.event
                if not self._events.take() or not (own is None or own.take()):
                    raise Refused("limit", "Too many events.")
                if request.size > most:
                    raise Refused("limit", f"An event may have {most} bytes.")
                if request.event in known.events:
                    backend, rest = known._backend, wire.event(request, self._sender(known))
                    to = known.group.name, rest, [self._key]
                    yield Call(backend.pass_event, backend.apass_event, *to)
                else:
                    result = yield Hook(known.receive, request.event, request.value)
            text = "" if request.id is None else _core.answer(wire.text, request.id, result)
        except (ConnectionClosed, SendTimeout):
            raise
        except Exception as error:
            yield from self._answer_error(request.id, self._refused(error, request.room))
            return
        if text:
            yield Call(self._websocket.send, self._websocket.asend, text)

    def _refused(self, error: Exception, name: str) -> Refused:
        """Returns what a client is told of an exception, which is logged if it is no answer."""
        if isinstance(error, Refused):
            return error
        if isinstance(error, PermissionDenied):
            return Refused("denied")
        if isinstance(error, Http404):
            return Refused("unknown")
        if isinstance(error, GroupUnavailable):
            _log.warning("The room %r: %s", name, error)
            return Refused("unavailable")
        self._report("The room %r has failed%s", name, error)
        return Refused("failed")

    def _report(self, text: str, name: str, error: Exception) -> None:
        """
        Reports an exception of a room's method, as Django those of a page.

        Not each of many: the connection goes on, and the client can cause the next one.
        """
        websocket, request = self._websocket, self._request
        tracing.call_failed(websocket, error)
        # One that a client causes hides no other.
        kind = text, class_of(self._classes, name), type(error)
        if (more := more_of(kind)) is None:
            count("websocket.view_failed")
            return
        with worlds.entered_if_possible(websocket._world):
            got_request_exception.send_robust(sender=None, request=request)
            number = websocket._connection.id if websocket._connection else None
            record = Record.of("websocket.view_failed", request, 0, repr(error), number)
            about: Any = {"exc_info": error, "status_code": 500, "request": request}
            record.log(logging.ERROR, text, *(name, more), logger=_requests, **about)

    def _answer_error(self, request_id: str | None, refused: Refused) -> Steps[None]:
        if request_id is not None:
            yield self._send(wire.error(request_id, refused))

    def _send(self, text: str) -> Call:
        return Call(self._websocket.send, self._websocket.asend, text)

    # -- joining -----------------------------------------------------------------------------------

    def _join(self, request: Request, known: Room | None) -> Steps[None]:
        found = self._find(request.room)
        if found is None:
            raise Refused("unknown")
        info = _checked_info(request, self._limits.info)
        if known is None and len(self._joined) >= (most := self._limits.rooms):
            raise Refused("limit", f"A connection may be in {most} rooms.")
        room = found if known is None else known
        heard: Evictions | None = None
        if is_written(room, "allow"):
            heard = self._heard(room)
            try:
                yield from self._ask(room)
            except (Refused, PermissionDenied, Http404):
                if known is not None:
                    yield from self._leave(known)
                raise
        if known is not None:
            if not _is_over(known):
                yield from self._join_again(known, request, info)
                return
            # Evicted while `allow` was at work.
            yield from self._leave(known)
            room = found
        if is_written(room, "group_name"):
            named = yield Hook(room.group_name)
            room._group = named if isinstance(named, Group) else group(named)
        room._backend = self._backend(room.group.using)
        if room.presence is True:
            server = (yield Hook(room.info)) or {}
            if not isinstance(server, dict):
                where = f"{type(room).__name__}.info()"
                raise TypeError(f"{where} must return a dict or None, not {server!r}")
            room._server_info = server
            room._said = _merged(info or {}, server)
        try:
            is_open = yield from self._sit_down(room, room.group, request, heard)
        except BaseException:
            self._give_up(room)
            raise
        if not is_open:
            self._give_up(room)
            return
        self._joined.add(room)
        yield from self._call_quietly(room, "joined")
        if _is_over(room) and self._joined.known(room.name) is room:
            # Evicted while it joined.
            yield from self._leave(room)

    def _backend(self, using: str) -> Backend:
        found = self._backends.get(using)
        if found is None:
            found = self._backends[using] = backends.backend(using, self._settings)
        return found

    def _find(self, name: str) -> Room | None:
        cls = class_of(self._classes, name)
        return None if cls is None else self.new(cls, name)

    def _ask(self, room: Room) -> Steps[None]:
        if clock.now() >= self._user_until:
            yield Call(renew_user, _arenew_user, self._request)
            self._user_until = clock.now() + _USER_S
        if not (yield hooks.question(room.allow)):
            raise Refused("denied")

    def _heard(self, room: Room) -> Evictions | None:
        """Returns the evictions that have come so far; None where the room's may pass unheard."""
        backend = self._backend(DEFAULT)
        # Those of groups without members here do not come; nor is each group known before `allow`.
        if backend.waits and (
            is_written(room, "group_name") or backend.groups.count(room.group.name) == 0
        ):
            return None
        return backend, backend.groups.evictions

    def _sit_down(
        self, room: Room, group: Group, request: Request, heard: Evictions | None
    ) -> Steps[bool]:
        """Takes a seat, answers, and opens the seat; false when the connection is over."""
        websocket, backend = self._websocket, room._backend
        if room.max_members is not None:
            yield from self._refuse_above(room, room.max_members)
        key = self._key
        if self._joined.seats is None:
            member = joinable(websocket)
            if member is None or isinstance(member, _core.Seat | _core.Deputy):
                return False
            user = websocket._visitor_names[0]
            name = worlds.user_key(user, websocket._realm) if user else None
            self._joined.seats = _core.Seats(member, key, name, self._number)
        seat = self._joined.seats.take(room.name)
        if seat is None:
            return False
        room._seat = seat
        rows: list[str] = []
        at: Position | None = None
        told: dict[str, Any] = {"position": None, "recovered": request.since is None, "missed": 0}
        is_new = membership_signals.is_new(group, seat)
        hears = heard is not None and heard == self._heard(room)
        if backend.waits:
            yield Call(backend.hold, backend.ahold, group.name)
        else:
            backend.hold(group.name)
        try:
            if has_history(room, group):
                at = yield from self._recover(room, request, told, rows)
                joined = at is not None
            else:
                joined = backend.join(group.name, seat, key)
        finally:
            backend.release(group.name)
        if not joined:
            return False
        is_sure = hears and heard == (backend, backend.groups.evictions)
        if is_written(room, "allow") and not is_sure:
            # It may have been evicted while `allow` was at work, and is a member only now.
            self._user_until = 0.0
            yield from self._ask(room)
        if is_new:
            yield from membership_signals.note_joined(group, websocket)
        if room.presence and not (yield from self._enter(room, told)):
            return False
        answer = wire.joined(request.id, told)
        if self._is_async:
            yield self._send(answer)
        else:
            # No step: a page that comes back joins many rooms.
            websocket.send(answer)
        if rows:
            member = member_of(websocket)
            with recovering.held(member, sum(map(len, rows))):
                yield from recovering.send_all(websocket, member, rows)
        self._offer(room)
        seat.open(at)
        return True

    def _recover(
        self, room: Room, request: Request, told: dict[str, Any], rows: list[str]
    ) -> Steps[Position | None]:
        """
        Becomes a member of a group with a history; notes what was missed.

        Returns the position; None when the connection is over.
        """
        group, seat = room.group, room._seat
        backend = room._backend
        kept = backend.settings.kept(group.name)
        assert seat is not None
        assert kept is not None
        since = None if request.since is None else history.read_position(request.since)
        is_whole = request.since is None
        limits = kept.limits if request.since is not None else (0, 0.0)
        page = yield Call(backend.read_history, backend.aread_history, group.name, since, limits)
        if request.since is not None:
            is_whole = since is not None and history.is_whole(page, since)
        if is_whole and request.since is not None:
            rows += _in_room(room.name, page)
            at = page.reached
        else:
            at = page.head
        missed_from = since if is_whole and since is not None else None
        for _ in range(_MOST_ROUNDS):
            joined = "behind"
            if at == page.head:
                key = self._key
                joined = yield Call(
                    backend.join_at, backend.ajoin_at, group.name, seat, key, at, numbered=True
                )
            if joined != "behind":
                break
            page = yield Call(
                backend.read_history, backend.aread_history, group.name, at, kept.limits
            )
            if missed_from is None or not history.is_whole(page, at):
                # Missed messages are lost, or are not asked for: only the head counts.
                is_whole = is_whole and missed_from is None
                missed_from = None
                rows.clear()
                at = page.head
            else:
                rows += _in_room(room.name, page)
                at = page.reached
        else:
            yield from self._close(1013, "too slow")
            return None
        told["position"] = history.text_of(at)
        told["recovered"] = is_whole
        told["missed"] = 0 if missed_from is None else at[1] - missed_from[1]
        return at if joined == "joined" else None

    def _join_again(self, room: Room, request: Request, info: dict[str, Any] | None) -> Steps[None]:
        """Answers the join of a room that is joined already."""
        told: dict[str, Any] = {"position": None, "recovered": request.since is None, "missed": 0}
        if has_history(room, room.group):
            at = room._seat and room._seat.position
            told["position"] = history.text_of(at) if at else None
            told["recovered"] = True
        if info is not None and room.presence is True:
            yield from self._update_info(room, info)
        if room.presence:
            yield from self._note_members(room, told)
            self._offer(room)
        yield self._send(wire.joined(request.id, told))

    def _refuse_above(self, room: Room, most: int) -> Steps[None]:
        """
        Refuses a join of a full room.

        Raises:
            Refused: It is full.
        """
        backend = room._backend
        if room.presence is True:
            members = yield from backend.gathering(room.group.name)
            own = self._key_in(room)
            here = [each for each in members if each.connections]
            is_full = len(here) >= most and all(each.key != own for each in here)
        else:
            is_full = (yield Call(backend.count, backend.acount, room.group.name)) >= most
        if is_full:
            raise Refused("limit", "The room is full.")

    # -- presence ----------------------------------------------------------------------------------

    def _enter(self, room: Room, told: dict[str, Any]) -> Steps[bool]:
        """Becomes present, and notes who else is; false when the connection is over."""
        websocket, group, seat = self._websocket, room.group, room._seat
        assert seat is not None
        wish = presence.JoinOptions(room._said, watches=True, is_present=room.presence is True)
        own = room._backend.settings
        present = own.present(group.name) or PresenceLimits(group.name)
        seats.note_presence(group.using, group.name, 1)
        room._is_present = True
        is_open = yield from presence.enter(group, websocket, seat, wish, present)
        if room.presence is True:
            if websocket._seats is None:
                websocket._seats = {}
            websocket._seats[room.name] = (group, seat, present, self.noting(room.name))
        yield from self._note_members(room, told)
        return is_open

    def _update_info(self, room: Room, info: dict[str, Any]) -> Steps[None]:
        """Changes what others see of this connection."""
        said = _merged(info, room._server_info)
        self._note_said(room, said)
        wish = presence.JoinOptions(said or "null")
        websocket = self._websocket
        group, seat, present, _ = (websocket._seats or {})[room.name]
        yield from presence.update(group, websocket, seat, wish, present)

    def noting(self, name: str) -> Callable[[Any], None]:
        """Returns a function that notes the info by which the server replaces that of a room."""
        its = ref(self)

        def note(info: Any) -> None:
            if (rooms := its()) is not None and (room := rooms._joined.known(name)) is not None:
                # The page cannot change it.
                room._server_info = info if isinstance(info, dict) else {}
                rooms._note_said(room, None if info is None else wire.text(info))

        return note

    def _note_said(self, room: Room, said: str | None) -> None:
        """Notes what others see of this connection, as JSON: its events carry it, too."""
        room._said = said
        self._offer(room)

    def _note_members(self, room: Room, told: dict[str, Any]) -> Steps[None]:
        backend = room._backend
        members = yield from backend.gathering(room.group.name)
        own = self._key_in(room)
        named = members[: self._limits.members]
        told["members"] = [json.loads(each.as_json()) for each in named]
        told["count"] = len(members)
        for each in members:
            if each.key == own:
                room._since = json.loads(each.as_json())["since"]

    # -- leaving -----------------------------------------------------------------------------------

    def _leave(self, room: Room) -> Steps[None]:
        """Leaves a room, for whatever reason."""
        self._joined.remove(room)
        if _is_over(room):
            # Evicted: the next `allow` is to see why.
            self._user_until = 0.0
        self._give_up(room)
        yield from membership_signals.note_left(room.group, self._websocket)
        yield from self._call_quietly(room, "left")

    def _give_up(self, room: Room) -> None:
        """Leaves the seat, if there is one. Nothing of the room comes after this."""
        seat = room._seat
        if seat is None:
            return
        (self._websocket._seats or {}).pop(room.name, None)
        if room._is_present:
            room._is_present = False
            seats.note_presence(room.group.using, room.group.name, -1)
        seat.leave()
        room._backend.unsubscribe_if_unused(room.group.name)

    def _recheck(self) -> Steps[None]:
        for room in self._joined.each(self._joined.names()):
            if not is_written(room, "allow"):
                continue
            try:
                yield from self._ask(room)
            except (Refused, PermissionDenied, Http404):
                refused = Refused("denied")
            except Exception:
                # Nobody is thrown out because a database is away.
                _log.exception("Whether %r may be in the room is asked again later", room.name)
                continue
            else:
                continue
            self._give_up(room)
            yield self._send(_core.ended(room.name, refused.code, refused.text))
            yield from self._leave(room)

    def _call_quietly(self, room: Room, name: str) -> Steps[None]:
        """Calls ``joined``, ``left`` or ``resumed``, which the client does not wait for."""
        if not is_written(room, name):
            return
        try:
            yield Hook(getattr(room, name))
        except (ConnectionClosed, SendTimeout):
            raise
        except Exception as error:
            self._report(f"{name} of the room %r has failed%s", room.name, error)

    # -- events ------------------------------------------------------------------------------------

    def _offer(self, room: Room) -> None:
        """
        Has the engine pass on events of a room, without Python, while this connection sleeps.

        It leaves to :meth:`_take` what is to be refused, and what cannot be published at once.
        """
        seat, publisher = room._seat, room._backend.event_publisher
        if seat is None or publisher is None or not room.events:
            return
        if self._websocket._trace is not None:
            # Each message is a span.
            return
        key = (type(room), room._backend)
        passage = self._passages.get(key)
        if passage is None:
            buckets = [self._events, *([room._bucket] if room._bucket else [])]
            passage = _core.Passage(
                list(room.events), self._sender(room), publisher, buckets, self._limits.event
            )
            if room.presence is not True and room._bucket is None:
                self._passages[key] = passage
        passage.open(seat)

    def _let_events_pass(self, *, is_wanted: bool) -> None:
        connection = self._websocket._connection
        if isinstance(connection, _core.Connection):
            classes = self._classes if is_wanted else ()
            connection.pass_events([name for each in classes for name in each.events])

    def _key_in(self, room: Room) -> str:
        key = self._keys.get(room.group.using)
        if key is None:
            key = presence.key_of_user(room._backend, self._websocket)
            self._keys[room.group.using] = key
        return key

    def _sender(self, room: Room) -> str:
        """Returns this connection's member, as others get it with an event, as JSON."""
        user = self._websocket._visitor_names[0] or None
        named = {"key": self._key_in(room), "user": user}
        if room.presence is not True:
            return wire.text(named)
        return wire.member({**named, "since": room._since}, self._websocket.id, room._said)

    def _update(self, room: Room, request: Request) -> Steps[None]:
        info = _checked_info(request, self._limits.info)
        if not self._events.take():
            raise Refused("limit", "Too many updates.")
        if room.presence is True:
            yield from self._update_info(room, info or {})


_arenew_user = sync_to_async(renew_user)


def _is_over(room: Room) -> bool:
    """Whether a room's seat has ended by itself."""
    return room._seat is not None and room._seat.is_over


def has_history(room: Room, group: Group) -> bool:
    """
    Whether a page that comes back to a room gets what it has missed.

    Raises:
        UsageError: The room wants it, and its group has none.
    """
    if room.history is False:
        return False
    own = room._backend.settings
    if room.history is True:
        history.needs(own, group.name, f"{type(room).__name__}.history = True")
    return own.kept(group.name) is not None


def _merged(info: dict[str, Any], server: dict[str, Any]) -> str | None:
    """
    Returns what others see, as JSON: what the page says, and above it what the server says.

    It is kept as text: as objects a page could have it take thirty times as much.

    Raises:
        Refused: It is too large.
    """
    if not (info or server):
        return None
    text = wire.text({**info, **server})
    if len(text) > presence.LARGEST_INFO:
        raise Refused("limit", f"info may have {presence.LARGEST_INFO} bytes in all.")
    return text


def _in_room(name: str, page: history.Page) -> list[str]:
    epoch = page.reached[0]
    return [_core.in_room(name, (epoch, offset), message) for offset, _, message, _ in page.rows]


def _checked_info(request: Request, most: int) -> dict[str, Any] | None:
    """
    Returns what a client says about itself, in ``most`` bytes at most; None if that is nothing.

    Raises:
        Refused: It is no object, or too large.
    """
    if request.written == "null":
        return None
    is_short = len(request.written) <= _WRITTEN_TIMES * most
    info: dict[str, Any] = request.value if is_short else {}
    if not isinstance(info, dict):
        raise Refused("invalid", "info must be an object.")
    if not is_short or wire.size(info) > most:
        raise Refused("limit", f"info may have {most} bytes.")
    return info
