"""The table of one measurement that `run.py` does not make: printed, and recorded when asked."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import build
import machine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all measurements have."""
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument(
        "--record", type=Path, metavar="PATH", help="also write PATH.json and PATH.md"
    )


def publish(
    title: str, how: str, lines: Iterable[str], found: Mapping[str, Any], record: Path | None
) -> None:
    """
    Print a table; with ``record`` write it, and the figures ``found`` as JSON.

    ``how`` describes the measurement; the date, the machine and the commit stand before it.
    """
    commit = machine.commit(build.ROOT, ("src", "python", "bench", ":!bench/record"))
    today = date.today().isoformat()
    head = [f"# {title}", "", f"{today}, {machine.processor()}, commit {commit}: {how}", ""]
    text = "\n".join([*head, *lines]) + "\n"
    print(text)
    if record is not None:
        everything = {"date": today, "machine": machine.describe(), "commit": commit, **found}
        record.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n")
        record.with_suffix(".md").write_text(text)
