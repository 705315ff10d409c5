"""The types that we promise are those of the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.every("checks types, as `make lint` does"),
    # Without mypy's cache each of them takes a minute of a processor that other tests use, too.
    pytest.mark.timeout(400),
]

ROOT = Path(__file__).resolve().parent.parent

pytest.importorskip("mypy", reason="installed for the lints")


def run(*arguments: str) -> None:
    """Run a module of mypy; its output is the message when it finds something."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_stub_of_the_native_module() -> None:
    """Says exactly what is there."""
    run("mypy.stubtest", "dwebsocket._core")


def test_package() -> None:
    """Is clean in mypy's strict mode (see pyproject.toml)."""
    run("mypy", "--strict")
