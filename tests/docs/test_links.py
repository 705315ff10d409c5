"""Links lead somewhere, in the repository as GitHub shows it and in editors."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import pytest

from support.pages import ROOT, anchors, links, pages


def test_there_are_links() -> None:
    """Without any the test below would check none."""
    assert sum(len(links(page)) for page in pages()) > 300


@pytest.mark.parametrize("page", pages())
def test_links_of_a_page(page: str) -> None:
    """To files of the repository and to their headings; those to other sites are addresses."""
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            check_address(link)
        else:
            check_file(page, link)


def check_file(page: str, link: str) -> None:
    """Fail when a relative link leads nowhere."""
    path, _, heading = unquote(link).partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists(), f"{page}: {link} is no file"
    resolved = target.resolve()
    assert resolved.is_relative_to(ROOT), f"{page}: {link} leaves the repository"
    if heading and target.suffix == ".md":
        known = anchors(PurePosixPath(resolved.relative_to(ROOT)).as_posix())
        assert heading in known, f"{page}: {link} is no heading of that page"


def check_address(link: str) -> None:
    """Fail when a link to another site can be no address. Nothing is fetched."""
    address = urlsplit(link)
    if address.scheme == "mailto":
        assert re.fullmatch(r"[^@\s]+@[\w.-]+\.\w+", address.path), link
        return
    assert address.hostname is not None, link
    if address.hostname in ("127.0.0.1", "localhost"):
        return
    assert address.scheme == "https", f"{link}: http does not protect its readers"
    assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", address.hostname), link
    assert address.username is None, link
    assert not re.search(r"[\s\"<>{}|\\^`]", link), link
