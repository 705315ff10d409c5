"""docs/zh: the pages in Chinese say no less than the English ones."""

from __future__ import annotations

import re

import pytest

from support.pages import blocks, headings, pages, prose
from test_troubleshooting import messages, reasons, shown

ENGLISH = [page.replace("/zh/", "/") for page in pages() if page.startswith("docs/zh/")]
#: docs/migration.md has a long table of test results; the Chinese page refers to it.
GENERATED = re.compile(r"<!-- table of.*?<!-- end of the table -->", re.DOTALL)


def chinese(page: str) -> str:
    """Give the page's twin."""
    return page.replace("docs/", "docs/zh/")


def tables(page: str) -> list[int]:
    """Give the number of rows of each table."""
    text = GENERATED.sub("", prose(page))
    return [part.count("\n") for part in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def lists(page: str) -> list[int]:
    """Give the number of entries in each list."""
    found = re.findall(r"(?:^(?:-|\d+\.) .*\n(?:^ +.*\n)*)+", prose(page), re.MULTILINE)
    return [len(re.findall(r"^(?:-|\d+\.) ", part, re.MULTILINE)) for part in found]


def test_pages() -> None:
    """These four."""
    assert [page.removeprefix("docs/") for page in ENGLISH] == [
        "deployment.md",
        "migration.md",
        "start.md",
        "troubleshooting.md",
    ]


@pytest.mark.parametrize("page", ENGLISH)
class TestPage:
    """A page and its twin."""

    def test_code(self, page: str) -> None:
        """Is the same, block by block."""
        assert [(each.language, each.text) for each in blocks(chinese(page))] == [
            (each.language, each.text) for each in blocks(page)
        ]

    def test_headings(self, page: str) -> None:
        """Have the same levels, in the same order."""
        assert [level for level, _ in headings(chinese(page))] == [
            level for level, _ in headings(page)
        ]

    def test_tables_and_lists(self, page: str) -> None:
        """Have as many rows and entries."""
        assert tables(chinese(page)) == tables(page)
        assert lists(chinese(page)) == lists(page)

    def test_is_chinese(self, page: str) -> None:
        """Nothing was left untranslated: each paragraph has Chinese characters."""
        paragraphs = re.split(r"\n\s*\n", prose(chinese(page)))
        words = [
            part for part in paragraphs if re.search(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}", part)
        ]
        assert [part for part in words if not re.search(r"[\u4e00-\u9fff]", part)] == []


def test_troubleshooting_has_every_message() -> None:
    """Word by word, so that a search finds it."""
    cells = shown("docs/zh/troubleshooting.md")
    assert [each for each in sorted(messages() | reasons()) if each not in cells] == []
