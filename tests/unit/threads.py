"""Plain threads, which know nothing of the test that starts them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def in_plain_thread(call: Callable[[], Any]) -> Future[Any]:
    """Call on a thread of its own, as a project's `threading.Thread` does."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future
