"""Actions during which a call of the system fails, and the outcomes that are right."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from typing import TYPE_CHECKING, Protocol

from anomaly_members import UNABLE, Compressing, Member
from anomaly_subject import WELL_S

from support.server import descriptors, is_running
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.server import Server

SYNC, ASYNC = "/anomaly/chat/", "/anomaly/async-chat/"
# Beyond what the engine compresses on its own thread.
LARGE = " " + "large" * 20_000
# Messages that all of a chat send together: four members, each a small one and a large one.
MESSAGES = 8
# The history of another process outlives a server, and its scenario.
_NUMBERS = (f"{number:06}" for number in itertools.count(1))


class Scenario(Protocol):
    """
    Something that a process does.

    Attributes:
        stays: Whether it leaves the process as it was.
    """

    stays: bool

    def begin(self) -> int:
        """Give the process."""

    def act(self) -> bool:
        """Do it, and fail when something was lost unnoticed; say whether all has worked."""

    def works(self) -> None:
        """Fail unless it works, after a while."""

    def close(self) -> None:
        """Leave nothing open."""


class Chat:
    """
    Members in the subject and in another process, and one that comes.

    Args:
        subject: The server in which calls fail.
        other: One of the same site in which none does.
        guest: The kind of member that comes while they fail.
        outage: What is done first.

    Attributes:
        has_full_disk: Whether messages that are kept may be dropped to make room.
    """

    stays = True
    has_full_disk = False

    def __init__(
        self,
        subject: Server,
        other: Server,
        guest: Callable[[Server, str], Member] = Member,
        outage: Callable[[], object] = lambda: None,
    ) -> None:
        self._subject, self._guest, self._outage = subject, guest, outage
        self._far = _enter(other, SYNC)
        self._near: list[Member] = []

    def begin(self) -> int:
        """All are there."""
        self._restore()
        return self._subject.worker

    def act(self) -> bool:
        """A guest comes, and all speak."""
        self._outage()
        return self._speak([self._far, *self._near], [SYNC])

    def works(self) -> None:
        """A guest comes, and all speak and hear each other."""
        eventually(self._all_hear, WELL_S, "a new member, and all hear each other")

    def close(self) -> None:
        """All leave."""
        for member in (self._far, *self._near):
            member.close()

    def _speak(self, members: list[Member], guests: list[str]) -> bool:
        for member in members:
            member.has_been_told = False
        came: list[Member] = []
        for path in guests:
            with contextlib.suppress(*UNABLE):
                came.append(self._guest(self._subject, path))
        whole = len(came) == len(guests)
        members = members + came
        try:
            # Before that they may be no members yet.
            eventually(lambda: all(map(_is_in, came)), WELL_S, "the guests are in")
            sent = [(each, self._say(each, rest)) for rest in ("", LARGE) for each in members]
            self._wait_for(sent, members)
        finally:
            for guest in came:
                guest.close()
        assert not self._far.is_over, "a member in another process was closed"
        return (
            whole
            and self._kept(sent) == len(sent)
            and not any(member.is_over or member.has_been_told for member in members)
        )

    def _kept(self, sent: list[tuple[Member, str]]) -> int:
        """Fail unless what was accepted is kept, once; give how many messages that are."""
        accepted = [number for sender, number in sent if f"ok {number}" in sender.seen]
        kept = self._far.server.get("/anomaly/kept/").json()["kept"]
        are_kept = set(accepted) <= set(kept)
        assert are_kept or self.has_full_disk, f"accepted {accepted}, kept {kept}"
        assert len(kept) == len(set(kept)), f"kept twice: {kept}"
        return len(accepted)

    def _all_hear(self) -> bool:
        try:
            self._restore()
        except UNABLE:
            return False
        return self._speak([self._far, *self._near], [ASYNC])

    def _restore(self) -> None:
        """Let members come back whose connections have ended."""
        for member in self._near:
            member.look()
        if len(self._near) == 2 and not any(member.is_over for member in self._near):
            return
        for member in self._near:
            member.close()
        self._near = []
        self._near.append(_enter(self._subject, SYNC, Compressing))
        self._near.append(_enter(self._subject, ASYNC))

    def _say(self, member: Member, rest: str) -> str:
        number = next(_NUMBERS)
        member.send(number + rest)
        return number

    def _wait_for(self, sent: list[tuple[Member, str]], members: list[Member]) -> None:
        """Wait until each sender knows what has come of its message, and who has to has got it."""

        def missing() -> list[str]:
            for member in members:
                member.look()
            return [
                *(
                    f"{number}: no answer"
                    for sender, number in sent
                    if not sender.is_over and not {f"ok {number}", f"failed {number}"} & sender.seen
                ),
                *(
                    f"{number} of member {members.index(sender)} is lost to {index}"
                    for sender, number in sent
                    for index, member in enumerate(members)
                    if f"ok {number}" in sender.seen
                    and not (member.is_over or member.has_been_told or number in member.seen)
                ),
            ]

        try:
            eventually(lambda: not missing(), WELL_S)
        except AssertionError:
            raise AssertionError(f"lost unnoticed: {missing()}") from None


class Start(Chat):
    """The same in a worker that has just begun: its engine and its groups start meanwhile."""

    stays = False

    def begin(self) -> int:
        """Replace the worker."""
        for member in self._near:
            member.close()
        self._near = []
        old = self._subject.worker
        os.kill(old, signal.SIGKILL)

        def begun() -> int:
            new = next(iter(set(self._subject.workers()) - {old}), 0)
            # Before it waits for connections its end is that of the server.
            return new if new and "anon_inode:[eventpoll]" in descriptors(new) else 0

        return eventually(begun)

    def act(self) -> bool:
        """Two guests come, and all speak."""
        return self._speak([self._far], [SYNC, ASYNC])


class End(Chat):
    """
    The server ends while all speak, or only its worker, which is replaced then.

    Args:
        subject: The server.
        other: One of the same site that stays.
        signal: What the server is sent.
    """

    stays = False

    def __init__(self, subject: Server, other: Server, signal: int = signal.SIGTERM) -> None:
        super().__init__(subject, other)
        self._signal = signal

    def act(self) -> bool:
        """All speak, and it gets the signal meanwhile."""
        pid = self._subject.worker
        members = [self._far, *self._near]
        for member in members:
            member.has_been_told = False
        sent = [(each, self._say(each, "")) for each in members]
        self._subject.send_signal(self._signal)
        sent += [(each, self._say(each, LARGE)) for each in members]
        eventually(lambda: not is_running(pid), WELL_S, "the process has ended")

        def all_know() -> bool:
            for member in self._near:
                member.look()
            return all(member.is_over for member in self._near)

        eventually(all_know, WELL_S, "all know that it has ended")
        self._wait_for(sent, members)
        self._kept(sent)
        return True


class Page:
    """
    Pages that do something, and answer `echo` or what they could not do.

    Args:
        subject: The server in which calls fail.
        paths: Their addresses.
    """

    stays = True

    def __init__(self, subject: Server, *paths: str) -> None:
        self._subject, self._paths = subject, paths

    def begin(self) -> int:
        """Give the process."""
        return self._subject.worker

    def act(self) -> bool:
        """Ask for them."""
        done = [self._is_done(path) for path in self._paths]
        return all(done)

    def works(self) -> None:
        """Ask for them until they work."""
        eventually(self.act, WELL_S)

    def close(self) -> None:
        """Nothing is open."""

    def _is_done(self, path: str) -> bool:
        try:
            answer = self._subject.get(path, timeout=WELL_S)
        except TimeoutError:
            raise AssertionError(f"no answer within {WELL_S} s") from None
        except OSError:
            return False
        assert answer.status in (200, 500, 502, 503), answer
        return (answer.status, answer.body) == (200, b"echo")


def _enter(server: Server, path: str, kind: Callable[[Server, str], Member] = Member) -> Member:
    member = kind(server, path)
    try:
        eventually(lambda: _is_in(member), WELL_S, "it is a member")
        if member.is_over:
            raise ConnectionError("it was closed")
    except BaseException:
        member.close()
        raise
    return member


def _is_in(member: Member) -> bool:
    member.look()
    return member.is_over or "ready" in member.seen
