"""Channel layers of several processes."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from layer_sites import CROSSING, TIMEOUT, in_loop

from dwebsocket.channels import ChannelLayer
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from layer_others import Other

    Make = Callable[..., ChannelLayer]
    Start = Callable[..., Other]

pytestmark = [
    pytest.mark.parametrize("site", CROSSING, indirect=True),
    pytest.mark.extended("many processes come and go"),
]


def message(number: int) -> dict[str, Any]:
    """Give a message."""
    return {"type": "test.message", "number": number, "bytes": b"\xff"}


@in_loop
async def test_channel(site: Any, layer: Make, other: Start) -> None:
    """A message to a channel of another process, and its answer."""
    own, process = layer(), other()
    theirs, ours = await process.acall("new_channel"), await own.new_channel()
    for number in range(50):
        await own.send(theirs, message(number))
        assert await process.acall("receive", theirs) == message(number)
        await process.acall("send", ours, message(number))
        assert await own.receive(ours) == message(number)


@in_loop
async def test_group_crosses_once(site: Any, layer: Make, other: Start) -> None:
    """A group's message goes to each process once, however many channels it has there."""
    own, process = layer(), other()
    theirs = await process.acall("channels_in", "room", 100)
    ours = await own.new_channel()
    await own.group_add("room", ours)
    before = await process.acall("delivered")
    for number in range(10):
        await own.group_send("room", message(number))
    for number in range(10):
        assert await own.receive(ours) == message(number)
        assert await process.acall("receive_all", theirs) == [message(number)] * 100
    assert await process.acall("delivered") - before == 10


@in_loop
async def test_membership_by_another_process(site: Any, layer: Make, other: Start) -> None:
    """A view adds a consumer's channel to a group: it is there when the call returns."""
    own, process = layer(), other()
    ours = await own.new_channel()
    await process.acall("group_add", "room", ours)
    await process.acall("group_send", "room", message(1))
    assert await own.receive(ours) == message(1)
    await process.acall("group_discard", "room", ours)
    await process.acall("group_send", "room", message(2))
    await process.acall("send", ours, message(3))
    assert await own.receive(ours) == message(3)


@in_loop
async def test_full_channel_of_another_process(site: Any, layer: Make, other: Start) -> None:
    """What it has no room for is dropped there, and counted."""
    own, process = layer(), other(capacity=3)
    (theirs,) = await process.acall("channels_in", "room", 1)
    for number in range(3):
        await own.send(theirs, message(number))
    await own.group_send("room", message(3))
    await own.send(theirs, message(4))
    await asyncio.to_thread(
        eventually, lambda: process("events")["full"] == 2, what="both were dropped"
    )
    for number in range(3):
        assert await process.acall("receive", theirs) == message(number)


@in_loop
async def test_normal_channel(site: Any, layer: Make, other: Start) -> None:
    """Each message goes to one of the processes that receive."""
    own, processes = layer(), [other(), other()]
    calls = [[each.begin("receive", "work") for _ in range(10)] for each in processes]
    for number in range(20):
        await own.send("work", message(number))
    got = [
        (await asyncio.to_thread(process.finish, call))["number"]
        for process, those in zip(processes, calls, strict=True)
        for call in those
    ]
    assert sorted(got) == list(range(20))


@in_loop
async def test_sender_that_ends(site: Any, layer: Make, other: Start) -> None:
    """A command sends to a worker that is busy just now, and ends: the worker gets it all."""
    own, process = layer(), other()
    task = asyncio.ensure_future(own.receive("work"))
    await process.acall("send", "work", message(0))
    assert await task == message(0)
    for number in range(1, 6):
        await process.acall("send", "work", message(number))
    await asyncio.to_thread(process.end)
    for number in range(1, 6):
        assert await own.receive("work") == message(number)


@in_loop
async def test_cancelled_receiver(site: Any, layer: Make, other: Start) -> None:
    """What was on its way to a receiver that was cancelled goes to another process."""
    own, process = layer(), other()
    got = []
    for number in range(20):
        call = process.begin("receive", "work")
        await own.send("work", message(number))
        process.begin("cancel", call)
        found = await asyncio.to_thread(process.finish, call)
        got += [found["number"]] if found != "cancelled" else []
    while len(got) < 20:
        got.append((await own.receive("work"))["number"])
    assert sorted(got) == list(range(20))


@in_loop
async def test_flush(site: Any, layer: Make, other: Start) -> None:
    """It has emptied other processes when it returns."""
    own, process = layer(), other()
    (theirs,) = await process.acall("channels_in", "room", 1)
    await process.acall("send", theirs, message(1))
    await own.flush()
    await own.group_send("room", message(2))
    await own.send(theirs, message(3))
    assert await process.acall("receive", theirs) == message(3)


@in_loop
async def test_flush_behind_a_layer_that_was_collected(site: Any, layer: Make) -> None:
    """Other processes do not wait for its answer: it has left, although it was not closed."""
    own, left = layer(), ChannelLayer()
    await left.group_add("room", await left.new_channel())
    weak = weakref.ref(left)
    del left
    gc.collect()
    assert weak() is None
    await own.flush()


LEAVES = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
import layer_process
layer_process.configure()
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

async def use():
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.send(channel, {"type": "hi"})
    await layer.group_send("room", {"type": "hi"})
    waiting = asyncio.ensure_future(layer.receive("work"))
    assert await layer.receive(channel) == {"type": "hi"}

async_to_sync(use)()
"""


def test_layer_that_is_left(site: Any, settings_of_others: Callable[..., Any]) -> None:
    """A process that ends with channels, groups and a receiver writes no warning."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "always", "-c", LEAVES),
            *(json.dumps(settings_of_others()), str(Path(__file__).parent)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@in_loop
async def test_killed_process(site: Any, layer: Make, other: Start) -> None:
    """The others go on, and a flush does not wait for it."""
    own, process, rest = layer(), other(), other()
    (gone,) = await process.acall("channels_in", "room", 1)
    (theirs,) = await rest.acall("channels_in", "room", 1)
    process.kill()
    await own.send(gone, message(1))
    await own.group_send("room", message(2))
    assert await rest.acall("receive", theirs) == message(2)
    await own.flush()


@in_loop
async def test_group_discard_for_a_killed_process(site: Any, layer: Make, other: Start) -> None:
    """It waits once, for a moment; and a process that lives is waited for as ever."""
    own, process, rest = layer(), other(), other()
    gone = await process.acall("channels_in", "room", 20)
    (theirs,) = await rest.acall("channels_in", "room", 1)
    process.kill()
    begun = time.monotonic()
    for channel in gone:
        await own.group_discard("room", channel)
    assert time.monotonic() - begun < TIMEOUT / 2
    await own.group_discard("room", theirs)
    await own.group_add("other", theirs)
    await own.group_send("room", message(1))
    await own.group_send("other", message(2))
    assert await rest.acall("receive", theirs) == message(2)


@in_loop
async def test_forked_child(site: Any, layer: Make, other: Start) -> None:
    """It has channels of its own, and is reached as any other process; its parent goes on."""
    own, process = layer(), other()
    (parents,) = await process.acall("channels_in", "family", 1)
    ours = await own.new_channel()
    call = process.begin("forked", ours)
    hello = await own.receive(ours)
    await own.group_send("family", message(1))
    assert await asyncio.to_thread(process.finish, call) == ({"type": "own"}, message(1))
    assert hello["channel"].split("!")[0] != parents.split("!")[0]
    assert await process.acall("receive", parents) == message(1)
