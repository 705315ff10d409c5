"""A project whose every line has types does what they say. `make types` is what reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent / "typed_project"


def test_typed_project_runs() -> None:
    """Its views, handlers and tests, every warning an error."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test"],
        cwd=PROJECT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, "Ran 10 tests" in done.stderr) == (0, True), done.stdout + done.stderr
