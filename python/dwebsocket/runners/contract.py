"""What it takes to run sync views somewhere: on threads, or on the green threads of a hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dwebsocket.api.close_callbacks import Spawn
    from dwebsocket.waiting.waiter import Waiter

Job = Callable[[], None]


class Runner(Protocol):
    """One kind of thread for views. Each process uses the one that its server brings along."""

    @property
    def waiter(self) -> Waiter:
        """How the views that it runs sleep."""

    @property
    def exits(self) -> tuple[type[BaseException], ...]:
        """What ends the process, not just the view it comes out of. Jobs let it through."""

    def run(self, name: str, job: Job) -> None:
        """
        Runs ``job`` beside everything else, under ``name``.

        Raises:
            RuntimeError: There are no more threads.
        """

    @property
    def spawn(self) -> Spawn:
        """As :meth:`run`, from any thread: also from one that has no green threads."""

    def join(self, timeout: float) -> bool:
        """Lets views go on until none runs, ``timeout`` seconds at most. False at that."""
