"""What Channels asks of a channel layer, on each backend, within one process."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from layer_sites import EVERY, in_loop

from dwebsocket import event_counts
from dwebsocket.channels import node, store
from dwebsocket.exceptions import UsageError
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.channels import ChannelLayer

    Make = Callable[..., ChannelLayer]

# On PostgreSQL what depends on how messages are carried; the rest is the layer's own.
core = pytest.mark.core(
    *("test_order", "test_a_megabyte", "test_channel_of_another_process", "test_several_receivers"),
    *("test_full", "test_members", "test_together", "test_sender_that_does_not_pause"),
    "test_messages_and_groups",
)
SITES = [*EVERY[:-1], pytest.param("postgres", marks=[*EVERY[-1].marks, core])]
pytestmark = pytest.mark.parametrize("site", SITES, indirect=True)

# So long nothing may come.
NOTHING_S = 0.2


def dropped() -> dict[str, int]:
    """Give how many messages were dropped so far."""
    return {name: sum(event_counts()[f"channel.{name}"].values()) for name in ("full", "expired")}


async def comes_nothing(layer: ChannelLayer, channel: str) -> bool:
    """Whether a channel stays silent for a while."""
    try:
        await asyncio.wait_for(layer.receive(channel), NOTHING_S)
    except asyncio.TimeoutError:
        return True
    return False


async def received(layer: ChannelLayer, channel: str, count: int) -> list[Any]:
    """Give the texts of the next messages."""
    return [(await layer.receive(channel))["text"] for _ in range(count)]


async def send_all(layer: ChannelLayer, channel: str, *texts: Any) -> None:
    """Send messages."""
    for text in texts:
        await layer.send(channel, {"type": "test.message", "text": text})


async def group_send_all(layer: ChannelLayer, group: str, *texts: Any) -> None:
    """Send messages to a group."""
    for text in texts:
        await layer.group_send(group, {"type": "test.message", "text": text})


class TestChannels:
    """One message to one receiver."""

    @pytest.mark.parametrize("kind", ["normal", "local"])
    @in_loop
    async def test_order(self, site: Any, layer: Make, kind: str) -> None:
        """Messages come in the order in which they were sent, before and while one waits."""
        own = layer()
        channel = "test-channel" if kind == "normal" else await own.new_channel()
        await send_all(own, channel, *range(10))
        assert await received(own, channel, 10) == list(range(10))
        waiting = asyncio.ensure_future(received(own, channel, 10))
        await send_all(own, channel, *range(10))
        assert await waiting == list(range(10))

    @in_loop
    async def test_content(self, site: Any, layer: Make) -> None:
        """What a message holds, at any depth; tuples come back as lists."""
        own = layer()
        channel = await own.new_channel()
        message = {
            "type": "test.message",
            "text": "ä€𝄞 \x00",
            "bytes": bytes(range(256)),
            "numbers": [0, -1, 2**63, 0.5, True, None],
            "deep": {"a": {"b": [{"c": []}]}, 7: "seven"},
        }
        await own.send(channel, {**message, "pair": (1, 2)})
        assert await own.receive(channel) == {**message, "pair": [1, 2]}

    @in_loop
    async def test_a_megabyte(self, site: Any, layer: Make) -> None:
        """The specification demands as much."""
        own, another = layer(), layer()
        channel = await own.new_channel()
        await another.send(channel, {"type": "large", "text": "x" * 1024 * 1024})
        assert len((await own.receive(channel))["text"]) == 1024 * 1024

    @in_loop
    async def test_each_receiver_has_a_message_of_its_own(self, site: Any, layer: Make) -> None:
        """What one does to it concerns no other, nor the sender."""
        own = layer()
        channels = [await own.new_channel() for _ in range(2)]
        for channel in channels:
            await own.group_add("room", channel)
        message = {"type": "x", "list": [1]}
        await own.group_send("room", message)
        message["list"].append(2)
        (await own.receive(channels[0]))["list"].append(3)
        assert (await own.receive(channels[1]))["list"] == [1]

    @pytest.mark.parametrize("name", ["=+135!", "a b", "", "x" * 100, "ä", 7])
    @in_loop
    async def test_names_that_are_refused(self, site: Any, layer: Make, name: Any) -> None:
        """Whichever call gets them."""
        own = layer()
        good = await own.new_channel()
        with pytest.raises(TypeError):
            await own.send(name, {"type": "x"})
        with pytest.raises(TypeError):
            await own.receive(name)
        with pytest.raises(TypeError):
            await own.group_add("room", name)
        for call in (own.group_add, own.group_discard):
            with pytest.raises(TypeError):
                await call(name, good)
        with pytest.raises(TypeError):
            await own.group_send(name, {"type": "x"})

    @pytest.mark.parametrize("message", ["text", None, {"type": "x", "when": object()}])
    @in_loop
    async def test_messages_that_are_refused(self, site: Any, layer: Make, message: Any) -> None:
        """They are dicts of what can be encoded."""
        own = layer()
        with pytest.raises(TypeError):
            await own.send("test-channel", message)
        with pytest.raises(TypeError):
            await own.group_send("room", message)

    @in_loop
    async def test_channel_of_another_process(self, site: Any, layer: Make) -> None:
        """Only the process that made it receives from it."""
        with pytest.raises(UsageError, match="belongs to another process"):
            await layer().receive("specific.someone!else")

    @in_loop
    async def test_new_names(self, site: Any, layer: Make) -> None:
        """They are new, whatever the state of `random`, and have the prefix."""
        own, another = layer(), layer()
        names = set()
        for each in (own, another) * 100:
            random.seed(1)
            names.add(await each.new_channel())
        assert len(names) == 200
        assert (await own.new_channel("chat")).startswith("chat.")

    @in_loop
    async def test_several_receivers(self, site: Any, layer: Make) -> None:
        """Each message goes to one of them, the one that has waited longest first."""
        own = layer()
        channel = await own.new_channel()
        tasks = [asyncio.ensure_future(received(own, channel, 1)) for _ in range(20)]
        await asyncio.sleep(0.01)
        await send_all(own, channel, *range(20))
        assert await asyncio.gather(*tasks) == [[number] for number in range(20)]

    @pytest.mark.parametrize("kind", ["normal", "local"])
    @in_loop
    async def test_cancelled_receive_loses_nothing(self, site: Any, layer: Make, kind: str) -> None:
        """At whatever moment it is cancelled."""
        own = layer(capacity=1000)
        channel = "test-channel" if kind == "normal" else await own.new_channel()
        got = []
        for number in range(100):
            task = asyncio.ensure_future(received(own, channel, 1))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            await send_all(own, channel, number)
            for _ in range(number % 3):
                await asyncio.sleep(0)
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(outcome, asyncio.CancelledError):
                got += outcome
        got += await received(own, channel, 100 - len(got))
        assert got == list(range(100))

    @in_loop
    async def test_cancelled_receive_leaves_its_message_to_another(
        self, site: Any, layer: Make
    ) -> None:
        """One that was woken, and then cancelled, wakes the next one."""
        own = layer()
        channel = await own.new_channel()
        first, second = (asyncio.ensure_future(received(own, channel, 1)) for _ in range(2))
        await asyncio.sleep(0.01)
        sending = asyncio.ensure_future(send_all(own, channel, "hi"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == ["hi"]
        await sending


class TestCapacity:
    """How many messages wait."""

    @pytest.mark.parametrize("kind", ["normal", "local"])
    @in_loop
    async def test_full(self, site: Any, layer: Make, kind: str) -> None:
        """The sender is told; there is room again when a message was received."""
        own = layer(capacity=3)
        channel = "test-channel" if kind == "normal" else await own.new_channel()
        await send_all(own, channel, 1, 2, 3)
        for _ in range(2):
            with pytest.raises(ChannelFull):
                await send_all(own, channel, 4)
        assert await received(own, channel, 1) == [1]
        await send_all(own, channel, 5)
        assert await received(own, channel, 3) == [2, 3, 5]

    @in_loop
    async def test_of_some_channels(self, site: Any, layer: Make) -> None:
        """By patterns, the first that fits."""
        own = layer(capacity=3, channel_capacity={"tiny*": 1, "tin*": 2})
        for channel, capacity in (("tiny-1", 1), ("tin", 2), ("other", 3)):
            await send_all(own, channel, *range(capacity))
            with pytest.raises(ChannelFull):
                await send_all(own, channel, "more")

    @in_loop
    async def test_group_send(
        self, site: Any, layer: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A full channel drops it: it is counted, and logged once. Others get it."""
        own = layer(capacity=3)
        full, empty = [await own.new_channel() for _ in range(2)]
        for channel in (full, empty):
            await own.group_add("room", channel)
        await send_all(own, full, 0)
        before = dropped()["full"]
        await group_send_all(own, "room", 1, 2, 3)
        assert await received(own, empty, 3) == [1, 2, 3]
        await group_send_all(own, "room", 4)
        assert await received(own, full, 3) == [0, 1, 2]
        assert await comes_nothing(own, full)
        assert dropped()["full"] - before == 2
        (record,) = (each for each in caplog.records if each.name == "dwebsocket")
        assert (record.levelname, record.__dict__["event"]) == ("WARNING", "channel.full")
        assert full in record.getMessage()

    @in_loop
    async def test_group_send_to_one_that_is_almost_full(self, site: Any, layer: Make) -> None:
        """It drops what it has no room for; the others of the group get it all, also elsewhere."""
        own, another = layer(capacity=3), layer(capacity=3)
        almost, empty = [await own.new_channel(prefix) for prefix in ("almost", "empty")]
        elsewhere = await another.new_channel()
        for each, channel in ((own, almost), (own, empty), (another, elsewhere)):
            await each.group_add("room", channel)
        await send_all(own, almost, 0)
        await group_send_all(own, "room", 1, 2, 3)
        assert await received(own, almost, 3) == [0, 1, 2]
        assert await received(own, empty, 3) == [1, 2, 3]
        assert await received(another, elsewhere, 3) == [1, 2, 3]
        assert await comes_nothing(own, almost)

    @in_loop
    async def test_group_send_to_a_normal_channel(self, site: Any, layer: Make) -> None:
        """It raises nothing."""
        own = layer(capacity=3)
        await own.group_add("room", "test-channel")
        await group_send_all(own, "room", *range(5))
        assert await received(own, "test-channel", 3) == [0, 1, 2]


class Clock:
    """The clock of channels, ahead of the real one. Servers notice when the engine's is stepped."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Give the time."""
        return clock.now() + self._ahead

    def advance(self, seconds: float) -> None:
        """Step it."""
        self._ahead += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Step the time of channels: `time.advance(60)`."""
    found = Clock()
    monkeypatch.setattr(store, "clock", found)
    monkeypatch.setattr(node, "clock", found)
    return found


class TestExpiry:
    """How long messages wait, and channels stay in groups."""

    @pytest.mark.parametrize("to", ["channel", "group"])
    @in_loop
    async def test_messages(
        self, site: Any, layer: Make, time: Clock, caplog: pytest.LogCaptureFixture, to: str
    ) -> None:
        """Messages that were not received in time are dropped, counted, and logged once."""
        own = layer(expiry=60)
        channel = await own.new_channel()
        await own.group_add("room", channel)
        before = dropped()["expired"]
        for text in (1, 2, 3):
            await (
                send_all(own, channel, text)
                if to == "channel"
                else group_send_all(own, "room", text)
            )
            time.advance(32)
        assert await received(own, channel, 1) == [3]
        assert await comes_nothing(own, channel)
        assert dropped()["expired"] - before == 2
        (record,) = (each for each in caplog.records if each.name == "dwebsocket")
        assert (record.levelname, record.__dict__["event"]) == ("WARNING", "channel.expired")

    @in_loop
    async def test_in_time(self, site: Any, layer: Make, time: Clock) -> None:
        """A message that has waited for less is received."""
        own = layer(expiry=300)
        channel = await own.new_channel()
        for text in (1, 2, 3):
            await send_all(own, channel, text)
            time.advance(90)
        assert await received(own, channel, 3) == [1, 2, 3]

    @in_loop
    async def test_between_receives(self, site: Any, layer: Make, time: Clock) -> None:
        """What waits behind a message that was received expires, and later ones come."""
        own = layer(expiry=60)
        await send_all(own, "test-channel", 1, 2, 3)
        assert await received(own, "test-channel", 1) == [1]
        time.advance(61)
        await send_all(own, "test-channel", 4)
        assert await received(own, "test-channel", 1) == [4]
        assert await comes_nothing(own, "test-channel")

    @in_loop
    async def test_of_one_channel_in_a_group(self, site: Any, layer: Make, time: Clock) -> None:
        """What has expired in one is of no concern to what the group has sent to both."""
        own = layer(expiry=60)
        channels = [await own.new_channel() for _ in range(2)]
        for channel in channels:
            await own.group_add("room", channel)
        await send_all(own, channels[0], 0)
        time.advance(40)
        await group_send_all(own, "room", 1, 2)
        time.advance(40)
        for channel in channels:
            assert await received(own, channel, 2) == [1, 2]
            assert await comes_nothing(own, channel)

    @in_loop
    async def test_make_room(self, site: Any, layer: Make, time: Clock) -> None:
        """A channel is not full of messages that have expired."""
        own = layer(expiry=10, capacity=2)
        channel = await own.new_channel()
        await send_all(own, channel, 1, 2)
        time.advance(11)
        await send_all(own, channel, 3, 4)
        assert await received(own, channel, 2) == [3, 4]

    @in_loop
    async def test_memory(self, site: Any, layer: Make, time: Clock) -> None:
        """Channels that nobody uses any more are forgotten."""
        own = layer(expiry=10)
        for number in range(100):
            await send_all(own, f"test-{number}", "hi")
        time.advance(11)
        await send_all(own, "other", "hi")
        time.advance(31)
        await send_all(own, "other", "hi")
        store = own._node().store
        assert [name for name in map("test-{}".format, range(100)) if store.knows(name)] == []
        assert len(own._node()._meetings.names()) == 1

    @in_loop
    async def test_of_memberships(self, site: Any, layer: Make, time: Clock) -> None:
        """A channel that is not added again leaves the group."""
        own = layer(group_expiry=100)
        old, renewed = [await own.new_channel() for _ in range(2)]
        for channel in (old, renewed):
            await own.group_add("room", channel)
        time.advance(60)
        await own.group_add("room", renewed)
        time.advance(60)
        await group_send_all(own, "room", "hi")
        assert await received(own, renewed, 1) == ["hi"]
        assert await comes_nothing(own, old)
        assert own.group_expiry == 100


class TestGroups:
    """One message to many channels."""

    @pytest.mark.parametrize("kind", ["one prefix", "own prefixes", "normal"])
    @in_loop
    async def test_members(self, site: Any, layer: Make, kind: str) -> None:
        """Those that were added, and not discarded."""
        own = layer()
        channels = ["test-1", "test-2", "test-3"]
        if kind != "normal":
            prefixes = ["same"] * 3 if kind == "one prefix" else channels
            channels = [await own.new_channel(prefix) for prefix in prefixes]
        for channel in channels:
            await own.group_add("room", channel)
        await own.group_discard("room", channels[1])
        await group_send_all(own, "room", 1, 2)
        for channel in (channels[0], channels[2]):
            assert await received(own, channel, 2) == [1, 2]
        assert await comes_nothing(own, channels[1])

    @in_loop
    async def test_channel_that_has_ended(self, site: Any, layer: Make) -> None:
        """It is in no group any more, and what waited there is dropped; the others stay."""
        own = layer()
        ended, other = [await own.new_channel() for _ in range(2)]
        for group, channel in (("room", ended), ("alone", ended), ("room", other)):
            await own.group_add(group, channel)
        await group_send_all(own, "room", 1)
        own.end_channel(ended)
        own.end_channel(ended)
        await group_send_all(own, "room", 2)
        await group_send_all(own, "alone", 3)
        assert await received(own, other, 2) == [1, 2]
        assert await comes_nothing(own, ended)

    @in_loop
    async def test_again(self, site: Any, layer: Make) -> None:
        """Added twice it is there once; discarded twice, or without having been there, never."""
        own = layer()
        channel = await own.new_channel()
        await own.group_discard("room", channel)
        for _ in range(2):
            await own.group_add("room", channel)
        await group_send_all(own, "room", 1)
        assert await received(own, channel, 1) == [1]
        assert await comes_nothing(own, channel)
        for _ in range(2):
            await own.group_discard("room", channel)
        await group_send_all(own, "room", 2)
        await own.group_add("room", channel)
        await group_send_all(own, "room", 3)
        assert await received(own, channel, 1) == [3]

    @in_loop
    async def test_together(self, site: Any, layer: Make) -> None:
        """Tasks that add and discard at the same time leave what the last of each has asked for."""
        own = layer()
        channels = [await own.new_channel() for _ in range(20)]

        async def come_and_go(number: int) -> None:
            for _ in range(5):
                await own.group_add("room", channels[number])
                await own.group_discard("room", channels[number])
            if number % 2:
                await own.group_add("room", channels[number])

        await asyncio.gather(*(come_and_go(number) for number in range(20)))
        await group_send_all(own, "room", "hi")
        for number, channel in enumerate(channels):
            if number % 2:
                assert await received(own, channel, 1) == ["hi"]
        assert await comes_nothing(own, channels[0])
        for channel in channels:
            await own.group_discard("room", channel)
        assert own._node()._groups.names() == []

    @in_loop
    async def test_many(self, site: Any, layer: Make) -> None:
        """A channel in many groups, and a group of many channels."""
        own = layer(capacity=500)
        channels = [await own.new_channel() for _ in range(300)]
        for number, channel in enumerate(channels):
            await own.group_add("all", channel)
            await own.group_add(f"group-{number}", channels[0])
        for number in range(300):
            await group_send_all(own, f"group-{number}", number)
        assert await received(own, channels[0], 300) == list(range(300))
        await group_send_all(own, "all", "hi")
        for channel in channels:
            assert await received(own, channel, 1) == ["hi"]

    @in_loop
    async def test_without_members(self, site: Any, layer: Make) -> None:
        """Nobody gets it, and nobody minds."""
        await group_send_all(layer(), "nobody", 1)

    @in_loop
    async def test_sender_that_does_not_pause(self, site: Any, layer: Make) -> None:
        """Channels of its own loop lose nothing, also when a message takes several turns."""
        own = layer(capacity=20)
        channels = [await own.new_channel() for _ in range(10)]
        for channel in channels:
            await own.group_add("room", channel)
        got: dict[str, list[int]] = {channel: [] for channel in channels}

        async def consume(channel: str) -> None:
            while len(got[channel]) < 200:
                # As Channels does: in a task of its own.
                task = asyncio.ensure_future(own.receive(channel))
                await asyncio.wait([task])
                await asyncio.sleep(0)
                got[channel].append(task.result()["text"])

        tasks = [asyncio.ensure_future(consume(channel)) for channel in channels]
        await asyncio.sleep(0)
        await group_send_all(own, "room", *range(200))
        await asyncio.gather(*tasks)
        assert list(got.values()) == [list(range(200))] * 10

    @in_loop
    async def test_sender_that_is_a_member(self, site: Any, layer: Make) -> None:
        """What one task sends to a group and to a channel of it comes in that order."""
        own = layer()
        channel = await own.new_channel()
        await own.group_add("room", channel)
        for number in range(0, 20, 2):
            await group_send_all(own, "room", number)
            await send_all(own, channel, number + 1)
        assert await received(own, channel, 20) == list(range(20))


class TestFlush:
    """Everything is gone."""

    @in_loop
    async def test_messages_and_groups(self, site: Any, layer: Make) -> None:
        """Of this layer and of others. Then all goes on."""
        own, another = layer(), layer()
        channels = [await each.new_channel() for each in (own, another)]
        for each, channel in zip((own, another), channels, strict=True):
            await each.group_add("room", channel)
            await send_all(each, channel, "before")
            await send_all(each, "normal", "before")
        await own.flush()
        await group_send_all(own, "room", "after")
        for each, channel in zip((own, another), channels, strict=True):
            assert await comes_nothing(each, channel)
            assert await comes_nothing(each, "normal")
            await each.group_add("room", channel)
        await group_send_all(own, "room", "again")
        for each, channel in zip((own, another), channels, strict=True):
            assert await received(each, channel, 1) == ["again"]

    @in_loop
    async def test_receivers_go_on(self, site: Any, layer: Make) -> None:
        """A task that waits gets what comes later."""
        own = layer()
        channel = await own.new_channel()
        task = asyncio.ensure_future(received(own, channel, 1))
        await asyncio.sleep(0)
        await own.flush()
        await send_all(own, channel, "after")
        assert await task == ["after"]


class TestTwoLayers:
    """Two of one process are as those of two processes."""

    @in_loop
    async def test_channel(self, site: Any, layer: Make) -> None:
        """One sends to a channel of the other."""
        own, another = layer(), layer()
        channel = await own.new_channel()
        await send_all(another, channel, *range(50))
        assert await received(own, channel, 50) == list(range(50))

    @in_loop
    async def test_group(self, site: Any, layer: Make) -> None:
        """Both have members, a third one sends."""
        layers = [layer(), layer()]
        channels = [await each.new_channel() for each in layers]
        for each, channel in zip(layers, channels, strict=True):
            await each.group_add("room", channel)
        await group_send_all(layer(), "room", *range(20))
        for each, channel in zip(layers, channels, strict=True):
            assert await received(each, channel, 20) == list(range(20))

    @in_loop
    async def test_channel_of_the_other_joins(self, site: Any, layer: Make) -> None:
        """By whoever knows its name."""
        own, another = layer(), layer()
        channel = await own.new_channel()
        await another.group_add("room", channel)
        await group_send_all(own, "room", 1)
        assert await received(own, channel, 1) == [1]
        await another.group_discard("room", channel)
        await group_send_all(own, "room", 2)
        assert await comes_nothing(own, channel)

    @pytest.mark.parametrize("is_first", [True, False])
    @in_loop
    async def test_normal_channel(self, site: Any, layer: Make, *, is_first: bool) -> None:
        """Whether one waits before the other sends, or comes later."""
        own, another = layer(), layer()
        if is_first:
            task = asyncio.ensure_future(received(own, "work", 20))
            await asyncio.sleep(0.05)
            await send_all(another, "work", *range(20))
        else:
            await send_all(another, "work", *range(20))
            task = asyncio.ensure_future(received(own, "work", 20))
        assert await task == list(range(20))

    @in_loop
    async def test_normal_channel_with_several_receivers(self, site: Any, layer: Make) -> None:
        """Each message comes once, whoever receives it and however often that is cancelled."""
        senders, receivers = [layer(capacity=1000) for _ in range(2)], [layer() for _ in range(3)]
        got: list[int] = []
        is_complete = asyncio.Event()

        async def receive(each: ChannelLayer) -> None:
            while True:
                task = asyncio.ensure_future(received(each, "work", 1))
                done, _ = await asyncio.wait([task], timeout=random.random() / 50)
                if not done:
                    task.cancel()
                (outcome,) = await asyncio.gather(task, return_exceptions=True)
                if not isinstance(outcome, BaseException):
                    got.extend(outcome)
                if len(got) == 100:
                    is_complete.set()

        tasks = [asyncio.ensure_future(receive(each)) for each in receivers]
        for number in range(100):
            await send_all(senders[number % 2], "work", number)
        await is_complete.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(got) == list(range(100))

    @in_loop
    async def test_normal_channel_in_a_group(self, site: Any, layer: Make) -> None:
        """Any process receives what a group's message has brought, now or later."""
        own, another = layer(), layer()
        await own.group_add("room", "work")
        await group_send_all(own, "room", 1)
        assert await received(another, "work", 1) == [1]
        task = asyncio.ensure_future(received(another, "work", 1))
        await asyncio.sleep(0.01)
        await group_send_all(layer(), "room", 2)
        assert await task == [2]

    @in_loop
    async def test_other_prefix(self, site: Any, layer: Make) -> None:
        """Backends with another PREFIX have other channels and groups of the same names."""
        own, apart = layer(), layer(using="apart")
        channels = [await each.new_channel() for each in (own, apart)]
        for each, channel in zip((own, apart), channels, strict=True):
            await each.group_add("room", channel)
            await each.group_add("room", "work")
        await group_send_all(own, "room", "own")
        await group_send_all(apart, "room", "apart")
        for each, channel, text in zip((own, apart), channels, ("own", "apart"), strict=True):
            for name in (channel, "work"):
                assert await received(each, name, 1) == [text]
                assert await comes_nothing(each, name)

    @in_loop
    async def test_normal_channel_that_both_add(self, site: Any, layer: Make) -> None:
        """It is in the group once."""
        own, another = layer(), layer()
        for each in (own, another):
            await each.group_add("room", "work")
            # The other one has to hear of it.
            await asyncio.sleep(5 * NOTHING_S)
        await group_send_all(own, "room", "hi")
        assert await received(own, "work", 1) == ["hi"]
        assert await comes_nothing(own, "work")


class TestLoops:
    """A layer belongs to no event loop."""

    def test_one_after_the_other(self, site: Any, layer: Make) -> None:
        """As `async_to_sync` makes them in code that has none."""
        own, another = layer(), layer()
        channels = [async_to_sync(own.new_channel)() for _ in range(2)]
        async_to_sync(own.group_add)("room", channels[0])
        async_to_sync(send_all)(another, channels[1], 1, 2)
        async_to_sync(group_send_all)(another, "room", 3, 4)
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(received(own, channels[1], 2)) == [1, 2]
        loop.close()
        assert async_to_sync(received)(own, channels[0], 2) == [3, 4]

    def test_groups_without_members(self, site: Any, layer: Make) -> None:
        """Each call has a loop of its own; none is kept, but perhaps the last one."""
        own = layer()
        loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

        async def send(group: str) -> None:
            loops.append(weakref.ref(asyncio.get_running_loop()))
            await group_send_all(own, group, "hi")
            assert await comes_nothing(own, await own.new_channel())

        for number in range(3):
            asyncio.run(send(f"group-{number}"))
        gc.collect()
        assert [loop() for loop in loops[:-1]] == [None] * 2

    def test_one_loop_receives(self, site: Any, layer: Make) -> None:
        """What is sent from loops of a moment comes to one that does not run meanwhile."""
        own = layer()
        loop = asyncio.new_event_loop()
        channel = loop.run_until_complete(own.new_channel())
        send = async_to_sync(own.send)
        for number in range(3):
            send(channel, {"type": "test.message", "text": number})
        assert loop.run_until_complete(received(own, channel, 3)) == [0, 1, 2]
        loop.close()

    def test_at_the_same_time(self, site: Any, layer: Make) -> None:
        """Threads with loops of their own, which send to each other."""
        own = layer(capacity=1000)
        channels = [async_to_sync(own.new_channel)() for _ in range(4)]
        found: list[list[int]] = []

        async def talk(number: int) -> list[int]:
            task = asyncio.ensure_future(received(own, channels[number], 150))
            for each in channels:
                if each != channels[number]:
                    await send_all(own, each, *range(50))
            return await asyncio.wait_for(task, 60)

        def run(number: int) -> None:
            found.append(asyncio.run(talk(number)))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [sorted(each) for each in found] == [sorted([*range(50)] * 3)] * 4

    def test_first_use_by_several(self, site: Any, layer: Make) -> None:
        """Threads that use a new layer at the same moment: each message comes once."""
        for _ in range(5):
            own, another = layer(), layer()
            start = threading.Barrier(4)
            channels: list[str] = []

            def begin(own: ChannelLayer = own, start: threading.Barrier = start) -> None:
                start.wait(20)
                channels.append(async_to_sync(own.new_channel)())  # noqa: B023

            threads = [threading.Thread(target=begin) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            async_to_sync(send_all)(another, channels[0], 1, 2)
            assert async_to_sync(received)(own, channels[0], 2) == [1, 2]
            assert async_to_sync(comes_nothing)(own, channels[0])

    def test_one_channel_in_two_loops(self, site: Any, layer: Make) -> None:
        """A loop that has ended takes nothing with it."""
        own = layer()
        channel = async_to_sync(own.new_channel)()

        async def give_up() -> None:
            assert await comes_nothing(own, channel)

        asyncio.run(give_up())
        asyncio.run(send_all(own, channel, "hi"))
        assert asyncio.run(received(own, channel, 1)) == ["hi"]
