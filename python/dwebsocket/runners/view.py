"""
The life of a view behind its WebSocket, with the steps that Django takes around any request.

The view runs in autocommit, outside the handshake's transaction; its database connections are
returned before and after, and a session that it changed is saved when it ends.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.db import OperationalError
from django.http import Http404

from dwebsocket import _core
from dwebsocket.api import helpers
from dwebsocket.api.base import GOING_AWAY, TRY_AGAIN_LATER, own_websocket
from dwebsocket.api.decision import Answer, Failure
from dwebsocket.api.waiting import loop_hub, steps
from dwebsocket.api.waiting.steps import Call
from dwebsocket.api.waiting.waiter import THREAD
from dwebsocket.compat.asgiref import leave_request
from dwebsocket.compat.django_views import is_async, name_of
from dwebsocket.exceptions import InvalidMessage, SendTimeout, UsageError
from dwebsocket.request import context, database, worlds
from dwebsocket.runners.async_view_threads import OwnThread
from dwebsocket.runners.outcome import is_quiet_end, refuse_if_unseen, sole, tells_end
from dwebsocket.telemetry import tracing
from dwebsocket.telemetry.records import Record, printable, report_end
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextvars import Context

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.http import HttpRequest

    from dwebsocket.api.waiting.steps import Steps

View = Callable[..., Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_requests = logging.getLogger("django.request")
_security = logging.getLogger("django.security.SuspiciousOperation")
_log = logging.getLogger("dwebsocket")

_NORMAL, _INVALID, _POLICY, _INTERNAL_ERROR = 1000, 1007, 1008, 1011
_NOT_FOUND = 4404
_MAX_REASON_BYTES = 123
# Seconds that a view's end waits for the callbacks of `on_close`: in a process that serves, and in
# one that tests, where a test checks their effects next.
_MOMENT_S, _TESTS_MOMENT_S = 1.0, 10.0
# Exceptions that end the process and not just a helper: green threads share the main thread.
_EXITS = (KeyboardInterrupt, SystemExit)


class TickingHandler(Protocol):
    """A :class:`dwebsocket.WebSocketHandler`, as far as the test kit looks at it."""

    @property
    def has_due_tick(self) -> bool:
        """Whether its next ``tick`` is due or under way."""

    @property
    def coroutines(self) -> Iterable[Any]:
        """The coroutines that wait, of other views too, one of which may run a method of it."""


class Witness(Protocol):
    """Receives the events of one view, on the view's own thread or loop. For the test kit."""

    def began(self, name: str, websocket: WebSocket, handler: TickingHandler | None = None) -> None:
        """The view ``name``, or ``handler``, is about to begin behind ``websocket``."""

    def failed(self, error: BaseException) -> None:
        """The view let ``error`` through. The client does not know yet."""

    def ended(self) -> None:
        """Everything is released."""


#: Set around a handshake to observe its view, which inherits the context.
witness: ContextVar[Witness | None] = ContextVar("witness", default=None)
# Returns a witness for the views of other handshakes.
_find_witness: Callable[[], Witness | None] = lambda: None  # noqa: E731


def watch_others(find: Callable[[], Witness | None]) -> Callable[[], None]:
    """
    Lets ``find`` give a witness for each view from now on whose handshake has set none.

    Returns:
        A function that takes this back.
    """
    global _find_witness
    before, _find_witness = _find_witness, find

    def undo() -> None:
        global _find_witness
        _find_witness = before

    return undo


@final
class Detached:
    """
    A view that is to run behind WebSockets, and the facts about it that each of them needs.

    Attributes:
        call: The view.
        name: Its name, from :func:`name_of`.
        is_async: Whether it is async, by :func:`is_async`.
    """

    __slots__ = ("call", "is_async", "name")

    def __init__(self, view: View) -> None:
        self.call = view
        self.name = name_of(view)
        self.is_async = is_async(view)


@final
@dataclass(slots=True, eq=False, repr=False)
class ViewJob:
    """
    A sync view that is to run behind its WebSocket, as a job for a runner.

    One object and not several: the garbage collector traverses all objects of each connection. Its
    values are the arguments of :func:`run`, and the context in which the view runs.
    """

    view: View
    request: HttpRequest
    arguments: Arguments
    websocket: WebSocket
    context: Context
    databases: dict[str, BaseDatabaseWrapper]
    exits: tuple[type[BaseException], ...]

    def __call__(self) -> None:
        """Runs it."""
        self.context.run(
            run, self.view, self.request, self.arguments, self.websocket, self.databases, self.exits
        )


@final
class RunningView(helpers.View):
    """Made on first use: most views have nothing beside them."""

    websocket: WebSocket

    def __init__(self, websocket: WebSocket, request: HttpRequest) -> None:
        """Begins with the view's request."""
        match = request.resolver_match
        # Middleware may open the WebSocket before the view is known.
        name = printable(request.path) if match is None else name_of(match.func)
        super().__init__(name, websocket)
        self._request = request
        is_green = websocket._waiter is not THREAD
        self._exits: tuple[type[BaseException], ...] = _EXITS if is_green else ()

    def failed(self, error: BaseException) -> bool:
        """
        Reports an exception of the view or of what runs beside it, and closes the connection.

        ``ConnectionClosed`` of the ended connection is not reported. An exception that ends the
        process closes with 1001, and returns false.
        """
        websocket = self.websocket
        if tells_end(error) and websocket._is_over:
            return True
        is_exit = isinstance(error, self._exits)
        code, reason = GOING_AWAY if is_exit else (_INTERNAL_ERROR, "")
        try:
            if not is_exit:
                code, reason = verdict(error, self._request, websocket)
        finally:
            websocket._close_wanted(code, reason)
        return not is_exit


# The API may not import this room.
WebSocket._new_view = RunningView


def end_beside(websocket: WebSocket) -> Steps[None]:
    """Ends the functions beside a view whose connection is closed; waits a moment for them."""
    websocket._view_request = None
    try:
        if (view := websocket._view) is not None:
            websocket._view = None
            try:
                yield Call(view.join, view.ajoin)
            finally:
                # After their last words.
                websocket._close_soon(_NORMAL, "")
        if (callbacks := websocket._close_callbacks) is not None:
            wait_until = websocket._waiter.wait_until
            yield Call(wait_until, loop_hub.wait_until, callbacks.done(), _moment())
    finally:
        _release(websocket)


def _release(websocket: WebSocket) -> None:
    websocket._release_permit()
    if websocket._world is not None:
        _leave_world_after_callbacks(websocket)
    # Drop unread messages: other code may keep the request, and with it the connection.
    if websocket._connection is not None:
        websocket._connection.discard()


def _leave_world_after_callbacks(websocket: WebSocket) -> None:
    """Breaks the cycle of a WebSocket, its world and its request, when nothing more is called."""

    def leave(_: object) -> None:
        websocket._world = None

    callbacks = websocket._close_callbacks
    if callbacks is None:
        leave(None)
    else:
        callbacks.done().add_done_callback(leave)


def _moment() -> float:
    return _MOMENT_S if witness.get() is None else _TESTS_MOMENT_S


def run(
    view: View,
    request: HttpRequest,
    arguments: Arguments,
    websocket: WebSocket,
    shared_databases: dict[str, BaseDatabaseWrapper],
    exits: tuple[type[BaseException], ...] = (),
) -> None:
    """
    Runs ``view`` to its end and closes ``websocket`` with the code for the way it ended.

    Raises nothing but ``exits``. Everything is released when it returns.
    """
    args, kwargs = arguments
    told = None
    try:
        try:
            # All of it is within the `try`: when a step fails, the client must be closed.
            told = _begin(view, request, websocket)
            database.close_old_connections()
            database.borrow(shared_databases)
            own_websocket.set(websocket)
            with worlds.entered(websocket._world):
                if websocket._decision is None:
                    steps.run(websocket._announce_opening(request))
                result = None
                try:
                    result = view(request, *args, **kwargs)
                    if inspect.iscoroutine(result):
                        refuse_coroutine(result, name_of(view))
                except Exception as error:
                    if websocket._is_undecided or not is_quiet_end(error, view, request, websocket):
                        raise
                if _is_over_with(websocket, result):
                    save_session(request)
                    refuse_if_unseen(result, request, websocket)
        except BaseException as error:
            if not _end(websocket, request, error, exits):
                raise
        else:
            _end(websocket, request)
        finally:
            steps.run(end_beside(websocket))
            database.forget(shared_databases)
            database.close_old_connections()
            if websocket._held is not None:
                websocket._held.end()
    finally:
        if told is not None:
            told.ended()


def refuse_coroutine(result: Coroutine[Any, Any, object], name: str) -> NoReturn:
    """Raises for a coroutine: async code that was taken for sync code would never run."""
    result.close()
    raise UsageError(
        f"{name} gave a coroutine but is no coroutine function: mark it, or the decorator around "
        "it, with asgiref.sync.markcoroutinefunction"
    )


async def arun(
    view: View, request: HttpRequest, arguments: Arguments, websocket: WebSocket
) -> None:
    """
    Runs the async ``view``. Unlike :func:`run` it raises nothing at all.

    Calls by ``sync_to_async``, such as the ORM's, run on a thread of the view's own.
    """
    args, kwargs = arguments
    own_thread = None
    is_thrown_away = False
    told = None
    try:
        try:
            told = _begin(view, request, websocket)
            own_thread = OwnThread.enter()
            own_websocket.set(websocket)
            if websocket._decision is None:
                await steps.arun(websocket._announce_opening(request))
            result = None
            try:
                if (world := websocket._world) is None:
                    result = await view(request, *args, **kwargs)
                else:
                    result = await world.arun(functools.partial(view, request, *args, **kwargs))
            except Exception as error:
                if websocket._is_undecided or not is_quiet_end(error, view, request, websocket):
                    raise
            if _is_over_with(websocket, result):
                if is_session_changed(request):
                    await sync_to_async(save_session)(request)
                refuse_if_unseen(result, request, websocket)
        except GeneratorExit:
            # The loop was closed while the view ran: nothing can be awaited any more.
            is_thrown_away = True
            websocket._abandon(*GOING_AWAY)
            own_websocket.set(None)
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                # When all tasks of a loop are cancelled, let the server's task close the connection
                # first.
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            _end(websocket, request, error)
        else:
            _end(websocket, request)
        finally:
            if not is_thrown_away:
                await steps.arun(end_beside(websocket))
                if own_thread is not None:
                    await own_thread.leave()
    finally:
        if told is not None:
            told.ended()


def _begin(view: View, request: HttpRequest, websocket: WebSocket) -> Witness | None:
    """Prepares the context that a view runs in. Returns the witness that is to receive its end."""
    context.enter_thread()
    # Without this, `sync_to_async` in the copied context would use the handshake's thread.
    leave_request()
    told = _called_to_witness(name_of(view), websocket)
    websocket._view_request = request
    return told


def _called_to_witness(
    name: str, websocket: WebSocket, handler: TickingHandler | None = None
) -> Witness | None:
    """Returns the witness that is to receive the end of a view; calls its ``began``."""
    # Not a context manager, because each view would hold one as long as it runs.
    told = witness.get() or _find_witness()
    if told is not None:
        witness.set(told)
        told.began(name, websocket, handler)
    return told


def _end(
    websocket: WebSocket,
    request: HttpRequest,
    error: BaseException | None = None,
    exits: tuple[type[BaseException], ...] = (),
) -> bool:
    """Closes a WebSocket whose view ends, perhaps by ``error``; false if that is to be raised."""
    code, reason = _NORMAL, ""
    is_kept = True
    try:
        if error is not None:
            code = _INTERNAL_ERROR
            decision = websocket._decision
            # Where the view has not decided, the handler raises the error, for Django to answer.
            if decision is None or not decision.tell_handler(Failure(error)):
                if isinstance(error, exits):
                    (code, reason), is_kept = GOING_AWAY, False
                else:
                    code, reason = verdict(error, request, websocket)
    except Exception:
        # A signal receiver or a log filter failed: the connection must be closed all the same.
        path = printable(request.path)
        _log.exception("An error of a WebSocket view could not be reported: %s", path)
    finally:
        view = websocket._view
        has_last_words = error is None and view is not None and view.are_running
        websocket._finish(code, reason, is_half=has_last_words)
        if (unwanted := websocket._unwanted_end()) is not None:
            report_end(request, *unwanted, is_expelled=websocket._was_expelled())
        own_websocket.set(None)
    return is_kept


def _is_over_with(websocket: WebSocket, result: object) -> bool:
    """Whether a view has ended behind an open connection; its result is the answer if not."""
    decision = websocket._decision
    if decision is not None:
        decision.tell_handler(Answer(result))
    return websocket._was_opened


def verdict(error: BaseException, request: HttpRequest, websocket: WebSocket) -> tuple[int, str]:
    """Reports the exception that a view let through, and returns the close code for it."""
    with worlds.entered_if_possible(websocket._world):
        return _verdict(error, request, websocket)


def _verdict(error: BaseException, request: HttpRequest, websocket: WebSocket) -> tuple[int, str]:
    connection = websocket._connection
    number = None if connection is None else connection.id
    if isinstance(error, asyncio.CancelledError) and (websocket._is_over or _core.is_leaving()):
        # The process, or its loop, ends.
        return GOING_AWAY
    kind = sole(error)
    if isinstance(kind, InvalidMessage):
        record = Record.of("websocket.violation", request, _INVALID, str(kind), number)
        text = "WebSocket client sent an invalid message: %s: %s"
        record.log(logging.INFO, text, request=request)
        # An error of the client: it may see the reason.
        return _INVALID, _cut(str(kind))
    if isinstance(kind, SendTimeout) and websocket._was_too_slow:
        record = Record.of("websocket.too_slow", request, *TRY_AGAIN_LATER, number)
        text = "WebSocket client took nothing in time: %s: %s"
        record.log(logging.INFO, text, *(record.path, kind), request=request)
        return TRY_AGAIN_LATER
    shown = printable(request.path)
    # As Django, which shows no traceback of it.
    cause = None if isinstance(kind, Http404) else error
    if isinstance(kind, PermissionDenied):
        code, status, log, level = _POLICY, 403, _requests, logging.WARNING
        text = "Forbidden (Permission denied) in WebSocket: %s"
    elif isinstance(kind, Http404):
        code, status, log, level = _NOT_FOUND, 404, _requests, logging.WARNING
        text = "Not Found in WebSocket: %s"
    elif isinstance(kind, SuspiciousOperation):
        code, status, log, level = _POLICY, 400, _security, logging.ERROR
        text, shown = "%s", printable(str(kind))
    else:
        code, status, log, level = _INTERNAL_ERROR, 500, _requests, logging.ERROR
        text = "Internal Server Error in WebSocket: %s"
        if (told := witness.get()) is not None:
            told.failed(error)
        tracing.failed(websocket, error)
    try:
        if code == _INTERNAL_ERROR:
            got_request_exception.send(sender=None, request=request)
    finally:
        # Also where a receiver fails, as each async one does in an event loop.
        record = Record.of("websocket.view_failed", request, code, repr(error), number)
        about: Any = {"exc_info": cause, "status_code": status, "request": request}
        record.log(level, text, shown, logger=log, **about)
    return code, _shown(kind)


def _shown(error: BaseException) -> str:
    """Returns the close reason: the exception under ``DEBUG``, empty in production."""
    if not settings.DEBUG:
        return ""
    return _cut(f"{type(error).__name__}: {error}")


def _cut(reason: str) -> str:
    """Cuts ``reason`` to the length that fits a close frame."""
    return reason.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore")


def is_session_changed(request: HttpRequest) -> bool:
    """Whether the session of a request has changes to save."""
    session = getattr(request, "session", None)
    # A session that began in the view is not saved: the browser has no cookie for it.
    return session is not None and session.modified and session.session_key is not None


def save_session(request: HttpRequest) -> None:
    """Saves the session of a request if it has changes."""
    if not is_session_changed(request):
        return
    from django.contrib.sessions.backends.base import UpdateError  # an app that may be absent

    try:
        request.session.save()
    except UpdateError as error:
        if isinstance(error.__context__, OperationalError):
            # The database failed; the session has not ended.
            raise
        _log.info("The session ended while its WebSocket was open: %s", printable(request.path))
