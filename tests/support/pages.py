"""The pages of the documentation: files of Markdown with headings, links and blocks of code."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        """Give the place, for names of tests."""
        return f"{self.page}:{self.line}"


@cache
def pages() -> tuple[str, ...]:
    """Give the paths of all pages in the repository, from its root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        # A page that was deleted is listed until that is committed.
        names = dict.fromkeys(listed.stdout.splitlines())
        return tuple(name for name in names if (ROOT / name).exists())
    # A source distribution has no repository, and nothing else beside its files.
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return tuple(sorted(str(path.relative_to(ROOT)) for path in found))


@cache
def text_of(page: str) -> str:
    """Give a page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Give a page's blocks of code, in their order."""
    text = text_of(page)
    return tuple(
        Block(
            page,
            text.count("\n", 0, found.start()) + 2,
            found[2],
            re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE),
        )
        for found in _FENCE.finditer(text)
    )


def block(page: str, part: str, language: str = "python") -> str:
    """Give the text of the one block of a language that contains ``part``."""
    found = [each for each in blocks(page) if each.language == language and part in each.text]
    assert len(found) == 1, f"{page} has {len(found)} blocks with {part!r}"
    return found[0].text


def without_code(text: str) -> str:
    """Leave out a text's blocks of code."""
    return _FENCE.sub("", text)


def prose(page: str) -> str:
    """Give a page's text without blocks of code."""
    return without_code(text_of(page))


def headings(page: str) -> list[tuple[int, str]]:
    """Give the level and the text of each heading."""
    found = re.findall(r"^(#{1,6}) (.+)$", prose(page), re.MULTILINE)
    return [(len(marks), text) for marks, text in found]


@cache
def anchors(page: str) -> frozenset[str]:
    """Give the fragments that lead to a page's headings, as GitHub makes them."""
    names: list[str] = []
    for _, text in headings(page):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return frozenset(names)


def links(page: str) -> list[str]:
    """Give the targets of a page's links and pictures."""
    text = re.sub(r"`[^`\n]*`", "``", prose(page))
    return [
        *re.findall(r"\]\(<?([^)\s>]+)>?(?: [\"'][^)]*)?\)", text),
        *re.findall(r"^ *\[[^\]]+\]: <?([^\s>]+)>?", text, re.MULTILINE),
        *re.findall(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"", text),
        *re.findall(r"<(https?:[^\s>]+)>", text),
    ]


def run(page: str, part: str, *replaced: tuple[str, str], **names: Any) -> dict[str, Any]:
    """
    Execute the block of Python that contains ``part``, and give the names that it makes.

    Args:
        page: The page's path.
        part: A text that no other block of the page contains.
        *replaced: Pairs of a text and what stands in for it, such as the address of a server.
        **names: What the block uses without making it.
    """
    code = block(page, part)
    for before, after in replaced:
        assert before in code, f"{page}: the block with {part!r} has no {before!r}"
        code = code.replace(before, after)
    made: dict[str, Any] = {"__name__": "page", **names}
    exec(compile(code, f"{page}, block with {part!r}", "exec"), made)
    return made
