"""Presence: what processes tell each other goes by the connections that listen."""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING, Any

from django.db import connections

from dwebsocket.groups.backends.postgres import future, payload
from dwebsocket.groups.presence.exchanging import PresenceBackend

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from dwebsocket.groups.backends.postgres.listener import Listener


class Presence(PresenceBackend):
    """The part of the backend that has to do with presence."""

    # With the names of group and channel it fits into `NOTIFY`: then no table is needed.
    largest_records = 4000

    _listener: Listener

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._start = secrets.token_hex(6)
        self._numbers = itertools.count()

    def ask(self, name: str, envelope: bytes) -> int | None:
        """Publishes at once, on the connection that listens: all that listen get it."""
        self.subscribe(name)
        told = self._listener.announce([self._text(name, envelope)])
        future.wait(told, self.settings.timeout)
        return int(self._result(told))

    async def aask(self, name: str, envelope: bytes) -> int | None:
        await self.asubscribe(name)
        told = self._listener.announce([self._text(name, envelope)])
        await future.wait_in_loop(told, self.settings.timeout)
        return int(self._result(told))

    def publish_all(self, envelopes: list[tuple[str, bytes]]) -> None:
        if (up := self._listener.listening()) is not None:
            future.wait_in_thread(up, self.settings.timeout)
            self._result(up)
        texts = [(self._text(*each), each) for each in envelopes]
        # One way after the other: the parts of an answer must not overtake each other.
        for is_long, some in itertools.groupby(texts, lambda it: len(it[0]) > payload.LONGEST):
            if is_long:
                self._publish_long(envelope for _, envelope in some)
            else:
                told = self._listener.announce([text for text, _ in some])
                future.wait_in_thread(told, self.settings.timeout)
                self._result(told)

    def _publish_long(self, envelopes: Iterable[tuple[str, bytes]]) -> None:
        try:
            for name, envelope in envelopes:
                self.publish(name, envelope)
        finally:
            # This thread does not use Django's connection otherwise.
            connections[self.settings.database].close()

    def _text(self, name: str, envelope: bytes) -> str:
        # `NOTIFY` drops a text that equals an earlier one of the same transaction.
        publication = f"{self._start}-{next(self._numbers):x}"
        content = payload.pack(name, envelope)
        return payload.of_message(payload.Message(publication, is_repeated=False, content=content))

    def _result(self, found: Future[Any]) -> Any:
        raise NotImplementedError
