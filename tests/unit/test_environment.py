"""Settings of a process without Django: variables of the environment, and keywords."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from dwebsocket import environment
from dwebsocket.uvicorn import WebSocketProtocol, configured


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PING_INTERVAL", "5", 5),
        ("PING_INTERVAL", " 2.5 ", 2.5),
        ("PING_INTERVAL", "None", None),
        ("COMPRESSION", "False", False),
        ("COMPRESSION", "{'level': 1}", {"level": 1}),
        ("ALLOWED_ORIGINS", "https://a.example, https://b.example", ["https://a.example", "https://b.example"]),
        ("ALLOWED_ORIGINS", "", []),
        ("SUBPROTOCOLS", "chat", ["chat"]),
    ],
)  # fmt: skip
def test_values(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    """Numbers, True, False, None and dicts as Python has them; lists with commas."""
    monkeypatch.setenv(f"DWEBSOCKET_{name}", text)
    assert environment.values() == {name: value}


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("PING_INTERVAL", "often", "DWEBSOCKET_PING_INTERVAL must be a number of seconds above 0"),
        ("ALLOWED_ORIGINS", "a.example", "DWEBSOCKET_ALLOWED_ORIGINS has 'a.example', which is no"),
        ("PINGS", "1", "There is no setting DWEBSOCKET_PINGS"),
    ],
)
def test_wrong_values(monkeypatch: pytest.MonkeyPatch, name: str, text: str, error: str) -> None:
    """The message names the variable."""
    monkeypatch.setenv(f"DWEBSOCKET_{name}", text)
    with pytest.raises(ImproperlyConfigured, match=error):
        environment.values()


def test_keywords() -> None:
    """Those of the decorators, checked at once."""
    protocol = configured(ping_interval=5, allowed_origins=["https://a.example"])
    assert issubclass(protocol, WebSocketProtocol)
    assert protocol._keywords == {"ping_interval": 5.0, "allowed_origins": ("https://a.example",)}
    with pytest.raises(ValueError, match=r"configured\(ping_interval=…\) must be a number"):
        configured(ping_interval="often")
    with pytest.raises(TypeError, match="configured\\(\\) has no argument 'pings'"):
        configured(pings=1)
