"""
What stands in for the native engine on Windows, where there is none.

Python prefers the native module of this name, where that is installed. This one has what a
connection needs that an ASGI server keeps, from :mod:`dwebsocket.compat.without_engine`; all else
raises :class:`~dwebsocket.exceptions.UnsupportedServer` with a sentence. `_core.pyi` documents all
names.
"""

from __future__ import annotations

from typing import Any

from dwebsocket.compat.system import NO_ENGINE
from dwebsocket.compat.without_engine.groups import Groups, LocalNode, Presence
from dwebsocket.compat.without_engine.handshake import (
    choose_subprotocol,
    is_token,
    may_send_close_code,
    response_head,
    validate_handshake,
)
from dwebsocket.compat.without_engine.hub import Hub
from dwebsocket.compat.without_engine.mailbox import Mailbox
from dwebsocket.compat.without_engine.missing import Missing, unavailable
from dwebsocket.compat.without_engine.permit import (
    Permit,
    Wait,
    open_connections,
    wait_for_none_open,
)
from dwebsocket.compat.without_engine.process import (
    clock_ahead,
    close_all,
    drain,
    is_leaving,
    reopen,
    shut_down,
    step_clock,
)
from dwebsocket.compat.without_engine.threads import Threads

__all__ = [
    "Groups",
    "Hub",
    "LocalNode",
    "Mailbox",
    "Permit",
    "Presence",
    "Threads",
    "Wait",
    "choose_subprotocol",
    "clock_ahead",
    "close_all",
    "drain",
    "is_leaving",
    "is_token",
    "may_send_close_code",
    "open_connections",
    "reopen",
    "response_head",
    "shut_down",
    "step_clock",
    "validate_handshake",
    "wait_for_none_open",
]

if not NO_ENGINE:
    raise ImportError(
        "dwebsocket2 is installed without its native module: install a wheel, or run "
        "`maturin develop` in its source",
        name=__name__,
    )

_CLIENT = "dwebsocket.connect()"
_FALLBACK = "The fallback of WebSockets"
_KIT = "This part of the test kit"
_TAKEOVER = "A WebSocket under this server"


class Call(Missing, what="A backend of groups between processes"): ...


class Carrier(Missing, what=_TAKEOVER): ...


class Compression(Missing, what=_TAKEOVER, makers=("negotiate",)): ...


class Connection(Missing, what=_TAKEOVER): ...


class Dial(Missing, what=_CLIENT): ...


class Dialer(Missing, what=_CLIENT): ...


class Exchange(Missing, what="Presence in groups", makers=("is_message",)): ...


class FrameReader(Missing, what=_KIT): ...


class History(Missing, what="The history of groups", makers=("in_memory",)): ...


class PendingPoll(Missing, what=_FALLBACK): ...


class Member(Missing, what="Presence in groups"): ...


class Losses(Missing, what="Rooms"): ...


class MessageFuture(Missing, what=_TAKEOVER): ...


class NextMessage(Missing, what=_TAKEOVER): ...


class Ping(Missing, what=_TAKEOVER): ...


class Post(Missing, what=_FALLBACK, makers=("max_size",)): ...


class Redis(Missing, what="A backend of groups in Redis"): ...


class Seat(Missing, what="Rooms", makers=("take",)): ...


class Settings(Missing, what=_CLIENT): ...


class Takeover(Missing, what=_TAKEOVER): ...


class Tls(Missing, what=_CLIENT): ...


def is_terminated() -> bool:
    return False


def is_handled(signal: int, /) -> bool:
    return False


def signal_seen() -> int:
    return 0


def overview() -> tuple[int, tuple[int, ...], list[float]]:
    """Counts connections that the engine has, and their traffic: none."""
    return 0, (0,) * 7, []


def buffered_bytes() -> int:
    return 0


def _nothing(*_: Any) -> None:
    """There is no engine to limit, to end, or to forget."""


after_fork_in_child = limit_buffered = want_threads = _nothing

client_frame = numbered = unavailable(_KIT)
ended = in_room = unavailable("Rooms")
event_stream_head = fallback_opened = open_polled = poll = polling_head = post = unavailable(
    _FALLBACK
)
adopt = die_of_sigterm = discard = on_exit = on_terminate = open_carried = prepare = unavailable(
    _TAKEOVER
)
