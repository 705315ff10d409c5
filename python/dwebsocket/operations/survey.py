"""
Asking all processes of the site, over the default backend of groups.

A process listens from its first WebSocket, or its first refusal, on. One thread of it subscribes,
again and again while the backend is away, and takes a sample of each slot while there is something
to count. Questions are answered on the thread of its node.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf
from dwebsocket.api.arguments import check_timeout
from dwebsocket.api.base import made_once
from dwebsocket.compat import unpatched
from dwebsocket.compat.system import monotonic, renew_at_fork
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import backends
from dwebsocket.groups.backends import process
from dwebsocket.groups.backends.node import Node
from dwebsocket.groups.names import OWN
from dwebsocket.operations import listing, series
from dwebsocket.operations.snapshot import Statistics, of_process, total
from dwebsocket.telemetry import tally
from dwebsocket.users import registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.backends.contract import Backend

_log = logging.getLogger("dwebsocket")

GROUP = f"{OWN}operations"
# Seconds that a question waits for the slowest process, and between two tries to subscribe.
PATIENCE_S = 2.0
_RETRY_S = 5.0
# Where a backend has its node for this.
_NODE = "_node_of_operations"


class Process(TypedDict):
    """One process that has answered."""

    host: str
    pid: int
    statistics: Statistics


class PagePart(TypedDict):
    """The answer of one process, for a page about all of them."""

    process: Process
    page: listing.Page
    leaders: dict[str, dict[str, int]]
    series: list[series.Sample]


class SiteStatistics(TypedDict):
    """The statistics of a site, and the processes that they are from."""

    total: Statistics
    processes: list[Process]
    missing: int


@overload
def statistics(of: Literal["process"] = "process") -> Statistics: ...


@overload
def statistics(of: Literal["site"], *, timeout: float = PATIENCE_S) -> SiteStatistics: ...


def statistics(
    of: Literal["process", "site"] = "process", *, timeout: float = PATIENCE_S
) -> Statistics | SiteStatistics:
    """
    Returns the statistics of this process, or those of all processes of the site.

    Those of the process cost a few microseconds for each open WebSocket, and never wait: any thread
    or event loop may ask. Those of the site wait for the slowest process, so not for event loops;
    any process of the project may ask, such as a command or a job. Counters begin anew in a forked
    child. Example::

        open_here = dwebsocket.statistics()["open"]["total"]
        by_view = dwebsocket.statistics("site")["total"]["open"]["views"]

    Args:
        of: ``"process"`` for this one, ``"site"`` for all that have had a WebSocket or refused one.
        timeout: Seconds to wait for the slowest process of the site.

    Returns:
        Of a process: ``open`` WebSockets in total, those that were ``opened`` by view, ``refused``
        by HTTP status and cause, ``closed`` by close code and the side that began (``local``,
        ``peer``, ``lost``); ``messages`` and ``bytes`` in and out (bytes as on the wire, with the
        101; those that come are those of messages where an ASGI server keeps the connection);
        what is ``queued`` now; how long ``pings`` and the methods of ``handlers`` took; how often
        each of the ``events`` of the log happened, by code; and what the ``groups`` of each alias
        have done. Every key is a ``str``, so that it may be JSON.
        Of a site: the ``total``, the ``processes`` with their own, and how many are ``missing``
        because they did not answer in time.

    Raises:
        GroupUnavailable: The default backend of groups cannot be reached, which asks the others.
        ImproperlyConfigured: Its settings are invalid.
        TypeError, ValueError: ``of`` is neither, or ``timeout`` is no number of seconds.
    """
    match of:
        case "process":
            return of_process()
        case "site":
            return site_statistics(timeout)
    raise ValueError(f'of is "process" or "site", not {of!r}')


def site_statistics(timeout: float = PATIENCE_S) -> SiteStatistics:
    """Returns the statistics of all processes: see :func:`statistics`."""
    check_timeout(timeout, is_optional=False)
    return summed(*ask("statistics", timeout=timeout))


def summed(answers: list[Process], missing: int) -> SiteStatistics:
    """Returns the statistics of a site from the answers of its processes."""
    processes = sorted(answers, key=lambda each: (each["host"], each["pid"]))
    return {
        "total": total([each["statistics"] for each in processes]),
        "processes": processes,
        "missing": missing,
    }


def ask(act: str, timeout: float = PATIENCE_S, **question: Any) -> tuple[list[Any], int]:
    """Asks all processes, this one too; returns their answers, and how many have given none."""
    question["act"] = act
    backend = backends.backend(DEFAULT)
    if _is_alone(backend):
        return [_ACTS[act](question)], 0
    answers, asked = _node(backend).ask_all(GROUP, question, timeout)
    return answers, asked - len(answers)


def asks_others() -> bool:
    """Whether other processes are asked: not where groups are those of one process."""
    return not _is_alone(backends.backend(DEFAULT))


def _is_alone(backend: Backend) -> bool:
    """Whether groups reach this process only."""
    return type(backend) is process.Backend


def _node(backend: Backend) -> Node:
    # In a forked child there are other backends.
    return made_once(backend, _NODE, functools.partial(Node, backend, _ACTS, "operations"))


# -- what each process answers ---------------------------------------------------------------------


def _own_statistics(_: dict[str, Any]) -> Process:
    return {"host": socket.gethostname(), "pid": os.getpid(), "statistics": of_process()}


def _own_page(asked: dict[str, Any]) -> PagePart:
    return {
        "process": _own_statistics(asked),
        "page": listing.rows(listing.Query(**asked["query"])),
        "leaders": listing.leaders(asked["query"]["realm"]),
        "series": _listener.series_since(asked["since"]),
    }


_OF_CLOSING = ("key", "code", "reason", "realm")
_ACTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "statistics": _own_statistics,
    "series": lambda asked: _listener.series_since(asked["since"]),
    "page": _own_page,
    "close": lambda asked: listing.close(*(asked[name] for name in _OF_CLOSING)),
    "close_user": lambda asked: registry.close_here(asked["user"], asked["code"], asked["reason"]),
}


# -- listening -------------------------------------------------------------------------------------


class _Listener:
    """This process as one that answers."""

    def __init__(self) -> None:
        self._lock = unpatched.lock()
        self._is_running = False
        self._series: series.Series | None = None

    def on_event(self) -> None:
        """Starts to listen, or to take samples again. Never waits."""
        if self._is_running:
            return
        with self._lock:
            if self._is_running or not is_on():
                return
            self._is_running = True
            if self._series is None:
                self._series = series.Series()
        try:
            work = functools.partial(self._work, os.getpid())
            unpatched.start_code("dwebsocket-operations", work)
        except RuntimeError:
            # The system gives no thread: the next event tries again.
            self._is_running = False

    def series_since(self, slot: float) -> list[series.Sample]:
        """Returns the samples of this process."""
        return [] if self._series is None else self._series.since(slot)

    def _work(self, pid: int) -> None:
        try:
            self._take_samples(pid)
        except BaseException:
            # The next event starts another thread.
            self._is_running = False
            raise

    def _take_samples(self, pid: int) -> None:
        """Subscribes, then takes samples until one is of zeros."""
        is_subscribed, retry_at, slot = False, 0.0, 0
        while os.getpid() == pid and self._series is not None:
            if not is_subscribed and monotonic() >= retry_at:
                is_subscribed = _subscribe(is_first=not retry_at)
                retry_at = monotonic() + _RETRY_S
            slot, time_left = series.next_end(slot)
            unpatched.pause(time_left)
            has_counted = self._series.take(slot)
            if is_subscribed and not has_counted:
                self._is_running = False
                if tally.open_websockets():
                    # One was opened after the sample.
                    self.on_event()
                return


def _subscribe(*, is_first: bool) -> bool:
    try:
        backend = backends.backend(DEFAULT)
        if not _is_alone(backend):
            _node(backend).listen(GROUP)
    except GroupUnavailable as error:
        if is_first:
            _log.info("Other processes cannot ask for statistics yet: %s", error)
        return False
    except ImproperlyConfigured:
        return False
    return True


def is_on() -> bool:
    """
    Whether this process answers others: ``WEBSOCKET_OPERATIONS``.

    By default, where ``"dwebsocket"`` is in ``INSTALLED_APPS``.
    """
    wanted: bool | None = conf.get_or("OPERATIONS", otherwise=False)
    return apps.ready and apps.is_installed("dwebsocket") if wanted is None else wanted


_listener: _Listener = _Listener()
renew_at_fork(globals(), _listener=_Listener)
tally.tell_of_events(lambda: _listener.on_event())
