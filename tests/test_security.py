"""The threat model names tests: they exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.(?:py|rs)::\w+)`", PAGE)))


def test_names_enough() -> None:
    """Else the tests below would look at none."""
    assert len(NAMED) > 50


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


def test_each_row_names_one() -> None:
    """A defence without a test is a hope."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "::" not in line]
    allowed = ("| Attacker", "| Defence", "| **")
    assert [row for row in rows if not row.startswith(allowed)] == []
