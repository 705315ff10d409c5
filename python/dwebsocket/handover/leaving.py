"""
The end of a process whose handlers survive it: their connections go to another process.

One thread does it, from :func:`begin` on. It waits for an heir, and meanwhile the handlers go on.
Then each in its turn is parked, offered, given, and let go. A connection that no heir takes in time
is closed with 1012, as are those of other handlers.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from operator import add
from queue import Empty
from typing import TYPE_CHECKING

from dwebsocket.api.base import RESTARTING
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import age_of, children_of, monotonic, renew_at_fork, since_boot
from dwebsocket.compat.threading import SimpleQueue
from dwebsocket.handover import arriving, crossing, markers, offers, places, wire
from dwebsocket.handover.meeting import OTHER_KEY, Folder, newest, parts_of
from dwebsocket.handover.wire import Frame, Link, Malformed
from dwebsocket.runners import moving, shutdown
from dwebsocket.telemetry import tally

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

    from dwebsocket._core import Connection
    from dwebsocket.compat.socket import system
    from dwebsocket.runners.handler import Handled
    from dwebsocket.servers.contract import Heirs

_log = logging.getLogger("dwebsocket")

# Connections that are parked or offered at a time.
_WINDOW = 16
# Connections that an heir gets before another one does.
_PORTION = 128
# Seconds between two looks for an heir; and until older processes may be heirs: those of one server
# may be about to end, too.
_LOOK_S, _ELDERS_S = 0.05, 0.5
# Seconds until one that took no more is asked again: it may have had too much to do.
_AGAIN_S = 2.0
# Seconds that a process waits for an heir while others may wait for its end; and for the one that
# begins after another process has ended, or is seen to begin. Where all others of its server leave,
# too, none begins before one of them has ended, and nobody answers requests.
_SOON_S, _SUCCESSOR_S, _ALL_LEAVE_S = 5.0, 15.0, 0.5
# The same for one that is seen to begin under an ASGI server: all its processes serve. One of
# another server that does not listen may be none of these, such as uWSGI's router.
_BOOT_S = 60.0
# Seconds after which a server has begun no other process in place of one that died.
_DIED_S = 0.5
_WAITED_FOR: tuple[Heirs, ...] = ("to come", "soon")
# Seconds for handshakes that are being answered when the process begins to end.
_OPENING_S = 5.0
# Seconds after which an heir that does not answer, or takes no more bytes, is given up.
_SILENCE_S = 10.0
# Seconds until a connection stands still, as it may be in the middle of a compressed message; and
# between two looks.
_STILL_S, _PAUSE_S = 1.0, 0.005
# Seconds after which the call of a handler holds no other one up any more.
_SLOW_S = 0.1
_MALFORMED = "its answers are malformed"


class Leaving(shutdown.Mover):
    """The moves of one process, which begin once. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        # A lock of the system that is held while connections move.
        self._moving: threading.Lock | None = None
        self._search: _Search | None = None
        self._when_done: list[Callable[[], object]] = []
        # The numbers of those that move; of these, those that have come since it began. Those may
        # come as long as it gathers.
        self._spared: set[int] = set()
        self._late: set[int] = set()
        self._gathers = False

    def begin(
        self,
        patience: float,
        heirs: Heirs,
        end: Callable[[], tuple[int, str]],
        *,
        waits: bool = True,
    ) -> None:
        """
        Takes no more connections, and begins to give the own ones to another process.

        Connections that move are left out of drains from now on. Waits for handshakes that are
        being answered, five seconds at most and in no event loop, and for the hub of green threads.
        """
        arriving.stop()
        opening_s = min(patience, _OPENING_S) if waits and running_loop() is None else 0.0
        # Until drains are told which connections move.
        with moving.closed():
            places.wait_until(lambda: not moving.are_opening(), opening_s)
            if moving.survivors() or moving.are_coming():
                deadline = monotonic() + patience
                unpatched.call_code(lambda: self._begin(deadline, heirs, end))

    def _begin(self, deadline: float, heirs: Heirs, end: Callable[[], tuple[int, str]]) -> None:
        with self._lock:
            own = arriving.host()
            if self._moving is not None or monotonic() >= deadline or own is None:
                return
            try:
                boot_s = _SUCCESSOR_S if own.asgi is None else _BOOT_S
                search = _Search(heirs, own.number, deadline, end, boot_s)
            except OSError as error:
                offers.report("all handlers", str(error))
                return
            # In this order: a handler may begin to live in between.
            given = moving.given()
            handlers = _movable(moving.survivors())
            if search.is_vain() or not (handlers or moving.are_coming()):
                search.close()
                return
            self._search = search
            self._moving = unpatched.lock()
            self._moving.acquire()
            self._gathers = True
            # Before another thread, which finds that this has begun, closes all that is left.
            for handler in handlers:
                if (connection := handler.websocket._connection) is not None:
                    self._spared.add(connection.id)
                    connection.spare()
            for connection in given:
                if connection.id not in self._spared:
                    self._gather_in(connection)
        try:
            unpatched.start_thread("dwebsocket-leaving", lambda: self._move(handlers, search))
        except RuntimeError as error:
            # The system gives no thread.
            offers.report("all handlers", str(error))
            _close(handlers, end())
            search.close()
            self._finish()

    def join(self, timeout: float) -> None:
        moving_on = self._moving
        if moving_on is not None and unpatched.acquire(moving_on, timeout):
            moving_on.release()

    def hurry(self) -> None:
        if self._search is not None:
            self._search.hurry()

    def _move(self, handlers: list[Handled], search: _Search) -> None:
        left = handlers
        try:
            left = [*handlers, *self._gather(search)]
            left = search.give(left)
            if (reason := search.reason()) is not None:
                for handler in left:
                    offers.report(handler._plan.name, reason)
        except Exception:
            _report_failure()
        finally:
            _close(left, search.end())
            search.close()
            self._finish()

    def _gather(self, search: _Search) -> list[Handled]:
        """Waits for connections that others are giving to this process. Returns those that move."""
        places.wait_until(lambda: not moving.are_coming(), min(_OPENING_S, search.left()))
        with self._lock:
            self._gathers = False
        if not self._late:
            return []
        late = [each for each in moving.survivors() if _connection_of(each).id in self._late]
        movable = unpatched.call_code(lambda: _movable(late))
        moving_on = set(map(id, movable))
        _close([each for each in late if id(each) not in moving_on], search.end())
        return movable

    def _finish(self) -> None:
        assert self._moving is not None
        with self._lock:
            self._gathers = False
            calls, self._when_done = self._when_done, []
            self._moving.release()
        for call in calls:
            call()

    def call_when_done(self, call: Callable[[], object]) -> None:
        with self._lock:
            if is_moving := self._moving is not None and self._moving.locked():
                self._when_done.append(call)
        if not is_moving:
            call()

    def moves(self, connection: Connection) -> bool:
        return connection.id in self._spared

    def take_along(self, handler: object, connection: Connection) -> None:
        # For moves that begin before the handler lives.
        moving.note_given(handler, connection)
        with self._lock:
            if self._gathers:
                self._gather_in(connection)

    def _gather_in(self, connection: Connection) -> None:
        self._spared.add(connection.id)
        self._late.add(connection.id)
        connection.spare()


def _movable(handlers: list[Handled]) -> list[Handled]:
    """Returns the handlers that can move. Reports the others, once for each class and reason."""
    found: list[Handled] = []
    for handler in handlers:
        try:
            reason = offers.obstacle(handler)
        except Exception as error:
            # It is no reason to keep the others.
            offers.report(handler._plan.name, repr(error), error)
            continue
        if reason is None:
            found.append(handler)
        else:
            offers.report(handler._plan.name, reason)
    return found


def _close(handlers: list[Handled], end: tuple[int, str]) -> None:
    """Closes connections that no process has taken."""
    for handler in handlers:
        connection = handler.websocket._connection
        if connection is not None and connection.end() is None:
            tally.handed_over("refused")
            connection.close(*end)


def _report_failure() -> None:
    """Logs the exception that is being handled."""
    text, error = "WebSockets could not be handed over to another process", sys.exc_info()
    unpatched.run_code(lambda: _log.error(text, exc_info=error))


def _connection_of(handler: Handled) -> Connection:
    connection = handler.websocket._connection
    assert connection is not None
    return connection


class _Search:
    """The search for processes that go on with connections of this one."""

    def __init__(
        self,
        heirs: Heirs,
        server: int,
        deadline: float,
        end: Callable[[], tuple[int, str]],
        boot_s: float = _SUCCESSOR_S,
    ) -> None:
        """
        Begins it. Raises ``OSError`` where there is no folder of such processes.

        ``boot_s`` is how long a process of its server may take until it listens.
        """
        self._boot_s = boot_s
        self._heirs = heirs
        self._server = server
        self._deadline = deadline
        # The names of those that took no more, and when that was.
        self._tried: dict[str, float] = {}
        # Seconds that this process waits once it does not wait for another one, and since when.
        self._first_for, self._first_since = _SOON_S, 0.0
        self._passage: _Passage | None = None
        self.end = end
        # Whether its server was seen to begin an heir, since when none is there, and whether all
        # have died.
        self._has_begun, self._none_since, self._have_died = False, 0.0, False
        # Whether all that it has begun are no heirs.
        self._are_apart = False
        # Here: a thread of the system reads no settings.
        self._folder = Folder()
        self._look_for_younger()
        with suppress(OSError):
            self._folder.mark()

    def is_vain(self) -> bool:
        """Whether no process can take them, now or later."""
        try:
            return self._heirs not in _WAITED_FOR and not self._names()
        except OSError:
            # No descriptor may be left for now.
            return False

    def reason(self) -> str | None:
        """Returns why no process has taken the others; None where none was to take them."""
        if self.end() != RESTARTING:
            return None
        if self._are_apart:
            return f"the new processes have {OTHER_KEY}, or another version of dwebsocket2"
        was_one = self._heirs == "soon" or self._have_died or self._is_late() or self._tried
        return "no other process took them in time" if was_one else None

    def hurry(self) -> None:
        """Has it end soon. Any thread may call this."""
        self._deadline = monotonic()
        if (passage := self._passage) is not None:
            passage.hurry()

    def left(self) -> float:
        """Returns the seconds until all must be closed."""
        return max(0.0, self._deadline - monotonic())

    def _is_late(self) -> bool:
        return monotonic() >= self._deadline

    def close(self) -> None:
        """Ends it."""
        self._folder.close()

    def _names(self, *, with_others: bool = True) -> list[str]:
        """
        Returns the names of processes that may be heirs.

        Args:
            with_others: Whether those of other servers will do where the own one starts one.
        """
        now = monotonic()
        tried = {name for name, at in self._tried.items() if now - at < _AGAIN_S}
        # Those of its server end with this process.
        left_out = self._server if self._heirs == "of others" else None
        names = self._folder.others(but=tried, server=left_out)
        if self._heirs not in _WAITED_FOR:
            return names
        # Also those of a server that the own one has started, as gunicorn does at USR2.
        own_ones = {self._server, *children_of(self._server)}
        own = [name for name in names if parts_of(name)[2] in own_ones]
        return own or (names if with_others else [])

    def _is_worth_while(self) -> bool:
        """Whether to wait for an heir where there is none."""
        if self._heirs == "to come":
            self._look_for_younger()
            none_for = monotonic() - self._none_since if self._none_since else 0.0
            if self._has_begun and none_for > _DIED_S:
                # Its server begins others when this process has ended, or one that leaves, too.
                others = set(children_of(self._server)) - {os.getpid()}
                self._heirs, self._have_died = "soon" if others else "of others", True
            elif self._are_apart:
                self._heirs = "of others"
            return True
        if self._heirs != "soon":
            return False
        # One comes after a process has ended. If all of them wait for one, the first gives up.
        if not self._first_since:
            if self._folder.is_first():
                self._first_since = monotonic()
            else:
                self._first_for = _SUCCESSOR_S
            return True
        own, marked = {os.getpid()}, self._folder.marked() | self._apart()
        begun = {parts_of(name)[1] for name in self._folder.others()} | marked
        if set(children_of(self._server, younger=self._boot_s)) - begun - own:
            # A process of the server that may soon be an heir.
            self._first_since = monotonic()
        others = set(children_of(self._server)) - own
        do_all_leave = bool(others) and others <= marked
        patience = _ALL_LEAVE_S if do_all_leave else self._first_for
        return monotonic() - self._first_since < patience

    def _look_for_younger(self) -> None:
        """Notes whether its server has processes that are younger than this one, and stay."""
        younger = set(children_of(self._server, younger=age_of(os.getpid())))
        younger -= self._folder.marked() | {os.getpid()}
        if not younger:
            self._none_since = self._none_since or monotonic()
        else:
            self._none_since = 0.0
            listed = {parts_of(name)[1] for name in self._folder.others()}
            self._has_begun = self._has_begun or not younger <= listed
            self._are_apart = younger <= self._apart()

    def _apart(self) -> set[int]:
        """
        Returns the processes of its server that have begun in the folder of another project.

        Their settings differ from this one's. Also the servers that it has started, of such ones.
        """
        servers, now = {self._server, *children_of(self._server)}, since_boot()
        return {
            number
            for began_at, process, server in map(parts_of, self._folder.elsewhere())
            if server in servers
            for number in (process, server)
            # Another container may have used its number before.
            if now - began_at < age_of(number)
        }

    def _look(self, passed: float, half_s: float) -> list[str] | None:
        """
        Returns the names of processes to ask now; None when none is worth waiting for.

        Args:
            passed: Seconds that it takes already.
            half_s: Half of those that it has.

        Raises:
            OSError: The system refuses.
        """
        if self._heirs in _WAITED_FOR and self.end() != RESTARTING:
            # The whole site ends now. All may have had the signal before it was known.
            self._heirs = "of others"
        # For so long only younger ones of the own server will do, where that replaces all of
        # them: elders end, too, and other servers may have other code.
        patience_s = half_s if self._heirs == "to come" else 0.0
        names = self._names(with_others=passed > patience_s)
        if not names and not self._is_worth_while():
            return None
        # Elders of this server may be about to end, too.
        with_elders = self._heirs == "of others" or passed > max(_ELDERS_S, patience_s)
        return newest(names, with_elders=with_elders)

    def give(self, handlers: list[Handled]) -> list[Handled]:
        """Gives connections to the newest processes in turns. Returns those that are left."""
        began_at = monotonic()
        half_s = (self._deadline - began_at) / 2
        has_heirs = False
        while handlers and not self._is_late():
            if not has_heirs:
                # Also at first: processes that end with this one may not know it yet.
                unpatched.pause(_LOOK_S)
            has_heirs = False
            try:
                names = self._look(monotonic() - began_at, half_s)
            except OSError:
                # No descriptor may be left for now.
                continue
            if names is None:
                break
            for name, connection in self._folder.connect(names):
                self._passage = passage = _Passage(connection, self._deadline)
                if self._is_late():
                    # It may have been hurried before that one was known.
                    passage.hurry()
                left = passage.give(handlers[:_PORTION])
                handlers = [*handlers[_PORTION:], *left, *passage.busy]
                if left:
                    self._tried[name] = monotonic()
                else:
                    has_heirs = True
                if not handlers:
                    break
        return handlers


@dataclass(slots=True)
class _Item:
    """
    One connection on its way.

    Attributes:
        handler: Its handler.
        stage: The last frame about it, and :data:`wire.YES`; 0 before the first.
        is_cut: Whether it may be in its groups no more: it cannot go on here.
    """

    handler: Handled
    stage: int = 0
    is_cut: bool = False
    places: list[places.Place] = field(default_factory=list)


class _Passage:
    """The connections that go to one heir."""

    def __init__(self, connection: system.socket, deadline: float) -> None:
        connection.settimeout(_SILENCE_S)
        self._link = Link(connection)
        self._deadline = deadline
        self._events: SimpleQueue[tuple[int, Frame | None]] = SimpleQueue()
        self._items: dict[int, _Item] = {}
        # The heir has said yes to them: until when each may come to stand still, and what the heir
        # knows of its groups.
        self._agreed: list[tuple[int, _Item, float, dict[str, Any]]] = []
        # The numbers of those of whose handlers a call may be under way, and where it takes long.
        self._unparked: set[int] = set()
        self._slow: set[int] = set()
        self._has_ended = False
        # Those that another heir may take.
        self._elsewhere: list[Handled] = []
        #: After :meth:`give` those that were not offered, because a call was under way.
        self.busy: list[Handled] = []

    def hurry(self) -> None:
        """Ends it, as the heir may do. Any thread may call this."""
        self._deadline = monotonic()
        self._link.shut_down()

    def give(self, handlers: list[Handled]) -> list[Handled]:
        """Gives connections away. Returns those that this heir does not take."""
        waiting = deque(enumerate(handlers))
        try:
            unpatched.start_thread("dwebsocket-leaving-link", self._read)
        except RuntimeError as error:
            # The system gives no thread.
            offers.report_heir(str(error))
            self._link.close()
            return handlers
        try:
            self._await_heir()
            while (waiting or self._items) and not self._has_ended:
                while waiting and self._under_way < _WINDOW:
                    self._park(*waiting.popleft())
                if self._events.empty() and (ready := self._take_ready()):
                    self._give_agreed(ready)
                elif not self._take_event():
                    break
        except TimeoutError:
            offers.report_heir("it did not answer in time")
        except OSError:
            # The heir is gone.
            pass
        except Malformed:
            offers.report_heir(_MALFORMED)
        except Exception:
            # It is no reason not to ask others.
            _report_failure()
        finally:
            self._finish()
        return [*self._elsewhere, *(handler for _, handler in waiting)]

    def _await_heir(self) -> None:
        """Waits until the heir has loaded the project's code. Meanwhile handlers go on here."""
        left = max(0.0, min(self._deadline - monotonic(), _SILENCE_S))
        try:
            self._has_ended = self._events.get(timeout=left)[0] != wire.READY
        except Empty:
            # It may be stopped, by a debugger for example.
            raise TimeoutError from None

    @property
    def _under_way(self) -> int:
        """How many go their way: neither slow calls nor half messages hold others up."""
        return len(self._items) - len(self._slow) - len(self._agreed)

    def _read(self) -> None:
        """Reads what the heir says, on a thread of its own. It may have nothing to say."""
        try:
            while True:
                with suppress(TimeoutError):
                    for frame in self._link.frames():
                        wire.check_answer(frame)
                        self._events.put((frame.kind, frame))
                    return
        except OSError:
            pass
        except Malformed:
            offers.report_heir(_MALFORMED)
        finally:
            self._events.put((0, None))

    def _park(self, number: int, handler: Handled) -> None:
        self._items[number] = _Item(handler)
        self._unparked.add(number)
        parked = Frame(0, {"number": number})
        handler._begin_move(moving.Move(lambda: self._events.put((0, parked))))

    def _take_event(self) -> bool:
        """
        Acts on the next event; false when there is nothing to wait for any more.

        Raises:
            TimeoutError: The heir does not answer.
        """
        if self._agreed:
            patience = _PAUSE_S
        elif len(self._slow) == len(self._items):
            return False
        else:
            patience = _SILENCE_S if self._unparked == self._slow else _SLOW_S
        left = self._deadline - monotonic()
        try:
            kind, frame = self._events.get(timeout=max(0.0, min(left, patience)))
        except Empty:
            if left > 0 and not self._agreed:
                self._slow = set(self._unparked)
            if left > 0 and patience >= _SILENCE_S:
                raise TimeoutError from None
            return left > 0
        self._act(kind, frame)
        return True

    def _act(self, kind: int, frame: Frame | None) -> None:
        if frame is None:
            self._has_ended = True
            return
        number = frame.head.get("number", -1)
        if (item := self._items.get(number)) is not None:
            before, step = _STEPS[kind]
            if item.stage != before:
                raise Malformed
            step(self, number, item, frame)

    def _on_parked(self, number: int, item: _Item, _: Frame) -> None:
        self._unparked.discard(number)
        self._slow.discard(number)
        if item.handler.websocket._is_finished:
            # It has ended by itself.
            del self._items[number]
            return
        try:
            offer = unpatched.call_code(functools.partial(offers.offer_of, item.handler))
        except offers.Obstacle as error:
            offers.report(item.handler._plan.name, str(error))
            self._stay(number, item, *RESTARTING)
            return
        except Exception as error:
            # By a value in its state, perhaps. It is no reason to keep the others.
            offers.report(item.handler._plan.name, repr(error), error)
            self._stay(number, item, *RESTARTING)
            return
        item.stage = wire.OFFER
        item.places = offer["places"]
        self._link.send(Frame(wire.OFFER, {**offer, "number": number}))

    def _on_yes(self, number: int, item: _Item, frame: Frame) -> None:
        # Others may be about to get theirs, too: the less is said to the servers of their groups.
        # Meanwhile it comes to stand still.
        item.stage = wire.YES
        _connection_of(item.handler).halt()
        self._agreed.append((number, item, monotonic() + _STILL_S, frame.head))

    def _take_ready(self) -> list[tuple[int, _Item, dict[str, Any]]]:
        """Takes those that stand still from the list of those agreed, or have not in time."""
        ready, waiting, now = [], [], monotonic()
        for number, item, until, expected in self._agreed:
            connection = _connection_of(item.handler)
            if now >= until or connection.is_still or connection.end() is not None:
                ready.append((number, item, expected))
            else:
                waiting.append((number, item, until, expected))
        self._agreed = waiting
        return ready

    def _give_agreed(self, agreed: list[tuple[int, _Item, dict[str, Any]]]) -> None:
        """Gives connections away that the heir has said yes to."""
        departures = []
        for _, item, expected in agreed:
            # From the moment on at which markers may come.
            item.is_cut = bool(expected["marks"])
            departures.append(crossing.Departure(item.handler, expected))
        markers.publish([each.ends for each in departures])
        deadline = min(self._deadline, monotonic() + crossing.ON_THE_WAY_S)
        for (number, item, expected), departure in zip(agreed, departures, strict=True):
            item.is_cut = True
            cuts, reached = departure.cut(deadline), None
            if cuts is not None:
                marked = departure.ends.of_rooms()
                begun = expected["places"]
                reached = places.depart(item.handler, item.places, begun, marked, deadline)
            self._give(number, item, cuts, reached)

    def _give(
        self,
        number: int,
        item: _Item,
        cuts: crossing.Cuts | None,
        reached: list[places.Reached | None] | None,
    ) -> None:
        connection, parts = _connection_of(item.handler), None
        why = "its groups' messages were late"
        if reached is not None:
            item.handler.websocket._is_given = True
            why = "its client was in the middle of a compressed message"
            try:
                parts = connection.give_away(0.0)
            except OSError as error:
                # No descriptor may be left.
                why = str(error)
        if parts is None:
            if connection.end() is None:
                offers.report(item.handler._plan.name, why)
            self._link.send(Frame(wire.FORGET, {"number": number}))
            self._stay(number, item, *RESTARTING)
            return
        descriptor, incoming, unsent, unread, pulse = parts
        # First: what fails from here on has to be taken back.
        item.stage = wire.GIVE
        lengths = [(is_text, len(payload)) for is_text, payload in unread]
        head: dict[str, Any] = {"number": number}
        head |= {"incoming": len(incoming), "unsent": len(unsent), "pulse": pulse}
        received, sent = map(add, connection.messages(), item.handler.websocket._messages_before)
        # The heir counts those that are unread.
        head["messages"] = [received - len(unread), sent]
        gone = {"cuts": cuts, "reached": reached}
        body = b"".join((incoming, unsent, *(payload for _, payload in unread)))
        try:
            self._link.send(Frame(wire.GIVE, {**head, **gone, "unread": lengths}, body, descriptor))
        finally:
            unpatched.close_descriptor(descriptor)

    def _on_taken(self, number: int, item: _Item, _: Frame) -> None:
        del self._items[number]
        websocket = item.handler.websocket
        if (callbacks := websocket._close_callbacks) is not None:
            # Nothing has ended.
            callbacks.forget()
        _connection_of(item.handler).part()
        item.handler._end_move(has_parted=True)
        tally.handed_over("out")

    def _on_no(self, number: int, item: _Item, frame: Frame) -> None:
        if frame.head["elsewhere"]:
            del self._items[number]
            item.handler._end_move(has_parted=False)
            self._elsewhere.append(item.handler)
            return
        if why := frame.head["why"]:
            offers.report(item.handler._plan.name, why)
        try:
            self._stay(number, item, frame.head["code"], frame.head["reason"])
        except (ValueError, OverflowError) as error:
            # No such code can close it.
            raise Malformed from error

    def _on_lost(self, number: int, item: _Item, _: Frame) -> None:
        offers.report(
            item.handler._plan.name, "the process that was to go on has failed, as its log tells"
        )
        self._stay(number, item, *RESTARTING)

    def _stay(self, number: int, item: _Item, code: int, reason: str) -> None:
        """Closes a connection here, because no process goes on with it."""
        connection = _connection_of(item.handler)
        if item.stage == wire.GIVE:
            connection.take_back(code, reason)
        else:
            connection.go_on()
            connection.close(code, reason)
        del self._items[number]
        tally.handed_over("refused")
        item.handler._end_move(has_parted=False)

    def _finish(self) -> None:
        """Ends it: what the heir has said to have taken until now is its own, nothing else."""
        self._link.shut_down()
        while not self._has_ended:
            kind, frame = self._events.get()
            if frame is None or kind == wire.TAKEN:
                with suppress(Malformed):
                    self._act(kind, frame)
        for number, item in list(self._items.items()):
            if item.stage == wire.GIVE or item.is_cut:
                offers.report(
                    item.handler._plan.name, "the process that was to go on did not answer"
                )
                self._stay(number, item, *RESTARTING)
            else:
                _connection_of(item.handler).go_on()
                item.handler._end_move(has_parted=False)
                (self.busy if number in self._slow else self._elsewhere).append(item.handler)
        self._items.clear()
        self._link.close()


# With the stage at which each may come.
_STEPS: dict[int, tuple[int, Callable[[_Passage, int, _Item, Frame], None]]] = {
    0: (0, _Passage._on_parked),
    wire.YES: (wire.OFFER, _Passage._on_yes),
    wire.NO: (wire.OFFER, _Passage._on_no),
    wire.TAKEN: (wire.GIVE, _Passage._on_taken),
    wire.LOST: (wire.GIVE, _Passage._on_lost),
}

shutdown.mover = Leaving()
renew_at_fork(vars(shutdown), mover=Leaving)
