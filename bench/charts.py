"""
Charts of a recorded run, as SVG: ``python3 bench/charts.py bench/record/FILE.json [FOLDER]``.

Bars are medians, the thin line across a bar's end is the range of the windows. Every picture
brings its own background, light or dark as the reader's system asks, so that it can be read on any
page, and is narrow enough for a phone. Without FOLDER they go to ``docs/bench/``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import goals

if TYPE_CHECKING:
    from work import Work

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "bench"
WIDTH, MARGIN = 540, 16
LABEL, VALUE = 172, 100
ROW, BAR = 25, 14
HEAD, LINE = 60, 17
# The subjects in the overview.
KNOWN = (
    *("dwebsocket2", "dwebsocket2-async", "original", "channels-daphne", "channels-uvicorn"),
    *("flask-sock", "websockets", "aiohttp", "tokio-tungstenite", "tokio-tungstenite-4k"),
)

STYLE = """
.card { fill: #ffffff; stroke: #d0d7de } text { fill: #1f2328; font: 14px system-ui, sans-serif }
.title { font-size: 16px; font-weight: 600 } .note { fill: #59636e; font-size: 13px }
.ours { fill: #0969da } .peer { fill: #9aa4af } .rust { fill: #d4a72c } .range { stroke: #1f2328 }
.us { font-weight: 600 }
@media (prefers-color-scheme: dark) {
.card { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .note { fill: #9198a1 }
.ours { fill: #4493f8 } .peer { fill: #656c76 } .rust { fill: #bb8009 } .range { stroke: #f0f6fc }
}
"""


@dataclass(frozen=True)
class Panel:
    """One figure of one row, for all subjects."""

    title: str
    work: Work
    key: str
    unit: str

    @property
    def more_is_better(self) -> bool:
        """Which way is better; the best subject stands on top."""
        return self.key in goals.MORE_IS_BETTER


ECHO = Panel("Echo of 32 bytes, 50 connections", goals.ECHO, goals.RATE, "messages/s")
BURST = Panel("The same, 16 in flight on each", goals.BURST, goals.RATE, "messages/s")
CHAT = Panel("A view tells 1,000 members", goals.CHAT, goals.RATE, "deliveries/s")
MEMORY = Panel("An idle connection, 5,000 of them", goals.IDLE, "idle_kib", "KiB")

OVERVIEW = (ECHO, BURST, CHAT)
# Each further file and the panels in it, one below the other.
CHARTS = {
    "echo": (ECHO, BURST),
    "cost": (
        Panel("An echo of 32 bytes, 50 connections", goals.ECHO, "server_cpu_us", "µs of CPU"),
        Panel("The same, 16 in flight on each", goals.BURST, "server_cpu_us", "µs of CPU"),
    ),
    "latency": (
        Panel("Echo of 32 bytes, one connection, median", goals.ONE, goals.P50, "µs"),
        Panel("50 connections at full load, 99 %", goals.ECHO, goals.P99, "µs"),
        Panel("16 in flight on each, 99 %", goals.BURST, goals.P99, "µs"),
    ),
    "large": (
        Panel("Echo of 64 KiB, 50 connections", goals.KIB_64, goals.RATE, "messages/s"),
        Panel("Echo of 1 MiB, 50 connections", goals.ECHO_MIB, goals.RATE, "messages/s"),
    ),
    "fan-out": (CHAT,),
    "groups": (
        Panel("A group of 1,000, 64 under way", goals.GROUP, goals.RATE, "deliveries/s"),
        Panel("A delivery of that", goals.GROUP, goals.CPU, "µs of CPU"),
        Panel("A delivery, 4 under way", goals.GROUP_SLOWLY, goals.CPU, "µs of CPU"),
    ),
    "many": (
        Panel("Echo of 32 bytes, 500 connections", goals.MANY, goals.RATE, "messages/s"),
        Panel("200 busy connections, 99 %", goals.BUSY, goals.P99, "µs"),
        Panel("and beside 50 that do not read", goals.BUSY_AND_STOPPED, goals.P99, "µs"),
    ),
    "memory": (
        MEMORY,
        Panel("after echoes of 64 KiB and of 32 bytes", goals.IDLE, "rested_kib", "KiB"),
    ),
    "handshakes": (
        Panel("Handshakes, with middleware", goals.OPENING, "handshakes_per_s", "handshakes/s"),
    ),
}


@dataclass(frozen=True)
class Bar:
    """The result of one subject."""

    name: str
    values: tuple[float, ...]
    limited: bool
    disturbed: bool

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def kind(self) -> str:
        """The class of its colour."""
        if self.name.startswith("dwebsocket2"):
            return "ours"
        return "rust" if self.name.startswith("tokio") else "peer"


def column(
    run: dict[str, Any], panels: tuple[Panel, ...], subjects: tuple[str, ...] = ()
) -> str | None:
    """
    Return a picture with one panel below the other, or None if nothing of it was measured.

    ``subjects`` are those that are drawn, all of them by default.
    """
    parts, top, drawn = [], MARGIN / 2, []
    for panel in panels:
        bars, failed = _bars(run, panel, subjects)
        if bars:
            parts += _panel(panel, bars, failed, top)
            top += HEAD + ROW * len(bars)
            drawn += bars
    return _picture(run, parts, drawn, top) if parts else None


def _name_of(processor: str) -> str:
    """Return a processor's name without its filler words; it has to fit a line."""
    name = processor.replace("(R)", "").replace("(TM)", "").replace("Processor", "")
    return " ".join(name.split())


def _notes(run: dict[str, Any], bars: list[Bar]) -> list[str]:
    """Return the lines at the foot of a picture; a mark is explained where a bar has it."""
    notes = [
        f"{run['date']}, {_name_of(run['machine']['processor'])}, the server on one core.",
        f"Medians of {max(len(bar.values) for bar in bars)} windows; the line is their range.",
    ]
    if any(bar.limited for bar in bars):
        notes.append("* The load generator was the limit.")
    if any(bar.disturbed for bar in bars):
        notes.append("! Other work ran on the machine meanwhile.")
    return notes


def _picture(run: dict[str, Any], parts: list[str], bars: list[Bar], top: float) -> str:
    notes = _notes(run, bars)
    height = top + LINE * len(notes) + MARGIN / 2
    card = f'width="{WIDTH - 1}" height="{height - 1:g}" rx="8"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            f'width="{WIDTH}" height="{height:g}" role="img">',
            f"<title>Benchmark of {run['date']}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="card" x=".5" y=".5" {card}/>',
            *parts,
            *(
                f'<text class="note" x="{MARGIN}" y="{top + LINE * index + 10:g}">'
                f"{escape(note)}</text>"
                for index, note in enumerate(notes)
            ),
            "</svg>",
            "",
        ]
    )


def _bars(
    run: dict[str, Any], panel: Panel, subjects: tuple[str, ...]
) -> tuple[list[Bar], list[str]]:
    """Return the bars of a panel, the best one first, and the names of subjects that failed."""
    bars, failed = [], []
    for name in run["subjects"]:
        if subjects and name not in subjects:
            continue
        wanted = (panel.work.name, name)
        rows = [row for row in run["figures"] if (row["work"], row["subject"]) == wanted]
        if any(row["failed"] for row in rows):
            failed.append(name)
        elif rows and all(panel.key in row for row in rows):
            values = tuple(row[panel.key] for row in rows)
            limited, disturbed = (
                any(row[mark] for row in rows) for mark in ("limited_by_load", "disturbed")
            )
            bars.append(Bar(name, values, limited, disturbed))
    return sorted(bars, key=lambda bar: bar.middle, reverse=panel.more_is_better), failed


def _panel(panel: Panel, bars: list[Bar], failed: list[str], top: float) -> list[str]:
    way = "more is better" if panel.more_is_better else "less is better"
    note = f"{panel.unit}, {way}" + (f"; failed: {', '.join(failed)}" if failed else "")
    parts = [
        f'<text class="title" x="{MARGIN}" y="{top + 22:g}">{escape(panel.title)}</text>',
        f'<text class="note" x="{MARGIN}" y="{top + 40:g}">{escape(note)}</text>',
    ]
    left = MARGIN + LABEL
    room = WIDTH - 2 * MARGIN - LABEL - VALUE
    scale = room / max(max(bar.values) for bar in bars)
    for index, bar in enumerate(bars):
        y = top + HEAD - 8 + ROW * index
        length = max(scale * bar.middle, 1)
        weight = ' class="us"' if bar.kind == "ours" else ""
        value = _short(bar.middle) + "*" * bar.limited + "!" * bar.disturbed
        end = left + max(length, scale * max(bar.values)) + 8
        base = y + BAR / 2 + 5
        name = f'text-anchor="end">{escape(bar.name)}'
        parts += [
            f'<text{weight} x="{left - 8:g}" y="{base:g}" {name}</text>',
            f'<rect class="{bar.kind}" x="{left:g}" y="{y:g}" width="{length:.1f}" '
            f'height="{BAR}" rx="2"/>',
            f'<text{weight} x="{end:.1f}" y="{base:g}">{value}</text>',
        ]
        if len(bar.values) > 1:
            low, high = (left + scale * end for end in (min(bar.values), max(bar.values)))
            middle = y + BAR / 2
            parts.append(
                f'<path class="range" d="M{low:.1f} {middle:g}H{high:.1f}" stroke-width="1.5"/>'
            )
    return parts


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(run: dict[str, Any], folder: Path = FOLDER) -> list[Path]:
    """Draw all charts for which ``run`` has figures; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"overview": column(run, OVERVIEW, KNOWN)}
    pictures |= {name: column(run, panels) for name, panels in CHARTS.items()}
    written = []
    for name, picture in pictures.items():
        if picture is not None:
            path = folder / f"{name}.svg"
            path.write_text(picture)
            written.append(path)
    return written


if __name__ == "__main__":
    for path in write(json.loads(Path(sys.argv[1]).read_text()), *map(Path, sys.argv[2:])):
        print(path)
