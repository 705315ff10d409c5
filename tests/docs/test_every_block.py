"""Every block of code on every page is executed by a test: executed.py says which."""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest
from executed import EXECUTED, SHELL, SITE
from translations import language_of

from support.pages import ROOT, Block, blocks, pages, text_of

#: Measured once, for the record.
RECORDS = "bench/record/"
PYTHON = [each for page in pages() for each in blocks(page) if each.language == "python"]
#: Files that find a block by a part of its text.
FINDING = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "tests/docs").glob("test_*.py")
    if "from support.pages import" in path.read_text()
)


@pytest.mark.parametrize("page", [page for page in pages() if not page.startswith(RECORDS)])
def test_each_block_is_registered(page: str) -> None:
    """By page and language; a block more or less, and the number differs."""
    found = Counter(each.language for each in blocks(page))
    registered = {
        language: sum(tests.values()) for language, tests in EXECUTED.get(page, {}).items()
    }
    assert found == registered, "a block was added: write its test, and see tests/docs/executed.py"


def test_pages_exist() -> None:
    """None is left over."""
    assert set(EXECUTED) - set(pages()) == set()


def test_tests_exist_and_know_the_page() -> None:
    """The files that the registry names are there, and name the page."""
    for page, languages in EXECUTED.items():
        for tests in languages.values():
            for name in tests:
                code = (ROOT / name).read_text()
                # Some find their pages by the registry, or by the folder of the page's twins.
                named = page.rpartition("/")[2].removesuffix(".md")
                is_general = name in (SHELL, SITE) or language_of(page)
                assert is_general or named in code, f"{name} does not name {page}"


def texts_of(name: str) -> set[str]:
    """Give the literal texts of a test's file, without those that are in any block."""
    found = ast.walk(ast.parse((ROOT / name).read_text()))
    texts = (node.value for node in found if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and len(text) > 3}


@pytest.mark.parametrize("page", EXECUTED)
def test_files_name_the_blocks_that_they_execute(page: str) -> None:
    """Those that find their blocks by a part of the text have such a part for each."""
    for language, tests in EXECUTED[page].items():
        for name, number in tests.items():
            if name not in FINDING or name in (SHELL, SITE) or language_of(page):
                continue
            texts = texts_of(name)
            named = [
                each
                for each in blocks(page)
                if each.language == language and any(text in each.text for text in texts)
            ]
            assert len(named) >= number, f"{name} names {len(named)} of its {number} blocks"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_has_no_syntax_error(block: Block) -> None:
    """Also where its test is one of those that need more than pip brings."""
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_fences_are_closed() -> None:
    """Else the rest of a page would be no block, or one large one."""
    for page in pages():
        assert len(re.findall(r"^ *```", text_of(page), re.MULTILINE)) == 2 * len(blocks(page))
