"""
Which translated pages lag behind their English originals.

A translated page ends with a line that names its original, and the state of its text:
`<!-- translated from docs/start.md at 1a2b3c4d5e6f -->`. Code does not count, since tests compare
it block by block, and neither do tables that tests write, and where lines are broken.

    python tests/docs/translations.py                    # name the pages that lag, and what changed
    python tests/docs/translations.py docs/zh/start.md   # it is up to date: write its last line
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.pages import ROOT, pages, text_of, without_code

#: Folders of docs/, each with the characters that show that a paragraph was translated.
LANGUAGES = {"zh": r"[\u4e00-\u9fff]"}
#: A language begins with these.
FIRST = ("index.md", "start.md", "deployment.md", "troubleshooting.md")
#: Tests write these; the translated page refers to them.
GENERATED = re.compile(r"<!-- table of.*?<!-- end of the table -->", re.DOTALL)
NOTE = re.compile(r"\n<!-- translated from (\S+) at ([0-9a-f]{12}) -->\n\Z")


def language_of(page: str) -> str | None:
    """Give the language that a page was translated into, ``None`` for an original."""
    folder = page.removeprefix("docs/").partition("/")[0]
    return folder if page.startswith("docs/") and folder in LANGUAGES else None


def original(page: str) -> str:
    """Give the page that this one is a translation of."""
    name = page.removeprefix(f"docs/{language_of(page)}/")
    # The site's first page is the beginning of README.md, with other links: the whole counts.
    return "README.md" if name == "index.md" else f"docs/{name}"


def translated() -> list[str]:
    """Give the pages of all languages."""
    return [page for page in pages() if language_of(page)]


def state(text: str) -> str:
    """Give a number that changes with a page's text."""
    words = GENERATED.sub("", without_code(text)).split()
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


def noted(page: str) -> tuple[str, str] | None:
    """Give the original and its state, as a translated page notes them."""
    found = NOTE.search(text_of(page))
    return (found[1], found[2]) if found else None


def lagging() -> list[str]:
    """Give the pages whose original has changed since."""
    return [page for page in translated() if noted(page) != (original(page), now(page))]


def now(page: str) -> str:
    """Give the state of a translated page's original."""
    return state(text_of(original(page)))


def commit_with(page: str, wanted: str) -> str | None:
    """Give the last commit in which a page had this state."""
    for commit in git("log", "--format=%h", "--", page).split():
        if state(git("show", f"{commit}:{page}")) == wanted:
            return commit
    return None


def git(*arguments: str) -> str:
    """Give what git prints, nothing where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    return done.stdout.decode()


def main(arguments: list[str]) -> int:
    """Write the last lines of the pages that are named, or name those that lag."""
    for argument in arguments:
        page = Path(argument).resolve().relative_to(ROOT).as_posix()
        text = NOTE.sub("\n", text_of(page)).rstrip("\n")
        note = f"<!-- translated from {original(page)} at {now(page)} -->"
        (ROOT / page).write_text(f"{text}\n\n{note}\n", encoding="utf-8")
    if arguments:
        return 0
    pages_that_lag = lagging()
    for page in pages_that_lag:
        note = noted(page)
        since = commit_with(note[0], note[1]) if note else None
        print(f"{page}: " + (f"git diff {since} -- {original(page)}" if since else "not noted"))
    return 1 if pages_that_lag else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
