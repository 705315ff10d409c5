"""
The response that becomes the upgrade.

It is opened when it reaches the server: all middleware has run by then, and its headers and cookies
go into the real 101. How it is opened depends on the server (:mod:`dwebsocket.servers.handshake`).
"""

from __future__ import annotations

import functools
import logging
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse

from dwebsocket import _core, conf
from dwebsocket.api.base import GOING_AWAY
from dwebsocket.api.decision import Acceptance, Answer, Decision, Failure, GivenUp, Rejection
from dwebsocket.api.waiting.loop_hub import LoopEvent
from dwebsocket.compat.django import headers_of
from dwebsocket.exceptions import ShuttingDown, UsageError
from dwebsocket.handshake.refusal import announce_refusal, refuse
from dwebsocket.request import request_copy
from dwebsocket.servers.handshake import Opening, begin_beat
from dwebsocket.telemetry import tally
from dwebsocket.telemetry.records import Record
from dwebsocket.users import recheck, sessions, sign_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http.response import HttpResponseBase

    from dwebsocket.groups.view_groups import Joins
    from dwebsocket.handshake.start import Start
    from dwebsocket.handshake.upgrade_request import UpgradeRequest
    from dwebsocket.users import registry
    from dwebsocket.websocket import WebSocket

_ABNORMAL, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1006, 1011, 1013
# Django's default content type. Without it Django would read the settings for a charset.
_CONTENT_TYPE = "text/html; charset=utf-8"
_FALLBACK_TYPES = {"sse": "text/event-stream", "polling": "application/json"}
# The statuses with which Django answers a view's exceptions.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (Http404, 404),
    (PermissionDenied, 403),
    (BadRequest, 400),
    (SuspiciousOperation, 400),
)
# The acceptance by a view that adds nothing.
_AS_IT_IS = Acceptance(None, [])


def _code_for(error: BaseException) -> tuple[int, str]:
    """Returns the close code and reason for an error that keeps a view from running."""
    if isinstance(error, Exception):
        return _INTERNAL_ERROR, ""
    return GOING_AWAY


def _status_of(error: Exception) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


class _NoThread(Exception):
    """The view that is to decide could not be started."""


class UpgradeResponse(HttpResponse):
    """
    The response that turns its request into a WebSocket: :meth:`open`.

    For middleware it is an empty 101 like any other response. A WSGI server opens it by iterating
    over it; the bytes that the server then writes never reach the client.
    """

    status_code = 101

    def __init__(
        self,
        asked: UpgradeRequest,
        permit: _core.Permit,
        websocket: WebSocket,
        start: Start,
        visitor: registry.Visitor | None,
        joins: Joins,
    ) -> None:
        super().__init__(content_type=_CONTENT_TYPE)
        self._request = asked.request
        self._handshake = asked.handshake
        self._permit: _core.Permit | None = permit
        self._options = asked.options
        #: The WebSocket, open or not.
        self.websocket = websocket
        if websocket._transport != "websocket":
            self.status_code = 200
            self["Content-Type"] = _FALLBACK_TYPES[websocket._transport]
            # No cache of the site may keep the response that its middleware sees.
            self["Cache-Control"] = "private, no-store"
        #: The start of its view; None once it is open, or given up.
        self.start: Start | None = start
        # The visitor, if it has a user, who is checked again when the connection opens.
        self._user = visitor if visitor is not None and visitor.who.user else None
        self._joins = joins
        self._decision: Decision[Any] | None = None
        self._acceptance = _AS_IT_IS

    def __iter__(self) -> Iterator[bytes]:
        self.open()
        return iter(self._handshake.body)

    def close(self) -> None:
        """Called by the server when it is done with the response, or by Django instead of it."""
        self.release()
        super().close()

    @contextmanager
    def asking_view(self, *, in_loop: bool) -> Iterator[Decision[Any]]:
        """
        Starts a view that decides itself; the caller sleeps until it has, and concludes.

        With ``in_loop`` the caller is a coroutine.
        """
        assert self.start is not None
        decision = self._begin_decision(self.start, in_loop=in_loop)
        stop_timer: Callable[[], object] = bool
        try:
            if self._permit is not None:
                # The view may run on after the handler has stopped waiting for it.
                self.websocket._permit = self._permit.share()
            if (timeout := self._options.handshake_timeout) is not None:
                give_up = functools.partial(decision.tell_handler, GivenUp())
                stop_timer = self.start.call_later(timeout, give_up, in_loop=in_loop)
            self.start(self._request, self.websocket)
        except Exception as error:
            self.websocket._release_permit()
            decision.tell_handler(Failure(_NoThread(error)))
        try:
            yield decision
        except BaseException:
            # The server gives up the request: release it, so that the view stops waiting.
            self.release()
            raise
        finally:
            stop_timer()

    def _begin_decision(self, start: Start, *, in_loop: bool) -> Decision[Any]:
        is_async, new_event = start.view.is_async, start.runner.waiter.new_event
        decision: Decision[Any] = Decision(
            LoopEvent() if in_loop else new_event(),
            LoopEvent() if is_async else new_event(),
            is_async=is_async,
            offered=tuple(self._handshake.offered),
        )
        self._decision = self.websocket._decision = decision
        itself = weakref.ref(self)
        decision.is_dropped = lambda: itself() is None
        self._request.__dict__["websocket"] = self.websocket
        return decision

    def conclude(self) -> HttpResponseBase:
        """
        Returns the response that the view has decided on.

        Raises:
            BaseException: The exception that the view let through instead.
        """
        assert self._decision is not None
        assert self.start is not None
        request, view = self._request, self.start.view.name
        outcome = self._decision.take_outcome()
        if isinstance(outcome, Acceptance):
            self._acceptance = outcome
            return self
        self.release()
        if isinstance(outcome, Rejection):
            return refuse(request, outcome.status, "The view rejected it.", cause="view")
        if isinstance(outcome, Answer):
            if outcome.response is None:
                raise UsageError(f"{view} returned None without accept() or reject()")
            response: HttpResponseBase = outcome.response
            announce_refusal(request, response.status_code, f"{view} answered with a response.")
            return response
        if isinstance(outcome, GivenUp):
            limit = f"{conf.PREFIX}HANDSHAKE_TIMEOUT ({self._options.handshake_timeout} s)"
            reason = f"{view} did not decide within {limit}."
            return refuse(request, 503, reason, cause="view_timeout")
        if isinstance(outcome.error, _NoThread):
            reason = f"No thread for another view: {outcome.error}"
            return refuse(request, 503, reason, "error", "no_thread")
        if isinstance(outcome.error, Exception):
            announce_refusal(request, _status_of(outcome.error), repr(outcome.error))
        try:
            raise outcome.error
        finally:
            # The exception holds this frame.
            del outcome

    def release(self) -> None:
        """Releases the handshake and the permit; if the connection is not open, gives it up."""
        self._handshake.finish()
        if self._permit is not None:
            self._permit.release()
        if self.websocket._connection is None:
            self._abandon()

    def _abandon(self) -> None:
        """Does what remains to be done when the connection will not open."""
        self.websocket._leave()
        self._joins.release()
        if (decision := self._decision) is not None:
            # Its view may wait for the connection.
            decision.decide(GivenUp())
            self.websocket._never_open()
            decision.settled.set()

    @property
    def needs_database(self) -> bool:
        """Whether event loops should call :meth:`look_at_user` on a thread first."""
        return self._user is not None and recheck.needs_check(self._user)

    def look_at_user(self) -> None:
        """Checks whether the user is still signed in. Once; opening calls it, too."""
        user, self._user = self._user, None
        if user is not None and self.start is not None:
            runner = self.start.runner
            sign_out.listen_for(user.who)
            recheck.admit(user, runner.waiter, runner.spawn, self.start.databases)

    def open(self) -> None:
        """Opens the WebSocket and starts its view. Once; later calls do nothing."""
        self.look_at_user()
        start, self.start = self.start, None
        permit, self._permit = self._permit, None
        if start is not None and permit is not None and self._connect(start, permit):
            self._run_view(start)

    def open_inline(self) -> None:
        """Opens the WebSocket, for a view that runs where this is called. Once, as :meth:`open`."""
        self.look_at_user()
        start, self.start = self.start, None
        permit, self._permit = self._permit, None
        if start is not None and permit is not None:
            self._handshake.call(functools.partial(self._connect, start, permit))
        if self.websocket._connection is not None:
            # The view's response (an error page, for instance) may exceed the placeholder's buffer.
            self._handshake.discard()

    def _connect(self, start: Start, permit: _core.Permit) -> bool:
        """Takes the client over. False when the client was lost meanwhile."""
        request, websocket = self._request, self.websocket
        options = self._options
        handshake = self._handshake
        try:
            subprotocol = self._choose_subprotocol()
            headers, memberships = self._headers_to_send(), self._joins.memberships(websocket)
            connection = handshake.open(Opening(headers, subprotocol, options, permit, memberships))
        except BaseException as error:
            permit.release()
            self._abandon()
            if not isinstance(error, (OSError, ShuttingDown)):
                raise
            # The server no longer has the client's connection: the client sees only its end. Where
            # a process that was to give it has ended its visit, that one tells of the end.
            is_given_up = handshake.moved is not None and isinstance(error, ConnectionError)
            record = Record.of("websocket.never_opened", request, _ABNORMAL, str(error))
            text = "WebSocket lost before it was open: %s: %s"
            record.log(logging.INFO if is_given_up else logging.ERROR, text, request=request)
            return False
        # From here on nothing else closes the client: on any error it must be closed here.
        try:
            request_copy.keep(request, moves=start.moves)
            websocket._forget_handshake(request.META)
            if handshake.is_bound:
                websocket._is_bound = True
            websocket._attach(connection, options, subprotocol, start.runner.waiter, start.spawn)
            begin_beat(connection, request.META.get("QUERY_STRING", ""))
            self._joins.join(websocket)
            # The connection has a hold of its own on the permit. A view that decides got another
            # one in `asking_view`.
            if self._decision is None:
                websocket._permit = permit
            else:
                permit.release()
            request.__dict__["websocket"] = websocket
            is_new = handshake.moved is None
            tally.opened(websocket, start.view.name, request, is_new=is_new)
            start.trace(request, websocket)
            if websocket._is_finished:
                # The view that has accepted has given up waiting, and is over.
                websocket._let_go(tally.closed)
        except BaseException as error:
            connection.close(*_code_for(error))
            permit.release()
            self._abandon()
            self._report(error, connection.id)
            return False
        return True

    def _run_view(self, start: Start) -> None:
        request, websocket = self._request, self.websocket
        connection = websocket._connection
        number = None if connection is None else connection.id
        try:
            if (session := getattr(request, "session", None)) is not None:
                # The session's middleware has saved it: only later changes of the view are saved.
                sessions.keep(session)
            if self._decision is not None:
                # The view runs, and waits for this.
                self._decision.settled.set()
                return
        except BaseException as error:
            websocket._abandon(*_code_for(error))
            self._report(error, number)
            return
        try:
            start(request, websocket)
        except BaseException as error:
            if not isinstance(error, Exception):
                websocket._abandon(*_code_for(error))
                raise
            # No more threads, or no stack of the size that the settings ask for.
            websocket._abandon(_TRY_AGAIN_LATER, "no thread for another view")
            record = Record.of("websocket.no_thread", request, _TRY_AGAIN_LATER, str(error), number)
            text = "No thread for another WebSocket view: %s: %s"
            record.log(logging.ERROR, text, request=request)

    def _report(self, error: BaseException, number: int | None) -> None:
        """Logs the error that kept a view from running; raises it again if it ends the process."""
        if not isinstance(error, Exception):
            raise error
        request, text = self._request, "WebSocket closed before its view could run: %s: %s"
        record = Record.of("websocket.broke", request, _INTERNAL_ERROR, repr(error), number)
        record.log(logging.ERROR, text, exc_info=error, request=request)

    def _choose_subprotocol(self) -> str | None:
        """Asks the view, the protocol of the project's factory, and the settings, in this order."""
        if (moved := self._handshake.moved) is not None:
            return moved.subprotocol
        offered, chosen = self._handshake.offered, self._acceptance.subprotocol
        if chosen is None and (protocol := self.websocket._protocol) is not None:
            chosen = protocol.select_subprotocol(offered)
            if chosen is not None and chosen not in offered:
                raise ValueError(
                    f"{type(protocol).__name__}.select_subprotocol() gives {chosen!r}, which the "
                    f"client does not offer"
                )
        if chosen is None:
            chosen = next((name for name in self._options.subprotocols if name in offered), None)
        return chosen

    def _headers_to_send(self) -> list[tuple[str, str]]:
        cookies = [
            ("Set-Cookie", morsel.output(header="").strip()) for morsel in self.cookies.values()
        ]
        return [*headers_of(self), *cookies, *self._acceptance.headers]
