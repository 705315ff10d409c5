"""The address of a WebSocket, in parts."""

from __future__ import annotations

from typing import Any

import pytest

from dwebsocket import conf
from dwebsocket.client import options
from dwebsocket.client.address import Address


@pytest.mark.parametrize(
    ("url", "address", "netloc", "origin"),
    [
        ("ws://a.example", (False, "a.example", 80, "/"), "a.example", "http://a.example"),
        ("wss://a.example/b/?c=d", (True, "a.example", 443, "/b/?c=d"), "a.example", None),
        ("wss://a.example:8443/", (True, "a.example", 8443, "/"), "a.example:8443", None),
        ("ws://[::1]:80/", (False, "::1", 80, "/"), "[::1]", "http://[::1]"),
        ("ws://bücher.example/ü", (False, "xn--bcher-kva.example", 80, "/%C3%BC"),
         "xn--bcher-kva.example", "http://xn--bcher-kva.example"),
    ],
)  # fmt: skip
def test_parts(url: str, address: tuple, netloc: str, origin: str | None) -> None:
    """Host and Origin as a browser would send them."""
    parsed = Address.parse(url)
    assert parsed == Address(*address)
    assert parsed.netloc == netloc
    assert parsed.origin == (origin or f"https://{netloc}")


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        *((host, True) for host in ("localhost", "chat.localhost", "127.0.0.1", "127.1.2.3")),
        *((host, False) for host in ("example.com", "10.0.0.1", "0.0.0.0")),
        *(("[::1]", True), ("[::]", False), ("localhost.example.com", False)),
    ],
)
def test_hosts_of_this_machine(host: str, is_loopback: bool) -> None:
    """By name and by address."""
    assert Address.parse(f"ws://{host}:8000/").is_loopback is is_loopback


def test_user() -> None:
    """Is a header, and no part of the host."""
    parsed = Address.parse("ws://ada:s%40ve@a.example/")
    assert (parsed.host, parsed.authorization) == ("a.example", "Basic YWRhOnNAdmU=")


def test_client_has_the_defaults_of_the_settings() -> None:
    """Connections that we open and those that clients open are limited and compressed alike."""
    compression, defaults = conf.Compression(), dict[str, Any](options._DEFAULTS)
    assert options._COMPRESSION == (compression.threshold, compression.level)
    assert options._MAX_FRAGMENTS == conf.SETTINGS["MAX_FRAGMENTS"].default
    shared = {name: default for name, default in defaults.items() if name.upper() in conf.SETTINGS}
    del shared["subprotocols"]
    assert shared == {name: conf.SETTINGS[name.upper()].default for name in shared}
