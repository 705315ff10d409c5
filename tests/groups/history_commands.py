"""What the processes of tests do with groups that have a history."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwebsocket import _core


class HistoryCommands:
    """
    The commands.

    Attributes:
        mailbox: The one member of the process, of most tests.
    """

    mailbox: _core.Mailbox

    def __init__(self) -> None:
        super().__init__()
        # Further members, with their groups.
        self.clients: dict[str, tuple[str, _core.Mailbox]] = {}

    def take(self, number: int, seconds: float = 60.0) -> list[str]:
        """Give the next messages."""
        raise NotImplementedError

    def come_back(self, name: str, since: str) -> list[str]:
        """Make the mailbox a member from a position on. Give what it has missed."""
        from dwebsocket.groups import backends, history

        backend = backends.backend("default")
        backend.hold(name)
        at, missed = history.read_position(since), []
        joined = "behind"
        while joined == "behind":
            page = backend.read_history(name, at, (10**6, 3600.0))
            missed += [f"{offset} {message}" for offset, _, message, _ in page.rows]
            at = page.reached
            if page.is_last:
                joined = backend.join_at(name, self.mailbox, b"k" * 16, at, numbered=True)
        backend.release(name)
        return missed

    def take_numbered(self, number: int, seconds: float = 60.0) -> list[str]:
        """Give the next messages of a mailbox that came back; "gap" where it is told of a loss."""
        return [_numbered(text) for text in self.take(number, seconds)]

    def position(self, name: str) -> str:
        """Give where a group is."""
        from dwebsocket import group

        return group(name).position()

    def history(self, name: str) -> list[str]:
        """Give what is kept."""
        from dwebsocket import group

        return [str(entry.message) for entry in group(name).history()]

    def come_back_in_task(self, name: str, since: str) -> list[str]:
        """As :meth:`come_back`, in an event loop."""
        from dwebsocket.groups import backends, history

        backend = backends.backend("default")

        async def come_back() -> list[str]:
            await backend.ahold(name)
            at, missed = history.read_position(since), []
            joined = "behind"
            while joined == "behind":
                page = await backend.aread_history(name, at, (10**6, 3600.0))
                missed += [f"{offset} {message}" for offset, _, message, _ in page.rows]
                at = page.reached
                if page.is_last:
                    joined = await backend.ajoin_at(
                        name, self.mailbox, b"k" * 16, at, numbered=True
                    )
            backend.release(name)
            return missed

        return asyncio.run(come_back())

    def client_back(self, client: str, name: str, since: str) -> tuple[bool, list[str]]:
        """Make a further member, which comes back. Give what `join` would, and what it missed."""
        import os

        from dwebsocket import _core
        from dwebsocket.groups import backends, history

        self.client_gone(client)
        mailbox, key = _core.Mailbox(64 * 1024 * 1024, _core.Hub(), 1), os.urandom(16)
        backend = backends.backend("default")
        at, missed, is_whole = history.read_position(since), [], True
        backend.hold(name)
        joined = "behind"
        while joined == "behind":
            page = backend.read_history(name, at, (10**6, 3600.0))
            is_whole = is_whole and history.is_whole(page, at)
            missed += [f"{offset} {message}" for offset, _, message, _ in page.rows]
            at = page.reached
            if page.is_last:
                joined = backend.join_at(name, mailbox, key, at, numbered=True)
        backend.release(name)
        self.clients[client] = (name, mailbox)
        return is_whole, missed

    def client_take(self, client: str) -> list[str]:
        """Give what has come for it."""
        found = []
        while (text := self.clients[client][1].pop()) is not None:
            found.append(_numbered(text))
        return found

    def client_gone(self, client: str) -> None:
        """End its membership; what it has not taken is lost."""
        from dwebsocket.groups import backends

        if client in self.clients:
            name, mailbox = self.clients.pop(client)
            backends.backend("default").discard(name, mailbox)


def _numbered(text: str) -> str:
    each = json.loads(text)
    return f"{each['position'].rpartition('-')[2]} {each.get('data', 'gap')}"
