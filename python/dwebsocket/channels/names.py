"""The names of channels, and of the groups by which processes reach each other's channels."""

from __future__ import annotations

from dwebsocket.groups import names

_OWN = f"{names.OWN}channels"
#: The group of all processes with channels.
EVERYONE = f"{_OWN}.all"


def inbox(node: str) -> str:
    """Returns the group whose only member is the process with the id ``node``."""
    return f"{_OWN}.inbox.{node}"


def group(name: str) -> str:
    """Returns the group of the processes that have channels in a group of Channels'."""
    return f"{_OWN}.group.{name}"


def meeting(channel: str) -> str:
    """Returns the group of the processes that send to a normal channel, or receive from it."""
    return f"{_OWN}.channel.{channel}"


def node_of(channel: str) -> str | None:
    """Returns the id of the process that receives from a channel; None for a normal channel."""
    head, mark, _ = channel.partition("!")
    return head.rpartition(".")[2] if mark else None
