"""The history of groups in Redis: what it keeps there, outages, and data that is lost."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket import _core
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups import reports
from support.redis import Cluster, Redis, Service
from support.redis_backend import Member, backend, head, send, until_it_works
from support.relay import Relay
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.groups.backends import redis

pytestmark = pytest.mark.needs("redis")

HISTORY = {"room*": {"size": 1000, "seconds": 300}}


@pytest.fixture
def server() -> Iterator[Redis]:
    """A server of the test alone."""
    with Redis() as found:
        yield found


def made(location: str | list[str], **more: Any) -> redis.Backend:
    """Make a backend whose groups `room…` have a history."""
    return backend(location, HISTORY=HISTORY, **more)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the groups of which the signal says that members may have missed messages."""
    found: list[str] = []
    monkeypatch.setattr(reports, "note_interrupted", lambda alias, names: found.extend(names))
    return found


@contextlib.contextmanager
def no_right(server: Redis, own: redis.Backend) -> Iterator[str]:
    """Take the right to load scripts away, before the first connection."""
    del own
    server.ask("ACL", "SETUSER", "web", "-script|load")
    yield "NOPERM"
    server.ask("ACL", "SETUSER", "web", "+script|load")


@contextlib.contextmanager
def no_right_any_more(server: Redis, own: redis.Backend) -> Iterator[str]:
    """Make the server forget its scripts later."""
    send(own, "room", "before")
    server.ask("SCRIPT", "FLUSH")
    with no_right(server, own) as why:
        yield why


@contextlib.contextmanager
def busy(server: Redis, own: redis.Backend) -> Iterator[str]:
    """Have it run a script of another client that does not end."""
    del own
    server.ask("CONFIG", "SET", "busy-reply-threshold", "1")
    thread = threading.Thread(target=server.ask, args=("EVAL", "while true do end", "0"))
    thread.start()
    eventually(lambda: "BUSY" in server.ask("PING"), what="it is busy")
    yield "BUSY"
    server.ask("SCRIPT", "KILL")
    thread.join()


REFUSALS = {"right": no_right, "flushed": no_right_any_more, "busy": busy}


def sequence(first: int, *messages: str) -> list[tuple[int, str]]:
    """Give messages with their offsets."""
    return list(enumerate(messages, first))


class TestKept:
    """What is in the server."""

    def test_two_keys_for_a_group(self, server: Redis) -> None:
        """Both go when nobody has used the group: the messages first, then their numbering."""
        own = made(server.url)
        send(own, "room", "x")
        numbering, messages = sorted(server.ask("KEYS", "*").split(), reverse=True)
        assert numbering.endswith(":room}:numbering")
        assert messages.endswith(":room}:messages")
        assert 500_000 < int(server.ask("PTTL", messages)) <= 600_000
        assert int(server.ask("TTL", numbering)) > 86_000

    def test_members_are_use(self, server: Redis) -> None:
        """A group that is quiet keeps its numbering while it has members."""
        own = made(server.url)
        send(own, "room", "x")
        member = Member(own)
        assert member.come_back("room", head(own, "room")) == []
        [numbering] = server.ask("KEYS", "*:numbering").split()
        server.ask("EXPIRE", numbering, "100")
        _core.step_clock(3600)
        eventually(lambda: int(server.ask("TTL", numbering)) > 86_000)
        send(own, "room", "y")
        assert member.receive_numbered() == (2, "y")

    def test_processes_of_two_versions(self, server: Redis) -> None:
        """Those of 0.2.0 know the server by its process alone: neither begins numbering anew."""
        own = made(server.url)
        send(own, "room", "new")
        [numbering] = server.ask("KEYS", "*:numbering").split()
        epoch, run = (server.ask("HGET", numbering, field) for field in ("epoch", "run"))
        assert f"run_id:{run}" in server.ask("INFO", "server")
        server.ask("HDEL", numbering, "replication")
        send(own, "room", "after one that such a process has begun")
        assert head(own, "room") == (int(epoch, 16), 2)
        replication = server.ask("HGET", numbering, "replication")
        assert f"master_replid:{replication}" in server.ask("INFO", "replication")

    def test_nothing_for_other_groups(self, server: Redis) -> None:
        """They are published as without a history."""
        own = made(server.url)
        member = Member(own, "hall")
        send(own, "hall", "x")
        assert member.receive() == "x"
        assert server.ask("KEYS", "*") == ""

    def test_no_more_than_wanted(self, server: Redis) -> None:
        """About so many; a read gives no more."""
        own = backend(server.url, HISTORY={"room": {"size": 10}})
        for number in range(500):
            send(own, "room", f"{number}")
        page = own.read_history("room", None, (10, 300.0))
        assert [message for _, _, message, _ in page.rows] == [f"{n}" for n in range(490, 500)]
        (messages,) = server.ask("KEYS", "*messages").split()
        assert int(server.ask("XLEN", messages)) < 200

    def test_old_messages_go(self, server: Redis) -> None:
        """Also while the group is in use: none stays for much longer than its time."""
        own = backend(server.url, HISTORY={"room": {"size": 10_000, "seconds": 0.2}})
        stop = threading.Event()

        def publish() -> None:
            while not stop.wait(0.001):
                send(own, "room", "x")

        def is_first_gone() -> bool:
            (messages,) = server.ask("KEYS", "*messages").split() or [""]
            first = "return redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]"
            return bool(messages) and not server.ask("EVAL", first, "1", messages).startswith("1-")

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            eventually(is_first_gone)
        finally:
            stop.set()
            thread.join()

    def test_many_bytes(self, server: Redis) -> None:
        """Are read in parts, in order and none twice."""
        own = made(server.url)
        texts = [f"{number}" * 300_000 for number in range(10)]
        for text in texts:
            send(own, "room", text)
        page = own.read_history("room", None, (1000, 300.0))
        assert not page.is_last
        assert 0 < len(page.rows) < 10
        assert Member(own).come_back("room", (page.head[0], 0)) == texts

    def test_many_at_once(self, server: Redis) -> None:
        """Each publisher's messages keep their order, and each message has an offset of its own."""
        own = made(server.url)
        member = Member(own)
        assert member.come_back("room", head(own, "room")) == []

        async def publish(name: str) -> None:
            for number in range(20):
                await own.asend("room", f"{name}-{number}", [])

        async def all_of_them() -> None:
            await asyncio.gather(*(publish(f"{number}") for number in range(20)))

        asyncio.run(all_of_them())
        found = [member.receive_numbered() for _ in range(400)]
        assert [offset for offset, _ in found] == list(range(1, 401))
        for name in range(20):
            its = [text for _, text in found if text.startswith(f"{name}-")]
            assert its == [f"{name}-{number}" for number in range(20)]
        assert [
            (row[0], row[2]) for row in own.read_history("room", None, (1000, 300.0)).rows
        ] == found

    @pytest.mark.parametrize("name", ["room{1}", "room}{", "room{}", "räume"])
    def test_names(self, server: Redis, name: str) -> None:
        """With braces, too."""
        own = backend(server.url, HISTORY={"*": {}})
        member = Member(own)
        assert member.come_back(name, head(own, name)) == []
        send(own, name, "x")
        assert member.receive_numbered() == (1, "x")

    def test_strangers(self, server: Redis) -> None:
        """What another client writes there is no message."""
        own = made(server.url)
        send(own, "room", "x")
        (messages,) = server.ask("KEYS", "*messages").split()
        server.ask("XADD", messages, "2-1", "", "forged")
        page = own.read_history("room", None, (1000, 300.0))
        assert [message for _, _, message, _ in page.rows] == ["x"]

    @pytest.mark.parametrize(
        ("key", "command", "more"),
        [
            ("messages", "SET", ["x"]),
            ("numbering", "SET", ["x"]),
            ("messages", "XADD", [f"{2**60}-1", "", "forged"]),
            ("messages", "XADD", [f"{2**64 - 1}-{2**64 - 1}", "", "forged"]),
            ("numbering", "HSET", ["offset", "x"]),
            ("numbering", "HSET", ["offset", "-7"]),
            ("numbering", "HSET", ["offset", "1e300"]),
            ("numbering", "HSET", ["offset", "1e0"]),
            ("numbering", "HSET", ["offset", " 1"]),
            ("numbering", "HSET", ["offset", "01"]),
            ("numbering", "HSET", ["offset", f"{2**63 - 1}"]),
            ("numbering", "HSET", ["epoch", "x"]),
            ("numbering", "HSET", ["mark", "x"]),
            ("numbering", "HSET", ["mark", f"{2**52}"]),
            ("numbering", "HSET", ["marked_at", "x"]),
        ],
    )
    def test_keys_that_a_stranger_has_spoilt(
        self, server: Redis, key: str, command: str, more: list[str]
    ) -> None:
        """Numbering begins anew: whoever may write there can delete messages, but block nothing."""
        own = made(server.url)
        member = Member(own)
        assert member.come_back("room", head(own, "room")) == []
        send(own, "room", "before")
        assert member.receive_numbered() == (1, "before")
        before = head(own, "room")
        (name,) = server.ask("KEYS", f"*{key}").split()
        if command == "SET":
            server.ask("DEL", name)
        server.ask(command, name, *more)
        # A page that begins with what is not the group's goes no further than the group.
        assert own.read_history("room", before, (1000, 300.0)).reached[1] <= 1
        send(own, "room", "after")
        assert member.receive_gap() == 0
        assert member.receive_numbered() == (1, "after")
        page = own.read_history("room", None, (1000, 300.0))
        assert [message for _, _, message, _ in page.rows] == ["after"]
        assert (page.head[0] != before[0], page.head[1]) == (True, 1)

    def test_reading_messages_that_a_stranger_has_spoilt(self, server: Redis) -> None:
        """Numbering begins anew also where nothing is sent."""
        own = made(server.url)
        send(own, "room", "before")
        before = head(own, "room")
        (name,) = server.ask("KEYS", "*messages").split()
        server.ask("DEL", name)
        server.ask("SET", name, "x")
        page = own.read_history("room", None, (1000, 300.0))
        assert (page.rows, page.head[0] != before[0], page.head[1]) == ([], True, 0)
        assert head(own, "room") == page.head
        send(own, "room", "after")
        assert head(own, "room") == (page.head[0], 1)

    def test_the_largest_page(self, server: Redis) -> None:
        """Fits into a reply; a larger message is refused."""
        own = made(server.url, TIMEOUT=60.0)
        # With the second one the page is full.
        sizes = [2**20 - 1024, 2**26 - 1024]
        for size in sizes:
            send(own, "room", "x" * size)
        page = own.read_history("room", None, (1000, 300.0))
        assert [len(message) for _, _, message, _ in page.rows] == sizes
        with pytest.raises(GroupUnavailable, match="64 MiB"):
            send(own, "room", "x" * (2**26 + 1))

    def test_time_that_a_stranger_has_changed(self, server: Redis) -> None:
        """Old messages go all the same."""
        own = made(server.url)
        send(own, "room", "before")
        (name,) = server.ask("KEYS", "*numbering").split()
        server.ask("HSET", name, "marked_at", f"{2**52}")
        send(own, "room", "after")
        assert int(server.ask("HGET", name, "marked_at")) < 2**52

    def test_a_user_with_few_rights(self, server: Redis) -> None:
        """Needs those that the documentation names, and no more."""
        rights = (
            "+publish +subscribe +unsubscribe +ping +select +evalsha +script|load +info +del "
            "+hmget +hset +hincrby +pexpire +pttl +time +xadd +xrange +xtrim"
        )
        server.ask(
            *("ACL", "SETUSER", "web", "on", ">secret", "resetchannels", "&dwebsocket:*"),
            *("resetkeys", "~{dwebsocket:*", "-@all", *rights.split()),
        )
        own = made(f"redis://web:secret@127.0.0.1:{server.port}/2")
        member = Member(own)
        assert member.come_back("room", head(own, "room")) == []
        send(own, "room", "x")
        assert member.receive_numbered() == (1, "x")

    @pytest.mark.parametrize(
        ("right", "is_new"),
        [
            *itertools.product(["-publish", "resetchannels", "-xadd", "-hincrby"], [False, True]),
            ("-pexpire", True),
            ("-hset", True),
        ],
    )
    def test_a_right_that_is_missing(self, server: Redis, right: str, is_new: bool) -> None:
        """Nothing was half sent when the sender gets an error: the next message has its number."""
        server.ask("ACL", "SETUSER", "web", "on", ">pw", "&*", "~*", "+@all")
        own, other = made(f"redis://web:pw@127.0.0.1:{server.port}/0"), made(server.url)
        member = Member(other)
        member.come_back("room", head(other, "room"))
        kept = [] if is_new else ["kept"]
        for text in kept:
            send(own, "room", text)
        server.ask("ACL", "SETUSER", "web", right)
        for _ in range(3):
            with pytest.raises(GroupUnavailable):
                send(own, "room", "never")
        send(other, "room", "sent")
        kept.append("sent")
        page = other.read_history("room", None, (100, 300.0))
        assert [(number, text) for number, _, text, _ in page.rows] == sequence(1, *kept)
        assert [member.receive_numbered() for _ in kept] == sequence(1, *kept)

    def test_a_user_who_may_run_no_scripts(self, server: Redis) -> None:
        """The exception says so; groups without a history go on."""
        server.ask("ACL", "SETUSER", "web", "on", ">pw", "&*", "~*", "+@all", "-@scripting")
        own = made(f"redis://web:pw@127.0.0.1:{server.port}/0")
        with pytest.raises(GroupUnavailable, match="takes no scripts: NOPERM"):
            send(own, "room", "x")
        member = Member(own, "hall")
        send(own, "hall", "x")
        assert member.receive() == "x"

    @pytest.mark.parametrize("how", REFUSALS)
    def test_scripts_that_were_refused(self, server: Redis, how: str) -> None:
        """Are given to the server again on the same connection, which others go on using."""
        server.ask("ACL", "SETUSER", "web", "on", ">pw", "&*", "~*", "+@all")
        own = made(f"redis://web:pw@127.0.0.1:{server.port}/0")
        with REFUSALS[how](server, own) as why:
            with pytest.raises(GroupUnavailable, match=f"takes no scripts: {why}"):
                send(own, "room", "x")
            losses = own.core.status()[0][1]
        # Less than what makes a PING under way one without an answer.
        _core.step_clock(4)
        until_it_works(lambda: send(own, "room", "x"))
        assert own.core.status()[0][1] == losses

    def test_a_server_that_loads_its_data(self) -> None:
        """Takes no scripts until it has: then the history is back, without another connection."""
        # Twenty seconds, unless the test lets it go on; it answers between two keys.
        slow = ("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024")
        slow += ("--rdbcompression", "no")
        with Redis(*slow) as server:
            own = made(server.url)
            send(own, "room", "kept")
            fill = "for i = 1, 400 do redis.call('SET', i, string.rep('x', 1100)) end"
            server.ask("EVAL", fill, "0")
            server.ask("SAVE")
            server.kill()
            thread = threading.Thread(target=server.start)
            thread.start()
            until_it_works(lambda: send(own, "hall", "x"))
            with pytest.raises(GroupUnavailable, match="takes no scripts: LOADING"):
                send(own, "room", "x")
            losses = own.core.status()[0][1]
            server.ask("CONFIG", "SET", "key-load-delay", "0")
            thread.join()
            until_it_works(lambda: send(own, "room", "x"))
            assert own.core.status()[0][1] == losses

    def test_scripts_that_were_flushed(self, server: Redis) -> None:
        """Are given to the server anew."""
        own = made(server.url)
        send(own, "room", "one")
        server.ask("SCRIPT", "FLUSH")
        send(own, "room", "two")
        assert head(own, "room")[1] == 2


class TestOutage:
    """A process that is cut off for a while."""

    def test_members_get_what_they_missed(self, server: Redis, interrupted: list[str]) -> None:
        """When the server is back: in order, nothing twice, and no signal says otherwise."""
        server.ask("ACL", "SETUSER", "web", "on", ">pw", "~*", "&*", "+@all")
        own = made(f"redis://web:pw@127.0.0.1:{server.port}/0")
        other = made(server.url)
        members = [Member(own) for _ in range(3)]
        for member in members:
            member.come_back("room", head(own, "room"))
        plain = Member(own, "hall")
        send(other, "room", "before")
        with_numbers = [member.receive_numbered() for member in members]
        assert with_numbers == sequence(1, "before") * 3
        server.ask("ACL", "SETUSER", "web", "off")
        server.ask("CLIENT", "KILL", "USER", "web")
        eventually(lambda: own.core.status()[0][0], what="it is cut off")
        missed = [f"missed {number}" for number in range(200)]
        for text in missed:
            send(other, "room", text)
        server.ask("ACL", "SETUSER", "web", "on")
        found = [[member.receive_numbered() for _ in missed] for member in members]
        assert found == [sequence(2, *missed)] * 3
        send(other, "room", "after")
        for member in members:
            assert member.receive_numbered() == (202, "after")
        until_it_works(lambda: send(own, "hall", "again"))
        assert plain.receive() == "again"
        eventually(lambda: interrupted == ["hall"])

    def test_more_was_missed_than_is_kept(self, server: Redis, interrupted: list[str]) -> None:
        """Members are told that something is missing, as a signal says, and get the rest."""
        server.ask("ACL", "SETUSER", "web", "on", ">pw", "~*", "&*", "+@all")
        limits = {"room": {"size": 5}}
        own = backend(f"redis://web:pw@127.0.0.1:{server.port}/0", HISTORY=limits)
        other = backend(server.url, HISTORY=limits)
        member = Member(own)
        member.come_back("room", head(own, "room"))
        server.ask("ACL", "SETUSER", "web", "off")
        server.ask("CLIENT", "KILL", "USER", "web")
        eventually(lambda: own.core.status()[0][0], what="it is cut off")
        for number in range(1000):
            send(other, "room", f"{number}")
        server.ask("ACL", "SETUSER", "web", "on")
        gap = member.receive_gap()
        assert gap > 0
        rest = [member.receive_numbered()[0] for _ in range(1000 - gap)]
        assert rest == list(range(gap + 1, 1001))
        eventually(lambda: interrupted == ["room"])

    def test_while_others_publish_all_the_time(self, server: Redis) -> None:
        """Connections that are lost again and again lose no message."""
        own, other = made(server.url, TIMEOUT=20.0), made(server.url, TIMEOUT=20.0)
        member = Member(own)
        member.come_back("room", head(own, "room"))
        stop = threading.Event()
        published: list[str] = []

        def publish() -> None:
            while not stop.is_set():
                text = f"{len(published)}"
                until_it_works(functools.partial(send, other, "room", text))
                published.append(text)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            for _ in range(10):
                count = len(published)
                eventually(lambda count=count: len(published) > count + 20)
                server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        finally:
            stop.set()
            thread.join()
        found = [member.receive_numbered() for _ in published]
        assert found == sequence(1, *published)


class TestUnderWay:
    """Commands that have no reply yet when the connection ends."""

    @pytest.fixture
    def relay(self, server: Redis) -> Iterator[Relay]:
        """A relay to the server."""
        with Relay(server.port) as relay:
            yield relay

    def test_a_read_is_repeated_by_the_next_connection(self, server: Redis, relay: Relay) -> None:
        """A client that comes back at that moment does so."""
        own = made(f"redis://127.0.0.1:{relay.port}/0", TIMEOUT=20.0)
        send(made(server.url), "room", "kept")
        begin = (head(own, "room")[0], 0)
        relay.cuts_at = b"EVALSHA"
        member = Member(own)
        assert member.come_back("room", begin) == ["kept"]
        assert relay.cuts_at == b""
        send(made(server.url), "room", "new")
        assert member.receive_numbered() == (2, "new")

    def test_a_message_is_not_published_again(self, server: Redis, relay: Relay) -> None:
        """The server may have published it already: so the publisher gets an error."""
        own = made(f"redis://127.0.0.1:{relay.port}/0", TIMEOUT=20.0)
        send(own, "room", "before")
        relay.cuts_at = b"EVALSHA"
        with pytest.raises(GroupUnavailable, match="connection"):
            send(own, "room", "lost")
        until_it_works(lambda: send(own, "room", "after"))
        page = own.read_history("room", None, (2**53, 3600.0))
        assert [message for _, _, message, _ in page.rows] == ["before", "after"]


class TestLostData:
    """A server that has forgotten what it had."""

    @pytest.mark.parametrize("how", ["flush", "restart"])
    def test_numbering_begins_anew(self, server: Redis, interrupted: list[str], how: str) -> None:
        """Members are told, and get what is published then; positions from before are of no use."""
        own = made(server.url)
        member = Member(own)
        member.come_back("room", head(own, "room"))
        send(own, "room", "before")
        assert member.receive_numbered() == (1, "before")
        old = head(own, "room")
        if how == "flush":
            server.ask("FLUSHALL")
        else:
            with server.away():
                eventually(lambda: own.core.status()[0][0], what="it is noticed")
        until_it_works(lambda: send(own, "room", "after"))
        assert member.receive_gap() == 0
        assert member.receive_numbered() == (1, "after")
        new = head(own, "room")
        assert (new[0] != old[0], new[1]) == (True, 1)
        eventually(lambda: interrupted == ["room"])

    def test_a_server_that_has_lost_only_the_newest(self, server: Redis) -> None:
        """Its offsets would be used twice: so numbering begins anew with each run of the server."""
        own = made(server.url)
        send(own, "room", "kept")
        server.ask("SAVE")
        send(own, "room", "lost")
        old = head(own, "room")
        with server.away():
            eventually(lambda: own.core.status()[0][0], what="it is noticed")
        eventually(lambda: own.core.status()[0][0] is None, what="it is back")
        until_it_works(lambda: send(own, "room", "new"))
        page = own.read_history("room", old, (100, 300.0))
        assert page.head[0] != old[0]
        assert [message for _, _, message, _ in page.rows] == ["new"]


class TestReplication:
    """A server that has a replica, or is one for a while."""

    @pytest.fixture
    def pair(self) -> Iterator[tuple[Redis, Redis]]:
        """A master and its replica."""
        at_once = ("--repl-diskless-sync-delay", "0")
        with Redis(*at_once) as one, Redis(*at_once) as two:
            follow(two, one)
            yield one, two

    @pytest.mark.parametrize("stays", [False, True])
    def test_a_master_that_was_a_replica(self, pair: tuple[Redis, Redis], stays: bool) -> None:
        """
        Its data is that of the other one: so numbering begins anew, also for a process that notices
        nothing since its connection stays.
        """
        one, two = pair
        own = made(one.url)
        send(own, "room", "kept")
        eventually(lambda: two.ask("KEYS", "*messages"), what="it is replicated")
        two.ask("REPLICAOF", "NO", "ONE")
        send(own, "room", "lost")
        old = head(own, "room")
        follow(one, two)
        one.ask("REPLICAOF", "NO", "ONE")
        first = own if stays else made(one.url)
        if stays:
            _core.step_clock(6)
        eventually(lambda: head(first, "room")[0] != old[0], what="numbering begins anew")
        send(first, "room", "new")
        page = first.read_history("room", old, (100, 300.0))
        assert [(number, text) for number, _, text, _ in page.rows] == [(1, "new")]
        # Processes that have asked earlier or later agree.
        for number, each in enumerate([own, made(one.url), own], 2):
            send(each, "room", "more")
            assert head(each, "room") == (page.head[0], number)

    def test_what_loses_nothing(self, pair: tuple[Redis, Redis]) -> None:
        """A replica that goes and comes back, and a snapshot: the numbering stays."""
        one, two = pair
        own = made(one.url)
        send(own, "room", "kept")
        before = head(own, "room")
        one.ask("BGSAVE")
        with two.away():
            pass
        follow(two, one)
        one.ask("CLIENT", "KILL", "TYPE", "normal")
        until_it_works(lambda: send(own, "room", "more"))
        assert head(made(one.url), "room") == (before[0], 2)


def follow(replica: Redis, master: Redis) -> None:
    """Make a server the replica of another one, and wait until it has its data."""
    replica.ask("REPLICAOF", "127.0.0.1", f"{master.port}")
    eventually(lambda: "master_link_status:up" in replica.ask("INFO", "replication"))


def check(location: str | list[str]) -> None:
    """Groups of all names: what was missed comes first, then what is published."""
    own, other = made(location, TIMEOUT=20.0), made(location, TIMEOUT=20.0)
    for number in range(20):
        name = f"room{{{number}}}" if number % 2 else f"room-{number}"
        since = head(own, name)
        send(other, name, "one")
        member = Member(own)
        assert member.come_back(name, since) == ["one"]
        send(other, name, "two")
        assert member.receive_numbered() == (2, "two")


def test_shards() -> None:
    """Each group is in one of several servers."""
    with Redis() as one, Redis() as two:
        check([one.url, two.url])
        assert one.ask("KEYS", "*") != "" != two.ask("KEYS", "*")


def test_cluster() -> None:
    """The keys of a group lie where its channel does; a part that fails over numbers anew."""
    with Cluster(silence_ms=3000) as cluster:
        check(cluster.url)
        own = made(cluster.url, TIMEOUT=20.0)
        member = Member(own)
        member.come_back("room", head(own, "room"))
        send(own, "room", "before")
        assert member.receive_numbered() == (1, "before")
        epoch = head(own, "room")[0]
        cluster.node_with("room").kill()
        until_it_works(lambda: send(own, "room", "after"))
        member.receive_gap()
        while (found := member.receive_numbered()) != (1, "after"):
            assert found[1] == "after"
        assert head(own, "room")[0] != epoch


def test_service() -> None:
    """The same by sentinels."""
    with Service() as service:
        check(service.url)


class Move:
    """A group's slot, which goes to another node with its keys."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._old = cluster.node_with(name)
        (channel,) = self._old.ask("PUBSUB", "SHARDCHANNELS", f"*:{name}").splitlines()
        self._slot = self._old.ask("CLUSTER", "KEYSLOT", channel)
        nodes = [node for node in cluster.nodes if node.ask("ROLE").startswith("master")]
        self.new = next(node for node in nodes if node is not self._old)
        self._ids = {node: node.ask("CLUSTER", "MYID") for node in nodes}

    def begin(self) -> None:
        """Say at both nodes that it moves."""
        self.new.ask("CLUSTER", "SETSLOT", self._slot, "IMPORTING", self._ids[self._old])
        self._old.ask("CLUSTER", "SETSLOT", self._slot, "MIGRATING", self._ids[self.new])

    def take_keys(self) -> None:
        """Move the keys: the slot is at the old node still."""
        keys = self._old.ask("CLUSTER", "GETKEYSINSLOT", self._slot, "10").splitlines()
        self._old.ask("MIGRATE", "127.0.0.1", f"{self.new.port}", "", "0", "60000", "KEYS", *keys)

    def end(self) -> None:
        """Give the slot to the new node."""
        for node in (self.new, self._old, *self._ids):
            node.ask("CLUSTER", "SETSLOT", self._slot, "NODE", self._ids[self.new])


@pytest.mark.parametrize("keys", ["some", "none"])
def test_a_slot_that_is_moving(keys: str) -> None:
    """Nothing fails or comes late while the keys of a group are at a node that has no slot yet."""
    with Cluster() as cluster:
        own, other = made(cluster.url), made(cluster.url)
        member = Member(own)
        assert member.come_back("room", head(own, "room")) == []
        if keys == "some":
            send(other, "room", "before")
            assert member.receive_numbered() == (1, "before")
        move = Move(cluster, "room")
        move.begin()
        move.take_keys()
        first = 2 if keys == "some" else 1
        for number in range(first, first + 3):
            send(other, "room", f"{number}")
            assert member.receive_numbered() == (number, f"{number}")
        move.end()
        eventually(lambda: "room" in move.new.channels(), what="the subscription has moved")
        send(other, "room", "after")
        assert member.receive_numbered() == (first + 3, "after")


def test_senders_while_a_slot_moves() -> None:
    """No call fails, and each message comes once."""
    with Cluster() as cluster:
        own, other = made(cluster.url), made(cluster.url)
        member = Member(own)
        assert member.come_back("room", head(own, "room")) == []
        sent, is_over = list[str](), threading.Event()

        def speak(name: str) -> int:
            for number in itertools.count():
                if is_over.is_set():
                    return number
                send(other, "room", f"{name}-{number}")
                sent.append(f"{name}-{number}")

        def is_broken() -> bool:
            return any(speaker.done() for speaker in speakers)

        with ThreadPoolExecutor() as threads:
            speakers = [threads.submit(speak, name) for name in "abc"]
            try:
                move = Move(cluster, "room")
                # Before its first message a group has one of its two keys: until that has moved,
                # both nodes refuse messages.
                eventually(lambda: bool(sent) or is_broken())
                for step in (move.begin, move.take_keys, move.end):
                    step()
                    enough = len(sent) + 50
                    eventually(lambda: len(sent) > enough or is_broken())  # noqa: B023
                eventually(lambda: "room" in move.new.channels() or is_broken())
            finally:
                is_over.set()
            assert sum(speaker.result() for speaker in speakers) == len(sent)
        found = [member.receive_numbered() for _ in sent]
        assert [number for number, _ in found] == list(range(1, len(sent) + 1))
        assert sorted(text for _, text in found) == sorted(sent)
