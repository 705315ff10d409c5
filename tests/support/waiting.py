"""Waiting for a condition; the one place in the tests that sleeps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

STEP_S = 0.01


def eventually(condition: Callable[[], T], within: float = 60.0, what: str = "") -> T:
    """
    Poll `condition` until it is true and return its value.

    `within` is a limit in seconds for broken code, not a measurement: it is generous, because a
    busy machine must not fail a test.

    Raises:
        AssertionError: The condition stayed false; the message names `what` and the last value.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"not within {within} s: {name} (last value: {value!r})")
        time.sleep(STEP_S)


def pause(seconds: float) -> None:
    """Let time pass where the passing of time is itself the subject (idle sockets)."""
    time.sleep(seconds)
