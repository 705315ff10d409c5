"""The rules of the opening handshake (RFC 6455 section 4), as ``src/protocol/handshake.rs``."""

from __future__ import annotations

import base64
import hashlib
import re

_VERSION = "13"
_WRONG_VERSION = "Sec-WebSocket-Version must be 13"
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# RFC 9110 section 5.6.2.
_CHARACTER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_TOKEN = re.compile(f"{_CHARACTER}+")
# The base64 of 16 bytes. Some clients set the unused bits of its last digit.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
# A name and its parameters; values may be quoted, and are tokens all the same.
_VALUE = rf'(?:{_CHARACTER}+|"(?:\\?{_CHARACTER})+")'
_PARAMETER = rf"[ \t]*;[ \t]*{_CHARACTER}+(?:[ \t]*=[ \t]*{_VALUE})?"
_EXTENSION = re.compile(rf"{_CHARACTER}+(?:{_PARAMETER})*")
# A header's value may not hold these: control characters, and characters that are no byte.
_FORBIDDEN = re.compile(r"[^\t -~\x80-\xff]")

# Headers that belong to a body or to one hop, or that the 101 writes itself.
_OWN_HEADERS = {
    *("connection", "content-encoding", "content-language", "content-length", "content-range"),
    *("content-type", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
    "upgrade",
}
_OWN_PREFIX = "sec-websocket-"


def validate_handshake(
    *,
    method: str,
    http_version: tuple[int, int],
    host: str | None,
    content_length: str | None,
    transfer_encoding: str | None,
    upgrade: str | None,
    connection: str | None,
    version: str | None,
    key: str | None,
    protocols: str | None,
    extensions: str | None,
) -> tuple[int, str, list[str]]:
    """Returns 101, the accept key and the offered subprotocols, or a status and the reason."""
    offered = [] if protocols is None else _elements(protocols)
    extended = [] if extensions is None else _elements(extensions)
    rules = (
        (method == "GET", "a WebSocket handshake must be a GET request"),
        (http_version >= (1, 1), "a WebSocket handshake needs HTTP/1.1 or newer"),
        (host is not None, "a WebSocket handshake needs a Host header"),
        (
            transfer_encoding is None and not (content_length or "").strip(" \t0"),
            "a WebSocket handshake has no body",
        ),
        (_names(upgrade, "websocket"), "the Upgrade header must name websocket"),
        (_names(connection, "upgrade"), "the Connection header must name Upgrade"),
        (_trim(version) == _VERSION, _WRONG_VERSION),
        (_KEY.fullmatch(_trim(key)), "Sec-WebSocket-Key must be 16 bytes in base64"),
        (
            protocols is None
            or (offered and all(map(is_token, offered)) and len({*offered}) == len(offered)),
            "Sec-WebSocket-Protocol must be a list of different tokens",
        ),
        (
            extensions is None or (extended and all(map(_EXTENSION.fullmatch, extended))),
            "Sec-WebSocket-Extensions must be a list of extensions",
        ),
    )
    for is_met, reason in rules:
        if not is_met:
            # Another version might do.
            return (426 if reason is _WRONG_VERSION else 400), reason, []
    digest = hashlib.sha1((_trim(key) + _GUID).encode(), usedforsecurity=False).digest()
    return 101, base64.b64encode(digest).decode(), offered


def response_head(
    accept_key: str,
    subprotocol: str | None,
    headers: list[tuple[str, str]],
    *,
    compression: object = None,
) -> bytes:
    """
    Returns the head of the 101, without the headers that are not the application's.

    Raises:
        ValueError: A header that would break the response.
    """
    if subprotocol is not None and not is_token(subprotocol):
        raise ValueError("the value of Sec-WebSocket-Protocol holds a forbidden character")
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    for name, value in headers:
        if not is_token(name):
            raise ValueError(f'"{name}" is not the name of a header')
        if name.lower() in _OWN_HEADERS or name.lower().startswith(_OWN_PREFIX):
            continue
        if _FORBIDDEN.search(value):
            raise ValueError(f"the value of {name} holds a forbidden character")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def choose_subprotocol(supported: list[str], offered: list[str]) -> str | None:
    """Returns the first of ``supported`` that the client offers."""
    return next((each for each in supported if each in offered), None)


def is_token(text: str) -> bool:
    """Whether ``text`` may be the name of a header or of a subprotocol."""
    return _TOKEN.fullmatch(text) is not None


def may_send_close_code(code: int) -> bool:
    """Whether a close frame may carry ``code`` (RFC 6455 section 7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _elements(header: str) -> list[str]:
    """Returns the elements of a list in a header, empty ones ignored; commas in quotes are part."""
    parts = re.findall(r'(?:[^,"]|"(?:\\.|[^"\\])*"|")+', header)
    return [part for part in map(_trim, parts) if part]


def _names(header: str | None, token: str) -> bool:
    """Whether a list in a header has ``token``, in any case."""
    return any(each.strip(" \t").lower() == token for each in (header or "").split(","))


def _trim(value: str | None) -> str:
    return (value or "").strip(" \t")
