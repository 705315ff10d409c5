"""
A process that goes on with connections of others.

It listens from its start on: as a worker when the project is loaded, under an ASGI server when
lifespan begins. Where neither tells it, that is from its first WebSocket on. Each offer is a
request to the project's own handler, by which it is validated like a handshake. See
:mod:`dwebsocket.handover`.
"""

from __future__ import annotations

import atexit
import contextvars
import functools
import heapq
import itertools
import logging
import os
import sys
from asyncio import CancelledError
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.cache import caches
from django.urls import get_resolver

from dwebsocket import _core, conf
from dwebsocket.api.base import RESTARTING
from dwebsocket.compat import gunicorn as compat_gunicorn
from dwebsocket.compat import unpatched
from dwebsocket.compat.socket import accept, system
from dwebsocket.compat.system import NO_TAKEOVER, at_fork
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends, membership_signals, names
from dwebsocket.groups.api import Group
from dwebsocket.groups.backends import local, process
from dwebsocket.groups.view_groups import Joins
from dwebsocket.handover import crossing, offers, requests, wire
from dwebsocket.handover.answering import Handler, LoopHandler
from dwebsocket.handover.deputies import Deputies, Unlike
from dwebsocket.handover.meeting import Folder, is_own
from dwebsocket.handover.places import Place, begun_of, kind_of
from dwebsocket.handover.wire import Frame, Link, Malformed
from dwebsocket.handshake.handler_start import HandlerStart
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.request import HANDSHAKE_KEY, database, worlds
from dwebsocket.runners import moving, shutdown
from dwebsocket.servers import hosts
from dwebsocket.servers.families import uwsgi
from dwebsocket.servers.handshake import Handshake, Opening
from dwebsocket.telemetry import tally
from dwebsocket.users import authentication
from dwebsocket.users.registry import SIGNED_OUT

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from dwebsocket.runners.handler import Handled
    from dwebsocket.servers.handshake import Refusal

_log = logging.getLogger("dwebsocket")

_UNAVAILABLE = 503
# Never compressed: the compression of this process is off.
_NO_THRESHOLD, _LEVEL = sys.maxsize, 1
# Seconds between two looks whether Django has started, and after a failure.
_LOOK_S, _PAUSE_S = 0.01, 0.1
# Connections that wait for each other at most, until their handlers go on.
_TOGETHER = 64
# Work of a visit, in this order.
_FIRST, _LAST = 0, 1


class Offer:
    """The offer of a connection: all that the other process tells of it before a yes."""

    def __init__(self, head: dict[str, Any]) -> None:
        """Begins with the head of the frame that offers it."""
        self.number: int = head["number"]
        self.meta: dict[str, Any] = head["meta"]
        self.user: str = head["user"]
        #: The key of the user who was signed in by the session; empty where none was.
        self.login: str = head["login"]
        self.version: str = head["version"]
        self.agreement: str | None = head["agreement"]
        self.websocket_id: str | None = head["id"]
        self.opened_at: float = head["opened_at"]
        #: The messages that were received and sent in other processes, once it is given.
        self.messages = (0, 0)
        self.state: dict[str, Any] = head["state"]
        self.tick_in: float | None = head["tick_in"]
        self.subprotocol: str | None = head["subprotocol"]
        self.places = [Place(*each) for each in head["places"]]
        #: The packed rooms of a connection that has rooms; None for any other one.
        self.rooms: dict[str, Any] | None = head["rooms"]
        self._groups: list[tuple[str, str]] = head["groups"]
        #: The kinds of its groups' backends, by their aliases.
        self.kinds: dict[str, str] = head["backends"]
        #: The request that was made of it.
        self.request: HttpRequest | None = None
        #: The response to that, until it is closed.
        self.response: HttpResponseBase | None = None
        self._context = contextvars.Context()
        #: The loop of this process's server.
        self.loop: AbstractEventLoop | None = None

    def note(self, response: HttpResponseBase) -> None:
        """Notes the response to its request, and the context of that for all that comes later."""
        self.response, self._context = response, contextvars.copy_context()

    def open(self) -> None:
        """Opens the connection."""
        assert isinstance(self.response, UpgradeResponse)
        self._context.run(self.response.open)

    def close(self) -> None:
        """Closes the response to its request. May be repeated."""
        response, self.response = self.response, None
        if response is not None:
            self._context.run(response.close)

    def groups(self) -> list[Group]:
        """Returns the groups that it is in."""
        return [Group(name, alias) for alias, name in self._groups]

    def joins(self) -> Joins:
        """Returns the groups that need no deputy: no other process has members of them."""
        return Joins([each for each in self.groups() if self._is_alone(each)], "", is_moved=True)

    def shared(self) -> list[Group]:
        """Returns the groups that need a deputy."""
        return [each for each in self.groups() if not self._is_alone(each)]

    def _is_alone(self, group: Group) -> bool:
        return self.kinds[group.using].startswith(process.__name__)


class MovedHandshake(Handshake):
    """The handshake of a connection that another process has opened, and gives away."""

    moved: Offer

    def __init__(self, offer: Offer, link: Link, environ: dict[str, Any], host: hosts.Host) -> None:
        """
        Begins with an offer, the link to the other process, and the request's environ.

        Args:
            host: This process's server.
        """
        super().__init__("GET", environ, None)
        self.moved = offer
        self._link = link
        self.host = host
        offer.loop = None if host.asgi is None else host.asgi.loop
        #: The frame by which it was given.
        self.given: Frame | None = None
        self._room: int | None = None
        #: Stands in for it in groups, until it is.
        self.crossing: crossing.Crossing | None = None
        self.deputies: Deputies | None = None
        #: The handler that goes on with it, once it is known.
        self.handler: Handled | None = None
        # Holds threads and the like for its handler, until that has begun to live.
        self._held = ExitStack()

    def _validate(self) -> Refusal | None:
        """Accepts: the other process has validated it."""
        self.offered = [] if self.moved.subprotocol is None else [self.moved.subprotocol]
        return None

    def find(self) -> None:
        """Finds this process's own server."""
        self.client = self.host.client

    def prepare(self) -> None:
        """
        Starts the engine, and keeps room for the descriptor that is to come.

        Raises:
            OSError: There are no more descriptors or threads.
        """
        _core.prepare()
        self._room = os.open(os.devnull, os.O_RDONLY)
        # It comes before that is closed.
        os.close(os.dup(self._room))

    def hold(self, start: HandlerStart) -> None:
        """
        Has what the handler needs be there before the connection is.

        Raises:
            OSError, RuntimeError: There are no more descriptors or threads.
        """
        self.handler = start.handler
        self._held.enter_context(start.holding_home())

    def open(self, opening: Opening) -> _core.Connection:
        """
        Goes on with the connection.

        Raises:
            OSError: It could not be taken over, or the other process takes it back.
        """
        frame = self.given
        assert frame is not None
        assert frame.descriptor is not None
        number = {"number": self.moved.number}
        incoming, unsent, unread = _parts(frame)
        received, sent = frame.head["messages"]
        self.moved.messages = (received, sent)
        options, compression = opening.options, None
        if (agreement := self.moved.agreement) is not None:
            own = options.compression
            threshold, level = (own.threshold, own.level) if own else (_NO_THRESHOLD, _LEVEL)
            compression = _core.Compression.agreed(agreement, threshold=threshold, level=level)
        self.given = None
        try:
            connection = _core.adopt_moved(
                frame.descriptor,
                incoming,
                unread,
                tuple(frame.head["pulse"]),
                opening.permit,
                options.for_engine,
                compression,
                opening.memberships,
            )
        except BaseException:
            self._link.send(Frame(wire.LOST, number))
            raise
        # First: from then on it is not closed with those that do not move.
        shutdown.mover.take_along(self.handler, connection)
        kept = self._enter_groups(connection, frame.head)
        try:
            self._link.send(Frame(wire.TAKEN, number))
        except BaseException:
            # The other process has it, or is gone, too.
            connection.part()
            raise
        connection.release(unsent + (kept or b""))
        if (server := self.host.asgi) is not None and server.keep is not None:
            with suppress(RuntimeError):
                # A loop that is closed is that of a process that ends.
                server.loop.call_soon_threadsafe(_keep, server.keep, connection)
        if kept is None:
            # It may have been closed as one of its groups was.
            if connection.end() is None and self.handler is not None:
                offers.report(self.handler._plan.name, "it may miss messages of a group")
            connection.close(*RESTARTING)
        elif _core.is_leaving() and not shutdown.mover.moves(connection):
            # This process ends, and gives no more connections away.
            end = shutdown.closing()[:2]
            if end == RESTARTING and self.handler is not None:
                offers.report(self.handler._plan.name, "the process that was to go on ends, too")
            connection.close(*end)
        tally.handed_over("in")
        return connection

    def _enter_groups(self, connection: _core.Connection, head: dict[str, Any]) -> bytes | None:
        """Makes it a member. Returns what it is to send first; None if it must end."""
        if self.crossing is None or self.deputies is None or self.handler is None:
            return b""
        if (kept := self.crossing.enter(connection, head["cuts"])) is None:
            return None
        try:
            who = self.deputies.key, self.deputies.user
            seats = self.handler._seat_rooms(self.moved.rooms, connection, *who)
            missed = self.deputies.enter(connection, seats, head["reached"])
        except GroupUnavailable as error:
            _log.warning("A WebSocket of another process cannot be told all: %s", error)
            return None
        return None if missed is None else kept + missed

    def finish(self) -> None:
        """Releases what is left."""
        self._held.close()
        if self.handler is not None:
            moving.give_up(self.handler)
        if self.crossing is not None:
            self.crossing.leave()
        if self.deputies is not None:
            self.deputies.leave()
        given, self.given = self.given, None
        if given is not None and given.descriptor is not None:
            os.close(given.descriptor)
        room, self._room = self._room, None
        if room is not None:
            os.close(room)


def _keep(keep: Callable[[_core.Connection], object], connection: _core.Connection) -> None:
    """Has a connection closed with the others of its server, unless it moves on."""
    if not shutdown.mover.moves(connection):
        keep(connection)


def _parts(frame: Frame) -> tuple[bytes, bytes, list[tuple[bool, bytes]]]:
    """Returns the bytes of a frame that gives a connection: to be read, to be sent, messages."""
    body, head = memoryview(frame.body), frame.head
    incoming, body = body[: head["incoming"]], body[head["incoming"] :]
    unsent, body = body[: head["unsent"]], body[head["unsent"] :]
    unread = []
    for is_text, length in head["unread"]:
        unread.append((is_text, bytes(body[:length])))
        body = body[length:]
    return bytes(incoming), bytes(unsent), unread


def _load() -> Handler | LoopHandler:
    """Loads the project's middleware and URLs. Raises what the former raises."""
    own = hosts.find()
    handler = Handler() if own is None or own.asgi is None else LoopHandler()
    # If URLs cannot be imported, each request says so.
    with suppress(Exception):
        # The property imports them.
        _ = get_resolver().url_patterns
    return handler


class _Refused(Exception):
    """
    This process does not go on with a connection. Perhaps another one does: ``elsewhere``.

    The giver reports ``why``, unless it is empty.
    """

    def __init__(self, code: int, reason: str, *, elsewhere: bool = False, why: str = "") -> None:
        super().__init__(why or reason)
        self.head = {"code": code, "reason": reason, "elsewhere": elsewhere, "why": why}


def _unlike(why: str) -> _Refused:
    return _Refused(*RESTARTING, why=why)


class _Giver:
    """
    Another process that gives connections to this one.

    Its thread is of the system. Frames are acted on where the project's code runs. The answers are
    short, so the socket takes them at once.
    """

    def __init__(self, connection: system.socket, handler: Handler | LoopHandler) -> None:
        self._link = Link(connection)
        self._handler = handler
        # In which each offer begins.
        self._context = contextvars.Context()
        # The frames to act on, each with its order.
        self._work: list[tuple[int, int, Frame]] = []
        self._numbers = itertools.count()
        # Those that this process has said yes to.
        self._expected: dict[int, MovedHandshake] = {}
        # Handlers of connections that have come: they have had no turn yet.
        self._arrived: list[Handled] = []

    def _next(self) -> Frame | None:
        """
        Waits for work, and returns the first in its order; None at the end.

        Given connections come before offers.
        """
        link, work = self._link, self._work
        try:
            if not work or len(self._arrived) >= _TOGETHER:
                self._let_go_on()
            while not work or work[0][0] == _LAST:
                if not work:
                    link.flush()
                if not link.read(waits=not work):
                    break
                for frame in link.received():
                    order = _LAST if frame.kind == wire.OFFER else _FIRST
                    heapq.heappush(work, (order, next(self._numbers), frame))
        except (BlockingIOError, ConnectionError):
            # Nothing more has come, or the other process is gone.
            pass
        return heapq.heappop(work)[2] if work else None

    def _let_go_on(self) -> None:
        """
        Has the handlers of connections that have come go on.

        Several at a time: after each of them a thread of theirs would take the GIL from this one.
        """
        arrived, self._arrived = self._arrived, []
        for handler in arrived:
            handler._go_on()

    def work(self) -> None:
        """Acts on what the other process says, until it ends."""
        try:
            self._link.send(Frame(wire.READY, {}))
            unpatched.call_code(functools.partial(self._context.run, _make_caches))
            while (frame := self._next()) is not None:
                unpatched.call_code(functools.partial(self._act, frame))
        except (OSError, Malformed):
            # The other process is gone.
            pass
        except Exception:
            _log.exception("WebSockets of another process could not be taken")
        finally:
            self._let_go_on()
            unpatched.call_code(self._forget_all)
            self._link.shut_down()
            # Nothing is done about these any more: their clients see the end.
            for *_, frame in self._work:
                _drop(frame)
            self._link.close()

    def _act(self, frame: Frame) -> None:
        if frame.kind == wire.OFFER:
            # Middleware may set variables, and leave them to the next request.
            self._context.copy().run(self._answer, Offer(frame.head))
        elif frame.kind == wire.GIVE:
            self._take(frame)
        elif frame.kind == wire.FORGET and (
            found := self._expected.pop(frame.head["number"], None)
        ):
            found.moved.close()
        if unpatched.is_code_green():
            # This green thread ends here, and the request on another one.
            database.leave()

    def _forget_all(self) -> None:
        for handshake in self._expected.values():
            handshake.moved.close()
        database.leave()

    def _answer(self, offer: Offer) -> None:
        try:
            expected = self._validate(offer)
        except _Refused as refused:
            self._link.put(Frame(wire.NO, {"number": offer.number, **refused.head}))
            return
        except (Exception, CancelledError):
            _log.exception("A WebSocket of another process could not be validated")
            head = _unlike("the process that was to go on has failed, as its log tells").head
            self._link.put(Frame(wire.NO, {"number": offer.number, **head}))
            return
        self._expected[offer.number] = expected
        crosses, deputies = expected.crossing, expected.deputies
        assert crosses is not None
        assert deputies is not None
        marks = [*crosses.expected["marks"], *deputies.marks]
        begun = begun_of({each.using for each in offer.places})
        head = {**crosses.expected, "marks": marks, "places": begun}
        self._link.put(Frame(wire.YES, {"number": offer.number, **head}))

    def _validate(self, offer: Offer) -> MovedHandshake:
        """
        Asks the project whether it goes on with a connection.

        Raises:
            _Refused: It does not.
        """
        if _is_leaving() or (own := hosts.find()) is None:
            raise _Refused(*RESTARTING, elsewhere=True)
        environ = requests.environ_of(offer.meta)
        handshake = MovedHandshake(offer, self._link, environ, own)
        environ[HANDSHAKE_KEY] = handshake
        try:
            self._handler.answer(environ)
            response: Any = offer.response
            _refuse_if_unlike(offer, response)
            try:
                handshake.hold(response.start)
            except (OSError, RuntimeError):
                # The giver goes on meanwhile, also where another process has no thread, either.
                raise _Refused(*RESTARTING, elsewhere=True) from None
            assert handshake.handler is not None
            moving.expect(handshake.handler, is_moved=True)
            if _is_leaving():
                # It may have looked for agreed connections before this one was noted.
                raise _Refused(*RESTARTING, elsewhere=True)
            joined = [*offer.groups(), *(Group(each.name, each.using) for each in offer.places)]
            joined = [each for each in joined if not each.name.startswith(names.OWN)]
            membership_signals.note_at_opening(joined, response.websocket, is_moved=True)
            handshake.crossing = crossing.Crossing(offer.shared(), response.websocket)
            handshake.deputies = Deputies(offer.places, response.websocket)
            handshake.deputies.begin()
        except BaseException as error:
            offer.close()
            # Middleware may have put another response, which knows nothing of it, in its place.
            handshake.finish()
            if isinstance(error, GroupUnavailable):
                # The giver goes on meanwhile.
                raise _Refused(*RESTARTING, elsewhere=True) from None
            if isinstance(error, Unlike):
                raise _unlike(str(error)) from None
            raise
        return handshake

    def _take(self, frame: Frame) -> None:
        if (handshake := self._expected.pop(frame.head["number"], None)) is None:
            _drop(frame)
            return
        handshake.given = frame
        try:
            handshake.moved.open()
        finally:
            if handshake.handler is not None:
                self._arrived.append(handshake.handler)
            handshake.moved.close()


def _make_caches() -> None:
    """Makes the caches once, as on a server's thread: each may have connections of its own."""
    for alias in caches:
        # A page that uses it would say so.
        with suppress(Exception):
            _ = caches[alias]


def _drop(frame: Frame) -> None:
    """Closes the descriptor of a frame that nothing is done about."""
    if frame.descriptor is not None:
        unpatched.close_descriptor(frame.descriptor)


def _refuse_if_unlike(offer: Offer, response: Any) -> None:
    """Raises ``_Refused`` unless the response opens the same handler for the same user."""
    if not isinstance(response, UpgradeResponse):
        # Without one, whatever answers did so before the middleware that looks the user up.
        user = getattr(offer.request, "user", None)
        if offer.user and user is not None and str(getattr(user, "pk", None)) != offer.user:
            _refuse_signed_out(offer)
        status = response.status_code
        why = f"its request is answered with the status {status} now"
        raise _Refused(*RESTARTING, elsewhere=status == _UNAVAILABLE, why=why)
    start = response.start
    if not isinstance(start, HandlerStart) or not start.handler._plan.survives:
        raise _unlike("its URL has no handler that survives now")
    if not moving.is_version(version := type(start.handler).version, offer.version):
        raise _unlike(f"its version is {version!r} now, not {offer.version}")
    if (obstacle := start.handler._obstacle_in(offer.rooms)) is not None:
        raise _unlike(obstacle)
    kinds = offer.kinds.items()
    if any(kind_of(backends.backend(alias)) != kind for alias, kind in kinds):
        raise _unlike("its groups have another backend now")
    if (user := response.websocket._visitor_names[0]) != offer.user:
        _refuse_signed_out(offer)
        raise _unlike("its request has another user now" if user else "its request has no user now")


def _refuse_signed_out(offer: Offer) -> None:
    """
    Raises ``_Refused`` where the user has signed out: clients do not come back after that.

    Only the session tells. Tokens may have ended by now, for which clients may have fresh ones.
    """
    request = offer.request
    assert request is not None
    with worlds.entered(worlds.of(request, conf.present())):
        if offer.login and authentication.has_signed_out(request, offer.login):
            raise _Refused(SIGNED_OUT, "signed out")


def _is_leaving() -> bool:
    """Whether this process ends: it may have had no WebSocket that would tell it so."""
    return _has_stopped or _core.is_leaving() or compat_gunicorn.is_ending()


class _Listener:
    """This process as an heir of others."""

    def __init__(self, server: int) -> None:
        """Begins to listen. Raises ``OSError`` where that is not possible."""
        self._folder = Folder()
        try:
            self._socket, self._name = self._folder.listen(server)
        except BaseException:
            self._folder.close()
            raise
        self._process = os.getpid()
        self._is_stopped = False

    def accept(self) -> None:
        """Lets other processes visit this one, until it is stopped."""
        handler = None
        while True:
            try:
                connection = accept(self._socket)
            except OSError:
                if self._is_stopped:
                    break
                # The process may have no descriptor left for now.
                unpatched.sleep(_PAUSE_S)
                continue
            if _is_leaving() or not is_own(connection):
                connection.close()
                continue
            # This one may be among those that Django is starting. Its event may be a green one.
            while not apps.ready:
                unpatched.sleep(_LOOK_S)
            try:
                handler = handler or unpatched.call_code(_load)
            except Exception:
                _log.exception("This process cannot go on with WebSockets of others")
                connection.close()
                continue
            visit = _Giver(connection, handler)
            try:
                unpatched.start_thread("dwebsocket-arriving", visit.work)
            except RuntimeError as error:
                # The system gives no thread: the other process finds another heir, or none.
                offers.report_own(str(error))
                connection.close()
        self._socket.close()
        self._folder.close()

    def stop(self) -> None:
        """Lets no other process visit this one any more."""
        if os.getpid() == self._process:
            self._is_stopped = True
            self._folder.remove(self._name)
            # macOS shuts no listening socket down: its thread ends with the process.
            with suppress(OSError):
                self._socket.shutdown(system.SHUT_RDWR)

    def forget(self) -> None:
        """Closes what a forked child has of its parent's."""
        self._socket.close()
        self._folder.close()


_lock = unpatched.lock()
_listener: _Listener | None = None
_has_stopped = False


def host() -> hosts.Host | None:
    """Returns the server of this process; None where its connections cannot move to others."""
    is_on = not NO_TAKEOVER and conf.get_or("HANDOVER", otherwise=False)
    return hosts.find() if is_on else None


def begin() -> None:
    """
    Lets other processes of the project give their connections to this one. May be repeated.

    Does nothing where that is switched off, or not possible.
    """
    global _listener
    if (own := host()) is None:
        return
    with _lock:
        if _listener is not None or _has_stopped:
            return
        try:
            _listener = _Listener(own.number)
        except OSError as error:
            offers.report_own(local.with_hint(str(error)))
            return
        listener = _listener
    try:
        unpatched.start_thread("dwebsocket-heir", listener.accept)
    except RuntimeError as error:
        # The system gives no thread. The connection that this begins with goes on all the same.
        offers.report_own(str(error))
        with _lock:
            _listener = None
        listener.stop()
        listener.forget()
        return
    # A process that has had no WebSocket begins no moves when it ends.
    atexit.register(stop)


def stop() -> None:
    """Accepts no more connections of other processes, for good. Never waits."""
    global _has_stopped
    with _lock:
        listener, was_stopped, _has_stopped = _listener, _has_stopped, True
    if listener is not None and not was_stopped:
        listener.stop()


def _after_fork() -> None:
    global _lock, _listener, _has_stopped
    listener, _listener, _has_stopped, _lock = _listener, None, False, unpatched.lock()
    if listener is not None:
        listener.forget()


at_fork(_after_fork)
shutdown.when_begun(begin)
uwsgi.call_in_workers(begin)
compat_gunicorn.call_in_workers(begin)
