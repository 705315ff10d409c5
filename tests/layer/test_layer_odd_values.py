"""Values and types that nobody expects: from clients by way of consumers, and from processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from layer_sites import in_loop

from dwebsocket.channels import ChannelLayer, names
from dwebsocket.compat.msgpack import pack
from dwebsocket.groups import backends

sys.path.append(str(Path(__file__).resolve().parent.parent / "groups"))

from memory_backend import Switchboard

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def layer() -> Iterator[ChannelLayer]:
    """Make a layer on a backend that others may reach, too."""
    with backends.replaced(Switchboard().make):
        yield ChannelLayer()


async def is_well(layer: ChannelLayer, group: str, channel: str) -> bool:
    """Whether the channel gets the group's next message, and nothing before it."""
    await layer.group_send(group, {"type": "still.here"})
    return await layer.receive(channel) == {"type": "still.here"}


def nested(depth: int) -> Any:
    """Give a list in a list, and so on."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    [
        *(nested(100), nested(600), 2**63, 2**64, -(2**70), float("inf"), 7),
        *("\ud800", "\0", "", {}, {"": None}, ["chat.message"], "websocket.disconnect"),
    ],
    ids=lambda value: str(value)[:10],
)
@in_loop
async def test_values_in_messages(layer: ChannelLayer, value: Any) -> None:
    """What JSON can have arrives as it was sent, or is an error of the sender alone."""
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for message in ({"type": "chat", "value": value}, {"type": value}):
        try:
            await layer.group_send("room", message)
        except ValueError:
            assert await is_well(layer, "room", channel)
        else:
            assert await layer.receive(channel) == message


@pytest.mark.parametrize("name", [None, 7, b"room", "", "a b", "x" * 200, ["room"], "a:b"])
@in_loop
async def test_names_of_other_types(layer: ChannelLayer, name: Any) -> None:
    """They are a TypeError."""
    channel = await layer.new_channel()
    for call in (
        lambda: layer.group_add(name, channel),
        lambda: layer.group_send(name, {"type": "chat"}),
        lambda: layer.send(name, {"type": "chat"}),
        lambda: layer.receive(name),
    ):
        with pytest.raises(TypeError):
            await call()


WORDS = ("send", "have", "ends", "want", "give", "add", "discard", "elsewhere", "flush", "done")
FRAMES = [
    *([word, time.time(), *arguments] for word in WORDS for arguments in ([], [None], [None] * 4)),
    *([word, "now"] for word in WORDS),
    ["send", time.time(), "specific.x!1", "text"],
    ["give", time.time(), "normal", "soon", b""],
    ["want", time.time(), "normal", "node", "all"],
    [["send"], time.time()],
    {"send": 1},
    7,
]


@in_loop
async def test_frames_of_other_types(layer: ChannelLayer, caplog: pytest.LogCaptureFixture) -> None:
    """A process of another version says something else: nothing is done for it, and logged."""
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    node = layer._node()
    frames = [*map(pack, FRAMES), b"", b"\xc1", b"\x81\x90\x01", b"\x91" * 2000]
    for frame in frames:
        node._take(frame)
    node._take("text")
    assert await is_well(layer, "room", channel)
    assert all("of another version" in text for text in caplog.messages)
    assert len(caplog.messages) == len(frames) + 1


@pytest.mark.parametrize(("age_s", "is_taken"), [(0, True), (301, False), (-301, False)])
@pytest.mark.parametrize("word", ["discard", "elsewhere", "flush"])
@in_loop
async def test_changes_that_come_again(
    layer: ChannelLayer, word: str, age_s: int, is_taken: bool
) -> None:
    """Another user of the server may send them again: after five minutes they count no more."""
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    node = layer._node()
    more = {"discard": ["room", channel, "node", 1], "elsewhere": ["room", channel]}
    frame = [word, time.time() - age_s, *more.get(word, ["node", 1])]
    await node.backend.asend(names.EVERYONE, pack(frame), [])
    # Frames are taken in their order.
    other = await layer.new_channel()
    frame = ["send", time.time(), other, pack({"type": "behind"})]
    await node.backend.asend(names.EVERYONE, pack(frame), [])
    await layer.receive(other)
    assert node.store.has_members("room") is not is_taken
