"""
Makes a checkout ready for a release: addresses for PyPI, which knows no files of the repository.

    python .ci/release.py        # changes README.md and pyproject.toml; may be repeated

The repository's address stands in pyproject.toml, once. While it is the placeholder, this fails and
changes nothing. Links and pictures of the README become absolute, at the release's tag, and the
other addresses of the project are added. `RELEASE=1` has the scripts that build call this first.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_REPOSITORY = re.compile(r'^Repository = "(.*)"$', re.MULTILINE)
# No link of a block of code is one.
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_RELATIVE = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")
_PICTURES = (".gif", ".jpg", ".png", ".svg")


def absolute(text: str, repository: str, tag: str) -> str:
    """Gives a page of the repository's root with absolute links and pictures."""

    def link(found: re.Match[str]) -> str:
        kind = "raw" if found[1].endswith(_PICTURES) else "blob"
        return f"]({repository}/{kind}/{tag}/{found[1]})"

    parts = _FENCED.split(text)
    # Every second one is a block.
    parts[::2] = [_RELATIVE.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def addresses(project: str, repository: str, tag: str) -> str:
    """Gives pyproject.toml with all addresses that PyPI shows beside the page."""
    lines = {
        "Documentation": f"{repository}/blob/{tag}/docs/index.md",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    new = "".join(f'\n{name} = "{address}"' for name, address in lines.items())
    if new in project:
        return project
    return _REPOSITORY.sub(lambda found: found[0] + new, project)


def main() -> int:
    """Changes the two files; gives the exit status."""
    project, readme = ROOT / "pyproject.toml", ROOT / "README.md"
    found = _REPOSITORY.search(project.read_text(encoding="utf-8"))
    repository = "" if found is None else found[1].rstrip("/")
    if not repository.startswith("https://") or ".invalid/" in repository:
        print(
            "pyproject.toml: [project.urls] has no address of the repository yet: write it in the "
            f"place of the placeholder ({repository or 'it is missing'}) before a release",
            file=sys.stderr,
        )
        return 1
    cargo = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*)"$', cargo, re.MULTILINE)
    assert version is not None
    tag = f"v{version[1]}"
    for path, change in ((project, addresses), (readme, absolute)):
        text = change(path.read_text(encoding="utf-8"), repository, tag)
        path.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
