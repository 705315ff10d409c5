"""The backends that chaos is tried with: how they are set up, and how they fail."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.redis import Redis, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HISTORY = {"room-*": {"size": 50_000, "seconds": 900}}


@dataclass
class Subject:
    """
    A backend.

    Attributes:
        settings: Those of the project that differ.
        go: What takes its server away, by name, and gives how to bring it back.
        may_lose: The names of those behind which numbering starts anew.
    """

    settings: dict[str, Any]
    go: dict[str, Callable[[], Callable[[], None]]] = field(default_factory=dict)
    may_lose: frozenset[str] = frozenset()


@contextlib.contextmanager
def local() -> Iterator[Subject]:
    """Files and sockets of this machine."""
    yield Subject({"WEBSOCKET_GROUPS": {"default": {"HISTORY": HISTORY}}})


@contextlib.contextmanager
def redis() -> Iterator[Subject]:
    """A server that restarts with nothing, and one that does not answer for a while."""

    def restart() -> Callable[[], None]:
        server.kill()
        return server.start

    def freeze() -> Callable[[], None]:
        server.freeze()
        return server.thaw

    with Redis() as server:
        yield Subject(
            {"WEBSOCKET_GROUPS": {"default": settings(server.url, HISTORY=HISTORY)}},
            {"the server restarts": restart, "the server does not answer": freeze},
            frozenset({"the server restarts"}),
        )


BACKENDS = {"local": local, "redis": redis}
