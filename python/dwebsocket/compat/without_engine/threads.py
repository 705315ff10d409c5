"""The threads of sync views."""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Threads:
    """Runs each function on a new thread of the system. Any thread may use it."""

    def run(self, function: Callable[[], object], stack_size: int) -> None:
        """
        Calls ``function`` on a thread that ``threading`` has not started.

        ``stack_size`` has no effect: Windows takes memory for a stack only as it is used.

        Raises:
            RuntimeError: The system gives no more threads.
        """
        _thread.start_new_thread(function, ())
