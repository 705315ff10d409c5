"""
The process's events that concern the engine: forks, and the end of the process.

A process ends in one of two ways. When the site serves on without it (a reload, a worker less, a
deploy that calls :func:`drain`) its clients get 1012, reconnect and reach another process. When the
site ends they get 1001. :class:`dwebsocket.servers.contract.ShutdownPlan` is the server's
information about this.

Close frames are spread over ``WEBSOCKET_DRAIN``, on the engine's clock. This begins at SIGTERM
where the server finishes its requests first, otherwise at the exit. An ASGI server may stop while
the process goes on, beside other servers: then its own connections are closed.
"""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from dwebsocket import _core, conf, runners
from dwebsocket.api.base import GOING_AWAY, RESTARTING, own_websocket
from dwebsocket.api.waiting import engine_calls
from dwebsocket.compat import unpatched
from dwebsocket.compat.django import on_file_changed
from dwebsocket.compat.system import NO_TAKEOVER, at_fork, monotonic
from dwebsocket.compat.threading import before_pools_end
from dwebsocket.exceptions import UsageError
from dwebsocket.servers import tls_pump
from dwebsocket.servers.contract import ShutdownPlan, unknown_plan
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dwebsocket.servers.contract import Exit, Heirs, ShutdownPlanner

_log = logging.getLogger("dwebsocket")

# Time for clients and views together to end after the last close frame.
_GRACE_S = 1.0
# The same for a reload of the development server: a developer waits for it, and the views' code is
# about to change anyway.
_RELOAD_GRACE_S = 0.5
# Time for the engine's last bytes, and for those that are still on their way through TLS.
_MIN_SETTLE_S = 0.2
# Much more than moves may take.
_LONGEST_S = 86_400.0
# Time that a process then needs to exit, before its server kills it.
_EXIT_S = 0.5
# Time that closing what could not move takes, before the server kills the process.
_AFTER_MOVES_S = 1.5
# How long a drain without a timeout waits for another process; and the end of a process for which
# the server waits as long as it takes: a call of a handler may never end.
_DRAIN_PATIENCE_S, _PATIENCE_S = 10.0, 60.0
# The longest sleep of a drain. Its time is that of a clock which a test may step.
_LOOK_S = 1.0


class Mover:
    """
    Gives connections to another process, before the others are closed.

    This one moves none: :mod:`dwebsocket.handover` has the other.
    """

    def begin(
        self,
        patience: float,
        heirs: Heirs,
        end: Callable[[], tuple[int, str]],
        *,
        waits: bool = True,
    ) -> None:
        """
        Begins. Waits only for the hub of green threads.

        Args:
            patience: Seconds to go.
            heirs: The processes that may go on with connections.
            end: Returns the close code and reason of those that none has taken, as things stand:
                1012 while the site goes on. Called on a thread of the system.
            waits: Whether it may wait for handshakes that are being answered, too.
        """

    def join(self, timeout: float) -> None:
        """Waits until all that moves has moved, or is closed. Green threads run meanwhile."""

    def hurry(self) -> None:
        """Has all that has not moved yet closed soon. Never waits."""

    def call_when_done(self, call: Callable[[], object]) -> None:
        """Calls ``call`` at that moment, on any thread; now, if nothing moves."""
        call()

    def moves(self, connection: _core.Connection) -> bool:
        """Whether a connection has moved to another process, or is to, and must not be closed."""
        return False

    def take_along(self, handler: object, connection: _core.Connection) -> None:
        """Has a connection that has just come for a handler move on, too, unless it is too late."""


#: Replaced by :mod:`dwebsocket.handover`.
mover = Mover()
_listeners: list[Callable[[], object]] = []


def when_begun(call: Callable[[], object]) -> None:
    """Has ``call`` called when this process gets its first WebSocket."""
    _listeners.append(call)


class _Shutdown:
    """Registers hooks for the end of the process when the first connection opens."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self.has_begun = False
        # Whether SIGTERM is handled here; None before that was decided.
        self._terminating: bool | None = None
        self._reloading = False
        self._planner = unknown_plan()

    def begin(
        self,
        *,
        dies_of_sigterm: bool,
        shutdown_plan: Callable[[], ShutdownPlanner] = unknown_plan,
        at_exit: Exit | None = None,
    ) -> None:
        """
        Registers hooks that close connections when the process ends. May be repeated.

        Args:
            dies_of_sigterm: As :attr:`dwebsocket.servers.contract.Client.dies_of_sigterm`.
            shutdown_plan: As :attr:`dwebsocket.servers.contract.Client.shutdown_plan`.
            at_exit: As :attr:`dwebsocket.servers.contract.Client.at_exit`.

        Raises:
            OSError: There are no more descriptors or threads. Nothing has begun then.
        """
        if self.has_begun:
            return
        with self._lock:
            if self.has_begun:
                return
            # The engine starts with the first connection, which comes after this.
            _core.want_threads(conf.get("ENGINE_THREADS"))
            _core.limit_buffered(conf.get("MAX_BUFFERED"))
            if at_exit is None:
                self._planner = shutdown_plan()
            else:
                plans = at_exit.shutdown_plans
                self._planner = lambda *, terminated: plans.get(_core.signal_seen(), plans[0])
            if self._terminating is None:
                # The project, or code around the server, may handle the signal all the same.
                # Checked only once: a failed first attempt may have left our own handler.
                # Windows ends processes without a signal that could be waited for.
                waits = dies_of_sigterm and not NO_TAKEOVER
                self._terminating = waits and _core.is_default(signal.SIGTERM)
            # Calls that may fail come first, so that the next handshake can try again.
            if at_exit is not None:
                _core.on_exit(_plans(at_exit), _GRACE_S)
            elif self._terminating:
                _core.on_terminate(unpatched.starter(self._terminate))
            elif not NO_TAKEOVER and self._shutdown_plan(terminated=True).timeout_s:
                # Close from SIGTERM on. The server first answers its requests, and then exits,
                # which calls `_close_at_exit`.
                _core.on_terminate(unpatched.starter(self._depart_now))
            # A forked child inherits these; without connections of its own they do nothing there.
            # Views may still need thread pools before they end.
            (before_pools_end if at_exit is None else at_exit.register)(self._exit)
            on_file_changed(self._on_file_changed)
            _warn_of_a_long_window(
                [self._shutdown_plan(terminated=True)]
                if at_exit is None
                else list(at_exit.shutdown_plans.values())
            )
            self.has_begun = True
        for call in _listeners:
            call()

    def after_fork_in_child(self) -> None:
        if self._terminating:
            # Python does not know of our handler, only of the action before, or of a handler that
            # has replaced ours.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
        self._reset()

    def _shutdown_plan(self, *, terminated: bool) -> ShutdownPlan:
        try:
            return self._planner(terminated=terminated)
        except Exception:
            # It reads private parts of a server. If they have changed, close the clients anyway.
            _log.exception("The server's way to end a process is not known.")
            return ShutdownPlan()

    def closing(self) -> tuple[int, str, float]:
        """
        Returns how the connections of a server are closed that stops, perhaps without the process.

        Returns:
            The close code, the reason, and the seconds over which the closes are spread.
        """
        return self._closing(self._plan_now())

    def _plan_now(self) -> ShutdownPlan:
        return self._shutdown_plan(terminated=not NO_TAKEOVER and _core.is_terminated())

    def _closing(self, shutdown_plan: ShutdownPlan) -> tuple[int, str, float]:
        return (*self._end(shutdown_plan), min(_window(), _room(shutdown_plan)))

    def _end(self, shutdown_plan: ShutdownPlan) -> tuple[int, str]:
        return RESTARTING if shutdown_plan.goes_on or self._reloading else GOING_AWAY

    def _depart_now(self) -> float:
        """
        Begins to close all connections, as at the end of this process. Does not wait.

        Returns:
            The seconds until the last close begins. A later call can only make them fewer.
        """
        return _core.drain(*self.begin_to_move())

    def begin_to_move(self) -> tuple[int, str, float]:
        """Begins to give connections to other processes. Returns :meth:`closing`, for the rest."""
        shutdown_plan = self._plan_now()
        closing = self._closing(shutdown_plan)
        timeout = shutdown_plan.timeout_s
        patience = _PATIENCE_S if timeout is None else timeout - _AFTER_MOVES_S
        heirs = shutdown_plan.heirs or ("to come" if shutdown_plan.goes_on else "of others")
        mover.begin(patience, heirs, lambda: self._end(self._plan_now()))
        return closing

    def _on_file_changed(self, *, file_path: Path, **_: Any) -> None:
        # Changes of other files cause no restart.
        self._reloading = self._reloading or file_path.suffix == ".py"

    def _close_at_exit(self) -> None:
        grace = _RELOAD_GRACE_S if self._reloading else _GRACE_S
        deadline = monotonic() + grace

        def left(at_least: float) -> float:
            return max(at_least, deadline - monotonic())

        # A server's handler of a signal may raise out of each step. The later ones, which stand in
        # reverse order here, are done all the same.
        with ExitStack() as later:
            later.callback(lambda: tls_pump.settle(left(_MIN_SETTLE_S)))
            # Then the engine ends: connections that had no close frame yet get it here.
            later.callback(lambda: _core.shut_down(*GOING_AWAY, left(_MIN_SETTLE_S)))
            # Views first: views on green threads can only end while their hub runs, on this thread.
            later.callback(lambda: runners.join(left(0.0)))
            try:
                deadline += self._depart_now()
                mover.join(_LONGEST_S)
            except BaseException:
                # The end has to be quick now.
                mover.hurry()
                mover.join(grace)
                raise
            finally:
                deadline = max(deadline, monotonic() + grace)

    def _exit(self) -> None:
        try:
            # Where a signal raises it, the process ends anyway: Python would only print it.
            with suppress(SystemExit):
                self._close_at_exit()
        finally:
            # A server's threads may keep the process, but the engine, which waited for SIGTERM, has
            # ended. Python does not know of our handler, only of one that has replaced it.
            if self._terminating and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                # It may have come since the engine ended.
                if _core.is_terminated():
                    _core.die_of_sigterm()

    def _terminate(self) -> None:
        try:
            self._close_at_exit()
        finally:
            _core.die_of_sigterm()


def _plans(at_exit: Exit) -> list[tuple[int, bool, int, str, float, bool]]:
    """Returns the exits in the form of the argument of :func:`_core.on_exit`."""
    # Number 0, the exit without a signal, comes first.
    return [
        (
            number,
            number in at_exit.abrupt,
            *(RESTARTING if shutdown_plan.goes_on else GOING_AWAY),
            min(_window(), _room(shutdown_plan)),
            # Moves take Python's code.
            shutdown_plan.heirs is not None,
        )
        for number, shutdown_plan in sorted(at_exit.shutdown_plans.items())
    ]


def _warn_of_a_long_window(shutdown_plans: list[ShutdownPlan]) -> None:
    window = _window()
    short = [each for each in shutdown_plans if each.limit and _room(each) < window]
    if short:
        _log.warning(
            "WEBSOCKET_DRAIN is %g s, but %s ends a worker after %g s: its WebSockets will be "
            "closed within %g s. Raise the one or lower the other.",
            window,
            short[0].limit,
            short[0].timeout_s,
            _room(short[0]),
        )


def _window() -> float:
    # The connections must be closed also where the setting is invalid.
    return float(conf.get_or("DRAIN", otherwise=0.0))


def _room(shutdown_plan: ShutdownPlan) -> float:
    """Returns the seconds that a drain may take before the server kills the process."""
    if shutdown_plan.timeout_s is None:
        return float("inf")
    return max(0.0, shutdown_plan.timeout_s - _GRACE_S - _EXIT_S)


_shutdown = _Shutdown()

begin = _shutdown.begin
begin_to_move = _shutdown.begin_to_move
closing = _shutdown.closing
depart = _shutdown._depart_now


def has_begun() -> bool:
    """Whether :func:`begin` has succeeded in this process."""
    return _shutdown.has_begun


def drain(window: float | None = None, *, timeout: float | None = None) -> bool:
    """
    Closes every WebSocket of this process, and waits until clients and views are gone.

    For process managers that end a process in a way that dwebsocket cannot detect: call it in the
    process that is to end, before its server stops. From the first call on, permanently, new
    handshakes are refused with 503 and ``Retry-After``; plain requests are served as before. The
    clients get close code 1012 (restart), one after the other at random moments of the window;
    views see the close as usual. Without WebSockets it returns at once.

    Any thread may call it, also several and repeatedly: all wait for the same end, and a later
    call can make that earlier, never later. In async code use ``asyncio.to_thread``.

    Args:
        window: Seconds over which the clients are closed. ``None`` is ``WEBSOCKET_DRAIN``, 0 is at
            once.
        timeout: Seconds to wait; ``0`` only begins. ``None`` waits as long as a view runs.

    Returns:
        Whether all connections and views have ended. False when the time was up; the drain goes on.

    Raises:
        UsageError: Called from the view of a WebSocket, which would wait for its own end.
        ValueError: ``window`` or ``timeout`` is negative or no number of seconds.
        ImproperlyConfigured: ``WEBSOCKET_DRAIN`` has an invalid value.
    """
    if own_websocket.get(None) is not None and timeout != 0:
        raise UsageError(
            "drain() in the view of a WebSocket would wait for this view: use drain(timeout=0), "
            "or call it elsewhere"
        )
    window = conf.get("DRAIN") if window is None else conf.read("DRAIN", window)
    deadline = None if timeout is None else clock.now() + conf.read("DRAIN", timeout)
    mover.begin(timeout or _DRAIN_PATIENCE_S, "to come", lambda: RESTARTING, waits=timeout != 0)
    _core.drain(*RESTARTING, window)
    while True:
        left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - clock.now())
        # Green threads run meanwhile, as they do in the wait.
        if runners.join(max(0.0, left)):
            if (none_open := _core.wait_for_none_open()) is None:
                return True
            engine_calls.wait(none_open, max(0.0, left))
        if left <= 0:
            return False


at_fork(_shutdown.after_fork_in_child)
