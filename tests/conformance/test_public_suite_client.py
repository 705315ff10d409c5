"""
The public conformance suite, Autobahn's, as a server: our client passes its cases.

See `test_public_suite.py` for the suite. By default those cases run that take seconds, with one of
each kind of compression; `--every-server` runs all 517, which takes half an hour.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from dwebsocket import ConnectionFailed, connect
from support.installed import SUITE
from support.server import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = [
    *(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)),
    "9.3.1",
    *(f"12.{kind}.1" for kind in range(1, 6)),
    *(f"13.{kind}.1" for kind in range(1, 8)),
]
PASSED = {"OK", "INFORMATIONAL"}
AGENT = "dwebsocket"


@contextlib.contextmanager
def fuzzing_server(folder: Path, *, every: bool) -> Iterator[str]:
    """Run the suite, and give its address."""
    port = free_port()
    spec = {
        "url": f"ws://127.0.0.1:{port}",
        "outdir": str(folder / "reports"),
        # The suite's own limits are a second or a few, which a busy machine exceeds.
        "options": {"openHandshakeTimeout": 60, "closeHandshakeTimeout": 20},
        "cases": ["*"] if every else QUICK,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    python = (SUITE / "python").read_text().strip()
    process = subprocess.Popen(
        # Without a web server of its own, for which it would take port 8080.
        [
            *(python, str(SUITE / "bin" / "wstest")),
            *("-m", "fuzzingserver", "--webport", "0", "-s", "spec.json"),
        ],
        env={**os.environ, "PYTHONPATH": str(SUITE), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: _listens(spec["url"]), within=60)
        yield str(spec["url"])
    finally:
        process.terminate()
        process.wait(30)


def _listens(url: object) -> bool:
    with contextlib.suppress(ConnectionFailed):
        connect(f"{url}/getCaseCount").close()
        return True
    return False


@pytest.mark.needs("autobahn")
@pytest.mark.timeout(5400)
def test_every_case(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Behaviour and closing of each case are as the suite wants them."""
    every = request.config.getoption("--every-server")
    with fuzzing_server(tmp_path, every=every) as url:
        count = int(next(iter(connect(f"{url}/getCaseCount"))))
        for case in range(1, count + 1):
            with connect(
                f"{url}/runCase?case={case}&agent={AGENT}",
                max_message_size=64 << 20,
                open_timeout=60,
            ) as websocket:
                with contextlib.suppress(EOFError):
                    for message in websocket:
                        websocket.send(message)
        # It writes all reports before it answers.
        list(connect(f"{url}/updateReports?agent={AGENT}", open_timeout=60))
        index = tmp_path / "reports" / "index.json"
        eventually(index.exists, within=60)
    results = json.loads(index.read_text())[AGENT]
    wrong = {
        case: (result["behavior"], result["behaviorClose"])
        for case, result in results.items()
        if not {result["behavior"], result["behaviorClose"]} <= PASSED
    }
    assert wrong == {}
    assert len(results) == count
    assert count == 517 if every else count > 200
