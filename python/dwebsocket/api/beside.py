"""Functions beside the view: ``start``, ``astart`` and ``every``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec

from asgiref.sync import iscoroutinefunction

from dwebsocket.api.arguments import check_callable
from dwebsocket.api.base import Base, made_once
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from django.http import HttpRequest
    from typing_extensions import TypeVarTuple, Unpack

    from dwebsocket.api.helpers import Helper, Task, Ticker, View

    Ts = TypeVarTuple("Ts")

P = ParamSpec("P")

#: Seconds between two calls are less: no timer takes 1e300, and `inf` never ends.
LONGEST_S = 1e9


class Beside(Base):
    """The calls that run something beside the view."""

    _view: View | None = None
    #: Makes it; set by the module that runs views.
    _new_view: ClassVar[Callable[[Any, HttpRequest], View]]

    def start(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Helper:
        """
        Runs ``function(*args, **kwargs)`` beside the view, on a thread (green thread) of its own.

        It belongs to the connection: it has the view's language, time zone and care for database
        connections, and its calls behave as the view's. When the connection has ended its receiving
        calls raise ``ConnectionClosed``, which it may let through, and its ``send`` returns False
        and then raises. When the view returns this is told of the end in the same way, but it may
        still send: the close frame goes out when it has returned, after a second at the latest.
        An exception of it is the view's: it is reported in the same way and closes the connection
        with the same code.

        Returns:
            A helper that tells whether it still runs (``is_running``) and waits for it (``join``).

        Raises:
            TypeError: A coroutine function (use :meth:`astart`), or nothing that can be called.
            UsageError: The view does not run: it has not begun, or has ended.
            RuntimeError: The system gives no more threads.
        """
        if iscoroutinefunction(function):
            raise TypeError("start() takes a plain function: use `await websocket.astart(…)`")
        check_callable("start()", function)
        return self._running_view("start()").start(function, args, kwargs)

    async def astart(
        self, function: Callable[P, Coroutine[Any, Any, object]], *args: P.args, **kwargs: P.kwargs
    ) -> Task:
        """
        Runs a coroutine function beside an async view: as :meth:`start`, but as a task of its loop.

        A task that has not ended a second after the view is cancelled.

        Returns:
            The task, an ``asyncio.Task`` that has the names of a helper and of a ticker, too:
            ``is_running``, ``join`` and ``stop``. Those any thread may use.

        Raises:
            TypeError: No coroutine function (use :meth:`start`).
            UsageError: The view does not run.
        """
        if not iscoroutinefunction(function):
            raise TypeError("astart() takes a coroutine function: use start() for others")
        return self._running_view("astart()").start_task(function, args, kwargs)

    def every(
        self, seconds: float, function: Callable[[Unpack[Ts]], object], *args: Unpack[Ts]
    ) -> Ticker:
        """
        Calls ``function(*args)`` every so many seconds until the connection or its view ends.

        The first call comes after ``seconds``. Calls never overlap and do not drift; calls that are
        due while a longer one still runs are left out. No thread waits for them:
        each takes one of the threads (green threads) of views for as long as it runs, beside the
        view. In an async view a coroutine function is awaited in its loop. Exceptions are the
        view's, as for :meth:`start`.

        Example::

            websocket = request.websocket
            websocket.every(5, lambda: websocket.send_json({"waiting": orders_waiting()}))
            websocket.wait_closed()

        Returns:
            A ticker whose ``stop`` ends the calls before that; ``is_running`` and ``join`` are as
            those of :meth:`start`.

        Raises:
            TypeError: ``function`` cannot be called.
            ValueError: ``seconds`` is not above 0, or 1e9 or more.
            UsageError: The view does not run.
        """
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if not is_number or not 0 < seconds < LONGEST_S:
            raise ValueError(f"every() takes a number of seconds above 0, not {seconds!r}")
        check_callable("every()", function)
        view = self._running_view("every()")
        call: Callable[[], Any] = functools.partial(function, *args)
        if not iscoroutinefunction(function):
            return view.tick(seconds, call)
        if running_loop() is None:
            raise UsageError("every() takes a coroutine function in async views only")
        return view.tick_in_loop(seconds, call)

    def _running_view(self, what: str) -> View:
        request = self._view_request
        if request is None:
            raise UsageError(f"{what} is for the view of an open WebSocket, while it runs")
        return made_once(self, "_view", functools.partial(type(self)._new_view, self, request))
