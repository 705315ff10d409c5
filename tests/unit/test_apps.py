"""`"dwebsocket"` in `INSTALLED_APPS`."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=[INSTALLED], WEBSOCKET_PING_INTERVALL=5)
django.setup()
from django.core import checks
print([message.id for message in checks.run_checks() if "dwebsocket" in message.id])
"""
# Nothing but the project's URLs imports the package.
WITH_VIEWS = """
import sys, types
import django
from django.conf import settings
class Urls(types.ModuleType):
    @property
    def urlpatterns(self):
        from dwebsocket import accept_websocket
        return []
sys.modules["urls"] = Urls("urls")
in_memory = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
settings.configure(
    SECRET_KEY="secret",
    ROOT_URLCONF="urls",
    WEBSOCKET_PING_INTERVALL=5,
    CHANNEL_LAYERS={"default": in_memory},
    WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}},
)
django.setup()
from django.core import checks
for _ in range(2):
    messages = checks.run_checks(ARGUMENTS)
    print(sorted(message.id[11:] for message in messages if "dwebsocket" in message.id))
"""


def run(program: str) -> str:
    """Run Django's checks in a project."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def check(installed: str) -> str:
    """Run them in a project that imports no view."""
    return run(PROGRAM.replace("INSTALLED]", f"{installed}]"))


def test_checks_run_without_any_view() -> None:
    """Installed, it looks at the settings at once."""
    assert check('"dwebsocket"') == "['dwebsocket.E001']"


def test_is_optional() -> None:
    """Without it the first decorated view brings the checks along."""
    assert check("") == "[]"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", ["E001", "W010"]),
        ("include_deployment_checks=True", ["E001", "W009", "W010"]),
        ("tags=['urls']", []),
    ],
)
def test_checks_of_views_that_a_run_of_checks_imports(arguments: str, expected: list[str]) -> None:
    """Such as Django's check of URLs: the run makes them, too, each of them once."""
    found = run(WITH_VIEWS.replace("ARGUMENTS", arguments))
    assert found.splitlines() == [str(expected)] * 2
