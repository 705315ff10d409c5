"""The project on every server; the same tests run on the original, which is the oracle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from wild_subject import FURTHER, HERE, MODULE, ORIGINALS, USUAL, Subject

from support.installed import require_server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from support.server import Kind

# Kinds on which a view of the project is wrong with any package, and why.
UNFIT = [
    (
        r".*eventlet.*",
        r"test_consoles\.py|test_pod_console|push_until_send",
        "reading a process's output stops eventlet's hub",
    ),
    (
        r"gunicorn-sync|uwsgi-http-socket",
        r"test_tabs_with_heartbeats_by_own_middleware",
        "behind a project's own middleware each tab takes one of so few workers",
    ),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each scenario on the usual servers, or on all of them and on the original."""
    if "subject" not in metafunc.fixturenames:
        return
    every = metafunc.config.getoption("--every-server")
    values = []
    for kind in (*USUAL, *FURTHER, *ORIGINALS) if every else USUAL:
        marks = [
            pytest.mark.xdist_group(f"wild {kind}"),
            pytest.mark.extended("compares with the original, on each server"),
        ]
        values.append(pytest.param(kind, id=str(kind), marks=marks))
    metafunc.parametrize("subject", values, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Results of the original are noted, not validated: its failures count as expected ones."""
    report = yield
    params = getattr(item, "callspec", None)
    if report.failed and params is not None and params.params.get("subject") in ORIGINALS:
        report.outcome, report.wasxfail = "skipped", "is noted, not validated"
    return report


@pytest.fixture(scope="session")
def wild_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, which the original can use as well."""
    path = tmp_path_factory.mktemp("wild") / "db.sqlite3"
    paths = [str(HERE), os.environ.get("PYTHONPATH")]
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity", "0"],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": f"{MODULE}.settings",
            "PROJECT_DB": str(path),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        },
        check=True,
        timeout=60,
    )
    return path


@pytest.fixture(scope="session")
def _subjects(wild_database: Path) -> Iterator[Callable[[Kind], Subject]]:
    started: dict[Kind, Subject] = {}

    def get(kind: Kind) -> Subject:
        if kind not in started or not started[kind].server.is_running():
            started[kind] = Subject(kind, wild_database)
            started[kind].server.start()
        return started[kind]

    yield get
    for subject in started.values():
        subject.server.stop()


@pytest.fixture
def subject(request: pytest.FixtureRequest, _subjects: Callable[[Kind], Subject]) -> Subject:
    """The project on one server, shared by all scenarios that leave nothing behind."""
    node = request.node
    variant = "-".join(str(v) for k, v in node.callspec.params.items() if k != "subject")
    scenario = {
        "name": f"{node.path.name}::{node.originalname}" + (f"[{variant}]" if variant else ""),
        "does": " ".join((node.function.__doc__ or "").split()),
        "kind": str(request.param),
    }
    node.user_properties.append(("scenario", scenario))
    require_server(request.param)
    for kinds, tests, reason in UNFIT:
        if re.fullmatch(kinds, str(request.param)) and re.search(tests, node.nodeid):
            pytest.skip(reason)
    return _subjects(request.param)
