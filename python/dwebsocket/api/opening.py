"""Opening a connection: ``accept`` and ``reject`` of views that decide themselves, and more."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from dwebsocket import _core, signals
from dwebsocket.api.decision import Acceptance, Answer, Rejection
from dwebsocket.api.ending import Ending
from dwebsocket.api.waiting.steps import Call, arun, run
from dwebsocket.exceptions import GroupUnavailable, UsageError
from dwebsocket.telemetry import tracing
from dwebsocket.telemetry.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from dwebsocket.api.decision import Decision
    from dwebsocket.api.waiting.steps import Steps

    Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_TRY_AGAIN_LATER = 1013
# Seconds between two checks, by a view that has accepted, that its response was not freed.
_LOOK_S = 0.5


class Opening(Ending):
    """The calls that open a connection, or refuse it."""

    #: Opens it on the server's thread; set by :mod:`dwebsocket.handshake.inline`.
    _open_inline: ClassVar[Callable[[Any, HttpRequest], None]]

    # -- opening, in middleware of a project's own ----------------------------------------------

    def _made_of(self, request: HttpRequest) -> None:
        """Notes the request from which a factory makes it."""
        # The request will refer to this object. A strong reference back would be a cycle, which
        # only the garbage collector frees.
        self._request = weakref.ref(request)
        self._headers = request.META

    def _leave_to_response(self) -> None:
        """Notes that a response will open it, and so :meth:`accept_connection` cannot any more."""
        self._request = None

    def _forget_handshake(self, headers: Mapping[str, Any]) -> None:
        """Drops the handshake's request, keeps its headers; to be called when it opens."""
        self._request = None
        self._headers = headers
        if self._protocol is not None:
            self._protocol.headers = headers

    def accept_connection(self) -> None:
        """
        Opens the connection now, for middleware of a project's own.

        The handshake is validated, and the client gets its 101, without what later middleware adds
        to the response. The view then runs where it was called, in the server's worker, and the
        connection is closed when its response is. Does nothing where the connection is open, as it
        is in decorated views.

        Raises:
            PermissionDenied: The page's Origin may not connect. Django answers with 403.
            BadRequest: The handshake is refused for any other reason. Django answers with 400.
            UsageError: No factory has made this WebSocket, or it is about to be opened.
        """
        if self._connection is not None:
            return
        if self._decision is not None:
            self.accept()
            return
        request = None if self._request is None else self._request()
        if request is None:
            raise UsageError(
                "accept_connection() opens what a factory's create_websocket() has made of a "
                "handshake, once; in a decorated view the connection is open"
            )
        self._open_inline(request)

    # -- deciding, in views with `accept=False` --------------------------------------------------

    @property
    def offered_subprotocols(self) -> tuple[str, ...]:
        """
        The subprotocols that the client offers, its favourite first.

        Raises:
            UsageError: The view is not one that decides (``accept=False``).
        """
        return self._question("offered_subprotocols").offered

    def accept(self, subprotocol: str | None = None, headers: Headers = ()) -> None:
        """
        Opens the connection. For views with ``accept=False``; the others find it open.

        Waits until the response has passed all middleware and the client has its 101. That has the
        response's headers and cookies, and ``headers`` besides.

        Example::

            @accept_websocket(accept=False)
            def auction(request, lot):
                if request.user.has_perm("auctions.bid"):
                    request.websocket.accept(headers={"X-Lot": str(lot)})
                else:
                    request.websocket.reject()

        Args:
            subprotocol: One that the client offers. None chooses by ``WEBSOCKET_SUBPROTOCOLS``.
            headers: More headers, as a mapping or as pairs.

        Raises:
            UsageError: The view is not one that decides, has decided before, or is async.
            ValueError: A subprotocol that the client does not offer, or a header that cannot be.
            ConnectionClosed: The client has gone, some middleware answered something else, or the
                process ends. A view that lets it through ends quietly.
        """
        decision = self._question("accept()")
        if decision.is_async:
            raise UsageError("this would block the event loop: use `await websocket.aaccept()`")
        self._accept(decision, subprotocol, headers)
        # A response that middleware drops is freed in any thread, where nothing may be locked.
        while not (decision.settled.wait(_LOOK_S) or self._is_dropped(decision)):
            pass
        self._raise_if_never_opened()
        tracing.accepted(self)
        if (request := self._view_request) is not None:
            run(self._announce_opening(request))

    async def aaccept(self, subprotocol: str | None = None, headers: Headers = ()) -> None:
        """
        Opens the connection, as :meth:`accept`, without blocking the event loop. For async views.

        Raises:
            UsageError: The view is not one that decides, has decided before, or is not async.
            ValueError, ConnectionClosed: As :meth:`accept`.
        """
        decision = self._question("aaccept()")
        if not decision.is_async:
            raise UsageError("aaccept() is for async views: use accept()")
        self._accept(decision, subprotocol, headers)
        await self._await_opening()
        self._raise_if_never_opened()
        tracing.accepted(self)
        if (request := self._view_request) is not None:
            await arun(self._announce_opening(request))

    def reject(self, status: int = 403) -> None:
        """
        Refuses the connection with a plain HTTP response. For views with ``accept=False``.

        Never waits. From then on everything here behaves as after a close. To answer anything
        else, return a response: a redirect, a page, one with headers of your own.

        Example::

            @accept_websocket(accept=False)
            def auction(request, lot):
                if is_over(lot):
                    request.websocket.reject(410)
                else:
                    request.websocket.accept()

        Args:
            status: 400 to 599.

        Raises:
            UsageError: The view is not one that decides, or has decided before.
            ValueError: Any other status.
        """
        decision = self._question("reject()")
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(
                f"a WebSocket is rejected with a status from 400 to 599, not {status!r}: "
                "return an HttpResponse to answer anything else"
            )
        self._refuse(decision, Rejection(status))

    async def areject(self, status: int = 403) -> None:
        """
        Refuses the connection. The same as :meth:`reject`, for code that awaits everything.

        Raises:
            UsageError, ValueError: As :meth:`reject`.
        """
        self.reject(status)

    def _answer(self, response: HttpResponseBase) -> None:
        """Refuses the connection with a whole response, in place of a status."""
        self._refuse(self._question("a response"), Answer(response))

    def _refuse(self, decision: Decision[Any], outcome: Rejection | Answer) -> None:
        decision.insist(outcome)
        self._never_open()
        decision.decided.set()
        # A task of the view may wait for messages.
        decision.settled.set()

    async def _await_opening(self) -> None:
        """Waits until the connection of a view that decides is open, or will not open."""
        decision = self._question("waiting for it")
        # As in `accept`.
        while not (await decision.settled.wait(_LOOK_S) or self._is_dropped(decision)):
            pass

    def _question(self, what: str) -> Decision[Any]:
        if self._decision is None:
            raise UsageError(
                f"{what} is for views that decide themselves: decorate this one with "
                "@accept_websocket(accept=False)"
            )
        return self._decision

    def _accept(self, decision: Decision[Any], subprotocol: str | None, headers: Headers) -> None:
        if subprotocol is not None and subprotocol not in decision.offered:
            offers = ", ".join(decision.offered) or "none"
            raise ValueError(f"the client does not offer subprotocol {subprotocol!r}, but {offers}")
        pairs = list(headers.items() if hasattr(headers, "items") else headers)
        # An invalid header raises here, in the view, not later when the response is written.
        _core.response_head("", subprotocol, pairs)
        decision.insist(Acceptance(subprotocol, pairs))
        decision.decided.set()

    def _is_dropped(self, decision: Decision[Any]) -> bool:
        dropped = decision.is_dropped()
        if dropped and self._connection is None:
            self._never_open()
        return dropped

    def _raise_if_never_opened(self) -> None:
        if self._connection is not None and not self._was_opened:
            self._raise_if_ended()

    # -- what an open connection begins with -------------------------------------------------------

    def _announce_opening(self, request: HttpRequest) -> Steps[None]:
        """Sends the signals about its life; to be run once, when it is open."""
        yield Call(signals.send, signals.asend, signals.websocket_opened, self, request)
        self._announce_end_later(request)
        if (join := self._join_recorded) is not None:
            self._join_recorded = None
            try:
                yield from join()
            except GroupUnavailable as error:
                self._send_away(request, error)

    def _send_away(self, request: HttpRequest, error: GroupUnavailable) -> None:
        """
        Closes: the backend of its groups was lost between the handshake and now.

        The view begins all the same, as for a client that has gone at once.
        """
        self.close(_TRY_AGAIN_LATER, "groups unavailable")
        number = self._connection.id if self._connection is not None else None
        record = Record.of("websocket.not_joined", request, _TRY_AGAIN_LATER, str(error), number)
        record.log(
            logging.ERROR,
            "WebSocket %s on %s was closed with %d: %s",
            *(record.connection, record.path, record.code, record.reason),
            request=request,
        )
