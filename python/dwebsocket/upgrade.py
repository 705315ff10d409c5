"""
From a request to a WebSocket: judging the handshake, and the response that becomes the upgrade.

A handshake is judged completely before anything is taken over, so every refusal is an ordinary
response. An accepting response is opened when it reaches the server: all middleware has run by
then, and the response's headers and cookies go into the real 101. How it is opened is the server's
matter (:mod:`dwebsocket.servers.handshake`).
"""

from __future__ import annotations

import contextvars
import functools
import logging
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from dwebsocket import (
    _core,
    callbacks,
    conf,
    database,
    origin,
    recheck,
    registry,
    request_copy,
    sessions,
    shutdown,
    site_report,
)
from dwebsocket.compat.django import headers_of, mark_as_logged
from dwebsocket.decision import Acceptance, Answer, Decision, Failure, GivenUp, Rejection
from dwebsocket.exceptions import ShuttingDown, UnsupportedServer, UsageError
from dwebsocket.factory import WebSocketFactory
from dwebsocket.hub import LoopEvent
from dwebsocket.records import Record
from dwebsocket.request import http_request
from dwebsocket.runners import loop, runner_of
from dwebsocket.runners import thread as threads
from dwebsocket.runners import view as life
from dwebsocket.servers.asgi import SCOPE_KEY, AsgiHandshake
from dwebsocket.servers.wsgi import WsgiHandshake
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.http.response import HttpResponseBase

    from dwebsocket.closing import Spawn
    from dwebsocket.servers.handshake import Handshake
    from dwebsocket.waiting import Call

_log = logging.getLogger("dwebsocket")
_requests = logging.getLogger("django.request")

_RETRY_AFTER_S = 5
_TOLD = {
    403: "This page may not open a WebSocket here.",
    429: "There are too many WebSockets from you.",
    431: "The headers of this handshake are too large.",
    501: "There are no WebSockets here.",
    503: "There is no room for another WebSocket now.",
}
_ABNORMAL, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1006, 1011, 1013
# Names of the original's classes. They leave the choice to this package, as no name does.
DEFAULT_FACTORIES = (
    None,
    "dwebsocket.factory.WebSocketFactory",
    "dwebsocket.backends.default.factory.WebSocketFactory",
    "dwebsocket.backends.uwsgi.factory.uWsgiWebSocketFactory",
)


# The values of `request.is_websocket`, shared by all requests.
_yes, _no = functools.partial(bool, True), functools.partial(bool, False)  # noqa: FBT003
_NO_ARGUMENTS: life.Arguments = ((), {})
# As Django's default, which would read the settings for the charset of an empty body.
_CONTENT_TYPE = "text/html; charset=utf-8"
# The acceptance by a view that adds nothing.
_AS_IT_IS = Acceptance(None, [])


def prepare(request: HttpRequest) -> WebSocketFactory | None:
    """
    Gives a request the attributes that every request has under this package.

    Args:
        request: One that wraps Django's is fine; the attributes are Django's, then.

    Returns:
        The project's factory when it takes the request for a WebSocket, None for plain HTTP.

    Raises:
        ImproperlyConfigured: ``WEBSOCKET_FACTORY_CLASS`` is no dotted path.
        ImportError: It names nothing.
    """
    request = http_request(request)
    path = conf.get("FACTORY_CLASS")
    default = path in DEFAULT_FACTORIES
    asked = request.__dict__.get("is_websocket")
    if default and asked is not None and not asked():
        # The middleware has found a plain page before: the answer is the same for its view.
        return None
    factory: WebSocketFactory = (WebSocketFactory if default else import_string(path))(request)
    is_websocket = bool(factory.is_websocket())
    made = _unopened(request) if is_websocket else None
    # Not the factory's method: with it the request would hold itself.
    request.__dict__.update(websocket=made, is_websocket=_yes if is_websocket else _no)
    return factory if is_websocket else None


def create_websocket(request: HttpRequest, factory: WebSocketFactory) -> HttpResponse | None:
    """
    Puts a WebSocket that is yet to be opened on a handshake, unless middleware has done so.

    Returns:
        The refusal when there is none.

    Raises:
        ImproperlyConfigured: The project's factory makes something else.
    """
    made = _create(request, factory)
    if isinstance(made, str):
        return refuse(request, 400, made)
    request.__dict__["websocket"] = made
    return None


def has_websocket(request: HttpRequest) -> bool:
    """Whether a request has its WebSocket: open, or given to a view that opens it."""
    websocket = http_request(request).__dict__.get("websocket")
    return websocket is not None and _unopened(request) is None


def is_open(request: HttpRequest) -> bool:
    """Whether a view that runs now has an open WebSocket, which may have been closed since."""
    websocket = http_request(request).__dict__.get("websocket")
    return isinstance(websocket, WebSocket) and websocket._connection is not None


def _unopened(request: HttpRequest) -> WebSocket | None:
    """Gives the WebSocket that middleware has made of a request, if it is not in use yet."""
    websocket = http_request(request).__dict__.get("websocket")
    is_unopened = (
        isinstance(websocket, WebSocket)
        and websocket._connection is None
        # With a decision it belongs to a view that decides.
        and websocket._decision is None
    )
    return websocket if is_unopened else None


def _create(request: HttpRequest, factory: WebSocketFactory) -> WebSocket | str:
    """Gives a request's WebSocket, not open yet, or why there is none."""
    websocket = _unopened(request)
    if websocket is not None:
        return websocket
    try:
        websocket = factory.create_websocket()
    except ValueError as error:
        return f"{type(factory).__name__}.create_websocket() refuses this request: {error}"
    if websocket is None:
        return "WEBSOCKET_FACTORY_CLASS makes no WebSocket of this request."
    if not isinstance(websocket, WebSocket):
        raise ImproperlyConfigured(
            f"WEBSOCKET_FACTORY_CLASS: {type(factory).__name__}.create_websocket() must give a "
            f"dwebsocket.WebSocket or None, not {type(websocket).__name__}."
        )
    return websocket


def refuse(request: HttpRequest, status: int, reason: str, level: str = "warning") -> HttpResponse:
    """
    Gives a response that refuses a WebSocket, and logs why.

    The response says what is wrong with the client's request. A cause on the server's side is
    logged, and stands in the response only under ``DEBUG``.
    """
    request = http_request(request)
    told = reason if settings.DEBUG else _TOLD.get(status, reason)
    response = HttpResponse(f"{told}\n", status=status, content_type="text/plain; charset=utf-8")
    if status == 426:
        response["Sec-WebSocket-Version"] = "13"
    if status in (429, 503):
        response["Retry-After"] = str(_RETRY_AFTER_S)
    event = Record.of("websocket.refused", request, status, reason)
    event.log(
        _requests,
        getattr(logging, level.upper()),
        "WebSocket refused with %d: %s: %s",
        *(status, event.path, event.reason),
        status_code=status,
        request=request,
    )
    # Not by Django's own `log_response`, which takes no other attributes.
    mark_as_logged(response)
    return response


def upgrade(
    request: HttpRequest,
    factory: WebSocketFactory,
    view: life.Detached,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    accept: bool = True,
) -> HttpResponseBase:
    """
    Judges a handshake and gives the response that upgrades it, or one that refuses.

    Args:
        request: A handshake, however bad. The view gets it as it is; all else concerns the
            request of Django that it may wrap.
        factory: What :func:`prepare` gave for it.
        view: What runs behind the WebSocket, as ``view.call(request, *args, **kwargs)``.
        overrides: Options of this view that differ from the project's settings.
        accept: Without it the view, a sync one, starts now; this waits for what it decides.

    Raises:
        ImproperlyConfigured: A setting that cannot be.
        DisallowedHost: As any request with a Host that is not the site's.
        Exception: Anything that a view without ``accept`` lets through.
    """
    response = _judge(request, factory, view, args, kwargs, overrides)
    if accept or not isinstance(response, UpgradeResponse):
        return response
    with response.asking_view() as decision:
        decision.decided.wait()
    return response.conclude()


async def aupgrade(
    request: HttpRequest,
    factory: WebSocketFactory,
    view: life.Detached,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    accept: bool = True,
) -> HttpResponseBase:
    """As :func:`upgrade`, for async views."""
    # In the request's own thread: some servers answer no other, and it may query the database.
    judge = sync_to_async(_judge)
    response = await judge(request, factory, view, args, kwargs, overrides)
    if accept or not isinstance(response, UpgradeResponse):
        return response
    with response.asking_view() as decision:
        await decision.decided.wait()
    return response.conclude()


def judge(request: HttpRequest) -> HttpResponse:
    """
    Judges a handshake whose view runs in the server's worker.

    Returns:
        A refusal, or an :class:`UpgradeResponse` for :meth:`~UpgradeResponse.open_inline`.

    Raises:
        ImproperlyConfigured, DisallowedHost: As :func:`upgrade`.
    """
    return _judge(request, WebSocketFactory(request), _INLINE, (), {}, {})


def _judge(
    request: HttpRequest,
    factory: WebSocketFactory,
    view: life.Detached,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> HttpResponse:
    seen, request = request, http_request(request)
    now = conf.present()
    options = conf.Options.current(overrides, now)
    if (report := site_report.answer(request, options)) is not None:
        return report
    handshake = _handshake_of(request)
    admission = conf.Admission.current(now)
    largest = admission.max_handshake_size
    if largest is not None and (size := handshake.size) > largest:
        limit = f"the {largest} of {conf.PREFIX}MAX_HANDSHAKE_SIZE"
        return refuse(request, 431, f"The handshake has {size} bytes, more than {limit}.")
    if (refusal := handshake.judge()) is not None:
        return refuse(request, *refusal)
    objection = origin.objection(
        request, options.allowed_origins, required=options.require_origin, now=now
    )
    if objection is not None:
        return refuse(request, 403, objection)
    try:
        handshake.find()
    except UnsupportedServer as error:
        return refuse(request, 501, str(error), level="error")
    websocket = _create(request, factory)
    if isinstance(websocket, str):
        return refuse(request, 400, websocket)
    if _core.is_leaving():
        return refuse(request, 503, "This process is ending and takes no new WebSocket.", "info")
    # Claim a permit first: `Who.of()` may cost queries, and a flood of handshakes must not.
    most = admission.max_connections
    permit = _core.Permit.claim(most)
    if permit is None:
        return refuse(
            request, 503, f"All {most} connections of WEBSOCKET_MAX_CONNECTIONS are taken."
        )
    try:
        visitor = registry.enter(registry.Who.of(request), websocket, admission)
    except BaseException:
        permit.release()
        raise
    if isinstance(visitor, str):
        permit.release()
        return refuse(request, 429, visitor)
    if visitor is not None:
        websocket._on_finish = visitor.leave
    try:
        if not shutdown.has_begun():
            shutdown.begin(
                dies_of_sigterm=handshake.dies_of_sigterm,
                departure=handshake.departure,
                at_exit=handshake.at_exit,
            )
        handshake.prepare()
    except BaseException as error:
        websocket._leave()
        permit.release()
        if not isinstance(error, OSError):
            raise
        reason = f"The system has nothing left for another connection: {error}"
        return refuse(request, 503, reason, "error")
    response = UpgradeResponse(
        request=request,
        handshake=handshake,
        permit=permit,
        options=options,
        websocket=websocket,
        start=_Start(handshake, view, None if seen is request else seen, args, kwargs),
        visitor=visitor,
    )
    # From here on the response opens the WebSocket.
    websocket._request = None
    if visitor is not None:
        visitor.leave_with(response)
    return response


def _handshake_of(request: HttpRequest) -> Handshake:
    # Only requests of ASGI servers have one.
    scope = request.__dict__.get("scope")
    if scope is not None:
        handshake = scope.get(SCOPE_KEY)
        if isinstance(handshake, (AsgiHandshake, WsgiHandshake)):
            return handshake
    return WsgiHandshake(request.method or "", request.META, scope)


class _Start:
    """Starts the view later, as if it were called now."""

    __slots__ = ("_arguments", "_call", "_context", "_run_async", "databases", "runner", "view")

    def __init__(
        self,
        handshake: Handshake,
        view: life.Detached,
        wrapping: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.runner = runner_of(handshake.concurrency)
        self.view = view
        self._call = view.call if wrapping is None else _passing(wrapping, view.call)
        self._run_async = loop.SERVER_TASKS.run if handshake.has_loop else loop.run
        self._arguments = (args, dict(kwargs)) if args or kwargs else _NO_ARGUMENTS
        # The language, time zone and all else that middleware has set for this request.
        self._context = contextvars.copy_context()
        self.databases = database.shareable()

    @property
    def spawn(self) -> Spawn:
        """Runs what belongs to the view beside it, on threads of its kind."""
        # A loop is on a thread of the system, also where views have green ones.
        return threads.spawn if self.view.is_async else self.runner.spawn

    @property
    def call_later(self) -> Callable[[float, Call], Call]:
        """Calls after a time on the one clock, beside a handler that waits for the view."""
        # A loop is on a thread of the system, and may keep the hub of that thread from its timers.
        return callbacks.call_later if self.view.is_async else self.runner.waiter.call_later

    def new_decision(self, offered: list[str]) -> Decision[Any]:
        """Makes what a view that decides itself has to decide."""
        is_async = self.view.is_async
        new_event = LoopEvent if is_async else self.runner.waiter.new_event
        return Decision(new_event, is_async=is_async, offered=tuple(offered))

    def __call__(self, request: HttpRequest, websocket: WebSocket) -> None:
        call = (self._call, request, self._arguments, websocket)
        if self.view.is_async:
            self._run_async(self.view.name, functools.partial(life.arun, *call), self._context)
        else:
            visit = life.Visit(*call, self._context, self.databases, self.runner.exits)
            self.runner.run(self.view.name, visit)


def _passing(request: Any, view: life.View) -> life.View:
    """Gives a view that passes ``request`` on in place of Django's, which it wraps."""

    @functools.wraps(view)
    def call(_: HttpRequest, /, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs)

    return call


def _give_up(decision: Decision[Any]) -> None:
    """Ends the wait for a view that has not decided in time."""
    # A view that decides at the last moment has decided, and sets `decided` itself.
    if decision.decide(GivenUp()):
        decision.decided.set()


# Stands for a view that runs in the server's worker: nothing is started for it.
_INLINE = life.Detached(lambda request: None)


def _code_for(error: BaseException) -> tuple[int, str]:
    """Gives the close code and reason for what keeps a view from running."""
    if isinstance(error, Exception):
        return _INTERNAL_ERROR, ""
    return 1001, "going away"


class _NoThread(Exception):
    """The view that is to decide could not be started."""


class UpgradeResponse(HttpResponse):
    """
    The response that turns its request into a WebSocket: :meth:`open`.

    For middleware it is an empty 101 like any other response. A WSGI server opens it by iterating
    over it; what such a server writes goes nowhere.
    """

    status_code = 101

    def __init__(
        self,
        *,
        request: HttpRequest,
        handshake: Handshake,
        permit: _core.Permit,
        options: conf.Options,
        websocket: WebSocket,
        start: _Start,
        visitor: registry.Visitor | None,
    ) -> None:
        super().__init__(content_type=_CONTENT_TYPE)
        self._request = request
        self._handshake = handshake
        self._permit: _core.Permit | None = permit
        self._options = options
        self._websocket = websocket
        self._start: _Start | None = start
        # A visitor whose user is yet to be checked again.
        self._user = visitor if visitor is not None and visitor.who.user else None
        self._decision: Decision[Any] | None = None
        self._acceptance = _AS_IT_IS

    def __iter__(self) -> Iterator[bytes]:
        self.open()
        return iter(self._handshake.body)

    def close(self) -> None:
        """Called by the server when it is done with the response, or by Django instead of it."""
        self.release()
        super().close()

    @property
    def patience(self) -> float | None:
        """Seconds that a view may take to decide."""
        return self._options.handshake_timeout

    @contextmanager
    def asking_view(self) -> Iterator[Decision[Any]]:
        """Starts a view that decides itself; the caller sleeps until it has, and concludes."""
        assert self._start is not None
        decision = self._start.new_decision(self._handshake.offered)
        self._decision = self._websocket._decision = decision
        itself = weakref.ref(self)
        decision.is_dropped = lambda: itself() is None
        self._request.__dict__["websocket"] = self._websocket
        stop_timer: Callable[[], object] = bool
        try:
            if self._permit is not None:
                # The view may run on after the handler has stopped waiting for it.
                self._websocket._place = self._permit.share()
            if self.patience is not None:
                give_up = functools.partial(_give_up, decision)
                stop_timer = self._start.call_later(self.patience, give_up)
            self._start(self._request, self._websocket)
        except Exception as error:
            self._websocket._vacate()
            decision.decide(Failure(_NoThread(error)))
            decision.decided.set()
        try:
            yield decision
        except BaseException:
            # The server gives up on the request: so must the view.
            self.release()
            raise
        finally:
            stop_timer()

    def conclude(self) -> HttpResponseBase:
        """
        Gives the response that the view has decided on.

        Raises:
            BaseException: What it let through instead.
        """
        assert self._decision is not None
        assert self._start is not None
        request, view = self._request, self._start.view.name
        outcome = self._decision.take_outcome()
        if isinstance(outcome, Acceptance):
            self._acceptance = outcome
            return self
        self.release()
        if isinstance(outcome, Rejection):
            return refuse(request, outcome.status, "The view rejected it.")
        if isinstance(outcome, Answer):
            if outcome.response is None:
                raise UsageError(f"{view} returned None without accept() or reject()")
            response: HttpResponseBase = outcome.response
            return response
        if isinstance(outcome, GivenUp):
            limit = f"{conf.PREFIX}HANDSHAKE_TIMEOUT ({self.patience} s)"
            return refuse(request, 503, f"{view} did not decide within {limit}.")
        if isinstance(outcome.error, _NoThread):
            return refuse(request, 503, f"No thread for another view: {outcome.error}", "error")
        try:
            raise outcome.error
        finally:
            # The exception holds this frame.
            del outcome

    def release(self) -> None:
        """Gives back what is not needed any more: all, unless the connection is open."""
        self._handshake.finish()
        if self._permit is not None:
            self._permit.release()
        if self._websocket._connection is None:
            self._give_up()

    def _give_up(self) -> None:
        """Does what remains to be done when the connection will not open."""
        self._websocket._leave()
        if self._decision is not None:
            self._lose(self._decision)

    def _lose(self, decision: Decision[Any]) -> None:
        """Wakes a view that waits for the connection, which will not open."""
        decision.decide(GivenUp())
        self._websocket._never_open()
        decision.settled.set()

    @property
    def needs_database(self) -> bool:
        """Whether event loops should call :meth:`look_at_user` on a thread first."""
        return self._user is not None

    def look_at_user(self) -> None:
        """Checks whether the user is still signed in. Once; opening calls it, too."""
        user, self._user = self._user, None
        if user is not None and self._start is not None:
            runner = self._start.runner
            recheck.admit(user, runner.waiter, runner.spawn, self._start.databases)

    def open(self) -> None:
        """Opens the WebSocket and starts its view. Once; later calls do nothing."""
        self.look_at_user()
        start, self._start = self._start, None
        permit, self._permit = self._permit, None
        if start is not None and permit is not None and self._connect(start, permit):
            self._run_view(start)

    def open_inline(self) -> None:
        """Opens the WebSocket, for a view that runs where this is called. Once, as :meth:`open`."""
        self.look_at_user()
        start, self._start = self._start, None
        permit, self._permit = self._permit, None
        if start is not None and permit is not None:
            self._handshake.call(functools.partial(self._connect, start, permit))
        if self._websocket._connection is not None:
            # The view's response, a page about its error perhaps, may be larger than a dead end.
            self._handshake.discard()

    def _connect(self, start: _Start, permit: _core.Permit) -> bool:
        """Takes the client over. False when it is lost on the way."""
        request, websocket = self._request, self._websocket
        options = self._options
        handshake = self._handshake
        try:
            subprotocol = self._choose_subprotocol()
            connection = handshake.open(self._headers_to_send(), subprotocol, options, permit)
        except BaseException as error:
            permit.release()
            self._give_up()
            if not isinstance(error, (OSError, ShuttingDown)):
                raise
            # The client is gone from the server already: all it can see is the end.
            event = Record.of("websocket.never_opened", request, _ABNORMAL, str(error))
            event.log(
                _log,
                logging.ERROR,
                "WebSocket lost before it was open: %s: %s",
                *(event.path, event.reason),
                request=request,
            )
            return False
        # From here on the client is ours alone: whatever happens, it is closed or has a view.
        try:
            request_copy.keep(request)
            websocket._forget_handshake(request.META)
            websocket._attach(connection, options, subprotocol, start.runner.waiter, start.spawn)
            # The connection holds the place itself, and so does a view that runs already.
            if self._decision is None:
                websocket._place = permit
            else:
                permit.release()
            request.__dict__["websocket"] = websocket
        except BaseException as error:
            connection.close(*_code_for(error))
            permit.release()
            self._give_up()
            self._report(error, connection.id)
            return False
        return True

    def _run_view(self, start: _Start) -> None:
        request, websocket = self._request, self._websocket
        connection = websocket._connection
        number = None if connection is None else connection.id
        try:
            if (session := getattr(request, "session", None)) is not None:
                # The session's middleware has saved it: only what the view changes is left to save.
                sessions.keep(session)
            if self._decision is not None:
                # The view runs, and waits for this.
                self._decision.settled.set()
                return
        except BaseException as error:
            websocket._finish(*_code_for(error))
            self._report(error, number)
            return
        try:
            start(request, websocket)
        except BaseException as error:
            if not isinstance(error, Exception):
                websocket._finish(*_code_for(error))
                raise
            # No more threads, or no stack of the size that the settings ask for.
            websocket._finish(_TRY_AGAIN_LATER, "no thread for another view")
            event = Record.of("websocket.no_thread", request, _TRY_AGAIN_LATER, str(error), number)
            event.log(
                _log,
                logging.ERROR,
                "No thread for another WebSocket view: %s: %s",
                *(event.path, event.reason),
                request=request,
            )

    def _report(self, error: BaseException, number: int | None) -> None:
        """Logs what kept a view from running behind its connection; raises what ends a process."""
        if not isinstance(error, Exception):
            raise error
        event = Record.of(
            "websocket.broke", self._request, _INTERNAL_ERROR, repr(error), connection=number
        )
        event.log(
            _log,
            logging.ERROR,
            "WebSocket closed before its view could run: %s: %s",
            *(event.path, event.reason),
            exc_info=error,
            request=self._request,
        )

    def _choose_subprotocol(self) -> str | None:
        """Asks the view, the protocol of the project's factory, and the settings, in this order."""
        offered, chosen = self._handshake.offered, self._acceptance.subprotocol
        if chosen is None and (protocol := self._websocket._protocol) is not None:
            chosen = protocol.select_subprotocol(offered)
            if chosen is not None and chosen not in offered:
                raise ValueError(
                    f"{type(protocol).__name__}.select_subprotocol() gives {chosen!r}, which the "
                    f"client does not offer"
                )
        if chosen is None and self._options.subprotocols:
            chosen = _core.choose_subprotocol(list(self._options.subprotocols), offered)
        return chosen

    def _headers_to_send(self) -> list[tuple[str, str]]:
        cookies = [
            ("Set-Cookie", morsel.output(header="").strip()) for morsel in self.cookies.values()
        ]
        return [*headers_of(self), *cookies, *self._acceptance.headers]
