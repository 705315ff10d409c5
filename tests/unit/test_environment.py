"""Settings of a process without Django: variables of the environment, and keywords."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from dwebsocket.conf import environment
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
        ("METRICS_TOKEN", "0123456789123456", "0123456789123456"),
        ("METRICS_TOKEN", "1234567890123456", "1234567890123456"),
        ("METRICS_TOKEN", "1234567890123e56", "1234567890123e56"),
        ("METRICS_TOKEN", "'1234567890123456'", "1234567890123456"),
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
    ],
)
def test_wrong_values(monkeypatch: pytest.MonkeyPatch, name: str, text: str, error: str) -> None:
    """The message names the variable."""
    monkeypatch.setenv(f"DWEBSOCKET_{name}", text)
    with pytest.raises(ImproperlyConfigured, match=error):
        environment.values()


def test_a_service_of_kubernetes_stops_nothing() -> None:
    """Its variables are in each container; a mistyped setting is named with what was meant."""
    variables = {
        "DWEBSOCKET_SERVICE_HOST": "10.0.0.7",
        "DWEBSOCKET_PORT": "tcp://10.0.0.7:80",
        "DWEBSOCKET_PING_INTERVALL": "5",
    }
    code = """
import dwebsocket.uvicorn as protocol
from dwebsocket import conf
from dwebsocket.conf import environment
environment.has_django()
print(conf.Options.current({}).ping_interval)
"""
    inherited = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **variables, "DWEBSOCKET_PING_INTERVAL": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "7.0\n"), done.stderr
    assert done.stderr == (
        "Variables of the environment that are no settings: DWEBSOCKET_PING_INTERVALL "
        "(did you mean DWEBSOCKET_PING_INTERVAL?), DWEBSOCKET_PORT, DWEBSOCKET_SERVICE_HOST\n"
    )


def test_keywords() -> None:
    """Those of the decorators, checked at once."""
    protocol = configured(ping_interval=5, allowed_origins=["https://a.example"])
    assert issubclass(protocol, WebSocketProtocol)
    assert protocol._keywords == {"ping_interval": 5.0, "allowed_origins": ("https://a.example",)}
    with pytest.raises(ValueError, match=r"configured\(ping_interval=…\) must be a number"):
        configured(ping_interval="often")
    with pytest.raises(TypeError, match="configured\\(\\) has no argument 'pings'"):
        configured(pings=1)
