"""
The table of messages that are too long for ``NOTIFY``: rows of text that live for a minute.

``dwebsocket.groups.postgres.migrations`` makes it.
"""

from __future__ import annotations

#: Whether there is the table.
EXISTS = "SELECT to_regclass('dwebsocket_message') IS NOT NULL"

# A purge has less time than `TIMEOUT`, and deleting a GiB takes seconds.
_PURGE_BYTES = 128 * 1024 * 1024


def expired(table: str, key: str, most: int) -> str:
    """Returns a query for the keys of rows that are too old: ``most``, and 128 MiB, or one more."""
    return f"""
SELECT {key} FROM (
    SELECT {key}, sum(bytes) OVER (ORDER BY {key}) - bytes AS before FROM (
        SELECT {key}, octet_length(content) AS bytes FROM {table}
        WHERE expires_at < clock_timestamp() LIMIT {most:d} FOR UPDATE SKIP LOCKED
    ) AS locked
) AS expired WHERE before < {_PURGE_BYTES}
"""  # noqa: S608


#: Deletes what is too old, and begins the minute of what is new. Never waits for another purge.
PURGE = f"""
WITH deleted AS (
    DELETE FROM dwebsocket_message WHERE number IN (
        {expired("dwebsocket_message", "number", 1000)}
    )
)
UPDATE dwebsocket_message SET expires_at = clock_timestamp() + interval '1 minute'
WHERE number IN (
    SELECT number FROM dwebsocket_message WHERE expires_at IS NULL
    LIMIT 1000 FOR UPDATE SKIP LOCKED
)
"""  # noqa: S608

#: The seconds between two purges of one process.
PURGE_EVERY_S = 10.0
#: For so long after the last row that it has seen a process purges.
PURGE_FOR_S = 150.0


#: No process delivers 64 MiB at once, of which the text in a row takes 4/3. Another
#: user who may write into the table must not fill the memory of its readers.
LONGEST = 96 * 1024 * 1024


def select(number: int) -> str:
    """Returns the query for a row's content, which is NULL when it is longer than any message."""
    return (
        f"SELECT CASE WHEN octet_length(content) <= {LONGEST} THEN content END "  # noqa: S608
        f"FROM dwebsocket_message WHERE number = {number:d}"
    )


def publish(number: int, content: str, channel: str, text: str) -> str:
    """
    Returns the statement that writes a row and notifies. The texts have no quotes.

    A row of that number has been written when a statement is repeated whose answer was lost.
    """
    # Not as parameters: escaping takes as long as all the rest.
    return (
        "WITH written AS (INSERT INTO dwebsocket_message (number, content) "  # noqa: S608
        f"VALUES ({number:d}, '{content}') ON CONFLICT DO NOTHING) "
        f"SELECT pg_notify('{channel}', '{text}')"
    )
