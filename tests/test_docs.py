"""The pages for users say what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import dwebsocket
from dwebsocket import WebSocket, conf, exceptions

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
VIEWS = (ROOT / "docs" / "views.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def blocks() -> list[object]:
    """Every block of Python on a page."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text[: block.start()].count("\n") + 2
            found.append(pytest.param(block[1], id=f"{page.name}:{line}"))
    return found


def sections() -> dict[str, str]:
    """The settings page: name of each setting and what stands below."""
    parts = re.split(r"^### `WEBSOCKET_(\w+)`$", SETTINGS, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def field(name: str, label: str) -> str:
    """Give the code behind a label of a setting's section."""
    found = re.search(rf"^- {label}: `(.+?)`", sections()[name], re.MULTILINE)
    assert found is not None, f"{name} has no {label}"
    return found[1]


def test_there_are_blocks() -> None:
    """Without blocks the test below would check none."""
    assert len(blocks()) > 5


@pytest.mark.parametrize("code", blocks())
def test_python_compiles(code: str) -> None:
    """Each block of Python on a page has no syntax error."""
    compile(code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_architecture_names_files_that_exist() -> None:
    """In its tables, and wherever else a whole path stands."""
    paths = re.findall(r"`((?:src|python|tests|bench)/[\w./]+)`", ARCHITECTURE)
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_architecture_has_a_place_for_every_module() -> None:
    """Each file and folder of the package stands in the table of rooms."""
    package = ROOT / "python" / "dwebsocket"
    files = {path.name for path in package.iterdir() if path.suffix in (".py", ".pyi")}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    named = set(re.findall(r"`([\w.]+(?:/|\.pyi?))`", ARCHITECTURE))
    assert (files | folders) - named == {"__init__.py"}


def anchors(page: Path) -> set[str]:
    """Give the fragments that lead to headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    }


def test_links_lead_somewhere() -> None:
    """To files of the repository, and to headings on the page itself or on another one."""
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" in link:
                continue
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {link}"
            if heading and target.suffix == ".md":
                assert heading in anchors(target), f"{page.name}: {link}"


class TestSettings:
    """docs/settings.md."""

    def test_lists_exactly_the_settings(self) -> None:
        """In the order of the code, in the table and in the sections."""
        assert list(sections()) == list(conf.SETTINGS)
        table = re.findall(
            r"^\| \[`WEBSOCKET_(\w+)`\]\(#websocket_\w+\) \|", SETTINGS, re.MULTILINE
        )
        assert table == list(conf.SETTINGS)

    @pytest.mark.parametrize("name", conf.SETTINGS)
    def test_default(self, name: str) -> None:
        """Is that of the code, wherever it is written."""
        default = eval(field(name, "Default"), {})
        assert (default, type(default)) == (
            conf.SETTINGS[name].default,
            type(conf.SETTINGS[name].default),
        )
        row = re.search(rf"^\| \[`WEBSOCKET_{name}`\].*?\| `(.+?)` \|", SETTINGS, re.MULTILINE)
        assert row is not None
        assert row[1] == field(name, "Default")

    @pytest.mark.parametrize("name", conf.SETTINGS)
    def test_keyword(self, name: str) -> None:
        """Is there for those that can differ from view to view, and only for them."""
        if name.lower() in conf.OPTION_NAMES:
            assert field(name, "Per view") == name.lower()
        else:
            assert re.search(r"^- Per view: no", sections()[name], re.MULTILINE)

    @pytest.mark.parametrize("name", conf.SETTINGS)
    def test_values(self, name: str) -> None:
        """The page says which values a setting takes, and the examples are accepted."""
        assert re.search(r"^- Values: \S", sections()[name], re.MULTILINE)
        for value in re.findall(rf"^WEBSOCKET_{name} = (.+)$", SETTINGS, re.MULTILINE):
            conf.read(name, eval(value, {}))


def test_views_page_names_every_exception() -> None:
    """That a project may want to catch."""
    names = [name for name in exceptions.__dict__ if name in dwebsocket.__all__]
    assert [name for name in names if f"`{name}`" not in VIEWS.replace("dwebsocket.", "")] == []


def test_views_page_names_every_call() -> None:
    """Of `request.websocket`."""
    public = [name for name in vars(WebSocket) if not name.startswith("_")]
    assert [name for name in public if f"`{name}" not in VIEWS and f".{name}(" not in VIEWS] == []
