"""On Windows pages are served, and WebSockets by an ASGI server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.extended("the suites of other projects")

ROOT = Path(__file__).resolve().parent.parent
PROBES = ROOT / ".ci" / "windows.py"


#: Names of tests, or parts of them, in the sample project: a server there, and other loops.
LEFT_OUT = ("test_live", "real_port", "anyio", "trio")


CHECKS = [
    "imports",
    "decorators",
    "settings",
    "groups",
    "doctor",
    "commands",
    "kit",
    "pages",
    "asgi",
]


def run(*arguments: str, cwd: Path = ROOT, **environ: str) -> str:
    """Run `.ci/windows.py`, which does on Windows what the tests here do on a feigned one."""
    done = subprocess.run(
        [sys.executable, str(PROBES), "--feign", *arguments],
        capture_output=True,
        text=True,
        # For code that hangs: it takes minutes on a busy machine.
        timeout=280,
        cwd=cwd,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_on_a_system_without_what_only_unix_has() -> None:
    """Forks, users, limits, epoll, Unix sockets and parts of the native module are missing."""
    shown = run(*CHECKS)
    assert re.findall(r"^(\w+): ok$", shown, re.MULTILINE) == CHECKS


@pytest.mark.every("runs the suite of the sample project once more")
def test_the_suite_of_a_project_passes() -> None:
    """But for live servers."""
    plugins = ("pytest_django.plugin", "pytest_asyncio.plugin", "dwebsocket.testing.plugin")
    options = ["-p", "no:cacheprovider", "-p", "no:logging", "-o", "addopts=", "-W", "ignore"]
    # pytest's handling of output on Windows, and other backends of anyio, need that system.
    options += ["-s", "--color=no", "-q", "-k", f"not ({' or '.join(LEFT_OUT)})"]
    environ = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "DJANGO_SETTINGS_MODULE": "sample.settings",
        "PYTHONPATH": ".",
    }
    for plugin in plugins:
        options += ["-p", plugin]
    shown = run("pytest", *options, cwd=ROOT / "tests" / "sample_project", **environ)
    assert re.search(r"^1\d\d passed, \d+ deselected", shown, re.MULTILINE), shown
