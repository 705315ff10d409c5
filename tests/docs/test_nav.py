"""mkdocs.yml: every page of docs/ is found by those who read the site."""

from __future__ import annotations

import re

from support.pages import ROOT, pages

NAV = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]


def test_each_page_is_there_once() -> None:
    """And nothing else."""
    listed = re.findall(r"([\w/-]+\.md)$", NAV, re.MULTILINE)
    assert sorted(listed) == sorted(
        page.removeprefix("docs/") for page in pages() if page.startswith("docs/")
    )


def test_titles_differ() -> None:
    """Two entries of one section with the same title could not be told apart."""
    titles = re.findall(r"^ +- (.+?):", NAV, re.MULTILINE)
    assert len(titles) == len(set(titles))
