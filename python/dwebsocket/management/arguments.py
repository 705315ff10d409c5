"""Arguments that commands share: how to connect to a WebSocket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

if TYPE_CHECKING:
    from django.core.management.base import CommandParser

    from dwebsocket.client import ConnectOptions

# The options of commands, by those of `connect`.
_OPTIONS = {
    "ca_file": "--cafile",
    "client_cert": "--cert",
    "headers": "--header",
    "proxy": "--proxy",
    "subprotocols": "--subprotocol",
}
#: The largest number that an option takes. As seconds it is 31 years.
MOST = 1e9


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
    add(
        "--proxy",
        help="go through this HTTP proxy; 'none' for none, else the environment's, which is not "
        "asked for this machine",
    )
    add("--no-compression", action="store_true", help="do not offer permessage-deflate")
    add("--timeout", type=float, default=10.0, help="seconds for opening a connection")


def options_of(options: dict[str, Any], headers: list[tuple[str, str]]) -> ConnectOptions:
    """Returns a command's options as :func:`dwebsocket.connect` takes them, ``headers`` added."""
    check_number(options, "timeout")
    found: ConnectOptions = {
        "subprotocols": options["subprotocol"],
        "headers": [*headers, *map(header_of, options["header"])],
        "origin": options["origin"],
        "open_timeout": options["timeout"],
        "ca_file": options["cafile"],
        "verify": not options["insecure"],
        "client_cert": options["cert"],
        "compression": not options["no_compression"],
    }
    if options["proxy"]:
        found["proxy"] = options["proxy"] if has_proxy(options) else None
    return found


def has_proxy(options: dict[str, Any]) -> bool:
    """Whether ``--proxy`` names one."""
    return options["proxy"] not in (None, "", "none")


def check_number(options: dict[str, Any], name: str, least: float = 0, most: float = MOST) -> None:
    """Raises ``CommandError`` if an option is below ``least``, above ``most``, or no number."""
    if not least <= (value := options[name]) <= most:
        option = f"--{name.replace('_', '-')}"
        raise CommandError(f"{option} must be {least:g} or more, {most:.0f} at most, not {value}")


def text_of(error: Exception) -> str:
    """Returns the text of an error of ``connect``, with the names of the command's options."""
    text = re.sub(r"^\w+", lambda name: _OPTIONS.get(name[0], name[0]), str(error))
    return text.replace("proxy=None", "--proxy none")


def header_of(text: str) -> tuple[str, str]:
    """Returns the name and the value of a ``--header``; ``CommandError`` for anything else."""
    name, colon, value = text.partition(":")
    if not colon:
        raise CommandError(f"--header: {text!r} is no header: write 'Name: value'")
    return name.strip(), value.strip()
