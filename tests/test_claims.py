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
    """Without names the tests below would check none."""
    assert len(set(TEST.findall(PAGES[page]))) >= least


def exists(named: str) -> bool:
    """Whether it is a test function or a class of tests, in the file that is said."""
    path, _, name = named.partition("::")
    if path.endswith(".py"):
        test = rf"^ *(async )?(def|class) (?=[Tt]est){name}\b"
    else:
        # Each is behind an attribute that makes it one.
        test = rf"#\[(tokio::)?test\b[^\]]*\]\s*(#\[[^\]]*\]\s*)*(async )?fn {name}\b"
    return re.search(test, (ROOT / path).read_text(), re.MULTILINE) is not None


def test_named_tests_exist() -> None:
    """Each of them; and the search for one that does not finds none."""
    assert [named for named in NAMED if not exists(named)] == []
    assert not exists("tests/test_claims.py::test_that_is_not_there")


# These sections promise nothing: they name attacks, and the duties of those who run a site.
PROMISE_NOTHING = {"Security", "From whom", "What is left to you"}


def blocks(section: str) -> list[list[str]]:
    """Give the paragraphs of a section, tables as a list of their rows, lists of their items."""
    found = []
    for block in re.split(r"\n{2,}", section.strip()):
        if block.startswith("|"):
            found.append(block.splitlines()[2:])
        else:
            found.append(re.split(r"\n(?=- |\d+\. )", block))
    return found


def is_proved(lines: list[str]) -> bool:
    """Whether each line of a block names a test."""
    return all(TEST.search(line) for line in lines)


def unproved(text: str) -> list[str]:
    """Give the promises of a page in this form that name no test."""
    hopes = []
    for part in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        title, _, section = part.partition("\n")
        if title in PROMISE_NOTHING:
            continue
        parts = blocks(section) if section.strip() else []
        # A last paragraph of tests stands for all of a section's text, but for the rows of tables.
        is_footed = bool(parts) and parts[-1][0].startswith("Tests: ") and is_proved(parts[-1])
        for number, lines in enumerate(parts):
            below = parts[number + 1] if number + 1 < len(parts) else [""]
            if len(lines) == 1 and below[0].startswith(("| ", "- ")) and is_proved(below):
                # It introduces a table or list that proves each line of its own.
                continue
            if number and is_proved(parts[number - 1]) and parts[number - 1][0].endswith(":"):
                # The sentence above it says which test does.
                continue
            if lines[0].startswith("|") or not is_footed:
                hopes += [line for line in lines if not TEST.search(line)]
    return hopes


def test_form_of_the_page() -> None:
    """That the test below would find a promise without a test."""
    test = "`tests/x.py::test_x`"
    good = f"# A\nPrinted.\n\n| Row {test} |\n|---|\n| Row {test} |\n\n- item\n  {test}\n"
    assert unproved(good) == []
    assert unproved(f"# A\nAs in {test}:\n\n| a |\n|---|\n| one |\n") == []
    assert unproved("# A\nNever slow.\n") == ["Never slow."]
    assert unproved(f"# A\n{test}\n\n## B\nNever slow.\n") == ["Never slow."]
    assert unproved(f"# A\nNever slow.\n\n{test}\n") == ["Never slow."]
    assert unproved(f"# A\n- one {test}\n- two\n") == ["- two"]
    assert unproved(f"# A\nIntro.\n\n| a |\n|---|\n| one {test} |\n| two |\n") == [
        *("Intro.", "| two |"),
    ]
    foot = f"Never slow.\n\n- one\n- two\n\nTests: {test}.\n"
    assert unproved(f"# A\n{foot}") == []
    assert unproved(f"# A\n| a |\n|---|\n| one |\n\n{foot}") == ["| one |"]
    assert unproved(f"# A\nNever slow.\n\n## B\n{foot}") == ["Never slow."]
    assert unproved("# From whom\nThey can lie.\n") == []


def test_each_promise_names_one() -> None:
    """Of the page on security: each row, each item of a list and each paragraph."""
    assert unproved(PAGES["security"]) == []


def test_each_row_names_one() -> None:
    """Each row for a clause names a test."""
    lines = PAGES["conformance"].splitlines()
    rows = [line for line in lines if line.startswith("| ") and "::" not in line]
    assert [row for row in rows if not row.startswith("| Clause")] == []


def test_each_section_has_a_row() -> None:
    """Of those that bind a server."""
    clauses = re.findall(r"^\| ([\d., and]+) \|", PAGES["conformance"], re.MULTILINE)
    found = {section for clause in clauses for section in re.findall(r"[\d.]*\d", clause)}
    assert SECTIONS - found == set()
