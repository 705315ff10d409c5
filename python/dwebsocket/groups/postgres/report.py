"""What is told about the connection that listens: each event once, in the log."""

from __future__ import annotations

import logging
from typing import Literal

_log = logging.getLogger("dwebsocket")

Kind = Literal["lost", "regained", "interrupted", "unreadable"]

_MOST_NAMES = 20


def report(kind: Kind, alias: str, address: str, texts: list[str]) -> None:
    """
    Logs an event.

    Args:
        kind: ``lost`` and ``regained``: the server; ``interrupted``: groups, whose members may
            have missed messages; ``unreadable``: the row of a long message.
        alias: The backend's.
        address: The server's, without a password.
        texts: The reason for ``lost`` and ``unreadable``, the groups' names for ``interrupted``.
    """
    extra = {"event": f"groups.{kind}"}
    if kind == "lost":
        reason = " ".join(texts)
        _log.warning("Groups of %r lost PostgreSQL at %s: %s", alias, address, reason, extra=extra)
    elif kind == "regained":
        _log.warning("Groups of %r have PostgreSQL at %s again.", alias, address, extra=extra)
    elif kind == "unreadable":
        reason = " ".join(texts)
        _log.error(
            "A long message to a group of %r could not be read from the table at %s: %s",
            *(alias, address, reason),
            extra=extra,
        )
    else:
        names = ", ".join(map(repr, texts[:_MOST_NAMES]))
        more = f" and {len(texts) - _MOST_NAMES} more" if len(texts) > _MOST_NAMES else ""
        _log.warning(
            "Members of these groups of %r may have missed messages: %s%s",
            *(alias, names, more),
            extra=extra,
        )
