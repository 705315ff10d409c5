"""docs/examples.md and the projects in examples/: each is listed, and explained by its page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache

import pytest

from support.pages import ROOT, blocks, links

# One process gets the pages of all.
pytestmark = pytest.mark.xdist_group("first pages")

EXAMPLES = ROOT / "examples"
PROJECTS = sorted(path.parent.name for path in EXAMPLES.glob("*/manage.py"))

# Gets the first page of each project from Django, in one process: with the apps of all, and the
# other settings of each.
FETCH = r"""
import json, re, sys
from importlib import import_module
from pathlib import Path
from django import setup
from django.conf import settings
projects = {}
for name in sys.argv[1:]:
    sys.path.insert(0, str(Path(name).resolve()))
    (module,) = re.findall(r'"(\w+\.settings)"', Path(name, "manage.py").read_text())
    projects[name] = vars(import_module(module))
settings.configure(
    INSTALLED_APPS=sorted({app for each in projects.values() for app in each["INSTALLED_APPS"]}),
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SECRET_KEY="only-for-tests",
    STATIC_URL="static/",
)
setup()
from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import Client, override_settings
call_command("migrate", verbosity=0)
for name, project in projects.items():
    own = {"MIDDLEWARE": [], **{key: project[key] for key in project if key.isupper()}}
    for key in ("INSTALLED_APPS", "DATABASES", "LOGGING"):
        own.pop(key, None)
    with override_settings(**own):
        answer = Client(SERVER_NAME="127.0.0.1").get("/")
        text = answer.content.decode()
        found = [finders.find(each) for each in re.findall('href="/static/(.+?)"', text)]
    print(json.dumps([name, answer.status_code, text, found]))
"""


@cache
def first_pages() -> dict[str, tuple[int, str, list[str | None]]]:
    """Give the status, the text and the files of the static files of each project's `/`."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *PROJECTS],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


def test_page_lists_each_project() -> None:
    """By a link to its README, each with a picture of its own, which is small."""
    found = links("docs/examples.md")
    linked = [link for link in found if link.endswith("/README.md")]
    assert sorted(linked) == [f"../examples/{name}/README.md" for name in PROJECTS]
    pictures = {link for link in found if link.endswith(".png")}
    assert len(pictures) == len(PROJECTS)
    sizes = {each: (ROOT / "docs" / each).stat().st_size for each in pictures}
    assert {each: size for each, size in sizes.items() if size > 60_000} == {}


@pytest.mark.parametrize("name", PROJECTS)
def test_first_block_starts_the_project(name: str) -> None:
    """One command, which tests/test_examples.py runs, behind the one that installs."""
    first = blocks(f"examples/{name}/README.md")[0]
    install, run = first.text.splitlines()
    assert first.language == "console"
    assert install.startswith("pip install ")
    assert "dwebsocket2" in install
    assert run == f"python examples/run.py {name}"


@pytest.mark.parametrize("name", PROJECTS)
def test_first_page_explains_the_example(name: str) -> None:
    """The page says the example's purpose, the files to read and a thing to try, in one look."""
    status, text, found = first_pages()[name]
    assert status == 200
    assert str(EXAMPLES / "shared" / "style.css") in found
    assert None not in found
    about = re.search(r'<dl class="about">(.+?)</dl>', text, re.DOTALL)
    assert about is not None
    parts = dict(re.findall(r"<dt>(\w+)</dt><dd>(.+?)</dd>", about[1], re.DOTALL))
    files = re.findall(r"<code>(\w[\w./]+\.\w+)</code>", parts["Read"])
    assert files
    assert [each for each in files if not (EXAMPLES / name / each).is_file()] == []
    assert parts["Try"].strip()
