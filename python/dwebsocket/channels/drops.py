"""Dropped messages of channels: counted, and logged once a channel."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dwebsocket.telemetry import records

if TYPE_CHECKING:
    from dwebsocket.channels.channel import Channel

FULL = "channel.full"
EXPIRED = "channel.expired"

_log = logging.getLogger("dwebsocket")
_TEXTS = {
    FULL: "Channel %r is full: %d messages wait there, more are dropped until they are received",
    EXPIRED: "Channel %r drops messages that were not received in time; its capacity is %d",
}


class Drops:
    """Messages that were dropped, to be reported once no lock is held any more."""

    def __init__(self) -> None:
        self._found: list[tuple[str, Channel, int]] = []

    def add(self, event: str, channel: Channel, count: int = 1) -> None:
        """Adds messages of a channel; none are ignored."""
        if count:
            self._found.append((event, channel, count))

    def report(self) -> None:
        """Counts them all, and logs what is new."""
        for event, channel, count in self._found:
            records.count(event, count)
            if event not in channel.reported:
                channel.reported.add(event)
                extra = {"event": event}
                _log.warning(_TEXTS[event], channel.name, channel.capacity, extra=extra)
