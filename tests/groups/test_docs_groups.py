"""What docs/groups.md shows is executed: its recipes, and its backend with the contract suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.extended("runs the examples")

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "groups.md"

SETTINGS = """
SECRET_KEY = "for tests only"
ROOT_URLCONF = "urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "recipes",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
"""
URLS = """
from django.urls import path
from recipes import fragments, signals

urlpatterns = [
    path("orders/<int:pk>/", signals.order),
    path("board/", fragments.board),
    path("ship/<int:pk>/", fragments.ship, name="ship"),
]
"""
MODELS = """
from django.db import models


class Order(models.Model):
    state = models.CharField(max_length=20)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.getenv("PYTHONPATH")])),
        },
        capture_output=True,
        text=True,
        timeout=110,
    )


def project(folder: Path) -> Path:
    """Make a project of the page's files: blocks whose first line names one."""
    text = PAGE.read_text()
    pattern = r"^```python\n# ([\w/]+\.py)\n(.*?)^```$"
    files = dict(re.findall(pattern, text, re.DOTALL | re.MULTILINE))
    assert len(files) == 5, sorted(files)
    (fragment,) = re.findall(r"^with `order.html`:\n\n```html\n(.*?)^```$", text, re.DOTALL | re.M)
    files |= {
        "settings.py": SETTINGS,
        "urls.py": URLS,
        "recipes/__init__.py": "",
        "recipes/models.py": MODELS,
        "recipes/templates/order.html": fragment,
        "test_recipes.py": (HERE / "recipes_suite.py").read_text(),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_the_recipes_do_what_the_page_says(tmp_path: Path) -> None:
    """Each one with WebSockets of the test client."""
    done = run(project(tmp_path), "-m", "django", "test", "test_recipes")
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr


def test_the_pages_backend_fulfils_the_contract(tmp_path: Path) -> None:
    """By Django's runner, and by unittest alone."""
    folder = project(tmp_path)
    done = run(folder, "-m", "django", "test", "test_my_backend")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Ran 3\d tests", done.stderr), done.stderr
    setup = "import django, unittest; django.setup(); unittest.main('test_my_backend')"
    done = run(folder, "-c", setup)
    assert done.returncode == 0, done.stderr


def test_the_pages_backend_has_presence(tmp_path: Path) -> None:
    """That which derives from the other base class."""
    folder = project(tmp_path)
    path = folder / "test_my_backend.py"
    path.write_text(path.read_text().replace("my_backend.Backend", "my_presence_backend.Backend"))
    done = run(folder, "-m", "django", "test", "test_my_backend.MyBackendTests.test_presence")
    assert done.returncode == 0, done.stderr
    assert "skipped" not in done.stderr


def test_a_backend_that_breaks_the_contract_is_found(tmp_path: Path) -> None:
    """The suite fails for one that delivers each message twice."""
    folder = project(tmp_path)
    path = folder / "my_backend.py"
    once = "self.deliver(name, envelope)"
    path.write_text(path.read_text().replace(once, f"{once} and {once}"))
    test = "test_my_backend.MyBackendTests.test_every_member_gets_every_message"
    done = run(folder, "-m", "django", "test", test)
    assert done.returncode != 0
    assert "FAILED (failures=1)" in done.stderr
