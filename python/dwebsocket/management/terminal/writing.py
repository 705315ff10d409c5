"""Messages as a terminal shows them: without control characters, JSON in colour."""

from __future__ import annotations

import json
import re

from django.utils import termcolors

_TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<word>\b(?:true|false|null)\b)|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
)
_COLOURS = {"key": "blue", "text": "green", "word": "magenta", "number": "cyan"}
# What a terminal would obey: those of ASCII but the line break and the tab, those of 8 bits,
# further line breaks, and marks that show text in another order.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_MOST_HEX = 64


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
