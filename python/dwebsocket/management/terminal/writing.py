"""
Messages and refusals as a terminal shows them: without control characters, JSON in colour.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING

from django.utils import termcolors

if TYPE_CHECKING:
    from dwebsocket.exceptions import HandshakeRefused

_TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<word>\b(?:true|false|null)\b)|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
)
_COLOURS = {"key": "blue", "text": "green", "word": "magenta", "number": "cyan"}
# What a terminal would obey: those of ASCII but the line break and the tab, those of 8 bits,
# further line breaks, and marks that show text in another order; and halves of characters, which
# JSON can have and no terminal can show.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MOST_HEX = 64
_TITLE = re.compile("<title", re.IGNORECASE)
_TITLE_END = re.compile("</title>", re.IGNORECASE)
# So much of a refusal's page is shown.
_MOST_OF_PAGE = 500


def shown(message: str | bytes, *, colour: bool) -> str:
    """
    Returns a message as text: JSON over several lines, bytes as hexadecimal digits.

    A server cannot move the cursor or change the terminal by what it sends. Lines after the first
    one are indented: none looks like one of the command's own.
    """
    if isinstance(message, bytes):
        digits = message[:_MOST_HEX].hex(" ")
        more = "…" if len(message) > _MOST_HEX else ""
        return f"[{len(message)} bytes] {digits}{more}"
    if message[:1] in ("{", "["):
        try:
            message = json.dumps(json.loads(message), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            # It only looked like JSON.
            colour = False
    else:
        colour = False
    text = _CONTROLS.sub(lambda found: repr(found[0])[1:-1], message)
    text = _TOKEN.sub(_coloured, text) if colour else text
    return text.replace("\n", "\n  ")


def _coloured(token: re.Match[str]) -> str:
    kind = token.lastgroup or "text"
    return termcolors.colorize(token[0], fg=_COLOURS[kind])


def explained(refused: HandshakeRefused) -> str:
    """
    Returns the status, and what explains it.

    That is the address of a redirect, the title of a page, or the beginning of any other text.
    """
    headers, body = refused.headers, refused.body.decode(errors="replace")
    assert headers is not None
    if "Location" in headers:
        return f"{refused}: it redirects to {headers['Location']}"
    if headers.get_content_type() == "text/html":
        body = html.unescape(" ".join(_title_of(body).split()))
    return f"{refused}\n{body[:_MOST_OF_PAGE]}".rstrip()


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
