"""
The tables of groups with a history: the messages that are kept, and how far their numbering is.

The migrations beside this make them, and the triggers that number a message when its transaction
commits, announce it to the processes that listen, and delete what is too much.
"""

from __future__ import annotations

import hmac
import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dwebsocket.groups.backends.postgres import payload, table
from dwebsocket.groups.history import Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from dwebsocket.groups.history import LogRow, Position

    Rows = list[tuple[str | None, ...]]

#: Whether there are the tables.
EXISTS = (
    "SELECT to_regclass('dwebsocket_history') IS NOT NULL "
    "AND to_regclass('dwebsocket_numbering') IS NOT NULL"
)

#: Deletes what is too old. Never waits for another purge.
PURGE = f"""
WITH deleted AS (
    DELETE FROM dwebsocket_history WHERE publication IN (
        {table.expired("dwebsocket_history", "publication", 10000)}
    )
)
DELETE FROM dwebsocket_numbering WHERE group_key IN (
    SELECT group_key FROM dwebsocket_numbering WHERE expires_at < clock_timestamp()
    LIMIT 1000 FOR UPDATE SKIP LOCKED
)
"""  # noqa: S608

# Messages in one answer, and the characters of their contents, about: a MiB.
_PAGE_ROWS = 1000
_PAGE_LENGTH = 1024 * 1024 * 4 // 3
# The largest number of the column, and an age that no message has: the server counts no further.
_LARGEST = 2**63 - 1
_LONGEST_S = 1e9
# For so long after its last use, at least, a group keeps its numbering.
_DAY = "interval '1 day'"


@dataclass(frozen=True)
class Reading:
    """
    The part of a group's log that is to be read.

    Attributes:
        name: The group's.
        after: The position after which it begins; None for all.
        size: The number of newest messages that are wanted at most.
        seconds: Their age.
    """

    name: str
    after: Position | None
    size: int
    seconds: float


def new_epoch() -> int:
    """Returns the epoch of a numbering that may begin now: a number that the column takes."""
    return secrets.randbits(63)


def key_of(name: str, key: bytes) -> str:
    """Returns the name that a group has in the tables: of this project alone."""
    return str(uuid.UUID(bytes=hmac.digest(key, b"history " + name.encode(), "sha256")[:16]))


def append(publication: uuid.UUID, group_key: str, limits: tuple[int, float], content: str) -> str:
    """
    Returns the statement that keeps a message, but for two values that come after it: its channel,
    and whether it is alone in its transaction.

    A row of that publication has been written when a statement is repeated whose answer was lost.
    """
    size, seconds = limits
    # Not as parameters: escaping takes as long as all the rest.
    return (
        "INSERT INTO dwebsocket_history "  # noqa: S608
        "(publication, group_key, epoch, size, seconds, content, channel, is_due) "
        f"VALUES ('{publication}', '{group_key}', {new_epoch():d}, {min(size, _LARGEST):d}, "
        f"{seconds:f}, '{content}', "
    )


def read(query: Callable[[str], Rows], reading: Reading, key: bytes) -> Log:
    """
    Returns what is kept, about a MiB at once.

    Args:
        query: Asks the server.
        reading: The part that is wanted.
        key: The project's.
    """
    group_key = key_of(reading.name, key)
    while not (rows := query(_select(reading, group_key))):
        # The group is new.
        query(
            "INSERT INTO dwebsocket_numbering (group_key, epoch, newest, expires_at) "  # noqa: S608
            f"VALUES ('{group_key}', {new_epoch():d}, 0, clock_timestamp() + {_DAY}) "
            "ON CONFLICT DO NOTHING"
        )
    epoch, newest, is_old, *_ = rows[0]
    if is_old == "t":
        query(
            "UPDATE dwebsocket_numbering "  # noqa: S608
            f"SET expires_at = greatest(expires_at, clock_timestamp() + {_DAY}) "
            f"WHERE group_key = '{group_key}'"
        )
    return Log((int(epoch or 0), int(newest or 0)), _without_gaps(rows, reading.name))


def _select(reading: Reading, group_key: str) -> str:
    epoch, offset = reading.after or (0, 0)
    size, seconds = min(reading.size, _LARGEST), min(reading.seconds, _LONGEST_S)
    return f"""
SELECT numbering.epoch, numbering.newest,
    numbering.expires_at < clock_timestamp() + {_DAY} / 2, kept.number, kept.ms, kept.content
FROM dwebsocket_numbering AS numbering LEFT JOIN LATERAL (
    SELECT number, floor(extract(epoch FROM sent_at) * 1000)::bigint AS ms,
        CASE WHEN octet_length(content) <= {table.LONGEST} THEN content ELSE '' END AS content,
        sum(octet_length(content)) OVER (ORDER BY number) - octet_length(content) AS before
    FROM (
        SELECT number, sent_at, content FROM dwebsocket_history
        WHERE group_key = numbering.group_key AND epoch = numbering.epoch AND number > greatest(
            CASE WHEN numbering.epoch::numeric = {epoch:d} AND {offset:d} <= numbering.newest
            THEN {offset:d} ELSE 0 END,
            numbering.newest - {size:d}
        ) AND sent_at >= clock_timestamp() - make_interval(secs => {seconds:f})
        ORDER BY number LIMIT {_PAGE_ROWS}
    ) AS wanted
) AS kept ON kept.before < {_PAGE_LENGTH}
WHERE numbering.group_key = '{group_key}' ORDER BY kept.number
"""  # noqa: S608


def _without_gaps(rows: Rows, name: str) -> list[LogRow]:
    """Returns the messages after the last gap, such as one after a change of HISTORY."""
    found: list[LogRow] = []
    for *_, number, ms, content in rows:
        if number is None or ms is None or content is None:
            continue
        if found and int(number) != found[-1][0] + 1:
            found = []
        # Another's row is no message of the group: it fails at its seal.
        of, envelope = payload.unpack(content) or ("", b"")
        found.append((int(number), int(ms), envelope if of == name else b""))
    return found
