"""`bridge`: the groups of Channels and those of `dwebsocket.group()` are one."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from layer_sites import CROSSING, EVERY, in_loop

from dwebsocket import group

if TYPE_CHECKING:
    from collections.abc import Callable

    from layer_others import Other

    from dwebsocket.channels import ChannelLayer

    Make = Callable[..., ChannelLayer]
    Open = Callable[..., Any]

EVERYWHERE = pytest.mark.parametrize("site", EVERY, indirect=True)


@EVERYWHERE
def test_websockets_get_what_is_sent_to_channels(
    site: Any, layer: Make, open_websocket: Open
) -> None:
    """As JSON: text, and bytes as base64. Channels get the message itself, once."""
    own = layer(bridge=True)
    live = open_websocket()
    live.websocket.join("room")
    channel = async_to_sync(own.new_channel)()
    async_to_sync(own.group_add)("room", channel)
    message = {"type": "chat.message", "text": "hé", "bytes": b"\xff\x00", "list": [1, None]}
    async_to_sync(own.group_send)("room", message)
    async_to_sync(own.send)(channel, {"type": "last"})
    assert json.loads(live.client.receive()) == {**message, "bytes": "/wA="}
    assert async_to_sync(own.receive)(channel) == message
    assert async_to_sync(own.receive)(channel) == {"type": "last"}


@EVERYWHERE
def test_channels_get_what_is_sent_to_websockets(
    site: Any, layer: Make, open_websocket: Open
) -> None:
    """As a message to `group_message`, once in each layer; WebSockets get it as it is."""
    layers = [layer(bridge=True), layer(bridge=True)]
    live = open_websocket()
    live.websocket.join("room")
    channels = [async_to_sync(each.new_channel)() for each in layers]
    for each, channel in zip(layers, channels, strict=True):
        async_to_sync(each.group_add)("room", channel)
    for message in ("hi", b"\xff"):
        group("room").send(message)
        assert live.client.receive() == message
    for each, channel in zip(layers, channels, strict=True):
        receive = async_to_sync(each.receive)
        assert receive(channel) == {"type": "group.message", "text": "hi"}
        assert receive(channel) == {"type": "group.message", "bytes": b"\xff"}


@EVERYWHERE
@in_loop
async def test_closed_websockets(site: Any, layer: Make, caplog: pytest.LogCaptureFixture) -> None:
    """`group().close()` closes WebSockets; channels stay in the group."""
    own = layer(bridge=True)
    channel = await own.new_channel()
    await own.group_add("room", channel)
    for _ in range(2):
        await group("room").aclose(4000, "bye")
        await group("room").asend("hi")
        assert (await own.receive(channel))["text"] == "hi"
    assert [each for each in caplog.records if each.levelno > logging.INFO] == []


@EVERYWHERE
@in_loop
async def test_without_it(site: Any, layer: Make, open_websocket: Open) -> None:
    """Groups of one name have nothing to do with each other."""
    own = layer()
    live = open_websocket()
    await live.websocket.ajoin("room")
    channel = await own.new_channel()
    await own.group_add("room", channel)
    await own.group_send("room", {"type": "to channels"})
    await group("room").asend("to WebSockets")
    assert live.client.receive() == "to WebSockets"
    assert await own.receive(channel) == {"type": "to channels"}
    await own.send(channel, {"type": "last"})
    assert await own.receive(channel) == {"type": "last"}


@EVERYWHERE
@in_loop
async def test_reserved_names(site: Any, layer: Make) -> None:
    """Groups of this package's own are not reached."""
    own = layer(bridge=True)
    channel = await own.new_channel()
    for call in (own.group_add, own.group_discard):
        with pytest.raises(ValueError, match="reserved"):
            await call("dwebsocket.channels.all", channel)
    with pytest.raises(ValueError, match="reserved"):
        await own.group_send("dwebsocket.channels.all", {"type": "x"})


@pytest.mark.parametrize("site", CROSSING, indirect=True)
class TestProcesses:
    """Across processes."""

    def test_both_ways(
        self, site: Any, layer: Make, open_websocket: Open, other: Callable[..., Other]
    ) -> None:
        """A consumer there, a WebSocket here."""
        process = other(bridge=True)
        live = open_websocket()
        async_to_sync(live.websocket.ajoin)("room")
        (theirs,) = process("channels_in", "room", 1)
        async_to_sync(group("room").asend)("from a view")
        assert live.client.receive() == "from a view"
        assert process("receive", theirs) == {"type": "group.message", "text": "from a view"}
        process("group_send", "room", {"type": "chat.message", "n": 1})
        assert json.loads(live.client.receive()) == {"type": "chat.message", "n": 1}
        assert process("receive", theirs) == {"type": "chat.message", "n": 1}
