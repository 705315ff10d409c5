"""
A process with groups, as a test drives it: one command a line on its input, one answer a line.

Arguments: WEBSOCKET_GROUPS and SECRET_KEY, as JSON. It has one member, which is no WebSocket but
the mailbox of one.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import threading
import time
from typing import Any

from history_commands import HistoryCommands


def main() -> None:
    """Answer commands until the input ends."""
    groups, secret_key = json.loads(sys.argv[1])

    from django.conf import settings

    settings.configure(SECRET_KEY=secret_key, WEBSOCKET_GROUPS=groups, USE_TZ=True)
    import django

    django.setup()
    print("ready", flush=True)
    member = _Member()
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            answer: Any = getattr(member, command)(*arguments)
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer), flush=True)


class _Member(HistoryCommands):
    """The commands."""

    def __init__(self) -> None:
        super().__init__()
        from dwebsocket import _core

        self.gaps: list[str] = []
        self.hub = _core.Hub()
        self.mailbox = _core.Mailbox(64 * 1024 * 1024, self.hub, 1)

    def join(self, name: str) -> bool:
        """Make the mailbox a member."""
        from dwebsocket.groups import backends

        return backends.backend("default").add(name, self.mailbox, b"k" * 16)

    def sit_down(self, name: str, room: str) -> bool:
        """Make a seat of the mailbox, in a room, a member."""
        from dwebsocket import _core
        from dwebsocket.groups import backends

        seat = _core.Seats(self.mailbox, b"s" * 16, None, 1).take(room)
        assert seat is not None
        joined = backends.backend("default").add(name, seat, b"s" * 16)
        return joined and seat.open(None)

    def leave(self, name: str) -> None:
        """End its membership."""
        from dwebsocket.groups import backends

        backends.backend("default").discard(name, self.mailbox)

    def send(self, name: str, *messages: str) -> str:
        """Publish messages."""
        from dwebsocket import group

        for message in messages:
            group(name).send(message)
        return "sent"

    def evict(self, name: str) -> str:
        """Take the mailboxes of all processes out of a group."""
        from dwebsocket.groups import backends

        backends.backend("default").evict(name, b"k" * 16, "")
        return "evicted"

    def pass_events(self, name: str, count: int) -> str:
        """Pass events on to rooms, as a client of one does."""
        from dwebsocket.groups import backends

        for number in range(count):
            backends.backend("default").pass_event(name, f',"event":{number}}}', [])
        return "passed"

    def send_large(self, name: str, size: int) -> str:
        """Publish one message of that size."""
        from dwebsocket import group

        group(name).send("x" * size)
        return "sent"

    def fill(self, name: str, size: int) -> int:
        """Publish messages of that size until one is refused. Count those that were not."""
        from dwebsocket import group
        from dwebsocket.exceptions import GroupUnavailable

        message, sent = "x" * size, 0
        while True:
            try:
                group(name).send(message)
            except GroupUnavailable:
                return sent
            sent += 1

    def send_and_exit(self, name: str, size: int, count: int) -> None:
        """Publish large messages, and end at once."""
        from dwebsocket import group

        for _ in range(count):
            group(name).send("x" * size)
        sys.exit(0)

    def stream(self, name: str, rate: int, seconds: float) -> int:
        """Publish so many messages a second, as far as the machine can. Give their number."""
        from dwebsocket import group

        began, sent = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds or sent <= 1000:
            for _ in range(int(passed * rate) - sent):
                group(name).send("x")
                sent += 1
            time.sleep(0.005)
        return sent

    def come_and_go(
        self, name: str, since: str, seconds: float, rate: int = 0
    ) -> tuple[int, str, int]:
        """
        Become a member again and again, each time from the last message on, and go soon.

        With a rate another thread publishes meanwhile. Give how often that was, the position of the
        last message, and how many were published. Fail when one is missing or comes twice.
        """
        sent: list[int] = []
        publisher = threading.Thread(target=lambda: sent.append(self.stream(name, rate, seconds)))
        if rate:
            publisher.start()
        deadline, joins = time.monotonic() + seconds, 0
        while time.monotonic() < deadline or joins <= 3:
            self.mailbox = type(self.mailbox)(64 * 1024 * 1024, self.hub, 1)
            since = self._follow(since, self.come_back(name, since))
            joins += 1
            stay = time.monotonic() + random.uniform(0, 0.05)
            while time.monotonic() < stay:
                since = self._follow(since, self.take_numbered(1, 0.01))
            self.leave(name)
        if rate:
            publisher.join()
        return joins, since, sum(sent)

    def _follow(self, since: str, messages: list[str]) -> str:
        """Give the position behind messages, which have to be the next ones."""
        epoch, _, offset = since.partition("-")
        found = [message.partition(" ")[0] for message in messages]
        expected = [str(int(offset) + number) for number in range(1, len(found) + 1)]
        if found != expected:
            raise AssertionError(f"{found[:3]} … {found[-3:]} behind {since}")
        return f"{epoch}-{found[-1]}" if found else since

    def note_interruptions(self) -> None:
        """Note from now on in which groups members may have missed messages."""
        from dwebsocket.groups import backends

        backends.backend("default").presence_interrupted = lambda *names: self.gaps.extend(names)

    def interruptions(self) -> list[str]:
        """Give the names that were noted."""
        return self.gaps

    def statistics(self) -> dict[str, Any]:
        """Give the counters of this process."""
        from dwebsocket import group_statistics

        return {**group_statistics()["default"]}

    def count(self, name: str) -> int:
        """Count members."""
        from dwebsocket import group

        return group(name).count()

    def take(self, number: int, seconds: float = 60.0) -> list[str]:
        """Give the next messages as texts, large ones as their length."""
        found: list[str] = []
        while len(found) < number:
            message = self.mailbox.pop()
            if message is None:
                if not select.select([self.hub.fileno()], [], [], seconds)[0]:
                    break
                self.hub.drain()
                continue
            found.append(str(message) if len(message) < 1000 else str(len(message)))
        return found

    def fork_and_send(self, name: str, message: str) -> int:
        """Publish from a forked child, which stays. Give its process number."""
        import signal

        from dwebsocket import group

        child = os.fork()
        if child == 0:
            group(name).send(message)
            while True:
                signal.pause()
        return child

    def start_and_kill(self, name: str, times: int) -> int:
        """Fork processes in turn; each joins and is killed. Count those that joined."""
        import signal

        joined = 0
        for _ in range(times):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                # As a new process: this one itself has used no group.
                os.write(writer, b"1" if _Member().join(name) is True else b"0")
                while True:
                    signal.pause()
            os.close(writer)
            joined += int(os.read(reader, 1))
            os.close(reader)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return joined

    def peers(self) -> int:
        """Count the other processes that this one is connected with."""
        from dwebsocket.groups import backends

        return backends.backend("default").node.peers()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
