"""The redis backend when a master is killed and another node takes its place."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import pytest

from dwebsocket.exceptions import GroupUnavailable
from support.redis import Cluster, Redis, Sentinel, Service
from support.redis_backend import Member, send, until_it_works
from support.redis_backend import backend as made_backend
from support.waiting import eventually, pause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.groups.backends.redis import Backend

pytestmark = pytest.mark.needs("redis")


@pytest.fixture
def service() -> Iterator[Service]:
    """A master with replicas and sentinels."""
    with Service(silence_ms=3000) as started:
        yield started


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three masters with replicas."""
    with Cluster(silence_ms=3000) as started:
        yield started


def backend(location: str) -> Backend:
    """Make a backend whose calls are not cut short by a busy machine."""
    return made_backend(location, TIMEOUT=20.0)


class Publisher:
    """A thread that publishes numbers all the time, and notes those that the server has taken."""

    def __init__(self, of: Backend, name: str) -> None:
        self.taken: list[str] = []
        self.failures: list[str] = []
        self.longest = 0.0
        self._backend, self._name = of, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            began = time.monotonic()
            try:
                send(self._backend, self._name, f"{number}")
            except GroupUnavailable as error:
                self.failures.append(str(error))
            else:
                self.taken.append(f"{number}")
            self.longest = max(self.longest, time.monotonic() - began)
            pause(0.001)

    def wait_for_more(self) -> None:
        """Wait until more messages were taken."""
        before = len(self.taken)
        eventually(lambda: len(self.taken) > before + 20, what="messages are taken")

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()


def received(member: Member, last: str) -> list[str]:
    """Give what a member got up to a message."""
    found: list[str] = []
    while not found or found[-1] != last:
        found.append(str(member.receive()))
    return found


def test_a_failover_by_sentinels(service: Service) -> None:
    """Publishers get the exception; members stay, and get messages by way of the new master."""
    publishing, joined = backend(service.url), backend(service.url)
    member = Member(joined, "room")
    publisher = Publisher(publishing, "room")
    try:
        publisher.wait_for_more()
        old = service.master
        old.kill()
        eventually(lambda: service.master is not old, what="another master")
        publisher.wait_for_more()
        eventually(lambda: "room" in service.master.channels(), what="the subscription is back")
    finally:
        publisher.stop()
    until_it_works(lambda: send(joined, "room", "end"))
    got = received(member, "end")
    assert publisher.failures
    assert all("groups of 'default' at redis+sentinel://" in text for text in publisher.failures)
    assert_in_order_and_once(got[:-1])
    eventually(lambda: joined.count("room") == 1)


def test_a_failover_while_the_old_master_lives(service: Service) -> None:
    """A master that was demoted is left, although it still answers."""
    made = backend(service.url)
    member = Member(made, "room")
    old = service.master
    service.sentinels[0].ask("SENTINEL", "FAILOVER", "main")
    eventually(lambda: service.master is not old, what="another master")

    def is_at_new_master() -> bool:
        return "room" in service.master.channels()

    eventually(is_at_new_master, what="the subscription is at the new master")
    until_it_works(lambda: send(made, "room", "x"))
    assert member.receive() == "x"


def test_a_sentinel_that_is_away(service: Service) -> None:
    """The others are asked."""
    service.sentinels[0].kill()
    made = backend(service.url)
    member = Member(made, "room")
    send(made, "room", "x")
    assert member.receive() == "x"


def test_a_sentinel_that_is_cut_off_from_the_others(service: Service) -> None:
    """It names a master of before a failover, which may answer: others know better."""
    old = service.master
    service.sentinels[0].ask("SENTINEL", "FAILOVER", "main")
    eventually(lambda: service.master is not old, what="another master")
    with Redis() as former, Sentinel(former, 0, 3000) as alone:
        assert alone.master_port() == former.port
        made = backend(service.url.replace("://", f"://127.0.0.1:{alone.port},"))
        member = Member(made, "room")
        send(made, "room", "x")
        assert member.receive() == "x"
        assert "room" in service.master.channels()
        assert not former.channels()


@pytest.mark.parametrize("service_name", ["other", "main"])
def test_no_sentinel_helps(service: Service, service_name: str) -> None:
    """The exception says what they answered."""
    if service_name == "main":
        for sentinel in service.sentinels:
            sentinel.kill()
    made = backend(service.url.replace("/main/", f"/{service_name}/"))
    expected = "Connection refused" if service_name == "main" else "knows the service"
    with pytest.raises(GroupUnavailable, match=expected):
        send(made, "room", "x")


def test_groups_of_a_cluster(cluster: Cluster) -> None:
    """Each is at the node of its slot; only those nodes are connected that are needed."""
    made = backend(cluster.url)
    send(made, "room", "x")
    assert sum(bool(_clients(node.clients())) for node in cluster.nodes) == 1
    names = [f"room-{number}" for number in range(60)]
    member = Member(made, *names)
    assert cluster.channels() == set(names)
    assert sum(bool(node.channels()) for node in cluster.nodes) == 3
    for name in names:
        send(made, name, name)
        assert member.receive() == name
        eventually(lambda name=name: made.count(name) == 1)
    for name in names:
        member.leave(name)
    eventually(lambda: not cluster.channels() & set(names), what="all are left")


def _clients(clients: list[dict[str, str]]) -> list[dict[str, str]]:
    return [client for client in clients if client["resp"] == "3" and "S" not in client["flags"]]


def test_a_master_of_a_cluster_is_killed(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Groups of other nodes go on; those of this one come back with its replica."""
    caplog.set_level(logging.INFO, "dwebsocket")
    publishing, joined = backend(cluster.url), backend(cluster.url)
    names = [f"room-{number}" for number in range(30)]
    member = Member(joined, *names)
    old = cluster.node_with(names[0])
    other = next(name for name in names if cluster.node_with(name) is not old)
    affected = Publisher(publishing, names[0])
    untouched = Publisher(publishing, other)
    try:
        affected.wait_for_more()
        old.kill()
        eventually(lambda: affected.failures, what="it is noticed")
        untouched.wait_for_more()
        affected.wait_for_more()
        eventually(lambda: cluster.channels() == set(names), what="the subscriptions are back")
    finally:
        affected.stop()
        untouched.stop()
    assert not untouched.failures
    for name in names:
        until_it_works(lambda name=name: send(joined, name, f"end of {name}"))
    ends = {f"end of {name}" for name in names}
    got: list[str] = []
    while ends:
        got.append(str(member.receive()))
        ends.discard(got[-1])
    eventually(lambda: joined.count(names[0]) == 1)

    def events() -> list[str]:
        return sorted(record.__dict__["event"] for record in caplog.records)

    # Once in each of the two.
    expected = ["groups.lost"] * 2 + ["groups.regained"] * 2
    eventually(lambda: events() == expected, what="it is logged")


def test_masters_of_a_cluster_become_replicas(cluster: Cluster) -> None:
    """Such a node gets no subscription any more: it would bring messages late, and some twice."""
    made = backend(cluster.url)
    names = {f"room-{number}" for number in range(30)}
    member = Member(made, *names)
    replicas = [node for node in cluster.nodes if not _is_master(node.ask("ROLE"))]
    masters = [node for node in cluster.nodes if node not in replicas]
    before = [_subscribed(node) for node in masters]
    for replica in replicas:
        replica.ask("CLUSTER", "FAILOVER")
        eventually(lambda replica=replica: _is_master(replica.ask("ROLE")), what="a master")
        # Some of these subscriptions may still be at a node that is a replica now.
        eventually(lambda: set().union(*(it.channels() for it in cluster.nodes)) == names)
    eventually(lambda: set().union(*(it.channels() for it in replicas)) == names)
    for name in sorted(names):
        until_it_works(lambda name=name: send(made, name, name))
        assert member.receive() == name
    assert [_subscribed(node) for node in masters] == before


def _subscribed(node: Redis) -> str:
    """Give what a node says of the command that subscribes."""
    lines = node.ask("INFO", "commandstats").splitlines()
    (found,) = (line for line in lines if line.startswith("cmdstat_ssubscribe:"))
    return found.partition(",")[0]


def test_a_user_with_few_rights(cluster: Cluster, service: Service) -> None:
    """Needs those that the documentation names, and no more."""
    rights = "+publish +subscribe +unsubscribe +ping +select"
    more = {
        cluster.url: ("+cluster|slots +spublish +ssubscribe +sunsubscribe", cluster.nodes),
        service.url: ("", service.nodes),
    }
    for url, (further, nodes) in more.items():
        for node in nodes:
            node.ask(
                *("ACL", "SETUSER", "web", "on", ">pw", "resetchannels", "&dwebsocket:*"),
                *("-@all", *rights.split(), *further.split()),
            )
        made = backend(url.replace("://", "://web:pw@"))
        member = Member(made, "room")
        send(made, "room", "x")
        assert member.receive() == "x"
        eventually(lambda made=made: made.count("room") == 1)


def test_a_slot_that_moves(cluster: Cluster) -> None:
    """Its groups follow it to the other node, and so do those who publish to them."""
    made, other = backend(cluster.url), backend(cluster.url)
    member = Member(made, "room")
    send(other, "room", "before")
    assert member.receive() == "before"
    old = cluster.node_with("room")
    (channel,) = old.ask("PUBSUB", "SHARDCHANNELS", "*:room").splitlines()
    new = next(node for node in cluster.nodes if node is not old and _is_master(node.ask("ROLE")))
    slot = old.ask("CLUSTER", "KEYSLOT", channel)
    new_id = new.ask("CLUSTER", "MYID")
    for node in cluster.nodes:
        if _is_master(node.ask("ROLE")):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", new_id)
    eventually(lambda: "room" in new.channels(), what="the subscription has moved")
    until_it_works(lambda: send(other, "room", "after"))
    assert member.receive() == "after"


def _is_master(role: str) -> bool:
    return role.split()[0] == "master"


def test_a_cluster_that_was_never_there() -> None:
    """The exception says so."""
    with Cluster() as cluster:
        address = cluster.url
    made = backend(address)
    for _ in range(2):
        with pytest.raises(GroupUnavailable, match="Connection refused"):
            send(made, "room", "x")
        with pytest.raises(GroupUnavailable, match="Connection refused"):
            Member(made, "room")


def assert_in_order_and_once(messages: list[str]) -> None:
    """Fail when numbers are out of order, or come twice."""
    numbers = [int(message) for message in messages]
    assert numbers == sorted(set(numbers))
