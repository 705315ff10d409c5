"""The page on PyPI: what `.ci/release.py` makes of the checkout, and what it refuses."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import dwebsocket
from support.pages import ROOT

HOME = "https://forge.example.org/team/project"
FILES = ("Cargo.toml", "README.md", "pyproject.toml")
SCRIPTS = (".ci/release.py", ".ci/wheels", ".ci/sdist")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that a release changes or reads, with the placeholder."""
    (tmp_path / ".ci").mkdir()
    for name in (*FILES, *SCRIPTS):
        shutil.copy(ROOT / name, tmp_path / name)
    address(tmp_path, "https://example.invalid/dwebsocket2")
    return tmp_path


def address(checkout: Path, value: str) -> None:
    """Write the one line that the maintainers write."""
    project = checkout / "pyproject.toml"
    text, count = re.subn(
        r'^Repository = ".*"$', f'Repository = "{value}"', project.read_text(), flags=re.MULTILINE
    )
    assert count == 1
    project.write_text(text)


def release(checkout: Path) -> None:
    """Run the script."""
    subprocess.run([sys.executable, checkout / ".ci/release.py"], check=True)


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, ".ci/release.py"],
        ["bash", ".ci/wheels", "dist"],
        ["bash", ".ci/sdist", "dist"],
    ],
    ids=SCRIPTS,
)
def test_a_release_with_the_placeholder_fails_before_anything_is_built(
    checkout: Path, command: list[str]
) -> None:
    """It says what to write where; nothing is changed."""
    before = [(checkout / name).read_bytes() for name in FILES]
    environment = {**os.environ, "RELEASE": "1", "PYTHON": sys.executable}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "[project.urls] has no address of the repository yet" in done.stderr
    assert [(checkout / name).read_bytes() for name in FILES] == before
    assert not list(checkout.rglob("*.whl"))


def test_links_and_pictures_of_the_readme_become_absolute(checkout: Path) -> None:
    """Each leads to a file of the repository at the release's tag; text and code stay."""
    address(checkout, HOME)
    release(checkout)
    before, after = (ROOT / "README.md").read_text(), (checkout / "README.md").read_text()
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version is not None
    made = re.compile(rf"\]\({HOME}/(blob|raw)/v{re.escape(version[1])}/([^)#]+)([^)]*)\)")
    targets = [(found[1], found[2]) for found in made.finditer(after)]
    assert len(targets) > 30
    for kind, path in targets:
        assert (ROOT / path).exists()
        assert (kind == "raw") == (Path(path).suffix in (".gif", ".png", ".svg"))
    assert not re.search(r"\]\((?!https://)[^)]*\)", after), "a link is relative still"
    assert "<img" not in before, "the script knows Markdown's pictures alone"
    assert made.sub(r"](\2\3)", after) == before


def test_pypi_shows_addresses_of_one_place(checkout: Path) -> None:
    """Once, however often the script runs."""
    toml: Any = pytest.importorskip("tomllib", reason="since Python 3.11")
    address(checkout, f"{HOME}/")
    release(checkout)
    once = [(checkout / name).read_bytes() for name in FILES]
    release(checkout)
    assert [(checkout / name).read_bytes() for name in FILES] == once
    project = toml.loads((checkout / "pyproject.toml").read_text())["project"]
    urls = project["urls"]
    assert list(urls) == ["Repository", "Documentation", "Changelog", "Issues"]
    assert all(url.startswith(HOME) for url in urls.values())
    assert project["authors"]


def test_links_in_code_and_to_other_sites_stay() -> None:
    """And so do those to headings of the page itself."""
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "[a](#here) [b](https://x.org/y)\n\n```\n[c](d.md)\n```\n\n[![e](f.svg)](g/h.md#i)\n"
    assert module.absolute(text, HOME, "v1") == text.replace(
        "f.svg", f"{HOME}/raw/v1/f.svg"
    ).replace("g/h", f"{HOME}/blob/v1/g/h")


def test_workflows_of_a_release_refuse_the_placeholder() -> None:
    """Before they build, and whatever builds is told that it is a release."""
    workflows = ROOT / ".github" / "workflows"
    assert "run: python3 .ci/release.py" in (workflows / "publish.yml").read_text()
    assert "RELEASE: ${{ startsWith(github.ref" in (workflows / "wheels.yml").read_text()


def test_readme_says_on_its_first_screen_when_not_to_use_it() -> None:
    """Before the picture."""
    first = (ROOT / "README.md").read_text().partition("![")[0]
    assert "docs/comparison.md#when-another-one-suits-better" in first
    assert len(first.splitlines()) < 45


def test_version_is_that_of_the_installed_package() -> None:
    """It is looked up when it is asked for, not when the package is imported."""
    code = (
        "import sys; before = set(sys.modules); import dwebsocket; "
        "assert 'importlib.metadata' not in set(sys.modules) - before; "
        "print(dwebsocket.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == metadata.version("dwebsocket2")


def test_version_of_a_tree_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none."""

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.delattr(dwebsocket, "__version__", raising=False)
    assert not hasattr(dwebsocket, "__version__")
