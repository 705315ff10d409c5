"""Processes that are no site: runs of tests and commands tell the machine's sites nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from django.test.utils import setup_test_environment, teardown_test_environment

from dwebsocket.compat import django as parts
from dwebsocket.groups import backends
from dwebsocket.groups.backends import local, process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROJECT = """
import sys
from pathlib import Path
from django.conf import settings
folder = Path(__file__).resolve().parent
settings.configure(
    SECRET_KEY="of a site that runs here",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "dwebsocket",
    ],
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3")}
    },
    WEBSOCKET_GROUPS={"default": {"RUNTIME_DIR": str(folder / "run")}},
    USE_TZ=True,
)
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
COMMANDS = """
import os, manage, django
django.setup()
from django.core.management import call_command

def state():
    # Threads that Python does not know of count, too.
    return len(os.listdir("/proc/self/task")), len(os.listdir("run"))

call_command("migrate", verbosity=0)
call_command("createsuperuser", interactive=False, username="ada", email="a@example.com")
call_command("clearsessions")
assert state() == (1, 0), state()

from django.contrib.auth.models import User
user = User.objects.get()
user.set_password("better")
user.save()
threads, folders = state()
assert threads > 1 and folders == 1, state()
"""
TESTS = """
import unittest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase
from dwebsocket import close_user, group

class Changes:
    def test_users(self):
        user = User.objects.create_user("ada", password="secret", pk=1)
        user.set_password("better")
        user.save()
        user.is_active = False
        user.save()
        close_user(user)
        group("orders").send("new")
        self.assertEqual(group("orders").count(), 0)
        user.delete()

class One(Changes, TestCase): pass
class Two(Changes, TransactionTestCase): pass
class Three(unittest.TestCase):
    def test_group(self):
        group("orders").send("new")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A site's code, with no part of our test kit in its tests."""
    (tmp_path / "run").mkdir()
    (tmp_path / "manage.py").write_text(PROJECT)
    (tmp_path / "test_users.py").write_text(TESTS)
    return tmp_path


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python there; it must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("options", [[], ["--parallel", "2"]], ids=["one process", "parallel"])
def test_tests_tell_nobody(project: Path, options: list[str]) -> None:
    """Django's runner, without the mixin and the plugin: users and groups stay in the process."""
    done = run(project, "manage.py", "test", *options)
    assert "Ran 3 tests" in done.stderr
    assert list((project / "run").iterdir()) == []


def test_commands_that_sign_nobody_out(project: Path) -> None:
    """Start no engine, which would have threads. One that signs somebody out tells the site."""
    run(project, "-c", COMMANDS)


@pytest.fixture
def _test_environment() -> object:
    setup_test_environment()
    yield
    teardown_test_environment()


@pytest.mark.usefixtures("_test_environment")
def test_comes_to_an_end(override: Callable[..., None], tmp_path: Path) -> None:
    """With the test environment, whose backends are others."""
    override(WEBSOCKET_GROUPS={"default": {"RUNTIME_DIR": str(tmp_path)}})
    inside = backends.backend("default")
    assert type(inside) is process.Backend
    assert backends.made("default") is inside
    teardown_test_environment()
    try:
        outside = backends.backend("default")
        assert type(outside) is local.Backend
        assert backends.made("default") is outside
    finally:
        setup_test_environment()
    assert backends.backend("default") is inside


@pytest.mark.usefixtures("_test_environment")
def test_swapped_backends_count(override: Callable[..., None], tmp_path: Path) -> None:
    """Those that tests of a backend ask for."""
    override(WEBSOCKET_GROUPS={"default": {"RUNTIME_DIR": str(tmp_path)}})
    with backends.replaced(backends.make):
        assert type(backends.backend("default")) is local.Backend


def test_without_the_private_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mails that the test environment keeps show that it is there."""
    monkeypatch.delattr("django.test.utils._TestState")
    monkeypatch.setattr("django.core.mail.outbox", [], raising=False)
    assert parts.is_in_test_environment()
    monkeypatch.delattr("django.core.mail.outbox")
    assert not parts.is_in_test_environment()


def test_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has not even loaded Django's tools for tests."""
    monkeypatch.delitem(sys.modules, "django.test.utils")
    assert not parts.is_in_test_environment()
