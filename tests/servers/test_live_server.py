"""Django's live test server, as projects use it in their own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.extended("the suites of other projects")

TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("options", [(), ("--parallel", "2")], ids=["one process", "parallel"])
def test_suite_of_a_project_passes(options: tuple[str, ...]) -> None:
    """Quietly: no traceback, no unclosed database or socket, no test that hangs."""
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        # The live server serves both itself and cannot do without.
        "PROJECT_SETTINGS": '{"STATIC_URL": "/static/", "MEDIA_URL": "/media/"}',
    }
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.getenv("PYTHONPATH")]))
    environ.pop("PROJECT_DB", None)
    suite = ("project.live_suite", "--pattern", "live_suite.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", *suite, *options],
        cwd=TESTS,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ran 3 tests" in done.stderr
    for noise in ("Traceback", "ResourceWarning", "Exception ignored"):
        assert noise not in done.stderr, done.stderr
