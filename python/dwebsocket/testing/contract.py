"""
The duties of each backend of groups, as tests: for authors of backends.

::

    class MyBackendTests(BackendContract, unittest.TestCase):
        backend = {"BACKEND": "my_package.groups.Backend", "LOCATION": "tcp://127.0.0.1:4222"}

Runs with unittest, Django's runner and pytest. A server is started in ``setUpClass``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.conf import settings
from django.db import transaction
from django.test import override_settings

from dwebsocket import _core
from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import UsageError
from dwebsocket.groups import Group, backends, group, user
from dwebsocket.testing import contract_process
from dwebsocket.testing.case import WebSocketTestMixin
from dwebsocket.testing.client import WebSocketClient
from dwebsocket.testing.contract_process import described

if TYPE_CHECKING:
    import unittest
    from collections.abc import Callable, Mapping

    from dwebsocket.testing.websocket import ClientWebSocket

    _Case = unittest.TestCase
else:
    _Case = object

_MIB = 1024 * 1024
# The settings of all processes.
_SETTINGS: Mapping[str, Any] = {
    "ROOT_URLCONF": contract_process.__name__,
    "ALLOWED_HOSTS": ["*"],
    "WEBSOCKET_TEXT_TYPE": "str",
    # Members read only what a test asks for. None of them is slow.
    "WEBSOCKET_SEND_BUFFER": 64 * _MIB,
}
# The start of other processes. Libraries of green threads patch before anything else is imported.
_PATCHES = {
    "plain": "",
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
_RUN = f"from {contract_process.__name__} import main; main()"
# The real ones, in place of those that each test has. All tests use the same.
_backends = backends.Backends(backends.make)
# Groups that have presence, and the seconds for which a user stays.
_PRESENT, _GRACE_S = "contract-present-", 0.5
# For broken backends alone.
_TIMEOUT_S = 60.0
_STEP_S = 0.02


class OtherProcess:
    """A process of the same project; its commands are those of ``contract_process``."""

    def __init__(self, own: Mapping[str, Any], kind: str) -> None:
        """Starts it. ``kind``: ``plain``, ``gevent`` or ``eventlet``."""
        path = os.pathsep.join(filter(None, sys.path))
        self._process: Any = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", f"{_PATCHES[kind]}\n{_RUN}"],
            env={
                **os.environ,
                "PYTHONPATH": path,
                contract_process.SETTINGS: json.dumps(own, default=str),
                # Tests may have stepped this process's clock: the others have the same.
                contract_process.AHEAD: str(_core.clock_ahead()),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, command: str, *arguments: Any) -> Any:
        """Returns the result of a command."""
        self._process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "it has ended"}')
        if "error" in answer:
            raise AssertionError(f"the other process: {answer['error']}")
        return answer["result"]

    def kill(self) -> None:
        """Ends it at once, by SIGKILL."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Ends it by itself."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_TIMEOUT_S)
        finally:
            self.kill()
            self._process.stdout.close()


class BackendContract(WebSocketTestMixin, _Case):
    """
    The contract of a backend; to stand before ``unittest.TestCase``.

    Attributes:
        backend: The entry of ``WEBSOCKET_GROUPS``.
        crosses_processes: Whether processes of one machine share groups.
        has_database: Whether the default database may be used, for ``on_commit``.
        memberships: How many groups one connection joins.
        process_settings: Further settings for other processes, as JSON can carry them, such as
            ``DATABASES``.
    """

    backend: ClassVar[Mapping[str, Any]]
    crosses_processes: ClassVar[bool] = True
    has_database: ClassVar[bool] = False
    memberships: ClassVar[int] = 10_000
    process_settings: ClassVar[Mapping[str, Any]] = {}
    websocket_timeout = _TIMEOUT_S

    def setUp(self) -> None:
        """Names a group of this test alone."""
        super().setUp()
        undo = override_settings(
            **_SETTINGS, MIDDLEWARE=[], WEBSOCKET_GROUPS={"default": self.entry()}
        )
        undo.enable()
        self.addCleanup(undo.disable)
        swap = backends.swapped(_backends)
        swap.__enter__()
        self.addCleanup(swap.__exit__, None, None, None)
        # A plain test case of unittest has none.
        self.client = WebSocketClient()
        self.client.websocket_timeout = self.websocket_timeout
        self.name = f"contract-{uuid.uuid4()}"
        self.group = group(self.name)

    @classmethod
    def tearDownClass(cls) -> None:
        """Drops the backends: their servers may end now."""
        _backends.clear()
        super().tearDownClass()

    # -- what the tests share --------------------------------------------------------------------

    def entry(self) -> dict[str, Any]:
        """
        Returns the entry of ``WEBSOCKET_GROUPS``: that of the class, and presence if it has it.
        """
        entry = dict(self.backend)
        if backends.class_of(entry["BACKEND"]).keeps_presence:
            entry.setdefault("PRESENCE", {f"{_PRESENT}*": {"grace": _GRACE_S}})
        return entry

    def path(self, *names: str, view: str = "member") -> str:
        """Returns the URL of a member of these groups."""
        return f"/{view}/?{urlencode([('group', name) for name in names])}"

    def member(self, *names: str, view: str = "member") -> tuple[ClientWebSocket, str]:
        """Opens a member, of the test's group by default; returns it and its id."""
        opened = self.client.websocket(self.path(*(names or [self.name]), view=view))
        opened.__enter__()
        return opened, str(opened.receive())

    def members(self, count: int) -> list[ClientWebSocket]:
        """Opens members of the test's group, sync and async ones."""
        views = ("member", "async-member")
        return [self.member(view=views[number % 2])[0] for number in range(count)]

    def process(self, kind: str = "plain", **changes: Any) -> OtherProcess:
        """Starts another process of the project, with some settings changed."""
        if not self.crosses_processes:
            self.skipTest("each process has groups of its own")
        own = {
            "SECRET_KEY": settings.SECRET_KEY,
            **_SETTINGS,
            "WEBSOCKET_GROUPS": {"default": self.entry()},
            **self.process_settings,
            **changes,
        }
        process = OtherProcess(own, kind)
        self.addCleanup(process.end)
        return process

    def eventually(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition."""
        deadline = monotonic() + _TIMEOUT_S
        while not condition():
            if monotonic() > deadline:
                self.fail(f"not within {_TIMEOUT_S:g} s: {what}")
            time.sleep(_STEP_S)

    def assertReceives(self, member: ClientWebSocket, *messages: str | bytes) -> None:
        """Fails when the next messages of a member are others."""
        for message in messages:
            self.assertEqual(described(member.receive()), described(message))

    # -- in one process --------------------------------------------------------------------------

    def test_every_member_gets_every_message(self) -> None:
        """Text and binary, as they are."""
        messages: list[Any] = ["text", b"binary", "", b"", "ä€𝄞 \x00 שלום", bytes(range(256)), "{}"]
        opened = self.members(4)
        for message in messages:
            self.group.send(message)
        for each in opened:
            self.assertReceives(each, *messages)

    def test_other_members_do_not(self) -> None:
        """Of groups with other names, however alike."""
        names = [self.name, f"{self.name}*", f"{self.name} ", self.name.upper(), f"{self.name}é"]
        opened = [self.member(name)[0] for name in names]
        for name in names:
            group(name).send(f"to {name}")
        for name, each in zip(names, opened, strict=True):
            self.assertReceives(each, f"to {name}")
            each.send("marker")
            self.assertReceives(each, "marker")

    def test_names(self) -> None:
        """All that a group may have, and those of users."""
        key = uuid.uuid4()
        start = str(key)[:8]
        names = ["🎉" * 190, '\'; DROP TABLE "x" --', "a\\b%s{}[0-9]?*", "a:b/c#d@e", "x" * 180]
        groups = [group(f"{start}{name}") for name in names] + [user(key)]
        for each in groups:
            member, _ = self.member(each.name)
            each.send(each.name)
            self.assertReceives(member, each.name)
            self.assertEqual(each.count(), 1)

    def test_names_that_are_refused(self) -> None:
        """Before the backend sees them."""
        for name in ("", "x" * 201, "a\nb", "dwebsocket.x"):
            with self.assertRaises(ValueError):
                group(name)
        with self.assertRaises(TypeError):
            group(1)  # type: ignore[arg-type]

    def test_order_of_one_publisher(self) -> None:
        """Is the order of each member; none is lost, none comes twice."""
        opened = self.members(2)
        messages = [f"{number}" * (1 + number % 7 * 300) for number in range(1000)]
        for message in messages:
            self.group.send(message)
        for each in opened:
            self.assertReceives(each, *messages)

    def test_order_of_several_publishers(self) -> None:
        """Each one's is kept."""
        opened = self.members(2)

        def publish(start: str) -> None:
            for number in range(200):
                self.group.send(f"{start} {number}")

        threads = [threading.Thread(target=publish, args=(start,)) for start in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_TIMEOUT_S)
        for each in opened:
            got = [str(each.receive()) for _ in range(600)]
            for start in "abc":
                found = [message for message in got if message[0] == start]
                self.assertEqual(found, [f"{start} {number}" for number in range(200)])

    def test_a_member_of_many_groups(self) -> None:
        """Gets the messages of each; they are all left when it ends."""
        many = self.memberships
        member, _ = self.member()
        member.send(f"join {many}")
        self.assertReceives(member, f"join {many}")
        for number in (0, many // 2, many - 1):
            group(f"{self.name}-{number}").send(f"{number}")
            self.assertReceives(member, f"{number}")
        member.close()
        for number in (0, many // 2, many - 1):
            self.eventually(
                lambda name=f"{self.name}-{number}": group(name).count() == 0,  # type: ignore[misc]
                "the member has left",
            )

    def test_two_aliases(self) -> None:
        """Two backends are two, though they have the same settings."""
        with override_settings(WEBSOCKET_GROUPS={"default": self.entry(), "two": self.entry()}):
            own, _ = self.member(self.name)
            two = group(self.name, using="two")
            self.assertEqual(two.count(), 0)
            two.send("for members of the other")
            self.group.send("for us")
            self.assertReceives(own, "for us")

    def test_nothing_after_leaving(self) -> None:
        """And everything again after joining."""
        for view in ("member", "async-member"):
            with self.subTest(view=view):
                member, _ = self.member(view=view)
                stays, _ = self.member()
                member.send("leave")
                self.assertReceives(member, "leave")
                self.group.send("to others")
                self.assertReceives(stays, "to others")
                member.send("marker")
                self.assertReceives(member, "marker")
                stays.close()

    def test_sixteen_mib(self) -> None:
        """Text and binary."""
        member, _ = self.member()
        messages: list[Any] = ["ä" * 8 * _MIB, bytes(range(256)) * (16 * _MIB // 256)]
        for message in messages:
            self.group.send(message)
            self.assertReceives(member, message)

    def test_exclude(self) -> None:
        """By id, one or several."""
        (first, one), (second, two), (third, _) = self.member(), self.member(), self.member()
        self.group.send("not to one", exclude=one)
        self.group.send("not to two", exclude=[one, two])
        self.group.send("to all")
        self.assertReceives(first, "to all")
        self.assertReceives(second, "not to one", "to all")
        self.assertReceives(third, "not to one", "not to two", "to all")

    def test_close(self) -> None:
        """Closes all members, after what was sent before; others stay."""
        opened = self.members(2)
        other, _ = self.member(f"{self.name} of others")
        self.group.send("last words")
        self.group.close(4001, "geschloßen")
        for each in opened:
            self.assertReceives(each, "last words")
            self.assertEqual((each.wait_closed(), each.close_reason), (4001, "geschloßen"))
        other.send("marker")
        self.assertReceives(other, "marker")

    def test_count(self) -> None:
        """Of this process at once or a moment later."""
        self.assertEqual(self.group.count(), 0)
        opened = self.members(3)
        self.eventually(lambda: self.group.count() == 3, "three members")
        opened[0].vanish()
        opened[1].close()
        self.eventually(lambda: self.group.count() == 1, "one member")

    def test_to_nobody(self) -> None:
        """Is no error."""
        self.group.send("x")
        self.group.close()

    def test_json_and_copies(self) -> None:
        """A group that was pickled is the same."""
        member, _ = self.member()
        pickle.loads(pickle.dumps(self.group)).send_json({"a": 1})  # noqa: S301
        self.assertReceives(member, '{"a": 1}')

    def test_from_threads(self) -> None:
        """Such as the views'."""
        member, _ = self.member()
        contract_process.PUBLISHERS["thread"](self.name, ["a", "b"])
        self.assertReceives(member, "a", "b")

    def test_from_tasks(self) -> None:
        """By the async calls; the sync ones work there, too, or say that they do not."""
        member, _ = self.member()

        async def main() -> None:
            room = self.group
            await asyncio.gather(room.asend("a"), room.asend_json([1]))
            self.assertEqual(await room.acount(), 1)
            if backends.backend("default").waits:
                for call in (functools.partial(room.send, "x"), room.count, room.close):
                    with self.assertRaises(UsageError):
                        call()
            else:
                room.send("x")
            await room.asend("b")
            await room.aclose(4002)

        asyncio.run(main())
        got = [member.receive(), member.receive()]
        self.assertEqual(set(got), {"a", "[1]"})
        if not backends.backend("default").waits:
            self.assertReceives(member, "x")
        self.assertReceives(member, "b")
        self.assertEqual(member.wait_closed(), 4002)

    def test_on_commit(self) -> None:
        """When the outermost transaction commits, never after a rollback."""
        if not self.has_database:
            self.skipTest("there is no database")
        member, _ = self.member()
        self.group.send("outside", on_commit=True)
        self.assertReceives(member, "outside")
        with contextlib.suppress(KeyError), transaction.atomic():
            self.group.send("rolled back", on_commit=True)
            raise KeyError
        with transaction.atomic():
            self.group.send("1", on_commit=True)
            with contextlib.suppress(KeyError), transaction.atomic():
                self.group.send("rolled back, too", on_commit=True)
                raise KeyError
            with transaction.atomic():
                self.group.send("2", on_commit=True)
            member.send("marker")
            self.assertReceives(member, "marker")
        self.assertReceives(member, "1", "2")

    # -- presence --------------------------------------------------------------------------------

    def present(self) -> Group:
        """Returns a group of the test with presence."""
        if not backends.backend("default").keeps_presence:
            self.skipTest("it knows no users")
        return group(f"{_PRESENT}{uuid.uuid4()}")

    def test_presence(self) -> None:
        """Users come, and are gone when the grace is over; sync and async calls know the same."""
        room = self.present()
        self.assertEqual(room.members(), [])
        opened = [self.member(room.name, view=view)[0] for view in ("member", "async-member")]
        self.assertEqual([len(each.connections) for each in room.members()], [1, 1])
        self.assertEqual(asyncio.run(room.amembers()), room.members())
        opened[0].close()
        opened[1].send("leave")
        self.assertReceives(opened[1], "leave")
        self.eventually(lambda: room.members() == [], "the users have left")

    def test_presence_in_several_processes(self) -> None:
        """Each knows the users of all, also one that has none."""
        room = self.present()
        one, two, idle = self.process(), self.process(), self.process()
        number, _ = one("open", self.path(room.name))
        two("open", self.path(room.name))
        self.member(room.name, view="async-member")
        for process in (one, two, idle):
            self.eventually(
                lambda process=process: [n for _, n in process("members", room.name)] == [1, 1, 1],  # type: ignore[misc]
                "all processes know three users",
            )
        self.eventually(lambda: len(room.members()) == 3, "this one, too")
        one("vanish", number)
        for process in (two, idle):
            self.eventually(
                lambda process=process: len(process("members", room.name)) == 2,  # type: ignore[misc]
                "one has left",
            )

    def test_presence_of_a_killed_process(self) -> None:
        """Its users leave when the grace is over, and the next process does not know them."""
        room = self.present()
        process = self.process()
        process("open", self.path(room.name))
        own, _ = self.member(room.name)
        self.eventually(lambda: len(room.members()) == 2, "two users")
        process.kill()
        self.eventually(lambda: len(room.members()) == 1, "one is gone")
        newcomer = self.process()
        self.eventually(lambda: newcomer("members", room.name), "the next one knows the other")
        self.assertEqual(len(newcomer("members", room.name)), 1)
        own.close()

    # -- in several ------------------------------------------------------------------------------

    def test_from_a_process_without_members(self) -> None:
        """From each kind of place there: messages arrive in order, none is lost."""
        member, _ = self.member()
        process = self.process()
        for how in ("main thread", "thread", "task", "forked child"):
            with self.subTest(how=how):
                messages = [f"{how} {number}" for number in range(20)]
                process("publish", how, self.name, messages)
                self.assertReceives(member, *messages)
        with self.subTest(how="spawned pool"):
            messages = [f"{number}" for number in range(20)]
            process("publish", "spawned pool", self.name, messages)
            # Its processes are several publishers.
            self.assertCountEqual([member.receive() for _ in messages], messages)

    def test_from_green_threads(self) -> None:
        """Of gevent and eventlet, where these are installed."""
        member, _ = self.member()
        for how in ("gevent", "eventlet"):
            if importlib.util.find_spec(how) is None:
                continue
            with self.subTest(how=how):
                messages = [f"{how} {number}" for number in range(20)]
                process = self.process(how)
                process("publish", "thread", self.name, messages)
                process("publish", "main thread", self.name, messages)
                self.assertReceives(member, *messages, *messages)

    def test_members_of_another_process(self) -> None:
        """Get what this process publishes, and this one's get what that process does."""
        process = self.process()
        own, _ = self.member()
        number, _ = process("open", self.path(self.name))
        messages: list[Any] = ["text", b"binary", "", b"", "ä€𝄞", bytes(range(256))]
        for message in messages:
            self.group.send(message)
        self.assertReceives(own, *messages)
        expected = [described(message) for message in messages]
        self.assertEqual(process("receive", number, len(messages)), expected)
        texts = [f"{each}" * 100 for each in range(500)]
        process("publish", "main thread", self.name, texts)
        self.assertReceives(own, *texts)
        self.assertEqual(process("receive", number, 500), [described(text) for text in texts])

    def test_a_member_gets_what_is_published_after_it_joined(self) -> None:
        """By any process, at once."""
        process = self.process()
        for number in range(30):
            name = f"{self.name} {number}"
            member, _ = self.member(name)
            process("publish", "main thread", name, ["hello"])
            self.assertReceives(member, "hello")
            # Another group: what that process has published itself may still be on its way to it.
            other, _ = process("open", self.path(f"{name} back"))
            group(f"{name} back").send("hello, too")
            self.assertEqual(process("receive", other, 1), [described("hello, too")])

    def test_sixteen_mib_between_processes(self) -> None:
        """In both directions."""
        process = self.process()
        number, _ = process("open", self.path(self.name))
        own, _ = self.member()
        text = "ä" * 8 * _MIB
        self.group.send(text)
        self.assertReceives(own, text)
        self.assertEqual(process("receive", number, 1), [described(text)])
        process("send_large", self.name, "ä", 8 * _MIB)
        self.assertReceives(own, text)

    def test_exclude_between_processes(self) -> None:
        """An id names a connection of any process."""
        process = self.process()
        number, theirs = process("open", self.path(self.name))
        own, ours = self.member()
        self.group.send("ours alone", exclude=[theirs])
        process("send_excluding", self.name, "theirs alone", [ours])
        self.group.send("end")
        self.assertReceives(own, "ours alone")
        # Two publishers: their order is not given.
        got = process("receive", number, 2)
        self.assertCountEqual(got, [described("theirs alone"), described("end")])
        self.assertReceives(own, "end")

    def test_close_between_processes(self) -> None:
        """Closes the members of both."""
        process = self.process()
        number, _ = process("open", self.path(self.name))
        own, _ = self.member()
        process("close", self.name, 4003, "all")
        self.assertEqual((own.wait_closed(), own.close_reason), (4003, "all"))
        self.assertEqual(process("wait_closed", number), [4003, "all"])

    def test_count_of_all_processes(self) -> None:
        """Of those that live: the members of one that was killed are soon gone."""
        first, second = self.process(), self.process()
        first("open", self.path(self.name))
        number, _ = second("open", self.path(self.name))
        self.members(2)
        self.eventually(lambda: self.group.count() == 4, "four members here")
        self.eventually(lambda: second("count", self.name) == 4, "four members there")
        second("vanish", number)
        self.eventually(lambda: self.group.count() == 3, "three members")
        first.kill()
        self.eventually(lambda: self.group.count() == 2, "two members")

    def test_strangers(self) -> None:
        """A process with another SECRET_KEY or PREFIX is another project."""
        own, _ = self.member()
        changes: list[dict[str, Any]] = [
            {"SECRET_KEY": "another one"},
            {"WEBSOCKET_GROUPS": {"default": {**self.backend, "PREFIX": "another one"}}},
        ]
        for each in changes:
            stranger = self.process(**each)
            number, _ = stranger("open", self.path(self.name))
            stranger("publish", "main thread", self.name, ["from a stranger"])
            self.assertEqual(stranger("receive", number, 1), [described("from a stranger")])
            self.assertEqual(stranger("count", self.name), 1)
            self.group.send("among us")
            self.assertReceives(own, "among us")

    def test_a_group_object_of_another_process(self) -> None:
        """Is equal: it is made of its name and its backend's."""
        self.assertEqual(Group(self.name, "default"), self.group)
