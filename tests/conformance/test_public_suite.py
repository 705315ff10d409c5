"""
The public conformance suite, Autobahn's, against a real server: none may fail or be non-strict.

It runs on Python 2.7 only; tests/setup installs it where there is one. By default those cases run
that take seconds; `--every-server` runs all 517, which takes most of an hour for each server.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.installed import SUITE
from support.plain_server import plain_kind, plain_server
from support.server import GUNICORN_GTHREAD, UVICORN, Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server import Server

# An application without Django, on the protocol for uvicorn.
PLAIN = plain_kind("uvloop", "httptools")

QUICK = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.3.1", "10.*", "12.1.1"]
# Informational ones have no right or wrong.
PASSED = {"OK", "INFORMATIONAL"}


# The suite's own limits of a second or a few, which a busy machine exceeds.
PATIENT = {
    "openHandshakeTimeout": 60,
    "closeHandshakeTimeout": 20,
    "serverConnectionDropTimeout": 20,
}


@pytest.mark.needs("autobahn")
@pytest.mark.timeout(5400)
@pytest.mark.parametrize(
    ("kind", "path"),
    [(GUNICORN_GTHREAD, "/echo-exact/"), (UVICORN, "/async-echo/"), (PLAIN, "/echo/")],
    ids=str,
)
def test_every_case(
    request: pytest.FixtureRequest,
    own_server: Callable[..., Server],
    kind: Kind,
    path: str,
    tmp_path: Path,
) -> None:
    """Behaviour and closing of each case are as the suite wants them."""
    every = request.config.getoption("--every-server")
    if kind is UVICORN and not every:
        pytest.skip("with --every-server only: the engine is that of the other servers")
    with contextlib.ExitStack() as stack:
        if kind is PLAIN:
            server = stack.enter_context(plain_server(kind))
        else:
            # The suite says that it is a page of its own site.
            server = own_server(kind, settings={"WEBSOCKET_ALLOWED_ORIGINS": ["*"]})
        _check(server.url(path), tmp_path, every=every)


def _check(url: str, tmp_path: Path, *, every: bool) -> None:
    spec = {
        "outdir": str(tmp_path / "reports"),
        "servers": [{"agent": "us", "url": url, "options": PATIENT}],
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
