"""Channels' own consumers and test helpers on our layer: `layer_consumers.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from layer_sites import CROSSING, EVERY, in_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from layer_others import Other

    from dwebsocket.channels import ChannelLayer

EVERYWHERE = pytest.mark.parametrize("site", EVERY, indirect=True)


@EVERYWHERE
@pytest.mark.parametrize("kinds", [["async", "async"], ["sync", "sync"], ["async", "sync"]])
def test_group_chat(site: Any, other: Callable[..., Other], kinds: list[str]) -> None:
    """What one client says, all get."""
    other()("play", "group_chat", *kinds)


@EVERYWHERE
def test_message_from_outside(site: Any, other: Callable[..., Other]) -> None:
    """From a view or a task, by `get_channel_layer()`."""
    other()("play", "from_outside", "async", "sync")


@EVERYWHERE
def test_bridge(site: Any, other: Callable[..., Other]) -> None:
    """`group(…)` reaches consumers, text and bytes."""
    other(bridge=True)("play", "from_a_group", "async", "sync")


@pytest.mark.parametrize("site", CROSSING, indirect=True)
@in_loop
async def test_message_from_another_process(
    site: Any, layer: Callable[..., ChannelLayer], other: Callable[..., Other]
) -> None:
    """As from a worker that serves no consumer."""
    own, process = layer(), other()
    ready = await own.new_channel()
    play = process.begin("play", "from_elsewhere", ready, "async", "sync")
    assert await own.receive(ready) == {"type": "ready"}
    for number in range(20):
        await own.group_send("chat", {"type": "chat.message", "message": number})
    await asyncio.to_thread(process.finish, play)
