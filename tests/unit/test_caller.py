"""The record of one caller's calls after the end: how far apart they come."""

from __future__ import annotations

import pytest

from dwebsocket.api.waiting.caller import Caller


def test_calls_come_further_and_further_apart_up_to_a_second() -> None:
    """A loop that ignores the end costs nothing."""
    caller, now, pauses = Caller(), 100.0, []
    for _ in range(14):
        pauses.append(caller.pause(now))
        now += pauses[-1]
    assert pauses == pytest.approx([0, *(0.001 * 2**n for n in range(10)), 1, 1, 1])


def test_a_caller_that_takes_its_time_is_not_held_up() -> None:
    """A loop that does other work between its calls is not slowed down."""
    caller = Caller()
    assert [caller.pause(100.0 + 2 * number) for number in range(20)] == [0.0] * 20


def test_sends_are_free_for_some_seconds_and_then_rarer_and_rarer() -> None:
    """Sends after the end are not delayed at first; an endless loop costs no processor time."""
    caller, now, calls = Caller(), 100.0, 0
    while now < 105.0:
        assert caller.pause_of_send(now) == 0.0
        now += 0.001
    while now < 165.0:
        now += caller.pause_of_send(now) + 0.001
        calls += 1
    assert calls < 1000
    now += caller.pause_of_send(now)
    assert caller.pause_of_send(now) == 1.0


def test_sends_do_not_make_receiving_calls_come_sooner() -> None:
    """A loop that does both, and ignores both, is slowed down as one that only receives."""
    caller, now = Caller(), 100.0
    for _ in range(12):
        caller.pause_of_send(now)
        now += caller.pause(now)
    assert caller.pause(now) == 1.0
