"""The open WebSockets of one process as rows of a table: searched, sorted, counted, closed."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from dwebsocket.telemetry import tally
from dwebsocket.telemetry.records import printable

if TYPE_CHECKING:
    from collections.abc import Callable

#: The columns by which rows can be sorted.
SORTS = ("age", "messages_in", "messages_out", "bytes_in", "bytes_out", "queued", "ping")
# Users and addresses of each process among which the leaders of the site are found.
_MOST_LEADERS = 200
# A longer text, which a client may choose, is cut.
_LONGEST_TEXT = 300


class Row(TypedDict):
    """One open WebSocket."""

    id: str
    view: str
    path: str
    user: str
    address: str
    agent: str
    transport: str
    age: float
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    queued: int
    ping: float | None


class Page(TypedDict):
    """Some rows, and how many there are in all."""

    count: int
    rows: list[Row]


@dataclass
class Query:
    """
    Which rows are wanted.

    Attributes:
        text: To be found in the path, the address, the client's program or the view; or the
            user's key.
        users: Further keys of users that ``text`` stands for, such as those of its name.
        view, user, address, transport: Only rows with exactly this; empty for all.
        realm: Only those of this realm; empty for all.
        sort: One of :data:`SORTS`, the largest first; with ``-`` before it the smallest.
        first: How many rows are wanted, from the first one on.
    """

    text: str = ""
    users: list[str] = field(default_factory=list)
    view: str = ""
    user: str = ""
    address: str = ""
    transport: str = ""
    sort: str = "age"
    first: int = 100
    realm: str = ""


class _Candidate:
    """An open WebSocket, before it is known whether a row of it is wanted."""

    __slots__ = ("address", "agent", "connection", "path", "user", "view", "websocket")

    def __init__(self, websocket: Any, view: str, request: Any) -> None:
        self.websocket = websocket
        self.connection = websocket._connection
        self.view = view
        self.path: str = request.path
        self.user: str = websocket._visitor_names[0]
        self.address: str = request.META.get("REMOTE_ADDR") or ""
        self.agent: str = request.META.get("HTTP_USER_AGENT") or ""

    def fits(self, query: Query, text: str) -> bool:
        exact = (
            (query.view, self.view),
            (query.user, self.user),
            (query.address, self.address),
            (query.transport, self.websocket._transport),
            (query.realm, self.websocket._realm),
        )
        if any(wanted and wanted != own for wanted, own in exact):
            return False
        if not text or self.user in query.users or text == self.user.lower():
            return True
        return any(
            text in each.lower() for each in (self.path, self.address, self.agent, self.view)
        )

    @property
    def age(self) -> float:
        opened_at: float | None = self.websocket._opened_at
        return 0.0 if opened_at is None else max(0.0, time.time() - opened_at)

    def row(self) -> Row:
        messages_in, messages_out, bytes_in, bytes_out, _, inbox, outbox = self.connection.traffic()
        return {
            "id": self.websocket.id,
            "view": self.view,
            "path": printable(self.path[:_LONGEST_TEXT]),
            "user": self.user,
            "address": self.address[:_LONGEST_TEXT],
            "agent": printable(self.agent[:_LONGEST_TEXT]),
            "transport": self.websocket._transport,
            "age": self.age,
            "messages_in": messages_in,
            "messages_out": messages_out,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "queued": inbox + outbox,
            "ping": self.connection.latency,
        }


def _all() -> list[_Candidate]:
    return [
        _Candidate(*each)
        for each in tally.open_websockets()
        if each[0]._connection.ended_for() is None
    ]


# What a row is sorted by, without making the row.
_BY: dict[str, Callable[[_Candidate], float]] = {
    "age": lambda found: found.age,
    "messages_in": lambda found: found.connection.traffic()[0],
    "messages_out": lambda found: found.connection.traffic()[1],
    "bytes_in": lambda found: found.connection.traffic()[2],
    "bytes_out": lambda found: found.connection.traffic()[3],
    "queued": lambda found: sum(found.connection.traffic()[5:]),
    "ping": lambda found: found.connection.latency or 0.0,
}


def rows(query: Query) -> Page:
    """Returns the rows of this process that a query wants, sorted, and how many fit it."""
    text = query.text.lower()
    found = [each for each in _all() if each.fits(query, text)]
    pick = heapq.nsmallest if query.sort.startswith("-") else heapq.nlargest
    picked = pick(query.first, found, key=_BY[query.sort.lstrip("-")])
    return {"count": len(found), "rows": [each.row() for each in picked]}


def merged(pages: list[Page], query: Query) -> Page:
    """Returns the rows of several processes as one page."""
    name = query.sort.lstrip("-")
    pick = heapq.nsmallest if query.sort.startswith("-") else heapq.nlargest
    every = [row for page in pages for row in page["rows"]]
    picked = pick(query.first, every, key=lambda row: row[name] or 0)  # type: ignore[literal-required]
    return {"count": sum(page["count"] for page in pages), "rows": picked}


def leaders(realm: str = "") -> dict[str, dict[str, int]]:
    """Returns the users and addresses with the most open WebSockets, of one realm or of all."""
    users: Counter[str] = Counter()
    addresses: Counter[str] = Counter()
    for each in _all():
        if realm and each.websocket._realm != realm:
            continue
        if each.user:
            users[each.user] += 1
        addresses[each.address] += 1
    return {
        "users": dict(users.most_common(_MOST_LEADERS)),
        "addresses": dict(addresses.most_common(_MOST_LEADERS)),
    }


def close(key: str, code: int, reason: str, realm: str = "") -> int:
    """Closes the WebSocket here with this ``id``, of one realm or any; returns how many."""
    for websocket, *_ in tally.open_websockets():
        # Only those that were shown have one.
        if websocket._id == key and realm in ("", websocket._realm):
            return int(websocket._close_soon(code, reason))
    return 0
