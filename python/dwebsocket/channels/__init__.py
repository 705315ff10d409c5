"""A channel layer for Channels, on the backends of groups: ``docs/channels-layer.md``."""

from __future__ import annotations

from dwebsocket.channels.layer import ChannelLayer

__all__ = ["ChannelLayer"]
