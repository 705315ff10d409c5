"""How fast a client may send, where the server reads."""

from __future__ import annotations

import math

from dwebsocket import conf
from dwebsocket.servers.rate import Meter


def test_a_seconds_worth_may_come_at_once() -> None:
    """And is there again a second later."""
    meter = Meter(10, None, None, 0.0)
    for now in (0.0, 1.0, 2.0):
        for _ in range(9):
            meter.count(5)
        assert meter.pace(now) == 0
        meter.count(5)
        assert meter.pace(now) > 0


def test_client_that_sends_more_waits_in_proportion() -> None:
    """Bytes and messages each have their own rate; the slower one counts."""
    meter = Meter(100, 1000, None, 0.0)
    meter.count(3000)
    assert meter.pace(0.0) == 2.0
    assert meter.pace(1.5) == 0.5
    assert meter.pace(2.1) == 0


def test_client_that_goes_on_is_closed() -> None:
    """When the time is up."""
    meter = Meter(10, None, 5.0, 0.0)
    for _ in range(10):
        meter.count(0)
    assert meter.pace(0.0) == 0.001
    meter.count(0)
    assert meter.pace(4.9) == 0
    for now in (5.0, 9.9):
        for _ in range(100):
            meter.count(0)
        assert 0 < meter.pace(now) < math.inf
    assert meter.pace(10.0) == math.inf


def test_only_what_the_settings_ask_for() -> None:
    """Nothing is measured by default."""
    assert Meter.of(conf.Options.current({})) is None
    options = conf.Options.current(conf.overrides("test", {"max_messages_per_second": 1}))
    assert Meter.of(options) is not None
