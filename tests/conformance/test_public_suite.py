"""
The public conformance suite, Autobahn's, against a real server: none may fail or be non-strict.

It runs on Python 2.7 only; tests/setup installs it where there is one. By default those cases run
that take seconds; `--every-server` runs all 517, which takes most of an hour.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.installed import SUITE
from support.server import GUNICORN_GTHREAD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server import Server

QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.3.1", "10.*", "12.1.1"]
# Informational ones have no right or wrong.
PASSED = {"OK", "INFORMATIONAL"}


@pytest.mark.needs("autobahn")
@pytest.mark.timeout(5400)
def test_every_case(
    request: pytest.FixtureRequest, own_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Behaviour and closing of each case are as the suite wants them."""
    every = request.config.getoption("--every-server")
    # The suite says that it is a page of its own site.
    server = own_server(GUNICORN_GTHREAD, settings={"WEBSOCKET_ALLOWED_ORIGINS": ["*"]})
    spec = {
        "outdir": str(tmp_path / "reports"),
        "servers": [{"agent": "us", "url": server.url("/echo-exact/")}],
        "cases": ["*"] if every else QUICK,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    python = (SUITE / "python").read_text().strip()
    done = subprocess.run(
        [python, str(SUITE / "bin" / "wstest"), "-m", "fuzzingclient", "-s", "spec.json"],
        env={**os.environ, "PYTHONPATH": str(SUITE), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "reports" / "index.json").read_text())["us"]
    wrong = {
        case: (result["behavior"], result["behaviorClose"])
        for case, result in results.items()
        if not {result["behavior"], result["behaviorClose"]} <= PASSED
    }
    assert wrong == {}
    assert len(results) == 517 if every else len(results) > 200
