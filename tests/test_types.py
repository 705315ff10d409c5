"""A project whose every line has types does what they say. `make types` is what reads them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PROJECT, README = TESTS / "typed_project", TESTS.parent / "README.md"


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


def test_typed_project_has_the_view_of_the_readme() -> None:
    """With annotations, and with what they ask for."""
    found = re.search(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    (view,) = (node for node in ast.parse(found[1]).body if isinstance(node, ast.FunctionDef))
    (typed,) = (
        node
        for node in ast.parse((PROJECT / "rooms" / "readme.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
    )
    view.args.args[0].annotation = typed.args.args[0].annotation
    view.returns, view.body = typed.returns, [typed.body[0], *view.body, typed.body[-1]]
    assert ast.unparse(view) == ast.unparse(typed)
