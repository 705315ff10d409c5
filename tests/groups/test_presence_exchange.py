"""What processes tell each other of presence: in the end all of them know the same users."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dwebsocket import _core
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM = "room"
GRACE = 10.0
# More than the time between two beats, and than what it takes to miss a killed process.
BEAT = 0.81
MANY_BEATS = 8
# A message that is older counts for nothing.
LONGEST_WAY = 5 * 60.0


class World:
    """The processes, and the server that carries what they publish."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.killed: list[Process] = []
        self.is_away = False
        self.lost = 0
        self.grace = GRACE
        # All that was published, as another user of the server has kept it.
        self.kept: list[tuple[Process, str, bytes]] = []

    def start(self) -> Process:
        """Start a process."""
        self.processes.append(Process(self))
        return self.processes[-1]

    def kill(self, process: Process) -> None:
        """End a process without any warning."""
        self.processes.remove(process)
        self.killed.append(process)

    def publish(self, sender: Process, name: str, envelope: bytes) -> int | None:
        """Carry an envelope to those that have subscribed. None when it gets lost."""
        self.kept.append((sender, name, envelope))
        if self.is_away or self.lost:
            self.lost = max(0, self.lost - 1)
            return None
        subscribers = [
            each
            for each in self.processes
            if name in each.subscribed and (each is sender or not each.gets_only_its_own)
        ]
        for each in subscribers:
            each.exchange.on_message(name, envelope)
        return len(subscribers)

    def replay(self, senders: list[Process]) -> Iterator[bool]:
        """Publish all that processes have said once more; give what became of each."""
        for sender, name, envelope in list(self.kept):
            for each in self.processes:
                if sender in senders and name in each.subscribed:
                    yield each.exchange.on_message(name, envelope)

    def carry(self) -> None:
        """Let all processes publish, until they have nothing more to say."""
        while sum(each.publish() for each in self.processes):
            pass

    def beat(self) -> None:
        """Let all processes send a beat."""
        _core.step_clock(BEAT)
        self.carry()

    def users(self) -> Counter[str]:
        """Give the connections of each user, in truth."""
        return Counter(user for each in self.processes for user in each.tabs.values())


class Process:
    """One process, without threads: it publishes when it is told to."""

    numbers = itertools.count(1)
    hub = _core.Hub()

    def __init__(self, world: World) -> None:
        self.world = world
        self.groups = _core.Groups("close", b"k" * 32)
        self.presence = _core.Presence(self.groups)
        self.exchange = _core.Exchange(self.presence, self.groups, 200)
        self.subscribed = set(self.exchange.channels())
        self.tabs: dict[_core.Mailbox, str] = {}
        self.gets_only_its_own = False
        # The users that have joined here, with what is to be waited for before that is told.
        self.joined: list[tuple[str, _core.Wait]] = []

    def publish(self) -> bool:
        """Publish what there is. False when there was nothing."""
        steps = self.exchange.take(0)
        for name, envelope in steps or ():
            if envelope is None:
                self.subscribed.discard(name)
            elif self.world.publish(self, name, envelope) is None:
                self.exchange.note_failure()
        return bool(steps) and not self.world.is_away

    def ask(self, question: tuple[int, Any, bytes | None]) -> bool:
        """Publish a question, and wait for the answers. False when it got lost."""
        number, _, envelope = question
        assert envelope is not None
        if (processes := self.world.publish(self, ROOM, envelope)) is None:
            self.exchange.fail(number, "it got lost")
            return False
        self.exchange.expect(number, processes)
        self.world.carry()
        self.exchange.give_up(number)
        return True

    def come(self, user: str) -> None:
        """Open a connection of a user."""
        self.subscribed.add(ROOM)
        self.exchange.begin(ROOM)
        if (question := self.exchange.learn(ROOM)) is None or self.ask(question):
            mailbox, number = _core.Mailbox(1024, self.hub, 0), next(self.numbers)
            now = f"2026-01-01T00:00:00.{number:06}+00:00"
            key = number.to_bytes(16, "big")
            grace = self.world.grace
            entered = self.presence.enter(
                ROOM, mailbox, key, user, user, now, None, False, grace, str(number), True, True
            )
            if entered:
                assert entered[1] is not None
                self.joined.append((user, entered[1]))
            self.tabs[mailbox] = user
        self.exchange.end(ROOM)

    def tell(self) -> list[str]:
        """Give the users of which this process tells now that they have joined."""
        ready = [(user, wait) for user, wait in self.joined if wait.wait(0)]
        self.joined = [each for each in self.joined if each not in ready]
        return [user for user, _ in ready if self.presence.tells(ROOM, user)]

    def leave(self) -> None:
        """Close the oldest connection."""
        if self.tabs:
            mailbox = next(iter(self.tabs))
            del self.tabs[mailbox]
            mailbox.end()

    def members(self) -> dict[str, int]:
        """Give the users that this process knows, or is told of when it asks."""
        if self.exchange.takes_part(ROOM):
            found = self.presence.members(ROOM)
        else:
            question = self.exchange.ask(ROOM)
            self.ask(question)
            found = self.exchange.gathered(question[0])
        return {member.key: len(member.connections) for member in found}


PROCESSES = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("come"), PROCESSES, st.sampled_from("abc")),
    st.tuples(st.just("leave"), PROCESSES),
    st.tuples(st.just("restart"), PROCESSES),
    st.tuples(st.just("publish"), PROCESSES),
    st.tuples(st.sampled_from(["beat", "carry", "away", "back", "lose", "replay"])),
)


def follow(world: World, steps: list[tuple[Any, ...]]) -> Iterator[None]:
    """Do what a test wants."""
    for step, *which in steps:
        process = world.processes[which[0]] if which else None
        if step == "restart":
            assert process is not None
            world.kill(process)
            world.start()
        elif process is not None:
            getattr(process, step)(*which[1:])
        elif step in ("away", "back"):
            world.is_away = step == "away"
        elif step == "lose":
            world.lost += 1
        elif step == "replay":
            list(world.replay(world.processes))
        else:
            getattr(world, step)()
        yield


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_any_order_of_events(steps: list[tuple[Any, ...]]) -> None:
    """
    Joins, leaves, kills, outages, lost messages: some seconds later all know who is there.

    Also where another user of the server publishes again what living processes have said.
    """
    world = World()
    for _ in range(3):
        world.start()
    for _ in follow(world, steps):
        pass
    world.is_away, world.lost = False, 0
    for _ in range(MANY_BEATS):
        world.beat()
    # A user stays for the grace after that.
    _core.step_clock(GRACE)
    for _ in range(3):
        world.beat()
    for process in [*world.processes, world.start()]:
        assert process.members() == world.users()


@pytest.mark.parametrize("are_both", [False, True])
def test_a_process_that_is_heard_again_is_asked_for_its_users(*, are_both: bool) -> None:
    """Its beats were missing, and it does not know that."""
    world = World()
    processes = [world.start(), world.start()]
    for process, user in zip(processes, "ab", strict=True):
        process.come(user)
        world.carry()
    for silent in (True, False):
        for process in processes[: 1 + are_both]:
            process.gets_only_its_own = silent
        for _ in range(MANY_BEATS):
            world.beat()
    # Also when the users of a process that has ended are gone.
    for _ in range(int(GRACE / BEAT)):
        world.beat()
    for process in processes:
        assert process.members() == world.users()


# A user leaves before its process has told that it has joined, and joins in another one.
LEFT_AND_BACK = [("leave", 0), ("come", 0, "b"), ("leave", 0), ("come", 1, "b")]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("come"), PROCESSES, st.sampled_from("ab")),
            st.tuples(st.just("leave"), PROCESSES),
            st.tuples(st.just("publish"), PROCESSES),
            st.tuples(st.just("tell"), PROCESSES),
        ),
        max_size=30,
    )
)
@example([*LEFT_AND_BACK, ("publish", 0), ("tell", 0), ("come", 0, "b")])
def test_one_process_tells_that_a_user_has_joined(steps: list[tuple[Any, ...]]) -> None:
    """In any order of what they learn of each other, as long as none is killed."""
    world = World()
    told: Counter[str] = Counter()
    for _ in range(3):
        world.start().come("w")
        world.carry()
        told.update(world.processes[-1].tell())
    for step, *which in steps:
        done = getattr(world.processes[which[0]], step)(*which[1:])
        if step == "tell":
            told.update(done)

    def all_have_told() -> bool:
        world.carry()
        for process in world.processes:
            told.update(process.tell())
        return not any(process.joined for process in world.processes)

    # The task of a room hands over what is to be published; it runs when a processor is free.
    eventually(all_have_told)
    came = {user for step, *which in steps if step == "come" for user in which[1:]}
    assert told == Counter({"w", *came})


def test_the_next_claim_wins_where_the_first_process_is_killed() -> None:
    """Before it could tell that the user has joined."""
    world = World()
    one, two = world.start(), world.start()
    for process in (one, two):
        process.come("w")
        world.carry()
        process.tell()
    one.come("a")
    two.come("a")
    one.publish()
    world.kill(one)
    world.carry()
    assert two.tell() == []
    for _ in range(MANY_BEATS):
        world.beat()
    assert two.tell() == ["a"]


def test_who_is_back_in_one_process_and_gone_in_another_one_has_joined_again() -> None:
    """
    The process that has told of the shutdown_plan tells it: for the other one nobody has left.
    """
    world = World()
    one, two = world.start(), world.start()
    for process in (one, two):
        process.come("w")
        world.carry()
        process.tell()
    one.come("a")
    world.carry()
    assert one.tell() == ["a"]
    one.tabs = dict(reversed(one.tabs.items()))
    one.leave()
    world.carry()
    two.come("a")
    assert two.tell() == []
    _core.step_clock(GRACE)

    def moves() -> list[tuple[str, bool]]:
        return [(member.key, is_back) for _, member, is_back in one.presence.take_departed()]

    found: list[tuple[str, bool]] = []
    eventually(lambda: found.extend(moves()) or found == [("a", False)])
    world.carry()
    eventually(lambda: found.extend(moves()) or found == [("a", False), ("a", True)])
    assert two.presence.take_departed() == []


def test_what_a_dead_process_has_said_is_of_no_use_after_five_minutes() -> None:
    """Until then another user of the server can show its users, by publishing it again."""
    world = World()
    dead, alive = world.start(), world.start()
    dead.come("a")
    alive.come("b")
    dead.come("c")
    world.carry()
    assert alive.members() == world.users()
    world.kill(dead)
    _core.step_clock(LONGEST_WAY)
    for _ in range(MANY_BEATS):
        world.beat()
    _core.step_clock(GRACE)
    for _ in range(MANY_BEATS):
        world.beat()
        assert set(world.replay([dead])) == {False}
    world.carry()
    assert alive.members() == {"b": 1}


def test_what_a_living_process_has_said_before_changes_nothing() -> None:
    """It has begun to take part, left, and begun again: a replay ends nothing of that."""
    world = World()
    one, two = world.start(), world.start()
    two.come("b")
    for user in ("a", "c"):
        one.come(user)
        world.carry()
        if user == "a":
            assert one.exchange.takes_part(ROOM)
            one.leave()
            while one.exchange.takes_part(ROOM):
                _core.step_clock(GRACE)
                world.beat()
            two.members()
    for was_taken in world.replay([one]):
        assert was_taken
        assert (two.members()["b"], two.members()["c"]) == (1, 1)


def test_own_beats_that_come_again_make_no_other_process_silent() -> None:
    """By own beats the silence of others is measured: each counts once."""
    world = World()
    one, two = world.start(), world.start()
    one.come("a")
    two.come("b")
    world.beat()
    for _ in range(MANY_BEATS):
        assert all(world.replay([one]))
    assert one.members() == {"a": 1, "b": 1}


def test_nothing_of_another_project_is_taken() -> None:
    """Its seal is another one."""
    world = World()
    process = world.start()
    _, _, envelope = process.exchange.ask(ROOM)
    assert envelope is not None
    assert process.exchange.on_message(ROOM, envelope)
    assert not process.exchange.on_message("other room", envelope)
    assert not process.exchange.on_message(ROOM, envelope[:-1] + b"?")
    assert not process.exchange.on_message(ROOM, b"\x01presence ")
    groups = _core.Groups("close", b"o" * 32)
    other = _core.Exchange(_core.Presence(groups), groups, 200)
    assert not other.on_message(ROOM, envelope)
