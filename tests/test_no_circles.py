"""No file of the tests or of the benchmarks imports itself, however many files are in between."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from support.imports import circles

# In one process: it reads the code once.
pytestmark = pytest.mark.xdist_group("the code")

ROOT = Path(__file__).resolve().parent.parent
# Folders whose files import each other by names that begin below them, and what does not count.
HOUSES = {
    "bench": (ROOT / "bench", ROOT / "tests"),
    "bench's servers": (ROOT / "bench" / "servers",),
    "tests": (ROOT / "tests",),
    "unit tests": (ROOT / "tests" / "unit", ROOT / "tests"),
    "servers' tests": (ROOT / "tests" / "servers", ROOT / "tests"),
    "robustness": (ROOT / "tests" / "robustness", ROOT / "tests"),
    "conformance": (ROOT / "tests" / "conformance", ROOT / "tests"),
    "doctor": (ROOT / "tests" / "doctor", ROOT / "tests"),
    "proxies": (ROOT / "tests" / "proxies", ROOT / "tests"),
    "wild projects": (ROOT / "tests" / "wild", ROOT / "tests"),
    "sample project": (ROOT / "tests" / "sample_project",),
}


def module_path(name: str, roots: tuple[Path, ...]) -> Path | None:
    """Give the file of a module that lies in one of the folders of `sys.path`, the first first."""
    for root in roots:
        place = root.joinpath(*name.split("."))
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None


@functools.cache
def statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Give the statements of a file that import, wherever they stand."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]


def imported(path: Path, roots: tuple[Path, ...]) -> set[Path]:
    """Give the files that a file imports, wherever in it, for types too."""
    names: set[str] = set()
    package = path.parent
    for node in statements(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                home = package.parents[node.level - 2] if node.level > 1 else package
                root = next(root for root in roots if home.is_relative_to(root))
                base = ".".join([*home.relative_to(root).parts, *filter(None, [base])])
            found = {f"{base}.{alias.name}" for alias in node.names}
            inner = {name for name in found if module_path(name, roots)}
            names.update(inner if inner == found else inner | {base})
    return {found for name in names if (found := module_path(name, roots)) and found != path}


def graph(roots: tuple[Path, ...]) -> dict[str, set[str]]:
    """Give what each file below the first folder imports, and what those import."""
    found: dict[Path, set[Path]] = {}
    left = sorted(roots[0].rglob("*.py"))
    while left:
        path = left.pop()
        if path not in found and "node_modules" not in path.parts:
            found[path] = imported(path, roots)
            left.extend(found[path])
    return {str(path): {str(other) for other in others} for path, others in found.items()}


@pytest.mark.parametrize("house", HOUSES)
def test_no_circle(house: str) -> None:
    """Each file can be read after those that it imports."""
    edges = graph(HOUSES[house])
    assert any(edges.values()), "nothing was found"
    assert circles(edges) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    """Of three files, by imports of every form."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").touch()
    (tmp_path / "one.py").write_text("from room import two\n")
    (tmp_path / "room" / "two.py").write_text("def late():\n    from .three import name\n")
    (tmp_path / "room" / "three.py").write_text("import one\n")
    (tmp_path / "apart.py").write_text("import one\n")
    (found,) = circles(graph((tmp_path,)))
    assert {Path(name).name for name in found} == {"one.py", "three.py", "two.py"}
