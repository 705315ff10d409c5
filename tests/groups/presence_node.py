"""
A process whose WebSockets are present in groups, as a test drives it: one command a line on its
input, one answer a line.

Its argument is JSON: `databases` (DATABASES), `groups` (WEBSOCKET_GROUPS) and `secret`. A *tab* is
a WebSocket that has a name in the test: its view's end, and its client's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peer import LiveWebSocket

ROOM = "room-1"


def main() -> None:
    """Answer commands until the input ends."""
    options = json.loads(sys.argv[1])
    tests = Path(__file__).resolve().parent
    sys.path += [str(tests.parent), str(tests), str(tests.parent / "unit")]

    from django.conf import settings

    settings.configure(
        SECRET_KEY=options.get("secret", "secret"),
        DATABASES=options.get("databases", {}),
        WEBSOCKET_GROUPS=options["groups"],
        INSTALLED_APPS=["dwebsocket", "dwebsocket.groups.postgres"],
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    import django

    django.setup()
    tabs = Tabs()
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            answer: Any = getattr(tabs, command)(*arguments)
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer), flush=True)


class Tabs:
    """The commands. Tests of one process use it as an object."""

    def __init__(self) -> None:
        from dwebsocket import signals

        self.live: dict[str, LiveWebSocket] = {}
        #: What the signals have told.
        self.sent: list[list[str]] = []
        signals.member_joined.connect(self._joined)
        signals.member_left.connect(self._left)

    def _joined(self, member: Any, **facts: Any) -> None:
        self.sent.append(["joined", member.key])

    def _left(self, member: Any, **facts: Any) -> None:
        self.sent.append(["left", member.key])

    def open(self, tab: str, user: str = "", session: str = "") -> str:
        """Open a WebSocket of a user, of a session, or of neither. Give the user's key."""
        from peer import LiveWebSocket

        from dwebsocket import WebSocket, conf

        # Steps of the clock end no client that answers no pings.
        options = conf.Options.current(conf.overrides("tab", {"ping_interval": None}))
        live = LiveWebSocket(WebSocket(), options, None, b"")
        live.websocket._visitor_names = user, session
        self.live[tab] = live
        return f"user:{user}"

    def join(self, tab: str, name: str = ROOM, **options: Any) -> Any:
        """Join a group."""
        return self.live[tab].websocket.join(name, **options)

    def join_saying(self, tab: str, name: str, info: Any) -> Any:
        """Join a group, with information."""
        return self.join(tab, name, info=info)

    def come(self, tab: str, user: str, info: Any = None, presence: bool = False) -> str:
        """Open a WebSocket of a user that joins. Give the user's key."""
        key = self.open(tab, user)
        self.join(tab, info=info, presence=presence)
        return key

    def come_many(self, first: int, count: int) -> str:
        """Open a WebSocket for each of many users, all of which join."""
        for number in range(first, first + count):
            self.come(str(number), str(number))
        return "came"

    def acome_many(self, first: int, count: int) -> str:
        """As `come_many`, in an event loop."""

        async def come() -> None:
            for number in range(first, first + count):
                self.open(str(number), str(number))
                await self.live[str(number)].websocket.ajoin(ROOM)

        asyncio.run(come())
        return "came"

    def leave(self, tab: str, name: str = ROOM) -> None:
        """Leave a group."""
        self.live[tab].websocket.leave(name)

    def close(self, tab: str) -> None:
        """End a client without a close frame."""
        live = self.live.pop(tab)
        live.client.vanish()

    def close_many(self, first: int, count: int) -> str:
        """End the clients of many users."""
        for number in range(first, first + count):
            self.close(str(number))
        return "gone"

    def members(self, name: str = ROOM) -> list[list[Any]]:
        """Give keys, infos and connections."""
        from dwebsocket import group

        return [[m.key, m.info, len(m.connections)] for m in group(name).members()]

    def since(self, name: str = ROOM) -> list[str]:
        """Give when the users have joined."""
        from dwebsocket import group

        return [m.since.isoformat() for m in group(name).members()]

    def told(self, tab: str, number: int) -> list[list[str]]:
        """Give the next users of which a client is told, each with what they did."""
        found: list[list[str]] = []
        while len(found) < number:
            message = json.loads(self.live[tab].client.receive() or "{}")
            for event in ("left", "joined"):
                if event in message:
                    users = message[event]
                    users = users if isinstance(users, list) else [users]
                    found += [[event, user["key"]] for user in users]
        return found

    def signals(self) -> list[list[str]]:
        """Give what the signals have told."""
        return self.sent

    def pause(self, seconds: float) -> None:
        """Hold the GIL, so that no thread of Python runs meanwhile."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(1000)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        sys.setswitchinterval(before)


if __name__ == "__main__":
    main()
