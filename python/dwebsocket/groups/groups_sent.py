"""``groups_sent`` of the test kit: what is published while a test records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwebsocket.groups.members import Excluded
    from dwebsocket.groups.membership_signals import Named

    Message = str | bytes


@dataclass(frozen=True)
class Publication:
    """
    One call of ``group(…).send`` or its twins.

    Attributes:
        group: The :class:`dwebsocket.Group`.
        message: The message, JSON as its text.
        exclude: The argument.
        on_commit: The argument.
    """

    group: Named
    message: Message
    exclude: Excluded
    on_commit: bool | str


#: The list to which publications are added, None where they are not recorded.
recorded: list[Publication] | None = None


def note(group: Named, message: Message, exclude: Excluded, *, on_commit: bool | str) -> None:
    """Records a publication, if that is wanted."""
    if recorded is not None:
        recorded.append(Publication(group, message, exclude, on_commit))
