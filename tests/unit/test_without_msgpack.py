"""The channel layer where msgpack is not installed."""

from __future__ import annotations

import subprocess
import sys

LAYER = """
import sys
from django.conf import settings
sys.modules["msgpack"] = None
backend = "dwebsocket.channels.ChannelLayer"
settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": backend}})
from channels.layers import get_channel_layer
try:
    get_channel_layer()
except Exception as error:
    print(type(error).__name__, error)
"""


def test_error_names_what_to_install() -> None:
    """It is the one that the project sees, not the one of Channels, which says no reason."""
    done = subprocess.run(
        [sys.executable, "-c", LAYER], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == (
        "ImproperlyConfigured The channel layer of dwebsocket needs msgpack: "
        'pip install "dwebsocket2[channels]"\n'
    )
