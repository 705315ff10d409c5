"""The tables of the page, as its template shows them."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override

from dwebsocket.operations import listing, series, survey
from dwebsocket.telemetry.durations import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import QueryDict

    from dwebsocket.telemetry.durations import Durations

PER_PAGE = 50
# Users whose name has the text that is searched for, and rows of the small tables.
_MOST_USERS, _MOST_LEADERS = 200, 10
_FARTHEST_PAGE, _MOST_DIGITS = 10_000, 9
# Of an integer that is a primary key.
_MOST_BITS = 63
# Shown where there is no value.
_NONE = "\u2013"

# The columns of the table: the name to sort by, and the head.
_COLUMNS = (
    *(("", _("View and path")), ("", _("User")), ("", _("Address")), ("age", _("Open for"))),
    *(("messages_in", _("In")), ("messages_out", _("Out"))),
    *(("queued", _("Queued")), ("ping", _("Ping"))),
)

# The outcomes of moves to another process.
_MOVES = {
    "in": _("from other processes"),
    "out": _("to other processes"),
    "refused": _("taken by none"),
}

# What the script of the charts says: it asks for each text by the English one.
_CHART_TEXTS = (
    *(_("Open"), _("Handshakes and ends a second"), _("Messages a second"), _("Bytes a second")),
    *(_("open"), _("opened"), _("refused"), _("closed"), _("in"), _("out"), _("dropped")),
    *(_("{} min ago"), _("now"), _("top {}"), _("Charts: {}"), _("live")),
    *(_("live, {} processes missing"), _("ended: {}"), _("reload the page")),
    _("waiting for the server"),
)


def page_number(text: str) -> int:
    """Returns the number of the page that is asked for, 1 for nonsense."""
    if not (text.isdecimal() and text.isascii()):
        return 1
    # Python reads no number of thousands of digits.
    return max(1, min(int(text[:_MOST_DIGITS]), _FARTHEST_PAGE))


def users_named(text: str) -> list[str]:
    """Returns the keys of users whose name has ``text`` in it."""
    if "\0" in text:
        # No name has it, and PostgreSQL refuses the question.
        return []
    model = get_user_model()
    found = model._default_manager.filter(**{f"{model.USERNAME_FIELD}__icontains": text})
    return [str(key) for key in found.values_list("pk", flat=True)[:_MOST_USERS]]


def context(
    parts: list[survey.PagePart], missing: int, query: listing.Query, number: int, asked: QueryDict
) -> dict[str, Any]:
    """Returns the template's context, from the answers of processes, of which some are missing."""
    site = survey.summed([part["process"] for part in parts], missing)
    found = listing.merged([part["page"] for part in parts], query)
    rows = found["rows"][(number - 1) * PER_PAGE :]
    leaders = {
        kind: _leaders([part["leaders"][kind] for part in parts]) for kind in ("users", "addresses")
    }
    names = _names({row["user"] for row in rows} | {user for user, count in leaders["users"]})
    total = site["total"]
    pages = max(1, math.ceil(found["count"] / PER_PAGE))
    return {
        "query": query,
        "is_filtered": bool(asked.keys() - {"o", "p"}),
        "here": f"?{asked.urlencode()}",
        "count": found["count"],
        "number": number,
        "pages": pages,
        "previous": _with(asked, p=str(number - 1)) if number > 1 else "",
        "next": _with(asked, p=str(number + 1)) if number < pages else "",
        "columns": [_column(name, head, query, asked) for name, head in _COLUMNS],
        "rows": [_row(row, names) for row in rows],
        "site": site,
        "cards": _cards(total),
        "views": _counted(total["open"]["views"]),
        "users": [(user, names.get(user, ""), number) for user, number in leaders["users"]],
        "addresses": leaders["addresses"],
        "refused": _coded(total["refused"]),
        "closed": _coded(total["closed"]),
        "moves": [(name, total["handed_over"][key]) for key, name in _MOVES.items()],
        "events": _coded(total["events"]),
        "groups": total["groups"].items(),
        "durations": [
            (_("Pings"), _("None answered yet."), _buckets(total["pings"])),
            (_("Methods of handlers"), _("None has run."), _buckets(total["handlers"])),
        ],
        "chart_data": {
            "slot_s": series.SLOT_S,
            "kept": series.KEPT,
            "fields": series.FIELDS,
            "now": series.last_complete(),
            "samples": series.total(part["series"] for part in parts),
            "texts": _chart_texts(),
        },
    }


def _chart_texts() -> dict[str, str]:
    """Returns the translated texts by the English ones."""
    translated = [str(text) for text in _CHART_TEXTS]
    with override(None):
        return dict(zip(map(str, _CHART_TEXTS), translated, strict=True))


def _with(asked: QueryDict, **changed: str) -> str:
    """Returns the query string of the page with other parameters."""
    parameters = asked.copy()
    for name, value in changed.items():
        parameters[name] = value
    return f"?{parameters.urlencode()}"


def _column(name: str, head: Any, query: listing.Query, asked: QueryDict) -> dict[str, Any]:
    is_sorted = bool(name) and query.sort.lstrip("-") == name
    is_up = query.sort.startswith("-")
    wanted = f"-{name}" if is_sorted and not is_up else name
    return {
        "head": head,
        "link": _with(asked, o=wanted, p="1") if name else "",
        "order": ("ascending" if is_up else "descending") if is_sorted else "none",
    }


def _row(row: listing.Row, names: dict[str, str]) -> dict[str, Any]:
    ping = row["ping"]
    return {
        **row,
        "name": names.get(row["user"], ""),
        "age": duration(row["age"]),
        "bytes_in": filesizeformat(row["bytes_in"]),
        "bytes_out": filesizeformat(row["bytes_out"]),
        "queued": filesizeformat(row["queued"]) if row["queued"] else _NONE,
        "ping": _NONE if ping is None else f"{ping * 1000:.1f} ms",
    }


def duration(seconds: float) -> str:
    """Returns a time in its two largest units."""
    left = int(seconds)
    found = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            found.append(f"{number} {unit}")
    return " ".join(found[:2]) or "0 s"


def _cards(total: Any) -> list[tuple[Any, str]]:
    dropped = sum(sum(counts["dropped"].values()) for counts in total["groups"].values())
    queued = total["queued"]["inbox_bytes"] + total["queued"]["outbox_bytes"]
    return [
        (_("open"), f"{total['open']['total']:,}"),
        (_("signed in"), f"{total['open']['signed_in']:,}"),
        (_("opened"), f"{sum(total['opened'].values()):,}"),
        (_("refused"), f"{sum(sum(c.values()) for c in total['refused'].values()):,}"),
        (_("messages in"), f"{total['messages']['in']:,}"),
        (_("messages out"), f"{total['messages']['out']:,}"),
        (_("queued"), filesizeformat(queued)),
        (_("dropped"), f"{dropped:,}"),
        (_("median ping"), _median(total["pings"])),
    ]


def _median(found: Durations) -> str:
    half, so_far = found["count"] / 2, 0
    for bound, number in zip(BOUNDS, found["buckets"].values(), strict=False):
        so_far += number
        if number and so_far >= half:
            return f"≤ {bound * 1000:g} ms"
    return f"> {BOUNDS[-1]:g} s" if half else _NONE


def _buckets(found: Durations) -> list[tuple[str, int]]:
    names = [f"≤ {bound * 1000:g} ms" for bound in BOUNDS] + [f"> {BOUNDS[-1]:g} s"]
    return [pair for pair in zip(names, found["buckets"].values(), strict=True) if pair[1]]


def _counted(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _coded(counts: dict[str, dict[str, int]]) -> list[tuple[str, str, int]]:
    return [
        (code, name, number)
        for code, names in sorted(counts.items())
        for name, number in _counted(names)
    ]


def _leaders(parts: Iterable[dict[str, int]]) -> list[tuple[str, int]]:
    found: Counter[str] = Counter()
    for part in parts:
        found.update(part)
    return _counted(found)[:_MOST_LEADERS]


def _names(keys: set[str]) -> dict[str, str]:
    """Returns the names of users by their keys, of those that the project's model has."""
    field = get_user_model()._meta.pk
    valid = {}
    for key in keys - {""}:
        try:
            value = field.to_python(key)
        except ValidationError:
            # A user of another kind.
            continue
        # A device may have a longer number, of which the driver of SQLite makes an error.
        if not (isinstance(value, int) and value.bit_length() > _MOST_BITS):
            valid[value] = key
    users = get_user_model()._default_manager.in_bulk(list(valid))
    return {valid[key]: user.get_username() for key, user in users.items()}
