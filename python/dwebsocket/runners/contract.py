"""The interface for running sync views: on threads, or on the green threads of a hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dwebsocket.api.close_callbacks import Spawn
    from dwebsocket.api.waiting.waiter import Waiter

Job = Callable[[], None]


class Runner(Protocol):
    """One kind of thread for views. Each process uses the one that its server brings along."""

    @property
    def waiter(self) -> Waiter:
        """The waiter by which its views sleep."""

    @property
    def exits(self) -> tuple[type[BaseException], ...]:
        """The exceptions that end the process, not only their view. Jobs let them through."""

    def run(self, name: str, job: Job) -> None:
        """
        Runs ``job`` beside everything else, under ``name``.

        Raises:
            RuntimeError: There are no more threads.
        """

    @property
    def spawn(self) -> Spawn:
        """Runs a job from any thread; one without a hub starts a thread of the system for it."""

    def join(self, timeout: float) -> bool:
        """Waits until no view runs, ``timeout`` seconds at most. False when the time was up."""
