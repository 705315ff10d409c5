"""The start of a view behind its WebSocket: on which runner, and in which context."""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING, Any

from django.views.decorators.debug import sensitive_variables

from dwebsocket.api import callbacks
from dwebsocket.compat.django import hidden_variables
from dwebsocket.request import database
from dwebsocket.runners import loop, runner_of
from dwebsocket.runners import thread as threads
from dwebsocket.runners import view as life
from dwebsocket.telemetry import tracing

if TYPE_CHECKING:
    from django.http import HttpRequest

    from dwebsocket.api.close_callbacks import Spawn
    from dwebsocket.api.waiting.waiter import Call
    from dwebsocket.handshake.upgrade_request import UpgradeRequest
    from dwebsocket.websocket import WebSocket

_NO_ARGUMENTS: life.Arguments = ((), {})


class Start:
    """Starts the view later, as if it were called now."""

    __slots__ = (
        "_arguments",
        "_call",
        "_context",
        "_handshake",
        "_run_async",
        "databases",
        "moves",
        "runner",
        "view",
    )

    def __init__(self, asked: UpgradeRequest) -> None:
        view, given, args, kwargs = asked.view, asked.given, asked.args, asked.kwargs
        assert view is not None
        self.runner = runner_of(asked.handshake.client.concurrency)
        self.view = view
        self._call = view.call if given is asked.request else _passing(given, view.call)
        if not view.is_async and (hidden := hidden_variables()) is not None:
            # It stands above our decorator, and the view runs on another stack.
            self._call = sensitive_variables(*hidden)(self._call)
        self._run_async = loop.SERVER_TASKS.run if asked.handshake.has_loop else loop.run
        self._arguments = (args, dict(kwargs)) if args or kwargs else _NO_ARGUMENTS
        # The language, time zone and all else that middleware has set for this request.
        self._context = contextvars.copy_context()
        self._handshake = tracing.current()
        self.databases = database.shareable()
        #: Whether another process may go on with the connection.
        self.moves = False

    @property
    def spawn(self) -> Spawn:
        """Starts functions that run beside the view, on threads of the view's kind."""
        # Under eventlet a loop is on a thread of the system, although views have green ones.
        return threads.spawn if self.view.is_async else self.runner.spawn

    def call_later(self, delay: float, call: Call, *, in_loop: bool) -> Call:
        """Calls a function after a time, while a handler waits for the view, maybe in a loop."""
        # An event loop blocks its thread: a hub of that thread would run no timers meanwhile.
        call_later = callbacks.call_later if in_loop else self.runner.waiter.call_later
        return call_later(delay, call)

    def trace(self, request: HttpRequest, websocket: WebSocket) -> None:
        """Begins the connection's span, in the context in which the view runs."""
        context = self._context if websocket._decision is None else None
        tracing.opened(websocket, request, self.view.name, self._handshake, context)

    def __call__(self, request: HttpRequest, websocket: WebSocket) -> None:
        call = (self._call, request, self._arguments, websocket)
        if self.view.is_async:
            self._run_async(self.view.name, functools.partial(life.arun, *call), self._context)
        else:
            visit = life.ViewJob(*call, self._context, self.databases, self.runner.exits)
            self.runner.run(self.view.name, visit)


def _passing(request: Any, view: life.View) -> life.View:
    """Returns a view that passes ``request`` on in place of Django's, which it wraps."""

    @functools.wraps(view)
    def call(_: HttpRequest, /, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs)

    return call
