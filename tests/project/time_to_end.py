"""How long a process of the test project waits for its views when it ends."""

from __future__ import annotations

import os
import sys

from dwebsocket.runners import shutdown


def allow() -> None:
    """Wait for so many seconds as the environment says, if it does; before the first connection."""
    if seconds := os.environ.get("PROJECT_TIME_TO_END"):
        shutdown._GRACE_S = float(seconds)
        if asgi := sys.modules.get("dwebsocket.asgi"):
            asgi.__dict__["_GRACE_S"] = float(seconds)
