"""A refused handshake in a few lines of text."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwebsocket.exceptions import HandshakeRefused

_TITLE = re.compile("<title", re.IGNORECASE)
_TITLE_END = re.compile("</title>", re.IGNORECASE)
_MOST = 500


def explained(refused: HandshakeRefused) -> str:
    """
    Returns the status, and its explanation.

    This is the address of a redirect, the title of a page, or the beginning of any other text.
    """
    headers, body = refused.headers, refused.body.decode(errors="replace")
    assert headers is not None
    if "Location" in headers:
        return f"{refused}: it redirects to {headers['Location']}"
    if headers.get_content_type() == "text/html":
        body = html.unescape(" ".join(_title_of(body).split()))
    return f"{refused}\n{body[:_MOST]}".rstrip()


def _title_of(page: str) -> str:
    """
    Returns the text of the first title; nothing without one.

    Step by step: one expression for all of it would try every ``<title`` of a page that has many,
    to the page's end.
    """
    if (begin := _TITLE.search(page)) is None:
        return ""
    start = page.find(">", begin.end()) + 1
    end = _TITLE_END.search(page, start)
    return page[start : end.start()] if start and end is not None else ""
