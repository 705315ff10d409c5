"""Waiting for a condition; the one place in the tests that sleeps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Between two looks: at first, and after a while so that the others get the processor.
FIRST_STEP_S, STEP_S = 0.01, 0.03


def eventually(condition: Callable[[], T], within: float = 60.0, what: str = "") -> T:
    """
    Poll `condition` until it is true and return its value.

    `within` is a limit in seconds for broken code, not a measurement: it is generous, because a
    busy machine must not fail a test.

    Raises:
        AssertionError: The condition stayed false; the message names `what` and the last value.
    """
    begun = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        passed = time.monotonic() - begun
        if passed > within:
            name = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"not within {within} s: {name} (last value: {value!r})")
        time.sleep(FIRST_STEP_S if passed < 0.2 else STEP_S)


def pause(seconds: float) -> None:
    """Let time pass where the passing of time is itself the subject (idle sockets)."""
    time.sleep(seconds)
