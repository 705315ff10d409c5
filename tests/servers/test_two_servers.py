"""Two servers in one process: each one's end is its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kind", ["protocol", "django"])
def test_one_stops(kind: str) -> None:
    """Its clients get 1001; those of the other stay, and new ones come, until that stops, too."""
    script = Path(__file__).with_name("two_servers.py")
    done = subprocess.run(
        [sys.executable, str(script), kind], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == ["hello", "hello", 1001, "hello", "hello", 1001]
