"""``dwebsocket.channels.ChannelLayer``: what Channels calls."""

from __future__ import annotations

import base64
import itertools
import json
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from django.core.exceptions import ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder

from dwebsocket.api.arguments import apart
from dwebsocket.channels import names
from dwebsocket.channels.node import Node
from dwebsocket.channels.store import Store
from dwebsocket.compat import unpatched
from dwebsocket.compat.channels import BaseChannelLayer
from dwebsocket.compat.msgpack import pack, unpack
from dwebsocket.compat.system import at_fork
from dwebsocket.conf import channel_settings
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.exceptions import UsageError
from dwebsocket.groups import backends
from dwebsocket.groups.names import checked

if TYPE_CHECKING:
    from collections.abc import Mapping

Message = dict[str, Any]


class ChannelLayer(BaseChannelLayer):  # type: ignore[misc]
    """
    A channel layer on a backend of groups, with the extensions ``groups`` and ``flush``.

    Any thread and any event loop may use it, several at once, and a forked child.

    Attributes:
        using: The alias in ``WEBSOCKET_GROUPS``.
        bridge: Whether groups are also those of ``dwebsocket.group()``.
        expiry: The seconds that a message may wait in a channel.
        group_expiry: The seconds after which a channel leaves a group, if it is not added again.
        capacity: How many messages may wait in a channel.
    """

    extensions = ("groups", "flush")

    def __init__(
        self,
        using: str = DEFAULT,
        *,
        bridge: bool = False,
        expiry: float = 60,
        group_expiry: float = 86400,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        **unknown: object,
    ) -> None:
        """
        Takes ``CONFIG``. Opens nothing: that is for the first call.

        Args:
            channel_capacity: Other capacities by the names of channels, as patterns of
                :mod:`fnmatch` or compiled regular expressions; the first that fits is used.

        Raises:
            ImproperlyConfigured: A key or a value that it cannot use.
        """
        config: dict[str, object] = {"using": using, "bridge": bridge, "expiry": expiry}
        config.update(group_expiry=group_expiry, capacity=capacity)
        config.update(channel_capacity=channel_capacity, **unknown)
        for where, what, hint in channel_settings.problems(config):
            text = f"CONFIG{where} in CHANNEL_LAYERS {what}. {hint}"
            raise ImproperlyConfigured(text.rstrip())
        super().__init__(expiry, capacity, self.compile_capacities(channel_capacity or {}))
        self.using = using
        self.bridge = bridge
        self.group_expiry = group_expiry
        self._lock = unpatched.lock()
        self._current: Node | None = None
        self._numbers = itertools.count(1)
        _layers.add(self)

    async def send(self, channel: str, message: Message) -> None:
        """
        Sends a message to a channel. Never waits for a receiver.

        Raises:
            ChannelFull: The channel is one of this process, or a normal one, and has no room. One
                of another process drops the message then, and counts it.
            GroupUnavailable: The backend cannot take it.
            TypeError: No name of a channel, or a message that is no dict or cannot be encoded.
            ValueError: A value in it that is too large, or nested too deeply.
        """
        self.require_valid_channel_name(channel)
        await self._node().send(channel, _packed(message))

    async def receive(self, channel: str) -> Message:
        """
        Returns the next message of a channel, waiting for it.

        Several tasks may wait for one channel: each message goes to one of them. A task that is
        cancelled takes none.

        Raises:
            GroupUnavailable: The backend cannot be reached when the layer is first used.
            TypeError: No name of a channel.
            UsageError: A channel of another process.
        """
        node = self._current
        # This runs for each delivery: a channel that is in use was checked before.
        if node is None or not node.is_own(channel):
            self.require_valid_channel_name(channel)
            node = self._node()
            owner = names.node_of(channel)
            if owner not in (None, node.id):
                raise UsageError(f"the channel {channel!r} belongs to another process")
            await node.start()
        if "!" in channel:
            message: Message = unpack(await node.store.receive(channel))
        else:
            message = unpack(await node.receive_normal(channel))
        return message

    async def new_channel(self, prefix: str = "specific") -> str:
        """
        Returns the name of a new channel of this process.

        Raises:
            GroupUnavailable: The backend cannot be reached when the layer is first used.
            TypeError: A prefix that a name cannot have.
        """
        node = self._node()
        name = f"{prefix}.{node.id}!{next(self._numbers):x}"
        self.require_valid_channel_name(name)
        await node.start()
        return name

    def end_channel(self, channel: str) -> None:
        """
        Forgets a channel of this process that is received from no more: it leaves its groups.

        Without this it stays in them for ``group_expiry``, as with other layers. Called for
        consumers behind connections of ours. Any thread may call it.
        """
        if (node := self._current) is not None:
            node.end_channel(channel)

    async def group_add(self, group: str, channel: str) -> None:
        """
        Adds a channel to a group, or renews its place there for ``group_expiry``.

        A message that is sent to the group after this has returned reaches the channel.

        Raises:
            GroupUnavailable: The backend cannot be reached.
            TypeError: No name of a group or of a channel.
            ValueError: With ``bridge``, a name that is reserved.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._node().group_add(self._bridged(group), channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """
        Takes a channel out of a group, if it is there.

        Raises:
            GroupUnavailable, TypeError, ValueError: As :meth:`group_add`.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._node().group_discard(self._bridged(group), channel)

    async def group_send(self, group: str, message: Message) -> None:
        """
        Sends a message to all channels of a group, in all processes. Never waits for a receiver.

        Channels that are full drop it, and count it.

        Raises:
            GroupUnavailable: The backend cannot take it.
            TypeError: As :meth:`send`.
            ValueError: As :meth:`send` and :meth:`group_add`.
        """
        self.require_valid_group_name(group)
        packed = _packed(message)
        text = apart(json.dumps(message, cls=_Encoder)) if self.bridge else None
        await self._node().group_send(self._bridged(group), packed, text)

    async def flush(self) -> None:
        """
        Empties all channels and groups of all processes.

        Raises:
            GroupUnavailable: The backend cannot be reached, or a process does not answer.
        """
        await self._node().flush()

    async def close(self) -> None:
        """Leaves the backend, and drops what waits here. The next call begins anew."""
        with self._lock:
            node, self._current = self._current, None
        if node is not None:
            node.stop()

    def _node(self) -> Node:
        backend = backends.backend(self.using)
        node = self._current
        if node is None or node.backend is not backend:
            with self._lock:
                before = node = self._current
                if node is None or node.backend is not backend:
                    store = Store(self.expiry, self.group_expiry, self.get_capacity)
                    node = self._current = Node(backend, store, is_bridge=self.bridge)
            # A test has other groups than the one before it.
            if before is not None and before is not node:
                before.stop()
        return node

    def _bridged(self, group: str) -> str:
        return checked(group) if self.bridge else group


class _Encoder(DjangoJSONEncoder):
    """Bytes as base64: JSON has none."""

    def default(self, value: Any) -> Any:
        """Returns what JSON can represent."""
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return super().default(value)


def _packed(message: Any) -> bytes:
    if not isinstance(message, dict):
        raise TypeError(f"a message must be a dict, not {type(message).__name__}")
    return pack(message)


_layers: WeakSet[ChannelLayer] = WeakSet()
_parents: list[Node | None] = []


def _forget_parents_nodes() -> None:
    for layer in _layers:
        layer._lock = unpatched.lock()
        # Not freed: threads that are not there may hold locks of the engine's parts.
        _parents.append(layer._current)
        layer._current = None


at_fork(_forget_parents_nodes)
