"""The test kit as projects use it: a project of its own, with its own pytest and Django runner."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import postgres as servers

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).resolve().parent
PROJECT = TESTS / "sample_project"
PAGE = TESTS.parent / "docs" / "testing.md"

pytest.importorskip("pytest_django", reason="pip install -r tests/requirements.txt")
pytestmark = [pytest.mark.timeout(450), pytest.mark.extended("the suites of other projects")]
pytest.importorskip("pytest_asyncio", reason="pip install -r tests/requirements.txt")


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project, every warning an error, with nothing of this run's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    kept.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=PROJECT,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=400,
    )


def run_pytest(*arguments: str, **environ: str) -> str:
    """Run the project's pytest and give its output; it must pass."""
    done = run("-m", "pytest", *plugin(), "-p", "no:cacheprovider", *arguments, **environ)
    assert done.returncode == 0, done.stdout + done.stderr
    for noise in ("ResourceWarning", "Exception ignored", "never awaited"):
        assert noise not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout


def plugin() -> tuple[str, ...]:
    """Name the plugin where the package is used without being installed."""
    known = metadata.entry_points(group="pytest11")
    return () if "dwebsocket" in known.names else ("-p", "dwebsocket.testing.plugin")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    """The folder of a PostgreSQL server's socket."""
    with servers.postgres() as folder:
        yield folder


@pytest.mark.needs("chromium")
def test_everything_with_a_browser() -> None:
    """On SQLite in memory, in random order; no thread and no descriptor is left."""
    assert re.search(r"\b1[45]\d passed", run_pytest())


@pytest.mark.every("runs the suite once more")
def test_on_two_workers() -> None:
    """pytest-xdist's, each with a database of its own."""
    run_pytest("-m", "not browser", "-n", "2")


@pytest.mark.every("runs the suite once more")
@pytest.mark.needs("postgresql")
def test_on_postgresql(postgres: Path) -> None:
    """In transactions that are rolled back, over one connection for all threads."""
    run_pytest("-m", "not browser", SAMPLE_POSTGRES=str(postgres))


@pytest.mark.parametrize("options", [(), ("--parallel", "2")], ids=["one process", "parallel"])
def test_with_djangos_runner(options: tuple[str, ...]) -> None:
    """The unittest half, in random order."""
    done = run("manage.py", "test", "tests_unittest", "--shuffle", *options)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Ran 4\d tests", done.stderr)
    for noise in ("Traceback", "ResourceWarning", "Exception ignored"):
        assert noise not in done.stderr, done.stderr


def test_without_pytest() -> None:
    """Nothing of it is imported by the kit."""
    done = run("-c", "import dwebsocket.testing, sys; assert 'pytest' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_plugin_in_a_project_without_django(tmp_path: Path) -> None:
    """Does no harm: it is loaded wherever dwebsocket2 is installed."""
    (tmp_path / "test_plain.py").write_text("def test_plain(): pass\n")
    done = run(
        "-m",
        "pytest",
        *plugin(),
        "-p",
        "no:django",
        "--rootdir",
        str(tmp_path),
        "-c",
        os.devnull,
        "-p",
        "no:asyncio",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_no_test_sleeps() -> None:
    """Neither in the project nor on the page."""
    for path in [*PROJECT.glob("tests_*/*.py"), PAGE]:
        assert not re.search(r"time\.sleep\(|asyncio\.sleep\([^0)]", path.read_text()), path


@pytest.mark.every("runs the suite once more")
def test_every_pattern_of_the_page(tmp_path: Path) -> None:
    """Is a test that passes."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    tests = 0
    for number, block in enumerate(blocks):
        (tmp_path / f"test_block_{number}.py").write_text(block)
        tests += len(re.findall(r"^ *(?:async )?def test_", block, re.MULTILINE))
    configured = ("-c", str(PROJECT / "pytest.ini"), "--rootdir", str(PROJECT))
    out = run_pytest(*configured, "-o", f"pythonpath={PROJECT}", str(tmp_path))
    assert f"{tests} passed" in out
    assert tests > 25


FAILING = """
import pytest
from django.test import SimpleTestCase
from django.urls import path
from dwebsocket import accept_websocket
from dwebsocket.testing import WebSocketTestMixin, WebSocketClient


@accept_websocket
def view(request):
    message = request.websocket.wait()
    raise ValueError("this is the view's own line")


@accept_websocket
async def aview(request):
    message = await request.websocket.areceive()
    raise ValueError("this is the async view's own line")


@accept_websocket
def stuck(request):
    import threading
    request.websocket.send("about to wait")
    threading.Event().wait()


urlpatterns = [path("view/", view), path("aview/", aview), path("stuck/", stuck)]
pytestmark = pytest.mark.urls(__name__)


def test_failing_view(websocket_client):
    with websocket_client.websocket("/view/") as ws:
        ws.send("x")
        ws.receive()


@pytest.mark.asyncio
async def test_failing_async_view(async_websocket_client):
    async with async_websocket_client.websocket("/aview/") as ws:
        await ws.send("x")
        await ws.receive()


def test_leaking(websocket_client):
    ws = websocket_client.websocket("/stuck/").__enter__()
    assert ws.receive() == "about to wait"
    websocket_client.websocket_timeout = 0.5


def test_after_the_leak(websocket_client):
    with websocket_client.websocket("/view/") as ws:
        assert not ws.refused
        ws.vanish()
"""


def test_reports(tmp_path: Path) -> None:
    """A failing view shows its own line; a view that stays shows where it is."""
    (tmp_path / "test_failing.py").write_text(FAILING)
    done = run(
        *("-m", "pytest", *plugin(), "-p", "no:randomly", "-p", "no:cacheprovider"),
        *("-c", str(PROJECT / "pytest.ini"), "--rootdir", str(PROJECT)),
        *("-o", f"pythonpath={PROJECT}", "-q", str(tmp_path)),
    )
    out = done.stdout
    assert '>       raise ValueError("this is the view\'s own line")' in out, out + done.stderr
    assert '>       raise ValueError("this is the async view\'s own line")' in out
    assert re.search(r"ERROR at teardown of test_leaking", out), out
    assert re.search(r"The view test_failing\.stuck is at:(.|\n)*threading\.Event\(\)\.wait", out)
