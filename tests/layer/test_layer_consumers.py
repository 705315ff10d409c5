"""Channels' own consumers and test helpers on our layer: `layer_consumers.py`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from layer_sites import CROSSING, EVERY, in_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from layer_others import Other

    from dwebsocket.channels import ChannelLayer

pytestmark = pytest.mark.extended("many processes come and go")

WORKER = Path(__file__).with_name("layer_worker.py")
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


@pytest.fixture
def worker(settings_of_others: Callable[..., dict[str, Any]]) -> Iterator[None]:
    """`manage.py runworker doubling halving`."""
    settings = {
        **settings_of_others(),
        "INSTALLED_APPS": ["channels"],
        "ASGI_APPLICATION": "layer_worker.application",
    }
    process = subprocess.Popen([sys.executable, str(WORKER), json.dumps(settings)])
    yield
    process.kill()
    process.wait(60)


@pytest.mark.parametrize("site", CROSSING, indirect=True)
@in_loop
async def test_runworker(site: Any, layer: Callable[..., ChannelLayer], worker: None) -> None:
    """Channels' command gives messages of normal channels to its consumers, async and sync."""
    own = layer()
    channel = await own.new_channel()
    for number in range(5):
        for name, kind in (("doubling", "double"), ("halving", "halve")):
            await own.send(name, {"type": kind, "number": number, "to": channel})
    got = [await own.receive(channel) for _ in range(10)]
    for kind, numbers in (("doubled", [0, 2, 4, 6, 8]), ("halved", [0, 0, 1, 1, 2])):
        assert sorted(each["number"] for each in got if each["type"] == kind) == numbers
