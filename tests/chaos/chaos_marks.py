"""Messages that all clients have to get when all is well again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chaos_processes import Clients, Publisher, all_are

from support.waiting import eventually

if TYPE_CHECKING:
    from chaos_model import Attempt

    from support.server import Server

# Seconds after which those that have not got a message are sent another one.
MARK_S = 5


class Marks:
    """Messages from publishers of their own."""

    def __init__(self, server: Server, rooms: list[str]) -> None:
        self._server = server
        self._rooms = rooms
        # Of each publisher.
        self.attempts: list[list[Attempt]] = []

    def publish(self) -> bool:
        """Publish one to each group; say whether that has worked."""
        name = f"mark{len(self.attempts)}"
        with Publisher(self._server, name, "once", "0", *self._rooms) as publisher:
            self.attempts.append(publisher.end())
        return all(has_returned for _, _, has_returned in self.attempts[-1])

    def reach(self, clients: list[Clients]) -> None:
        """
        Wait until there is one that all clients have.

        Those that are told of a loss later miss the first. A busy machine may bring one to the last
        client when the next one is published already.
        """
        marks: list[dict[str, str]] = []
        published_at = 0.0

        def all_have_one() -> bool:
            nonlocal published_at
            if time.monotonic() > published_at + MARK_S and self.publish():
                marks.append({group: text for group, text, _ in self.attempts[-1]})
                published_at = time.monotonic()
            return any(all_are(clients, "have", texts) for texts in marks)

        try:
            eventually(all_have_one, 240, "all have the message")
        except AssertionError as error:
            texts = marks[-1] if marks else {}
            late = [(n, at) for n, each in enumerate(clients) for at in each.call("late", texts)]
            raise AssertionError(f"{error}: {len(late)} have not: {late[:5]}") from None
