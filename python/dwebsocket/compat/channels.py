"""
Channels: the base class of channel layers, with the rules for their names, and their exception.

Versions 4.2.1 to 4.3.
"""

from __future__ import annotations

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

__all__ = ["BaseChannelLayer", "ChannelFull"]
