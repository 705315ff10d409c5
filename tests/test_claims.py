"""The threat model and the table of conformance name tests: they exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("security", "conformance")
}
TEST = re.compile(r"`([\w/]+\.(?:py|rs)::\w+)`")
NAMED = sorted({named for page in PAGES.values() for named in TEST.findall(page)})
# Sections that bind a server, and have no others below.
SECTIONS = {
    *("4.2.1", "4.2.2", "4.3", "4.4"),
    *("5.1", "5.2", "5.3", "5.4", "5.5", "5.5.1", "5.5.2", "5.5.3", "5.6", "6.1", "6.2"),
    *("7.1.1", "7.1.2", "7.1.3", "7.1.4", "7.1.5", "7.1.6", "7.1.7"),
    *("7.2.1", "7.3", "7.4.1", "7.4.2", "8.1"),
    # RFC 7692
    *("5", "6.1", "6.2", "7.1", "7.1.1.1", "7.1.1.2", "7.1.2.1", "7.1.2.2"),
    *("7.2.1", "7.2.2", "7.2.3"),
}


@pytest.mark.parametrize(("page", "least"), [("security", 50), ("conformance", 50)])
def test_names_enough(page: str, least: int) -> None:
    """Else the tests below would look at none."""
    assert len(set(TEST.findall(PAGES[page]))) >= least


@pytest.mark.parametrize("named", NAMED)
def test_exists(named: str) -> None:
    """As a test function or a class of tests, in the file that is said."""
    path, _, name = named.partition("::")
    text = (ROOT / path).read_text()
    if path.endswith(".py"):
        assert name.lower().startswith("test")
        assert re.search(rf"^ *(async )?(def|class) {name}\b", text, re.MULTILINE)
    else:
        # Each is behind an attribute that makes it one.
        assert re.search(
            rf"#\[(tokio::)?test\b[^\]]*\]\s*(#\[[^\]]*\]\s*)*(async )?fn {name}\b", text
        )


@pytest.mark.parametrize("page", PAGES)
def test_each_row_names_one(page: str) -> None:
    """A claim without a test is a hope."""
    rows = [line for line in PAGES[page].splitlines() if line.startswith("| ") and "::" not in line]
    allowed = ("| Attacker", "| Defence", "| Clause", "| **")
    assert [row for row in rows if not row.startswith(allowed)] == []


def test_each_section_has_a_row() -> None:
    """Of those that bind a server."""
    clauses = re.findall(r"^\| ([\d., and]+) \|", PAGES["conformance"], re.MULTILINE)
    found = {section for clause in clauses for section in re.findall(r"[\d.]*\d", clause)}
    assert SECTIONS - found == set()
