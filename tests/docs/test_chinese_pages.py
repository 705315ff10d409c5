"""Translated pages say no less than the English ones. See translations.py."""

from __future__ import annotations

import re

import pytest
import translations
from translations import FIRST, GENERATED, LANGUAGES, NOTE, original, translated

from support.pages import ROOT, blocks, headings, links, prose
from test_troubleshooting import messages, reasons, shown


def tables(page: str) -> list[int]:
    """Give the number of rows of each table."""
    text = GENERATED.sub("", prose(page))
    return [part.count("\n") for part in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def lists(page: str) -> list[int]:
    """Give the number of entries in each list."""
    found = re.findall(r"(?:^(?:-|\d+\.) .*\n(?:^ +.*\n)*)+", prose(page), re.MULTILINE)
    return [len(re.findall(r"^(?:-|\d+\.) ", part, re.MULTILINE)) for part in found]


def test_languages() -> None:
    """Each begins with the pages that a newcomer needs."""
    for language in LANGUAGES:
        assert {f"docs/{language}/{name}" for name in FIRST} <= set(translated())


@pytest.mark.parametrize("page", translated())
class TestPage:
    """A page and its original."""

    def test_original(self, page: str) -> None:
        """Is there, and the last line names it."""
        found = translations.noted(page)
        assert found, f"python tests/docs/translations.py {page} writes the last line"
        assert found[0] == original(page)

    def test_code(self, page: str) -> None:
        """Is the same, block by block."""
        assert [(each.language, each.text) for each in blocks(page)] == [
            (each.language, each.text) for each in blocks(original(page))
        ]

    def test_headings(self, page: str) -> None:
        """Have the same levels, in the same order."""
        assert [level for level, _ in headings(page)] == [
            level for level, _ in headings(original(page))
        ]

    def test_tables_and_lists(self, page: str) -> None:
        """Have as many rows and entries."""
        assert tables(page) == tables(original(page))
        assert lists(page) == lists(original(page))

    def test_is_translated(self, page: str) -> None:
        """Each paragraph has letters of the language."""
        letters = LANGUAGES[str(translations.language_of(page))]
        paragraphs = re.split(r"\n\s*\n", NOTE.sub("", prose(page)))
        words = [
            part for part in paragraphs if re.search(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}", part)
        ]
        assert [part for part in words if not re.search(letters, part)] == []

    def test_links(self, page: str) -> None:
        """Lead to translated pages where there are some; a page may refer to its original."""
        own = translations.language_of(page)
        twins = {
            original(each): each for each in translated() if translations.language_of(each) == own
        }
        twins["docs/index.md"] = f"docs/{own}/index.md"
        for link in links(page):
            if re.match(r"[a-z]+:|#", link):
                continue
            path = (ROOT / page).parent / link.partition("#")[0]
            target = path.resolve().relative_to(ROOT).as_posix()
            twin = twins.get(target)
            assert twin in (None, page), f"{link} is translated: {twin}"


class TestLag:
    """An original may change alone: a page may lag until the next release."""

    @pytest.mark.every("must not stop a change of the English pages")
    def test_no_page_lags(self) -> None:
        """Before a release."""
        assert translations.lagging() == [], "see python tests/docs/translations.py"

    def test_words_count(self) -> None:
        """A changed word, but no line break, no code and nothing that tests write."""
        page = "One two.\n\n```\ncode\n```\n<!-- table of x -->\n| 1 |\n<!-- end of the table -->\n"
        same = translations.state(page)
        for before, after in (("One two", "One\ntwo"), ("code", "codes"), ("| 1 |", "| 2 |")):
            assert translations.state(page.replace(before, after)) == same
        assert translations.state(page.replace("two", "three")) != same


def test_troubleshooting_has_every_message() -> None:
    """Word by word, so that a search finds it."""
    cells = shown("docs/zh/troubleshooting.md")
    assert [each for each in sorted(messages() | reasons()) if each not in cells] == []
