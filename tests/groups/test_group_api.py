"""`group(…)`, `user(…)` and the calls of `request.websocket` for groups, in one process."""

from __future__ import annotations

import asyncio
import copy
import datetime
import decimal
import json
import pickle
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.utils.functional import SimpleLazyObject
from peer import LiveWebSocket

from dwebsocket import Group, GroupUnavailable, UsageError, WebSocket, _core, group, user
from dwebsocket.groups import backends
from support.waiting import eventually

if TYPE_CHECKING:
    from memory_backend import Switchboard

Open = Callable[..., LiveWebSocket]
Override = Callable[..., None]

MARKER = "the marker"
MIB = 1024 * 1024
#: What ends a group's messages in most tests: it comes behind everything that was sent before.
FOREVER = 60


def members(open_websocket: Open, name: str, count: int) -> list[LiveWebSocket]:
    """Open WebSockets that are members of one group."""
    opened = [open_websocket() for _ in range(count)]
    for live in opened:
        assert live.websocket.join(name) is None
    return opened


def until_marker(live: LiveWebSocket) -> list[str | bytes | None]:
    """Send the marker to the client alone, and give what has come before it."""
    assert live.websocket.send_text(MARKER) is not False
    found = []
    while (message := live.client.receive()) != MARKER:
        assert message is not None, found
        found.append(message)
    return found


class TestNames:
    """What a group may be called."""

    @pytest.mark.parametrize(
        "name",
        [
            "a",
            "x" * 200,
            "room-42",
            "Räume/ü",
            "部屋",
            "🎉" * 200,
            " ",
            "dwebsocket",
            "dwebsockets.x",
        ],
    )
    def test_any_text_is_a_name(self, open_websocket: Open, name: str) -> None:
        """Of 1 to 200 characters, however many bytes these have."""
        (live,) = members(open_websocket, name, 1)
        assert live.websocket.groups == {name}
        group(name).send("hello")
        assert live.client.receive() == "hello"

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("", "must have 1 to 200 characters, not 0"),
            ("x" * 201, "must have 1 to 200 characters, not 201"),
            ("a\nb", "has control characters"),
            ("a\x00", "has control characters"),
            ("\x7f", "has control characters"),
            ("\x85", "has control characters"),
            ("\ud800", "has control characters"),
            ("dwebsocket.", "begins with 'dwebsocket.', which is reserved"),
            ("dwebsocket.user:1", "begins with 'dwebsocket.', which is reserved"),
        ],
    )
    def test_names_that_are_refused(self, open_websocket: Open, name: str, why: str) -> None:
        """By every call that takes one; the connection stays as it was."""
        live = open_websocket()
        for call in (group, live.websocket.join, live.websocket.leave):
            with pytest.raises(ValueError, match=why):
                call(name)
        with pytest.raises(ValueError, match=why):
            live.websocket.join("good", name)
        assert live.websocket.groups == frozenset()

    @pytest.mark.parametrize("name", [None, 1, b"room", ["room"], object()])
    def test_a_name_is_a_str(self, open_websocket: Open, name: Any) -> None:
        """Nothing else is made one."""
        live = open_websocket()
        for call in (group, live.websocket.join, live.websocket.leave):
            with pytest.raises(TypeError, match="a group's name must be a str, not"):
                call(name)

    def test_a_subclass_of_str_is_a_name(self) -> None:
        """Such as Django's safe text."""

        class Text(str):
            __slots__ = ()

        assert group(Text("a")) == group("a")
        assert type(group(Text("a")).name) is str

    def test_an_unknown_backend_is_named_on_use(self) -> None:
        """Making a group opens and looks up nothing."""
        nowhere = group("a", using="nowhere")
        with pytest.raises(ImproperlyConfigured, match="no backend 'nowhere'; it has default"):
            nowhere.send("x")


class TestUser:
    """`user(…)`: the group of a user's WebSockets."""

    @pytest.mark.parametrize("key", [1, "1", uuid.UUID(int=1), 0])
    def test_of_a_primary_key(self, key: Any) -> None:
        """Whatever type it has."""
        assert user(key) == user(User(pk=key)) == user(str(key))

    def test_of_the_user_of_a_request(self) -> None:
        """Which is lazy."""
        assert user(SimpleLazyObject(lambda: User(pk=7))) == user(7)

    @pytest.mark.parametrize(
        "nobody", [AnonymousUser(), None, "", User(), SimpleLazyObject(AnonymousUser)]
    )
    def test_an_anonymous_user_has_none(self, nobody: Any) -> None:
        """All visitors without a name would share it."""
        with pytest.raises(ValueError, match="an anonymous user has no group"):
            user(nobody)

    def test_is_no_name_of_the_connection(self, open_websocket: Open) -> None:
        """`websocket.groups` has the project's own names; a `Group` can be joined."""
        live = open_websocket()
        live.websocket.join(user(3), "room")
        assert live.websocket.groups == {"room"}
        user(3).send("yours")
        assert live.client.receive() == "yours"
        live.websocket.leave(user(3))
        assert user(3).count() == 0

    def test_counts_connections(self, open_websocket: Open) -> None:
        """Not users."""
        opened = [open_websocket() for _ in range(3)]
        for live in opened:
            assert user(5).add(live.websocket) is True
        assert user(5).count() == 3


class TestGroupObjects:
    """A `Group` is a value."""

    def test_equal_by_name_and_backend(self) -> None:
        """However often it is made."""
        assert group("a") == group("a")
        assert hash(group("a")) == hash(group("a"))
        assert group("a") != group("b")
        assert group("a") != group("a", using="other")
        assert group("a") != "a"
        assert len({group("a"), group("a"), group("a", using="other"), user(1)}) == 3

    @pytest.mark.parametrize("made", [group("ä"), group("a", using="other"), user(1)])
    def test_copies_are_equal(self, made: Group) -> None:
        """Pickled ones too, which go to Celery and to caches."""
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(made, protocol)) == made
        assert copy.deepcopy(made) == copy.copy(made) == made

    def test_its_text(self) -> None:
        """As it is made."""
        assert repr(group("a")) == "group('a')"
        assert repr(group("a", using="b")) == "group('a', using='b')"


class TestMembership:
    """Joining and leaving."""

    def test_join_and_leave(self, open_websocket: Open) -> None:
        """Both take several names, and both may be repeated."""
        (websocket, client) = (live := open_websocket()).websocket, live.client
        assert websocket.join("a", group("b"), "c") is None
        assert websocket.join("a") is None
        assert websocket.groups == {"a", "b", "c"}
        assert [group(name).count() for name in "abc"] == [1, 1, 1]
        group("a").send("once")
        assert client.receive() == "once"
        assert until_marker(live) == []
        websocket.leave("a", "b", "d")
        websocket.leave("a")
        assert websocket.groups == {"c"}

    def test_add_and_discard(self, open_websocket: Open) -> None:
        """The same, from the side of the group."""
        live = open_websocket()
        room = group("room")
        assert room.add(live.websocket) is True
        assert room.add(live.websocket) is True
        assert room.count() == 1
        room.discard(live.websocket)
        room.discard(live.websocket)
        assert room.count() == 0

    async def _both_ways(self, websocket: WebSocket) -> None:
        room = group("room")
        assert await room.aadd(websocket) is True
        await room.adiscard(websocket)
        assert await websocket.ajoin("a", "b") is None
        assert await group("a").acount() == 1
        await websocket.aleave("a")
        assert websocket.groups == {"b"}
        async with room.joined(websocket) as is_member:
            assert is_member is True
            assert await room.acount() == 1
        assert await room.acount() == 0

    def test_async_twins(self, open_websocket: Open) -> None:
        """Do the same."""
        asyncio.run(self._both_ways(open_websocket().websocket))

    def test_joined_is_left_at_the_end_of_the_block(self, open_websocket: Open) -> None:
        """By an exception too."""
        live = open_websocket()
        room = group("room")
        with pytest.raises(KeyError), room.joined(live.websocket) as is_member:  # noqa: PT012
            assert is_member is True
            assert room.count() == 1
            raise KeyError
        assert room.count() == 0

    @pytest.mark.parametrize("wrong", [None, "id", object()])
    def test_members_are_websockets(self, wrong: Any) -> None:
        """The id of one may belong to another process."""
        for call in (group("a").add, group("a").discard):
            with pytest.raises(TypeError, match="members are WebSockets, not"):
                call(wrong)

    def test_joining_takes_a_name(self, open_websocket: Open) -> None:
        """Without one it would do nothing, silently."""
        websocket = open_websocket().websocket
        for call in (websocket.join, websocket.leave):
            with pytest.raises(UsageError, match="take the names of groups"):
                call()

    def test_before_it_is_open(self) -> None:
        """It is in no group, and cannot join one."""
        websocket = WebSocket()
        assert websocket.groups == frozenset()
        for call in (websocket.join, websocket.leave):
            with pytest.raises(UsageError, match="not open yet"):
                call("a")

    @pytest.mark.parametrize("end", ["closed here", "closed by the client", "vanished"])
    def test_an_end_leaves_all_groups(self, open_websocket: Open, end: str) -> None:
        """However it comes; afterwards joining gives False, and never raises."""
        live = open_websocket()
        names = [f"g{number}" for number in range(40)]
        live.websocket.join(*names)
        if end == "closed here":
            live.websocket.close()
        elif end == "closed by the client":
            live.client.close()
        else:
            live.client.vanish()
        eventually(lambda: all(group(name).count() == 0 for name in names), what="all groups left")
        assert live.websocket.groups == frozenset()
        assert live.websocket.join("again") is False
        assert live.websocket.join("again", "and more") is False
        assert group("again").add(live.websocket) is False
        with group("again").joined(live.websocket) as is_member:
            assert is_member is False
        live.websocket.leave("again")
        assert group("again").count() == 0
        assert asyncio.run(live.websocket.ajoin("again")) is False

    def test_never_opened(self) -> None:
        """As one that is over: its client has gone before the 101."""
        websocket = WebSocket()
        websocket._never_open()
        assert websocket.join("a") is False
        assert group("a").add(websocket) is False
        websocket.leave("a")
        assert websocket.groups == frozenset()

    @pytest.mark.every("takes seconds of the processor")
    @pytest.mark.slow
    def test_a_hundred_thousand_memberships_of_one(self, open_websocket: Open) -> None:
        """Are all ended when it ends."""
        live = open_websocket(ping_interval=None)
        names = [f"room-{number}" for number in range(100_000)]
        live.websocket.join(*names)
        assert len(live.websocket.groups) == 100_000
        for name in (names[0], names[54_321], names[-1]):
            group(name).send(name)
            assert live.client.receive() == name
        live.websocket.leave(*names[:50_000])
        assert live.websocket.groups == set(names[50_000:])
        live.websocket.close()
        assert live.websocket.groups == frozenset()
        assert backends.backend("default").groups.counts() == []

    @pytest.mark.slow
    def test_many_members_in_many_groups(self, open_websocket: Open) -> None:
        """Each group's messages reach its own."""
        opened = [open_websocket() for _ in range(50)]
        for number, live in enumerate(opened):
            live.websocket.join(*(f"{each}" for each in range(200) if each % (number + 1) == 0))
        for each in range(200):
            group(f"{each}").send(f"{each}")
        for number, live in enumerate(opened):
            expected = [f"{each}" for each in range(200) if each % (number + 1) == 0]
            assert sorted(live.client.receive() for _ in expected) == sorted(expected)

    def test_joined_and_left_by_many_threads(self, open_websocket: Open) -> None:
        """At once; the last state holds."""
        opened = [open_websocket() for _ in range(4)]

        def work(live: LiveWebSocket) -> None:
            for _ in range(300):
                live.websocket.join("a", "b")
                group("a").send("x", exclude=[each.websocket for each in opened])
                live.websocket.leave("a")

        threads = [threading.Thread(target=work, args=[live]) for live in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(FOREVER)
        assert (group("a").count(), group("b").count()) == (0, 4)


class TestSend:
    """Publishing."""

    @pytest.mark.parametrize(
        ("message", "arrives"),
        [
            ("text", "text"),
            ("", ""),
            ("ä€𝄞 \x00 שלום", "ä€𝄞 \x00 שלום"),
            (b"bytes", b"bytes"),
            (b"", b""),
            (bytes(range(256)), bytes(range(256))),
            (b"as text by the old send()", b"as text by the old send()"),
            (bytearray(b"array"), b"array"),
            (memoryview(b"view"), b"view"),
            (memoryview(b"every other")[::2], b"eeyohr"),
        ],
    )
    def test_text_and_binary(self, open_websocket: Open, message: Any, arrives: Any) -> None:
        """`str` arrives as text, all else as binary, in whatever mode the view is."""
        for live in (opened := members(open_websocket, "room", 3)):
            assert live.websocket._text_as_bytes
        group("room").send(message)
        asyncio.run(group("room").asend(message))
        for live in opened:
            assert [live.client.receive(), live.client.receive()] == [arrives, arrives]

    @pytest.mark.parametrize("message", [None, 1, {"a": 1}, ["x"], object()])
    def test_no_message(self, open_websocket: Open, message: Any) -> None:
        """Is a TypeError for the caller; no member gets any."""
        (live,) = members(open_websocket, "room", 1)
        with pytest.raises(
            TypeError, match="a message must be str, bytes, bytearray or memoryview"
        ):
            group("room").send(message)
        with pytest.raises(TypeError, match="a message must be"):
            asyncio.run(group("room").asend(message))
        assert until_marker(live) == []

    def test_no_text_begins_as_those_of_the_server(self, open_websocket: Open) -> None:
        """What a member has sent may be forged; a blank before it tells it apart."""
        (live,) = members(open_websocket, "room", 1)
        forged = '{"group":"room","left":{"key":"1"}}'
        group("room").send(forged)
        group("room").send_json(json.loads(forged))
        asyncio.run(group("room").asend(forged))
        asyncio.run(group("room").asend_json(json.loads(forged)))
        group("room").send(forged.encode())
        *texts, data = [live.client.receive() for _ in range(5)]
        assert [str(text)[0] for text in texts] == [" "] * 4
        assert all(json.loads(str(text)) == json.loads(forged) for text in texts)
        assert data == forged.encode()

    def test_text_that_is_no_unicode(self, open_websocket: Open) -> None:
        """Half of a pair cannot be sent, as by `websocket.send`."""
        (live,) = members(open_websocket, "room", 1)
        with pytest.raises(UnicodeEncodeError):
            group("room").send("\ud800")
        assert until_marker(live) == []

    def test_to_a_group_without_members(self) -> None:
        """Nothing happens."""
        group("nobody").send("hello")
        group("nobody").close()
        assert group("nobody").count() == 0

    def test_json(self, open_websocket: Open) -> None:
        """As `websocket.send_json` writes it."""
        data = {
            "when": datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone.utc),
            "price": decimal.Decimal("1.50"),
            "id": uuid.UUID(int=1),
            "text": "ü",
        }
        (live,) = members(open_websocket, "room", 1)
        group("room").send_json(data)
        live.websocket.send_json(data)
        assert live.client.receive() == live.client.receive()
        group("room").send_json(data["text"], ensure_ascii=False)
        asyncio.run(group("room").asend_json([1], separators=(" ,", ":")))
        assert [live.client.receive(), live.client.receive()] == ['"ü"', "[1]"]
        for wrong in (object(), {1j}):
            with pytest.raises(TypeError):
                group("room").send_json(wrong)

    def test_json_is_written_once(self, open_websocket: Open) -> None:
        """Not for each member."""
        written = []

        class Encoder(json.JSONEncoder):
            def default(self, o: Any) -> Any:
                written.append(o)
                return "x"

        members(open_websocket, "room", 5)
        group("room").send_json(object(), cls=Encoder)
        assert len(written) == 1

    def test_sixteen_mib(self, open_websocket: Open) -> None:
        """Arrive whole at each member."""
        opened = members(open_websocket, "room", 2)
        for live in opened:
            # The socket pair takes less: it is read meanwhile.
            live.client.sock.settimeout(FOREVER)
        text = "ä" * (8 * MIB)
        found: dict[int, Any] = {}
        readers = [
            threading.Thread(target=lambda n=n, live=live: found.update({n: live.client.receive()}))
            for n, live in enumerate(opened)
        ]
        for reader in readers:
            reader.start()
        group("room").send(text)
        for reader in readers:
            reader.join(FOREVER)
        assert found[0] == found[1] == text

    def test_order_of_one_publisher(self, open_websocket: Open) -> None:
        """Text, binary, small and large keep it."""
        opened = members(open_websocket, "room", 5)
        sent: list[Any] = []
        for number in range(500):
            message: Any = f"{number}" if number % 3 else b"%d" % number
            sent.append(message * (1 if number % 50 else 500))
            group("room").send(sent[-1])
        for live in opened:
            assert [live.client.receive() for _ in sent] == sent

    def test_order_of_each_of_several(self, open_websocket: Open) -> None:
        """Threads' messages mix; those of one thread stay in order, none is lost or doubled."""
        opened = members(open_websocket, "room", 3)

        def publish(name: str) -> None:
            for number in range(200):
                group("room").send(f"{name} {number}")

        threads = [threading.Thread(target=publish, args=[name]) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(FOREVER)
        for live in opened:
            got = [live.client.receive() for _ in range(800)]
            for name in "abcd":
                assert [m for m in got if str(m)[0] == name] == [f"{name} {n}" for n in range(200)]

    def test_nothing_from_before_and_after(self, open_websocket: Open) -> None:
        """A member gets what is published while it is one; what was under way may get lost."""
        (live,) = members(open_websocket, "other", 1)
        for number in range(300):
            group("room").send(f"before {number}")
            live.websocket.join("room")
            group("room").send(f"during {number}")
            assert live.client.receive() == f"during {number}"
            live.websocket.leave("room")
            group("room").send(f"after {number}")
        assert until_marker(live) == []

    def test_other_backends_members_do_not_get_it(
        self, override: Override, open_websocket: Open
    ) -> None:
        """A group of the same name there is another one."""
        entry = {"BACKEND": "dwebsocket.groups.process"}
        override(WEBSOCKET_GROUPS={"default": entry, "other": entry})
        live = open_websocket()
        live.websocket.join("room")
        other = open_websocket()
        other.websocket.join(group("room", using="other"))
        assert other.websocket.groups == frozenset()
        group("room").send("here")
        group("room", using="other").send("there")
        assert [live.client.receive(), other.client.receive()] == ["here", "there"]
        assert until_marker(live) == until_marker(other) == []


class TestExclude:
    """Members that a message is not for."""

    def test_by_every_way(self, open_websocket: Open) -> None:
        """One, its id, several of both, in any iterable."""
        first, second, third = members(open_websocket, "room", 3)
        one, two = first.websocket, second.websocket
        ways: list[tuple[Any, str]] = [
            (None, "123"),
            (one, "23"),
            (one.id, "23"),
            ([one, two.id], "3"),
            ({one.id, two.id}, "3"),
            ((each for each in (one, two)), "3"),
            ([], "123"),
            ("of no connection", "123"),
            ("", "123"),
            ([one, one, one.id], "23"),
        ]
        for number, (exclude, _) in enumerate(ways):
            group("room").send(f"{number}", exclude=exclude)
        for name, live in zip("123", (first, second, third), strict=True):
            expected = [f"{n}" for n, (_, who) in enumerate(ways) if name in who]
            assert [live.client.receive() for _ in expected] == expected
            assert until_marker(live) == []

    def test_all_calls_take_it(self, open_websocket: Open) -> None:
        """JSON and the twins, too."""
        first, second = members(open_websocket, "room", 2)
        room, without = group("room"), first.websocket
        room.send_json(1, exclude=without)
        asyncio.run(room.asend("2", exclude=without))
        asyncio.run(room.asend_json(3, exclude=without))
        assert [second.client.receive() for _ in range(3)] == ["1", "2", "3"]
        assert until_marker(first) == []

    @pytest.mark.parametrize("wrong", [1, b"id", [1], [None], bytearray(), object(), [b"id"]])
    def test_anything_else_is_refused(self, wrong: Any) -> None:
        """Else an exclusion would have no effect, silently."""
        with pytest.raises(TypeError, match="exclude takes a WebSocket, the id of one"):
            group("room").send("x", exclude=wrong)

    def test_too_many(self) -> None:
        """More than fit into an envelope."""
        with pytest.raises(ValueError, match="at most 65535 are possible"):
            group("room").send("x", exclude=[str(number) for number in range(65536)])

    def test_websocket_that_is_over(self, open_websocket: Open) -> None:
        """Or not open yet: it has an id, and is in no group."""
        (live, over) = members(open_websocket, "room", 2)
        over.websocket.close()
        group("room").send("x", exclude=[over.websocket, WebSocket()])
        assert live.client.receive() == "x"

    def test_ids_are_stable_and_unguessable(self, open_websocket: Open) -> None:
        """A page may keep it in a form."""
        ids = [open_websocket().websocket.id for _ in range(3)]
        assert len(set(ids)) == 3
        assert all(type(each) is str and len(each) >= 20 for each in ids)
        websocket = open_websocket().websocket
        assert websocket.id == websocket.id


class TestClose:
    """Closing all members."""

    def test_behind_what_was_sent(self, open_websocket: Open) -> None:
        """With code and reason; none is a member afterwards."""
        opened = members(open_websocket, "room", 3)
        bystander = open_websocket()
        group("room").send("last words")
        group("room").close(4000, "geschloßen")
        for live in opened:
            assert live.client.receive() == "last words"
            assert live.client.closing() == (4000, "geschloßen")
        eventually(lambda: group("room").count() == 0)
        assert until_marker(bystander) == []

    def test_defaults_and_twin(self, open_websocket: Open) -> None:
        """1000 without a reason, as `websocket.close`."""
        (live,) = members(open_websocket, "room", 1)
        asyncio.run(group("room").aclose())
        assert live.client.closing() == (1000, "")

    @pytest.mark.parametrize("how", ["sync", "async"])
    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ((4000, b"bye"), (4000, "bye")),
            ((None, memoryview(b"bye")), (1000, "bye")),
            ((4000, None), (4000, "")),
        ],
    )
    def test_takes_what_that_of_a_websocket_takes(
        self, open_websocket: Open, arguments: Any, told: tuple[int, str], how: str
    ) -> None:
        """None for what is usual, and a reason as bytes; so does the group of a user."""
        for chosen in (group("room"), user(7)):
            live = open_websocket()
            chosen.add(live.websocket)
            if how == "sync":
                chosen.close(*arguments)
            else:
                asyncio.run(chosen.aclose(*arguments))
            assert live.client.closing() == told

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ((1005,), ValueError),
            ((999,), ValueError),
            ((5000,), ValueError),
            ((1000, "x" * 124), ValueError),
            (("1000",), TypeError),
            ((True,), TypeError),
            ((1000, b"\xff"), ValueError),
            ((None, b"x" * 124), ValueError),
            ((1000, 1), TypeError),
        ],
    )
    def test_what_must_not_be_sent(
        self, open_websocket: Open, arguments: Any, error: type[Exception]
    ) -> None:
        """Is the caller's error; no member is closed."""
        (live,) = members(open_websocket, "room", 1)
        with pytest.raises(error):
            group("room").close(*arguments)
        with pytest.raises(error):
            asyncio.run(group("room").aclose(*arguments))
        assert until_marker(live) == []

    def test_one_that_joins_afterwards_stays(self, open_websocket: Open) -> None:
        """A close is for those who are members when it is published."""
        members(open_websocket, "room", 2)
        group("room").close()
        late = members(open_websocket, "room", 1)[0]
        assert until_marker(late) == []


@pytest.mark.usefixtures("tables")
class TestOnCommit:
    """`on_commit`."""

    def send(self, message: str = "sent", **options: Any) -> None:
        """Publish as a view does."""
        group("room").send(message, **{"on_commit": True, **options})

    def test_outside_of_a_transaction(self, open_websocket: Open) -> None:
        """At once."""
        (live,) = members(open_websocket, "room", 1)
        self.send()
        group("room").send_json(1, on_commit=True)
        assert [live.client.receive(), live.client.receive()] == ["sent", "1"]

    def test_after_the_commit(self, open_websocket: Open) -> None:
        """Not before; what needs no commit overtakes it."""
        (live,) = members(open_websocket, "room", 1)
        with transaction.atomic():
            self.send("after")
            group("room").send("at once")
            assert live.client.receive() == "at once"
        assert live.client.receive() == "after"

    def test_never_after_a_rollback(self, open_websocket: Open) -> None:
        """By an exception or by hand."""
        (live,) = members(open_websocket, "room", 1)
        with pytest.raises(KeyError), transaction.atomic():  # noqa: PT012
            self.send()
            raise KeyError
        with transaction.atomic():
            self.send()
            transaction.set_rollback(True)
        assert until_marker(live) == []

    def test_nested(self, open_websocket: Open) -> None:
        """A savepoint that is rolled back takes its messages with it, and no others."""
        (live,) = members(open_websocket, "room", 1)
        with transaction.atomic():
            self.send("1")
            with pytest.raises(KeyError), transaction.atomic():  # noqa: PT012
                self.send("lost")
                raise KeyError
            with transaction.atomic():
                self.send("2")
            self.send("3")
            assert until_marker(live) == []
        assert [live.client.receive() for _ in range(3)] == ["1", "2", "3"]

    def test_of_another_database(self, open_websocket: Open) -> None:
        """The alias names it; the default database's transaction does not matter then."""
        connections.databases["other"] = dict(connections["default"].settings_dict)
        try:
            (live,) = members(open_websocket, "room", 1)
            with transaction.atomic():
                self.send("outside", on_commit="other")
                assert live.client.receive() == "outside"
            with transaction.atomic(using="other"):
                self.send("of other", on_commit="other")
                self.send("of default", on_commit="default")
                assert live.client.receive() == "of default"
                assert until_marker(live) == []
            assert live.client.receive() == "of other"
        finally:
            connections["other"].close()
            del connections["other"], connections.databases["other"]

    def test_in_manual_mode(self, open_websocket: Open) -> None:
        """With `commit()`, though autocommit stays off; never after a rollback."""
        (live,) = members(open_websocket, "room", 1)
        User.objects.count()
        transaction.set_autocommit(False)
        try:
            self.send("lost")
            transaction.rollback()
            self.send("1")
            async_to_sync(group("room").asend)("2", on_commit=True)
            assert until_marker(live) == []
            transaction.commit()
            assert [live.client.receive() for _ in range(2)] == ["1", "2"]
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    @pytest.mark.parametrize("wrong", [1, None, 0, ["default"]])
    def test_anything_else_is_refused(self, open_websocket: Open, wrong: Any) -> None:
        """And publishes nothing."""
        (live,) = members(open_websocket, "room", 1)
        with pytest.raises(TypeError, match="on_commit must be True, False or a database's alias"):
            self.send(on_commit=wrong)
        with pytest.raises(TypeError, match="on_commit must be"):
            asyncio.run(group("room").asend("x", on_commit=wrong))
        assert until_marker(live) == []

    def test_mistakes_are_found_at_the_call(self) -> None:
        """Not in the commit's hook."""
        with transaction.atomic():
            with pytest.raises(TypeError):
                self.send(None)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                self.send(exclude=1)
            with pytest.raises(ImproperlyConfigured):
                group("room", using="nowhere").send("x", on_commit=True)

    def test_the_message_is_that_of_the_call(self, open_websocket: Open) -> None:
        """Bytes are copied; later changes do not matter."""
        (live,) = members(open_websocket, "room", 1)
        buffer, excluded = bytearray(b"before"), [WebSocket()]
        with transaction.atomic():
            group("room").send(buffer, on_commit=True, exclude=excluded)
            buffer[:] = b"after!"
            excluded.append(live.websocket)
        assert live.client.receive() == b"before"

    def test_the_backend_fails(self, switchboard: Switchboard) -> None:
        """The hook of the commit raises; the data is saved all the same."""
        switchboard.broken.add("room")
        with pytest.raises(GroupUnavailable, match="on fire"), transaction.atomic():  # noqa: PT012
            User.objects.create_user("saved")
            self.send()
        assert User.objects.filter(username="saved").delete()[0] == 1

    def test_async(self, open_websocket: Open) -> None:
        """No transaction is open in an event loop: at once."""
        (live,) = members(open_websocket, "room", 1)
        asyncio.run(group("room").asend("x", on_commit=True))
        asyncio.run(group("room").asend_json(1, on_commit=True))
        assert [live.client.receive(), live.client.receive()] == ["x", "1"]


CALLS: dict[str, Callable[[Group, WebSocket], Any]] = {
    "aadd": lambda room, websocket: room.add(websocket),
    "asend": lambda room, websocket: room.send("x"),
    "asend ": lambda room, websocket: room.send("x", on_commit=True),
    "asend_json": lambda room, websocket: room.send_json(1),
    "aclose": lambda room, websocket: room.close(),
    "acount": lambda room, websocket: room.count(),
    "ajoin": lambda room, websocket: websocket.join("room"),
}


class TestEventLoops:
    """The sync calls in an event loop."""

    @pytest.mark.parametrize("twin", CALLS)
    def test_of_a_backend_that_waits(
        self, switchboard: Switchboard, open_websocket: Open, twin: str
    ) -> None:
        """They are refused, and the error names the twin; nothing was done."""
        websocket = open_websocket().websocket

        async def main() -> None:
            with pytest.raises(
                UsageError, match=rf"would block the event loop.*\b{twin.strip()}\("
            ):
                CALLS[twin](group("room"), websocket)

        asyncio.run(main())
        assert switchboard.calls == []

    @pytest.mark.parametrize("twin", CALLS)
    def test_of_a_backend_that_does_not(self, open_websocket: Open, twin: str) -> None:
        """They may be called."""
        websocket = open_websocket().websocket

        async def main() -> None:
            CALLS[twin](group("room"), websocket)

        asyncio.run(main())

    def test_leaving_never_waits(self, switchboard: Switchboard, open_websocket: Open) -> None:
        """`leave` and `discard` may be called anywhere."""
        websocket = open_websocket().websocket

        async def main() -> None:
            await websocket.ajoin("a", "b")
            websocket.leave("a")
            group("b").discard(websocket)

        asyncio.run(main())
        assert websocket.groups == frozenset()


class TestFailingBackend:
    """Its server is away."""

    def test_every_call_says_so(self, switchboard: Switchboard, open_websocket: Open) -> None:
        """`GroupUnavailable`, which names the backend; it is an OSError, too."""
        switchboard.broken.add("room")
        live = open_websocket()
        room = group("room")
        for call in (
            lambda: room.send("x"),
            lambda: room.send_json(1),
            lambda: room.close(),
            lambda: room.count(),
            lambda: room.add(live.websocket),
            lambda: live.websocket.join("room"),
            lambda: asyncio.run(room.asend("x")),
            lambda: asyncio.run(room.asend_json(1)),
            lambda: asyncio.run(room.aclose()),
            lambda: asyncio.run(room.acount()),
            lambda: asyncio.run(room.aadd(live.websocket)),
            lambda: asyncio.run(live.websocket.ajoin("room")),
        ):
            with pytest.raises(ConnectionError, match=r"groups of 'default': .* on fire") as caught:
                call()
            assert type(caught.value) is GroupUnavailable
        assert live.websocket.groups == frozenset()

    def test_a_connection_that_is_over(
        self, switchboard: Switchboard, open_websocket: Open
    ) -> None:
        """Joins nothing and raises nothing."""
        switchboard.broken.add("room")
        live = open_websocket()
        live.websocket.close()
        room = group("room")
        assert live.websocket.join("room") is False
        assert room.add(live.websocket) is False
        assert asyncio.run(live.websocket.ajoin("room")) is False
        assert asyncio.run(room.aadd(live.websocket)) is False

    @pytest.mark.parametrize("is_async", [False, True])
    def test_a_connection_that_ends_while_the_backend_is_asked(
        self,
        switchboard: Switchboard,
        open_websocket: Open,
        is_async: bool,
    ) -> None:
        """As one that was over before."""
        live = open_websocket()

        def end(name: str) -> None:
            live.websocket.close()
            raise backends.backend("default").unavailable("it ended meanwhile")

        switchboard.on_subscribe = end
        if is_async:
            assert asyncio.run(live.websocket.ajoin("room")) is False
        else:
            assert live.websocket.join("room") is False

    @pytest.mark.parametrize("is_async", [False, True])
    def test_joining_several_is_all_or_nothing(
        self, switchboard: Switchboard, open_websocket: Open, is_async: bool
    ) -> None:
        """Groups that it was in before stay."""
        websocket = open_websocket().websocket
        websocket.join("before")
        switchboard.broken.add("broken")
        names = ("before", "a", "broken", "b")
        join = (
            (lambda: asyncio.run(websocket.ajoin(*names)))
            if is_async
            else (lambda: websocket.join(*names))
        )
        with pytest.raises(GroupUnavailable):
            join()
        assert websocket.groups == {"before"}
        switchboard.broken.clear()
        assert [group(name).count() for name in names] == [1, 0, 0, 0]

    def test_leaving_works(self, switchboard: Switchboard, open_websocket: Open) -> None:
        """It needs no server."""
        live = open_websocket()
        live.websocket.join("room", "other")
        switchboard.broken.add("room")
        live.websocket.leave("other")
        assert live.websocket.groups == {"room"}


class TestSubscriptions:
    """A backend is asked for what it has to bring, and no more."""

    def test_only_while_there_are_members(
        self, switchboard: Switchboard, open_websocket: Open
    ) -> None:
        """The last one that leaves ends it."""
        first, second = open_websocket(), open_websocket()
        group("room").send("to nobody")
        assert switchboard.names("subscribe") == []
        first.websocket.join("room")
        second.websocket.join("room")
        first.websocket.leave("room")
        assert switchboard.names("unsubscribe") == []
        second.websocket.leave("room")
        second.websocket.leave("room")
        assert switchboard.names("unsubscribe") == ["room"]

    def test_not_of_a_connection_that_is_over(
        self, switchboard: Switchboard, open_websocket: Open
    ) -> None:
        """A subscription that was made for it is taken back."""
        live = open_websocket()
        live.websocket.close()
        live.websocket.join("room")
        subscribed = switchboard.subscribers.get("room", set())
        assert subscribed == set()

    def test_one_leaves_while_another_one_joins(
        self, switchboard: Switchboard, open_websocket: Open
    ) -> None:
        """The one that joins gets what is published from then on."""
        leaving, joining = open_websocket(), open_websocket()
        leaving.websocket.join("room")
        # The other one leaves when the backend has just been asked for the group.
        switchboard.on_subscribe = lambda name: leaving.websocket.leave("room")
        joining.websocket.join("room")
        group("room").send("hello")
        assert joining.client.receive() == "hello"

    def test_of_connections_that_end(self, switchboard: Switchboard, open_websocket: Open) -> None:
        """The next message finds no member, and ends the subscription."""
        live = open_websocket()
        live.websocket.join("room")
        live.client.vanish()
        eventually(lambda: group("room").count() == 0)
        group("room").send("to nobody")
        assert switchboard.names("unsubscribe") == ["room"]
        open_again = open_websocket()
        open_again.websocket.join("room")
        group("room").send("hello")
        assert open_again.client.receive() == "hello"

    def test_of_many_connections_that_end(
        self, switchboard: Switchboard, open_websocket: Open
    ) -> None:
        """Without any message, subscriptions without members do not add up."""
        for number in range(20):
            live = open_websocket()
            live.websocket.join(*(f"{number}-{each}" for each in range(500)))
            live.websocket.close()
        kept = [name for name, found in switchboard.subscribers.items() if found]
        assert len(kept) < 3000
        last = open_websocket()
        last.websocket.join("0-0", "19-499")
        for name in ("0-0", "19-499"):
            group(name).send(name)
            assert last.client.receive() == name

    def test_many_threads_join_and_leave(
        self, switchboard: Switchboard, open_websocket: Open
    ) -> None:
        """At the end there is a subscription where there are members, and none elsewhere."""
        opened = [open_websocket() for _ in range(4)]

        def work(live: LiveWebSocket) -> None:
            for _ in range(200):
                live.websocket.join("stays", "goes")
                live.websocket.leave("goes")
                live.websocket.leave("stays")
            live.websocket.join("stays")

        threads = [threading.Thread(target=work, args=[live]) for live in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(FOREVER)
        assert {n for n, found in switchboard.subscribers.items() if found} == {"stays"}


def test_class_is_another_way_to_write_the_call() -> None:
    """With the same default and the same checks."""
    assert Group("room") == group("room")
    assert Group("room", "other") == group("room", using="other")
    assert pickle.loads(pickle.dumps(user(1))) == user(1)
    for name, error in (("", ValueError), ("a\n", ValueError), (1, TypeError)):
        with pytest.raises(error, match=r"a group's name|control characters"):
            Group(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("as_async", [False, True])
def test_a_publisher_without_room_sleeps(
    as_async: bool, override: Override, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine wakes it, and it tries again; it fails when there is none within `TIMEOUT`."""
    tries: list[_core.Wait | None] = []

    def attempt(*_: object, **__: object) -> _core.Wait | None:
        tries.append(_core.wait_for_none_open())
        return tries[-1]

    def fill(timeout: float) -> None:
        backend = {"BACKEND": "dwebsocket.groups.process", "TIMEOUT": timeout}
        override(WEBSOCKET_GROUPS={"default": backend})
        monkeypatch.setattr(backends.backend("default"), "_publish", attempt)
        tries.clear()

    permit = _core.Permit.claim(None)
    assert permit is not None
    fill(0.2)
    with pytest.raises(GroupUnavailable, match="more is published than can be delivered"):
        send(as_async)
    assert len(tries) == 2
    fill(60)
    with ThreadPoolExecutor(1) as executor:
        sent = executor.submit(send, as_async)
        eventually(lambda: tries, what="it has tried")
        permit.release()
        sent.result(60)
    assert len(tries) == 2


def send(as_async: bool) -> None:
    """Send to a group, in a loop of its own or on this thread."""
    if as_async:
        asyncio.run(group("a").asend("hello"))
    else:
        group("a").send("hello")
