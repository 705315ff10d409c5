"""Arguments that commands share: how to connect to a WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

if TYPE_CHECKING:
    from django.core.management.base import CommandParser

    from dwebsocket.client import ConnectOptions


def add_connecting(parser: CommandParser) -> None:
    """Declares them."""
    add = parser.add_argument
    add("url", help="ws://host/path/ or wss://host/path/")
    add("--origin", help="the Origin of a page, such as https://example.com")
    add("--subprotocol", action="append", default=[], help="offer this one; may be repeated")
    add("--header", action="append", default=[], help="send 'Name: value'; may be repeated")
    add("--cafile", help="trust the certificates in this file")
    add("--insecure", action="store_true", help="do not verify the server's certificate")
    add("--cert", help="the own certificate with its key, a PEM file")
    add("--proxy", help="go through this HTTP proxy; 'none' for none, else the environment's")
    add("--no-compression", action="store_true", help="do not offer permessage-deflate")
    add("--timeout", type=float, default=10.0, help="seconds for opening a connection")


def options_of(options: dict[str, Any], headers: list[tuple[str, str]]) -> ConnectOptions:
    """
    Gives them as those of :func:`dwebsocket.connect`.

    Args:
        options: The command's.
        headers: Further headers.

    Raises:
        CommandError: ``--header`` is none.
    """
    found: ConnectOptions = {
        "subprotocols": options["subprotocol"],
        "headers": [*headers, *map(_header, options["header"])],
        "origin": options["origin"],
        "open_timeout": options["timeout"],
        "ca_file": options["cafile"],
        "verify": not options["insecure"],
        "client_cert": options["cert"],
        "compression": not options["no_compression"],
    }
    if options["proxy"]:
        found["proxy"] = None if options["proxy"] == "none" else options["proxy"]
    return found


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise CommandError(f"--header: {text!r} is no header: write 'Name: value'")
    return name.strip(), value.strip()
