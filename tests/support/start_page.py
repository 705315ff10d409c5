"""The project of docs/start.md, as the page makes it, and what docs/rooms.md adds."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from support.server import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = ROOT / "docs" / "start.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"\A(?:# |<!-- )([\w/.]+)(, below \w+)?(?: -->)?\n")


def make(folder: Path) -> list[str]:
    """Make the project in a folder, and give the commands of the page."""
    blocks = _BLOCK.findall(_PAGE.read_text())
    commands = [line for kind, text in blocks if kind == "console" for line in text.splitlines()]
    # Those that make the project; `.ci/install-wheel` runs all of them.
    for command in commands:
        arguments = command.split()[1:]
        if command.startswith("django-admin "):
            _run(folder, "-m", "django", *arguments)
        elif command.endswith((" startapp chat", " migrate")):
            _run(folder, *arguments)
        if command.endswith(" startapp chat"):
            for _, text in blocks:
                _write(folder, text)
    return commands


def add_room(folder: Path) -> None:
    """Add what docs/rooms.md has in five minutes more."""
    text = (ROOT / "docs" / "rooms.md").read_text()
    section = text.partition("\n## In five minutes\n")[2].partition("\n## ")[0]
    for _, block in _BLOCK.findall(section):
        _write(folder, block)


def _write(folder: Path, text: str) -> None:
    if (named := _FILE.match(text)) is not None and named[2] != ", below MIDDLEWARE":
        path = folder / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if named[2] else "w") as file:
            file.write(text[named.end() :])


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True)
