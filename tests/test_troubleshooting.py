"""docs/troubleshooting.md has the messages of the code, and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "docs/troubleshooting.md"
PAGE = (ROOT / NAME).read_text()
PACKAGE = ROOT / "python" / "dwebsocket"
#: Calls whose first text is a message for users.
CALLS = {"UsageError", "UnsupportedServer", "ImproperlyConfigured", "refuse"}
CHECKS = {"Error", "Warning"}


def text_of(node: ast.expr) -> str | None:
    """Give a literal, with an ellipsis for each value in it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        return re.sub("…+", "…", "".join(str(part) for part in parts))
    return None


def messages() -> set[str]:
    """Give the messages of the code, apart from those that are but a value, or a log level."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in CALLS and not (name in CHECKS and path.name == "checks.py"):
                continue
            texts = [text for text in map(text_of, node.args) if text is not None]
            if texts and len(re.findall(r"\w{2,}", texts[0])) > 1:
                found.add(texts[0])
    return found


def shown(page: str = NAME) -> str:
    """Give a page's cells, with bars between them."""
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| ")]
    return "|".join(cell.strip() for row in rows for cell in row.split("|"))


def test_page_has_every_message() -> None:
    """Word by word, so that a search finds it."""
    cells = shown()
    assert [each for each in sorted(messages()) if each not in cells] == []


def test_page_has_every_check() -> None:
    """By its number."""
    numbers = re.findall(
        r'id="dwebsocket\.([EW]\d+)"',
        "".join(path.read_text() for path in PACKAGE.rglob("checks.py")),
    )
    assert len(numbers) > 10
    assert [number for number in numbers if number not in PAGE] == []


def test_page_has_no_message_that_is_gone() -> None:
    """A `UsageError` that stands there is one of the code."""
    part = PAGE.partition("## Errors of a view")[2].partition("\nOthers:")[0]
    rows = [line for line in part.splitlines() if line.startswith("| ")]
    told = {row.split("|")[1].strip() for row in rows} - {"Message"}
    assert len(told) > 20
    assert told - messages() == set()
