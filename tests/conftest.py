"""Fixtures and ordering shared by all Python tests."""

from __future__ import annotations

import fcntl
import functools
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

TESTS = Path(__file__).resolve().parent
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

import comparison  # noqa: E402
from support import selection  # noqa: E402
from support import server as servers  # noqa: E402
from support.costs import Costs  # noqa: E402
from support.installed import require_server  # noqa: E402
from support.shared import shared_folder  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Projects with tests and settings of their own; test_sample_project.py and test_types.py run them.
collect_ignore = ["sample_project", "typed_project"]

# Modules that run in processes of their own: imported here, they would change other tests.
FOREIGN = frozenset(
    {"cheroot", "daphne", "eventlet", "gevent", "granian", "gunicorn", "hypercorn"}
    | {"uvicorn", "uwsgi", "waitress", "werkzeug"}
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files of which nothing is wanted: importing them takes seconds in each process."""
    return selection.is_of_other_tier(collection_path, config.getoption("--tier")) or None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose tests, and those that say more of them."""
    selection.add_options(parser)
    parser.addoption(
        "--costs", action="store_true", help="print the processor time that each file takes"
    )
    parser.addoption(
        "--compared", type=Path, help="note in this file which scenarios of tests/wild passed"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for line in (
        "extended(reason): `make test-all` runs it, `make test` does not, for this reason",
        "every(reason): runs with --every-server only, for this reason",
        "core(test, …): of these tests only the named ones run without --every-server",
        "needs(part): extended, because tests/setup has to install that part first",
        "requires(ability): fails on servers that lack it",
        "slow: takes seconds because time itself is the subject",
        "on_servers(kind, …): runs on each of these kinds of servers that the options ask for",
    ):
        config.addinivalue_line("markers", line)
    # A shell without job control starts its background jobs with SIGINT ignored, and servers that
    # tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Groups are shared by all processes with the same folder and secret: keep the workers apart.
    config.add_cleanup(_own_runtime_dir())
    # Before the workers begin: they have the same.
    shared_folder()
    if config.getoption("--costs"):
        config.pluginmanager.register(Costs())
    comparison.register(config)


def _own_runtime_dir() -> Callable[[], None]:
    """Give this process a runtime directory of its own; return the function that removes it."""
    folder = tempfile.mkdtemp(prefix="dws-run-")
    os.environ["WEBSOCKET_RUNTIME_DIR"] = folder
    return functools.partial(shutil.rmtree, folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Let no collection of garbage go through the tests while they are made: they stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


# After the parameters of a test itself.
@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that are marked `on_servers` on those of them that the options ask for."""
    selection.spread(metafunc)


# Before xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Keep tests with the same server on one xdist worker, which starts it once; so, too, those that
    share a fixture of their module. Expect the known failures of servers.
    """
    if loaded := FOREIGN & sys.modules.keys():
        raise pytest.UsageError(f"a module of the tests imports {sorted(loaded)}")
    selection.select(config, items)
    # First, so that no worker begins with one when the others are done.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        params = getattr(item, "callspec", None)
        for name in ("server", "site"):
            kind = params.params.get(name) if params is not None else None
            if isinstance(kind, servers.Kind):
                item.add_marker(pytest.mark.xdist_group(f"{name} {kind}"))
        if not item.get_closest_marker("xdist_group") and (shared := _shared_in_module(item)):
            item.add_marker(pytest.mark.xdist_group(shared))
        kind = params.params.get("server") or params.params.get("kind") if params else None
        if isinstance(kind, servers.Kind):
            item.user_properties.append(("server", str(kind)))
        selection.skip_what_is_missing(item)
        selection.expect_what_it_cannot(item)


def _shared_in_module(item: pytest.Item) -> str | None:
    """Return the module of a test and what it shares there; None if no fixture is the module's."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    defined = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    shared = sorted(name for name, found in defined.items() if found[-1].scope == "module")
    values = [str(params[name]) for name in shared if name in params]
    return " ".join([item.path.stem, *values]) if shared else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail when xdist does not know the groups: then each worker would start every server."""
    # At its import hypothesis asks the collector for what refers to a generator of numbers.
    importlib.import_module("hypothesis")
    # The tests themselves are hundreds of thousands of objects; no collection has to visit them,
    # and the first one would take a second in each process.
    gc.freeze()
    if session.config.getoption("loadgroup", default=False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
                raise pytest.UsageError("pytest-xdist ignores the groups of the tests")


@pytest.fixture(autouse=True)
def _no_server_is_imported() -> Iterator[None]:
    """Fail a test that loads a server's package into the tests' own process."""
    before = FOREIGN & sys.modules.keys()
    yield
    loaded = FOREIGN & sys.modules.keys()
    assert loaded == before, f"belongs in a process of its own: {sorted(loaded - before)}"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file of the test project; every server gets a copy."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # One for all workers.
        folder = folder.parent
    path, new = folder / "db.sqlite3", folder / "new.sqlite3"
    with (folder / "db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            new.unlink(missing_ok=True)
            _migrate(new)
            new.rename(path)
    return path


def _migrate(path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "PROJECT_DB": str(path),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.getenv("PYTHONPATH")])),
        },
        check=True,
        timeout=60,
    )


@pytest.fixture
def site_settings() -> dict[str, object]:
    """The settings of all servers of a test; where a conftest replaces this, they are others."""
    return {}


@pytest.fixture(scope="session")
def _running(
    database: Path,
) -> Iterator[Callable[[servers.Kind, dict[str, object]], servers.Server]]:
    started: dict[tuple[servers.Kind, str], servers.Server] = {}

    def get(kind: servers.Kind, settings: dict[str, object]) -> servers.Server:
        require_server(kind)
        key = (kind, json.dumps(settings, sort_keys=True))
        # A server that an earlier test brought down must not fail those that follow.
        if key in started and not started[key].is_running():
            started.pop(key).stop()
        if key not in started:
            started[key] = servers.Server(kind, database=database, settings=settings).start()
        return started[key]

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture
def server(
    request: pytest.FixtureRequest,
    _running: Callable[[servers.Kind, dict[str, object]], servers.Server],
    site_settings: dict[str, object],
) -> Iterator[servers.Server]:
    """
    A server of the test project that is shared by all tests of its kind.

    Parametrise indirectly with a `Kind`; without that it is gunicorn's sync worker. A test during
    which a worker died is an error, whatever it asserted.
    """
    server = _running(getattr(request, "param", servers.GUNICORN_SYNC), site_settings)
    before = server.workers()
    yield server
    assert server.is_running(), f"{server.kind} died: {server.stderr()[-4000:]}"
    assert server.workers() == before, f"worker replaced: {server.stderr()[-4000:]}"


@pytest.fixture
def own_server(
    request: pytest.FixtureRequest, database: Path, site_settings: dict[str, object]
) -> Iterator[Callable[..., servers.Server]]:
    """Start servers for one test alone: `own_server(kind, options=…, settings=…)`."""
    started: list[servers.Server] = []

    def start(kind: servers.Kind, **options: object) -> servers.Server:
        require_server(kind)
        options.setdefault("database", database)
        options["settings"] = {**site_settings, **(options.get("settings") or {})}  # type: ignore[dict-item]
        server = servers.Server(kind, **options)  # type: ignore[arg-type]
        started.append(server)
        return server.start()

    yield start
    for server in started:
        # pytest shows this when the test failed.
        print(f"--- {server.kind}, stdout:\n{server.stdout()}\n--- stderr:\n{server.stderr()}")
        server.stop()
