"""Channel layers on several Redis servers, on one that sentinels name, and on a cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from channels.exceptions import ChannelFull
from layer_sites import SEVERAL, in_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.channels import ChannelLayer

    Make = Callable[..., ChannelLayer]

pytestmark = pytest.mark.parametrize("site", SEVERAL, indirect=True)


def message(number: int) -> dict[str, Any]:
    """Give a message."""
    return {"type": "test.message", "number": number}


async def received(layer: ChannelLayer, channel: str, count: int) -> list[int]:
    """Give the numbers of the next messages."""
    return [(await layer.receive(channel))["number"] for _ in range(count)]


@in_loop
async def test_channels(site: Any, layer: Make) -> None:
    """Normal ones and those of a process, from either side, in order and up to their capacity."""
    own, another = layer(capacity=3), layer(capacity=3)
    for sender in (own, another):
        channel = await own.new_channel()
        for number in range(3):
            await sender.send(channel, message(number))
        assert await received(own, channel, 3) == [0, 1, 2]
    for number in range(10):
        # Of ten names each server has some.
        channel = f"work-{number}"
        waiting = asyncio.ensure_future(received(own, channel, 3))
        for other in range(3):
            await another.send(channel, message(other))
        assert await waiting == [0, 1, 2]
    for number in range(3):
        await own.send("full", message(number))
    with pytest.raises(ChannelFull):
        await own.send("full", message(3))


@pytest.mark.parametrize("count", [1, 10, 100])
@in_loop
async def test_groups(site: Any, layer: Make, count: int) -> None:
    """Those that were discarded get nothing, all others of both layers get everything."""
    layers = [layer(), layer()]
    members = [(layers[number % 2], f"member-{number}") for number in range(count)]
    channels = [(each, await each.new_channel(prefix)) for each, prefix in members]
    left = await layers[0].new_channel("left")
    groups = [f"group-{number}" for number in range(5)]
    for group in groups:
        await layers[1].group_add(group, left)
        for each, channel in channels:
            await each.group_add(group, channel)
        await layers[0].group_discard(group, left)
    for number, group in enumerate(groups):
        await layers[0].group_send(group, message(number))
    for each, channel in channels:
        # Between groups there is no order.
        assert sorted(await received(each, channel, 5)) == [0, 1, 2, 3, 4]
    await layers[0].send(left, message(7))
    assert await received(layers[0], left, 1) == [7]


@in_loop
async def test_flush(site: Any, layer: Make) -> None:
    """Everything is gone, on all servers."""
    own, another = layer(), layer()
    channels = [await each.new_channel() for each in (own, another)]
    for each, channel in zip((own, another), channels, strict=True):
        await each.group_add("room", channel)
        await each.send(channel, message(1))
    await own.flush()
    await own.group_send("room", message(2))
    for each, channel in zip((own, another), channels, strict=True):
        await each.send(channel, message(3))
        assert await received(each, channel, 1) == [3]
