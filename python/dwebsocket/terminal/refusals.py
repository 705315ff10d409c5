"""A refused handshake in a few lines of text."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwebsocket.exceptions import HandshakeRefused

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.DOTALL | re.IGNORECASE)
_MOST = 500


def explained(refused: HandshakeRefused) -> str:
    """
    Gives the status, and what explains it.

    That is the address of a redirect, the title of a page, or the beginning of any other text.
    """
    headers, body = refused.headers, refused.body.decode(errors="replace")
    assert headers is not None
    if "Location" in headers:
        return f"{refused}: it redirects to {headers['Location']}"
    if headers.get_content_type() == "text/html":
        found = _TITLE.search(body)
        body = html.unescape(" ".join(found[1].split())) if found else ""
    return f"{refused}\n{body[:_MOST]}".rstrip()
