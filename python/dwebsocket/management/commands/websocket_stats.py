"""``manage.py websocket_stats``: the statistics of all processes of the site."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.management.arguments import MOST, check_number
from dwebsocket.operations import survey
from dwebsocket.operations.survey import PATIENCE_S
from dwebsocket.telemetry.records import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dwebsocket.operations import SiteStatistics

    Rows = Iterable[tuple[str, object]]

# Clears a terminal and puts the cursor into its corner.
_CLEAR = "\x1b[2J\x1b[H"
_NOBODY = (
    "No process answers. Each does from its first WebSocket on, if it has the same SECRET_KEY, "
    '"dwebsocket" in INSTALLED_APPS (or WEBSOCKET_OPERATIONS = True), and the same default backend '
    "in WEBSOCKET_GROUPS: the local one reaches processes of this system user in this container."
)
_UNASKED = "The processes cannot be asked"
_ALONE = (
    "The default backend in WEBSOCKET_GROUPS is the process backend, which reaches no other one: "
    "this command would see itself only. Use dwebsocket.groups.local, dwebsocket.groups.redis or "
    "dwebsocket.groups.postgres."
)


class Command(BaseCommand):
    help = "Asks all processes of the site for their statistics of WebSockets, and shows the sum."

    def add_arguments(self, parser: CommandParser) -> None:
        add = parser.add_argument
        add("--json", action="store_true", help="print one line of JSON, with every process")
        add(
            "--watch",
            type=float,
            nargs="?",
            const=2.0,
            metavar="SECONDS",
            help="ask again and again (every 2 seconds), with rates, until Ctrl-C",
        )
        add("--timeout", type=float, default=PATIENCE_S, help="seconds to wait for all processes")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints them. Raises ``CommandError`` when no process can be asked."""
        every = options["watch"]
        if every is not None and not 0 < every <= MOST:
            raise CommandError(f"--watch must be a number of seconds above 0, not {every}")
        check_number(options, "timeout")
        try:
            if not survey.asks_others():
                raise CommandError(_ALONE)
            self._watch(options, every)
        except (GroupUnavailable, ImproperlyConfigured) as error:
            raise CommandError(f"{_UNASKED}: {error}") from None
        except KeyboardInterrupt:
            return

    def _watch(self, options: dict[str, Any], every: float | None) -> None:
        before: tuple[float, SiteStatistics] | None = None
        while True:
            try:
                site = survey.site_statistics(options["timeout"])
            except GroupUnavailable as error:
                if every is None:
                    raise
                # The backend may come back. The standard output has JSON alone.
                self.stderr.write(f"{_UNASKED}: {error}")
            else:
                if every is None and not site["processes"]:
                    raise CommandError(_NOBODY)
                now = monotonic()
                if options["json"]:
                    self.stdout.write(json.dumps(site))
                else:
                    rates = None if before is None else (now - before[0], before[1])
                    self._show(site, rates, clear=every is not None)
                before = now, site
                self.stdout.flush()
            if every is None:
                return
            time.sleep(every)

    def _show(
        self, site: SiteStatistics, before: tuple[float, SiteStatistics] | None, *, clear: bool
    ) -> None:
        if clear and self.stdout.isatty():
            self.stdout.write(_CLEAR, ending="")
        for title, rows in _tables(site, before):
            found = list(rows)
            if not found:
                continue
            self.stdout.write(self.style.MIGRATE_HEADING(title))
            width = max(len(name) for name, _ in found)
            for name, value in found:
                shown = f"{value:,}" if isinstance(value, int) else str(value)
                # Codes and causes are ours, but a view's name may be anything.
                self.stdout.write(f"  {printable(name):<{width}}  {shown:>14}")


def _tables(
    site: SiteStatistics, before: tuple[float, SiteStatistics] | None
) -> Iterator[tuple[str, Rows]]:
    total: Any = site["total"]
    missing = f", {site['missing']} did not answer" if site["missing"] else ""
    number = len(site["processes"])
    yield (
        f"{number} process{'' if number == 1 else 'es'}{missing}",
        [
            (f"{each['host']} {each['pid']}", each["statistics"]["open"]["total"])
            for each in site["processes"]
        ],
    )
    yield (
        "Now",
        [
            ("open", total["open"]["total"]),
            ("signed in", total["open"]["signed_in"]),
            *total["queued"].items(),
        ],
    )
    yield (
        "So far",
        [
            ("opened", sum(total["opened"].values())),
            *((f"messages {way}", number) for way, number in total["messages"].items()),
            *((f"bytes {way}", number) for way, number in total["bytes"].items()),
        ],
    )
    if before is not None:
        seconds, earlier = before
        yield "A second", _rates(total, earlier["total"], seconds)
    for title, key in (("Pings", "pings"), ("Methods of handlers", "handlers")):
        buckets = total[key]["buckets"].items()
        yield title, ((f"up to {bound} s", number) for bound, number in buckets if number)
    yield "Open by view", total["open"]["views"].items()
    yield "Refused", _coded(total["refused"])
    yield "Closed", _coded(total["closed"])
    yield "Events", _coded(total["events"])
    for alias, counts in total["groups"].items():
        dropped = ((f"dropped, {reason}", number) for reason, number in counts["dropped"].items())
        plain = ((name, number) for name, number in counts.items() if name != "dropped")
        yield f"Groups of {alias}", [*plain, *dropped]


def _rates(now: Any, before: Any, seconds: float) -> Rows:
    for kind in ("messages", "bytes"):
        for way, number in now[kind].items():
            # A process that has ended takes its counters with it.
            grown = max(0, number - before[kind].get(way, 0))
            yield f"{kind} {way}", f"{grown / seconds:,.1f}"


def _coded(counts: dict[str, dict[str, int]]) -> Rows:
    for code, names in counts.items():
        for name, number in names.items():
            yield f"{code} {name}", number
