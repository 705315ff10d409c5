"""On Windows pages are served, and WebSockets by an ASGI server; what needs the engine says so."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROBES = ROOT / ".ci" / "windows.py"


#: Names of tests, or parts of them, in the sample project.
NEEDS_ENGINE = (
    *("test_live", "real_port", "anyio", "trio", "test_pings", "silent_client"),
    *("broken_protocol", "fragments"),
)


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
        timeout=100,
        cwd=cwd,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_on_a_system_without_what_only_unix_has() -> None:
    """The native module, forks, users, limits, epoll and Unix sockets are missing."""
    shown = run(*CHECKS)
    assert re.findall(r"^(\w+): ok$", shown, re.MULTILINE) == CHECKS


@pytest.mark.every("runs the suite of the sample project once more")
def test_the_suite_of_a_project_passes() -> None:
    """But for what needs frames of one's own, pings of the server, or a live server."""
    plugins = ("pytest_django.plugin", "pytest_asyncio.plugin", "dwebsocket.testing.plugin")
    options = ["-p", "no:cacheprovider", "-p", "no:logging", "-o", "addopts=", "-W", "ignore"]
    # pytest's handling of output on Windows, and other backends of anyio, need that system.
    options += ["-s", "--color=no", "-q", "-k", f"not ({' or '.join(NEEDS_ENGINE)})"]
    environ = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "DJANGO_SETTINGS_MODULE": "sample.settings",
        "PYTHONPATH": ".",
    }
    for plugin in plugins:
        options += ["-p", plugin]
    shown = run("pytest", *options, cwd=ROOT / "tests" / "sample_project", **environ)
    assert re.search(r"^1\d\d passed, \d+ deselected", shown, re.MULTILINE), shown


def test_the_stand_in_has_every_name_of_the_native_module() -> None:
    """Otherwise an AttributeError would be the answer."""
    folder = ROOT / "python" / "dwebsocket"
    stub = ast.parse((folder / "_core.pyi").read_text())
    names = next(
        ast.literal_eval(node.value)
        for node in stub.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    defined: set[str] = set()
    for node in ast.parse((folder / "_core.py").read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            defined.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            defined.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            defined.update(ast.unparse(target) for target in node.targets)
    assert sorted(set(names) - defined) == []


def test_elsewhere_a_missing_native_module_is_said() -> None:
    """The stand-in would hide a broken installation."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1])"
    stand_in = ROOT / "python" / "dwebsocket" / "_core.py"
    done = subprocess.run(
        [sys.executable, "-c", code, str(stand_in)], capture_output=True, text=True, timeout=60
    )
    assert "installed without its native module: install a wheel" in done.stderr
