"""
The public conformance suite, Autobahn's, against a real server: none may fail or be non-strict.

It runs on Python 2.7 only; tests/setup installs it where there is one. By default those cases run
that take seconds; `--every-server` runs all 517, which takes most of an hour for each server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.installed import SUITE
from support.plain_server import PLAIN as PLAIN_APPLICATION
from support.plain_server import plain_kind, plain_server
from support.server import ASGI, GUNICORN_GTHREAD, KEPT, UVICORN, Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server import Server

# An application without Django, on the protocol for uvicorn.
PLAIN = plain_kind("uvloop", "httptools")
# Servers that keep their connections, and speak the protocol themselves.
# Not by HTTP/2, which the suite does not speak: hypercorn fails at data after the end of a stream.
KEEPING = [
    next(kind for kind in ASGI if str(kind) == "granian"),
    *(kind for kind in KEPT if kind.tls),
]

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
        results = _results(server.url(path), tmp_path, every=every)
    wrong = {case: result for case, result in results.items() if not result <= PASSED}
    assert wrong == {}
    assert len(results) == 517 if every else len(results) > 200


@pytest.mark.needs("autobahn")
@pytest.mark.every("what comes to the engine are whole messages")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KEEPING, ids=str)
def test_behind_a_server_that_speaks_the_protocol(
    own_server: Callable[..., Server], kind: Kind, tmp_path: Path
) -> None:
    """
    Each case ends as with an application of five lines: the engine changes nothing.

    Whether an answer goes out before the server fails a connection is chance: not strict.
    """
    plain = (*kind.options[:-1], PLAIN_APPLICATION)
    with plain_server(dataclasses.replace(kind, name=f"{kind}-plain", options=plain)) as server:
        bare = _results(server.url("/echo/"), tmp_path / "bare", every=False)
    server = own_server(kind, settings={"WEBSOCKET_ALLOWED_ORIGINS": ["*"]})
    ours = _results(server.url("/async-echo/"), tmp_path / "ours", every=False)
    chance = {"OK", "NON-STRICT"}
    assert {case: found for case, found in ours.items() if found - bare[case] - chance} == {}
    assert len(ours) > 200


def _results(url: str, folder: Path, *, every: bool) -> dict[str, set[str]]:
    """Return what the suite says of each case: of the behaviour, and of the closing."""
    folder.mkdir(exist_ok=True)
    spec = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": "us", "url": url, "options": PATIENT}],
        "cases": ["*"] if every else QUICK,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    python = (SUITE / "python").read_text().strip()
    done = subprocess.run(
        [python, str(SUITE / "bin" / "wstest"), "-m", "fuzzingclient", "-s", "spec.json"],
        env={**os.environ, "PYTHONPATH": str(SUITE), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "reports" / "index.json").read_text())["us"]
    return {case: {each["behavior"], each["behaviorClose"]} for case, each in results.items()}
