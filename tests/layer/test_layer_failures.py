"""Settings that are wrong, backends that are away, transactions that are rolled back."""

from __future__ import annotations

import asyncio
import functools
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from layer_sites import CROSSING, in_loop

from dwebsocket.channels import ChannelLayer
from dwebsocket.exceptions import GroupUnavailable, UsageError
from dwebsocket.groups import backends
from dwebsocket.testing.groups import groups_of_a_test
from support.waiting import eventually

sys.path.append(str(Path(__file__).resolve().parent.parent / "groups"))

from memory_backend import Switchboard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Make = Callable[..., ChannelLayer]


def test_config() -> None:
    """What is wrong with CONFIG is said when Channels makes the layer, as by `manage.py check`."""
    with pytest.raises(ImproperlyConfigured) as raised:
        ChannelLayer(hosts=["redis://"])
    assert str(raised.value) == (
        "CONFIG['hosts'] in CHANNEL_LAYERS is an unknown key. "
        "Write the address as LOCATION in WEBSOCKET_GROUPS."
    )


def test_unknown_alias() -> None:
    """WEBSOCKET_GROUPS has to have it."""
    with pytest.raises(ImproperlyConfigured, match="no backend 'elsewhere'"):
        async_to_sync(ChannelLayer("elsewhere").new_channel)()


@pytest.fixture
def board() -> Iterator[Switchboard]:
    """Replace the backend by one that can be told to fail."""
    found = Switchboard()
    with backends.replaced(found.make):
        yield found


class TestAway:
    """The backend takes nothing."""

    @in_loop
    async def test_group_send(self, board: Switchboard) -> None:
        """The sender is told, and nobody gets it, in this process neither."""
        layer = ChannelLayer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        board.broken.add("dwebsocket.channels.group.room")
        with pytest.raises(GroupUnavailable):
            await layer.group_send("room", {"type": "lost"})
        board.broken.clear()
        await layer.group_send("room", {"type": "found"})
        assert await layer.receive(channel) == {"type": "found"}
        await layer.close()

    @in_loop
    async def test_group_add(self, board: Switchboard) -> None:
        """The channel is no member."""
        layer = ChannelLayer()
        channel = await layer.new_channel()
        board.broken.add("dwebsocket.channels.group.room")
        with pytest.raises(GroupUnavailable):
            await layer.group_add("room", channel)
        board.broken.clear()
        await layer.group_send("room", {"type": "lost"})
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "found"})
        assert await layer.receive(channel) == {"type": "found"}
        await layer.close()

    @in_loop
    async def test_normal_channel(self, board: Switchboard) -> None:
        """What was taken from the sender waits, and comes when the backend is back."""
        layer, other = ChannelLayer(), ChannelLayer()
        await layer.send("work", {"type": "first"})
        board.broken.add("dwebsocket.channels.channel.work")
        await layer.send("work", {"type": "second"})
        with pytest.raises(GroupUnavailable):
            await other.receive("work")
        board.broken.clear()
        for text in ("first", "second"):
            assert await other.receive("work") == {"type": text}
        await layer.close()
        await other.close()

    @in_loop
    async def test_first_use(self, board: Switchboard) -> None:
        """Whoever makes the first channel is told, and can try again."""
        layer = ChannelLayer()
        board.broken.add("dwebsocket.channels.all")
        with pytest.raises(GroupUnavailable):
            await layer.new_channel()
        board.broken.clear()
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "hi"})
        assert await layer.receive(channel) == {"type": "hi"}
        await layer.close()

    @in_loop
    async def test_bytes_of_others(self, board: Switchboard, caplog: Any) -> None:
        """A frame of another version is ignored, and the next one is taken."""
        layer = ChannelLayer()
        channel = await layer.new_channel()
        backend = backends.backend("default")
        for frame in ("text", b"\xc1", b"\x90", b"\x91\xa3new", b"\x91\xa4send"):
            await backend.asend("dwebsocket.channels.all", frame, [])
        other = ChannelLayer()
        await other.send(channel, {"type": "hi"})
        assert await layer.receive(channel) == {"type": "hi"}
        await layer.close()
        await other.close()


@pytest.mark.parametrize("site", [CROSSING[1]], indirect=True)
def test_outage(site: Any, layer: Make) -> None:
    """Senders are told; channels and groups are as before when the server is back."""
    own, another = layer(), layer()
    channels = [async_to_sync(each.new_channel)() for each in (own, another)]
    for each, channel in zip((own, another), channels, strict=True):
        async_to_sync(each.group_add)("room", channel)

    def send() -> bool:
        try:
            async_to_sync(own.group_send)("room", {"type": "again"})
        except GroupUnavailable:
            return False
        return True

    with site.server.away():
        assert not send()
    eventually(send, what="the server is back")

    async def answer() -> Any:
        # The subscriptions may come back a little later than the connection that publishes.
        while True:
            await own.group_send("room", {"type": "again"})
            with suppress(asyncio.TimeoutError):
                return await asyncio.wait_for(another.receive(channels[1]), 0.5)

    assert async_to_sync(answer)() == {"type": "again"}
    assert async_to_sync(own.receive)(channels[0]) == {"type": "again"}


@pytest.mark.parametrize("site", [CROSSING[1]], indirect=True)
def test_connections_that_break(site: Any, layer: Make) -> None:
    """Channels that join and leave between two breaks do so; the groups are as they should be."""
    own, another = layer(), layer()
    channels = [async_to_sync(another.new_channel)(f"member-{number}") for number in range(3)]

    def until_it_works(call: Callable[..., Any], *arguments: Any) -> None:
        def works() -> bool:
            try:
                async_to_sync(call)(*arguments)
            except GroupUnavailable:
                return False
            return True

        eventually(works, what="the server is reached again")

    def disconnect() -> None:
        for kind in ("normal", "pubsub"):
            site.server.ask("CLIENT", "KILL", "TYPE", kind)

    async def hears(channel: str) -> bool:
        # The subscriptions may come back a little later than the connection that publishes.
        with suppress(GroupUnavailable, asyncio.TimeoutError):
            await own.group_send("room", {"type": "hi"})
            return bool(await asyncio.wait_for(another.receive(channel), 0.5))
        return False

    for channel in channels[:2]:
        async_to_sync(another.group_add)("room", channel)
    disconnect()
    until_it_works(another.group_add, "room", channels[2])
    until_it_works(another.group_discard, "room", channels[1])
    disconnect()
    for channel in (channels[0], channels[2]):
        eventually(functools.partial(async_to_sync(hears), channel), what="the channel is reached")
    async_to_sync(another.send)(channels[1], {"type": "last"})
    assert async_to_sync(another.receive)(channels[1]) == {"type": "last"}


@in_loop
async def test_groups_of_a_test() -> None:
    """Each test has channels and groups of its own, whatever the settings say."""
    layer = ChannelLayer()
    with groups_of_a_test():
        former = await layer.new_channel()
        await layer.group_add("room", former)
        await layer.send("work", {"type": "former"})
    with groups_of_a_test():
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "hi"})
        await layer.send("work", {"type": "mine"})
        assert await layer.receive(channel) == {"type": "hi"}
        assert await layer.receive("work") == {"type": "mine"}
        with pytest.raises(UsageError, match="another process"):
            await layer.receive(former)
    await layer.close()


@pytest.mark.parametrize("site", [CROSSING[-1]], indirect=True)
class TestTransactions:
    """On PostgreSQL messages leave with the commit, to this process too."""

    @pytest.mark.parametrize("to", ["channel", "normal", "group"])
    def test_commit_and_rollback(self, site: Any, layer: Make, to: str) -> None:
        """What is rolled back reaches nobody."""
        own, another = layer(), layer()
        channels = [async_to_sync(each.new_channel)() for each in (own, another)]
        if to == "normal":
            channels = ["work"] * 2
        for each, channel in zip((own, another), channels, strict=True):
            async_to_sync(each.group_add)("room", channel)

        def send(text: str) -> None:
            message = {"type": "test", "text": text}
            if to == "group":
                async_to_sync(own.group_send)("room", message)
            else:
                async_to_sync(own.send)(channels[0], message)

        with transaction.atomic(using=site.database):
            send("lost")
            transaction.set_rollback(True, using=site.database)
        with transaction.atomic(using=site.database):
            send("found")
        receivers = [(own, channels[0])]
        if to == "group":
            receivers.append((another, channels[1]))
        for each, channel in receivers:
            assert async_to_sync(each.receive)(channel)["text"] == "found"

    def test_full(self, site: Any, layer: Make) -> None:
        """A channel that is full now is said to be."""
        own = layer(capacity=1)
        channel = async_to_sync(own.new_channel)()
        async_to_sync(own.send)(channel, {"type": "first"})
        with transaction.atomic(using=site.database), pytest.raises(ChannelFull):
            async_to_sync(own.send)(channel, {"type": "second"})

    def test_what_is_no_message_is_done_at_once(self, site: Any, layer: Make) -> None:
        """Also by another process, and for a normal channel: whoever has asked gets the answer."""
        own, another = layer(), layer()
        theirs = async_to_sync(another.new_channel)()
        async_to_sync(another.send)("work", {"type": "kept"})
        with transaction.atomic(using=site.database):
            async_to_sync(own.group_add)("room", theirs)
            assert async_to_sync(own.receive)("work") == {"type": "kept"}
            transaction.set_rollback(True, using=site.database)
        async_to_sync(own.group_send)("room", {"type": "first"})
        with transaction.atomic(using=site.database):
            async_to_sync(own.flush)()
        async_to_sync(own.group_send)("room", {"type": "to nobody"})
        async_to_sync(own.send)(theirs, {"type": "last"})
        assert async_to_sync(another.receive)(theirs) == {"type": "last"}
