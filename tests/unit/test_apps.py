"""`"dwebsocket"` in `INSTALLED_APPS`."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=[INSTALLED], WEBSOCKET_PING_INTERVALL=5)
django.setup()
from django.core import checks
print([message.id for message in checks.run_checks() if "dwebsocket" in message.id])
"""


def check(installed: str) -> str:
    """Run Django's checks in a project that imports no view."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.replace("INSTALLED]", f"{installed}]")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_checks_run_without_any_view() -> None:
    """Installed, it looks at the settings at once."""
    assert check('"dwebsocket"') == "['dwebsocket.E001']"


def test_is_optional() -> None:
    """Without it the first decorated view brings the checks along."""
    assert check("") == "[]"
