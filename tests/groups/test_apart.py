"""Processes of one site that do not hear each other by the local backend: they are told so."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket.groups.backends import local
from support.installed import can_unshare
from support.selection import later

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.extended("many processes come and go")

# Tests that run at the same time are other sites.
NAME = f"apart{os.getpid()}"
SITE = """
import json, os, sys
from django.conf import settings
settings.configure(
    SECRET_KEY=os.environ["KEY"], INSTALLED_APPS=["dwebsocket"],
    ROOT_URLCONF=sys.argv[1].replace("wsgi", "urls"),
    LOGGING_CONFIG=None, WEBSOCKET_GROUPS={"default": json.loads(os.environ["ENTRY"])},
)
import django
django.setup()
from dwebsocket import group, group_statistics
"""
SITS = "group('a').count(); print('ready', flush=True); sys.stdin.read()"
SENDS = """
from dwebsocket.groups import backends
group('a').send('x'); group('a').send('y')
print(json.dumps([backends.backend('default').processes(), group_statistics()['default']['apart']]))
"""
DOCTOR = """
from dwebsocket.operations.doctor import groups
found = [each for each in groups.examine() if each.id == os.environ.get("FINDING", "groups.apart")]
print(json.dumps([[each.level.value, each.what, each.fix] for each in found]))
"""
CONTAINER = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc"]


def entry(folder: Path | str, **more: str) -> str:
    """Give the entry of a backend below a folder."""
    return json.dumps({"RUNTIME_DIR": str(folder), **more})


def arguments(code: str, prefix: Sequence[str] = ()) -> list[str]:
    """Give the command of a process of the site, whose URL conf stands among its words."""
    return [*prefix, sys.executable, "-c", SITE + code, f"{NAME}.wsgi"]


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Give the environment of a process of the site."""
    inherited = {name: value for name, value in os.environ.items() if name != local.VARIABLE}
    own = {"KEY": NAME, "ENTRY": entry(tmp_path)}
    return {**inherited, **own, **more}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start processes that have a member's folder of groups open, and end them."""
    with ExitStack() as stack:

        def start_(prefix: Sequence[str] = (), **more: str) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    arguments(SITS, prefix),
                    env=environment(tmp_path, **more),
                    cwd=tmp_path,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield start_


def ask(tmp_path: Path, code: str, prefix: Sequence[str] = (), **more: str) -> tuple[Any, str]:
    """Run code in a process of the site; give what it prints, and its stderr."""
    done = subprocess.run(
        arguments(code, prefix),
        env=environment(tmp_path, **more),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("variable", ["XDG_RUNTIME_DIR", *later("TMPDIR")])
def test_a_variable_of_a_session_moves_no_folder(
    start: Start, tmp_path: Path, request: pytest.FixtureRequest, variable: str
) -> None:
    """A service without it and a shell that has it meet."""
    (tmp_path / "session").mkdir()
    process = start(ENTRY="{}")
    (folder,) = (os.readlink(use.link) for use in local.uses() if use.pid == process.pid)
    assert folder.startswith("/tmp/dwebsocket-")
    request.addfinalizer(functools.partial(shutil.rmtree, folder, ignore_errors=True))
    found, log = ask(tmp_path, SENDS, ENTRY="{}", **{variable: str(tmp_path / "session")})
    assert (found, log) == ([[process.pid], 0], "")


def test_send_that_finds_nobody_while_others_run_is_counted(start: Start, tmp_path: Path) -> None:
    """And the log says it once, with what helps."""
    (tmp_path / "other").mkdir()
    process = start(ENTRY=entry(tmp_path / "other"))
    found, log = ask(tmp_path, SENDS)
    assert found == [[], 2]
    (line,) = log.splitlines()
    assert f"{process.pid}" in line
    assert "websocket_doctor" in line


def test_a_process_alone_counts_nothing(start: Start, tmp_path: Path) -> None:
    """Nor does one beside processes of another site, or with those that hear it."""
    start(KEY=f"{NAME} another")
    assert ask(tmp_path, SENDS) == ([[], 0], "")
    process = start()
    assert ask(tmp_path, SENDS) == ([[process.pid], 0], "")


def test_a_copy_of_the_site_counts_nothing(start: Start, tmp_path: Path) -> None:
    """It is apart on purpose, by a variable of the environment."""
    start()
    (tmp_path / "copy").mkdir()
    copy = {"ENTRY": "{}", local.VARIABLE: str(tmp_path / "copy")}
    assert ask(tmp_path, SENDS, **copy) == ([[], 0], "")
    assert list((tmp_path / "copy").iterdir())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"RUNTIME_DIR": "elsewhere"}, "RUNTIME_DIR"),
        *later(({"KEY": "two"}, "SECRET_KEY"), ({"PREFIX": "two"}, "PREFIX")),
    ],
)
def test_doctor_says_why(start: Start, tmp_path: Path, more: dict[str, str], why: str) -> None:
    """The process, and what differs."""
    own = dict(more)
    folder = tmp_path / own.pop("RUNTIME_DIR", "")
    folder.mkdir(exist_ok=True)
    process = start(KEY=own.pop("KEY", NAME), ENTRY=entry(folder, **own))
    ((level, what, fix),), _ = ask(tmp_path, DOCTOR)
    assert level == "warning"
    assert str(process.pid) in what
    assert why in fix


def test_doctor_has_nothing_to_say_about_those_that_hear_each_other(
    start: Start, tmp_path: Path
) -> None:
    """Nor about another site's."""
    start()
    assert ask(tmp_path, DOCTOR)[0] == []


@pytest.mark.skipif(not can_unshare(), reason="no right to make a mount namespace")
def test_doctor_knows_private_folders(start: Start, tmp_path: Path) -> None:
    """As of a service with `PrivateTmp=yes`: the same path is another folder there."""
    mount = f'mount -t tmpfs none {tmp_path} && exec "$0" "$@"'
    process = start(["unshare", "-m", "sh", "-c", mount])
    ((_, what, fix),), _ = ask(tmp_path, DOCTOR)
    assert str(process.pid) in what
    assert "PrivateTmp" in fix
    assert ask(tmp_path, SENDS)[0] == [[], 2]


@pytest.mark.skipif(not can_unshare(), reason="no right to make a namespace of processes")
@pytest.mark.parametrize("is_shared", [True, False])
def test_doctor_knows_containers(start: Start, tmp_path: Path, *, is_shared: bool) -> None:
    """A process in one is told as such, unless both mount the folder and meet there."""
    mount = "true" if is_shared else f"mount -t tmpfs none {tmp_path}"
    start([*CONTAINER, "sh", "-c", f'{mount} && exec "$0" "$@"'])
    found, _ = ask(tmp_path, DOCTOR)
    if is_shared:
        assert found == []
        return
    ((_, what, fix),) = found
    assert "another container" in what
    assert "both containers mount" in fix


@pytest.mark.skipif(not can_unshare(), reason="no right to make a namespace of processes")
def test_doctor_in_a_container_knows_processes_without_a_number(
    start: Start, tmp_path: Path
) -> None:
    """Those of its host, and of other containers, which share groups with it."""
    start()
    ((level, what, _),), _ = ask(tmp_path, DOCTOR, CONTAINER, FINDING="groups.processes")
    assert level == "fine"
    assert what == "'default': these processes share groups: one in another container."


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")
def test_doctor_knows_other_users(start: Start, tmp_path: Path) -> None:
    """They never share groups."""
    with tempfile.TemporaryDirectory(prefix="dws-") as folder:
        os.chmod(folder, 0o777)
        prefix = ["setpriv", "--reuid", "65534", "--clear-groups"]
        process = start(prefix, ENTRY=entry(folder))
        ((_, what, fix),), _ = ask(tmp_path, DOCTOR, ENTRY=entry(folder))
    assert str(process.pid) in what
    assert "as one user" in fix
