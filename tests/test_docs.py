"""The pages for users say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dwebsocket
from dwebsocket import WebSocket, conf, exceptions
from support.pages import pages

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
VIEWS = (ROOT / "docs" / "views.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def sections() -> dict[str, str]:
    """The settings page: name of each setting and what stands below."""
    parts = re.split(r"^### `WEBSOCKET_(\w+)`$", SETTINGS, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def field(name: str, label: str) -> str:
    """Give the code behind a label of a setting's section."""
    found = re.search(rf"^- {label}: `(.+?)`", sections()[name], re.MULTILINE)
    assert found is not None, f"{name} has no {label}"
    return found[1]


def test_architecture_names_files_that_exist() -> None:
    """In its tables, and wherever else a whole path stands."""
    paths = re.findall(r"`((?:src|python|tests|bench)/[\w./]+)`", ARCHITECTURE)
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_architecture_names_what_is_in_a_file() -> None:
    """A function or class that the page says is in a file is there."""
    name = r"`[\w:.]+(?:\(\))?`"
    found = re.findall(
        rf"({name}(?:(?:, | and ){name})*) in `((?:src|python|tests|bench)/[\w./]+\.\w+)`",
        ARCHITECTURE,
    )
    assert len(found) > 20
    missing = [
        (each, path)
        for names, path in found
        for each in re.findall(r"(\w+)(?:\(\))?`", names)
        if not re.search(rf"\b{each}\b", (ROOT / path).read_text())
    ]
    assert missing == []


def test_architecture_has_a_place_for_every_module() -> None:
    """Each file and folder of the package stands in the table of rooms."""
    package = ROOT / "python" / "dwebsocket"
    files = {path.name for path in package.iterdir() if path.suffix in (".py", ".pyi")}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    named = set(re.findall(r"`([\w.]+(?:/|\.pyi?))`", ARCHITECTURE))
    assert (files | folders) - named == {"__init__.py"}


def test_architecture_begins_with_what_is_public() -> None:
    """Each module that a page or an example imports, or names for a setting, is among them."""
    public = set(re.findall(r"`(\w+)`", ARCHITECTURE.partition("\n## ")[0]))
    used = set()
    for name in pages():
        text = "" if name.endswith("architecture.md") else (ROOT / name).read_text()
        used |= set(re.findall(r"(?:from |import |[\"'])dwebsocket\.([a-z]+)", text))
    assert len(used) > 10
    assert used - public == set()


def cells(page: str) -> dict[tuple[str, str], str]:
    """Give the cells of a page's first table by the titles of their row and column."""
    lines = page[page.index("\n| |") :].strip().partition("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {
        (row[0], column): text
        for row in rows
        for column, text in zip(head[1:], row[1:], strict=True)
    }


class TestFirstPages:
    """README.md and docs/index.md, the first page of the site, say the same."""

    README = (ROOT / "README.md").read_text().partition("## Documentation")[0]
    # The commands for a checkout of the repository.
    ONLY_IN_README = ("[Start in five minutes]", "```\nmake demo")

    def test_site_begins_as_the_readme_does(self) -> None:
        """Each paragraph stands on both pages, up to the list of pages."""
        index = " ".join((ROOT / "docs" / "index.md").read_text().split())
        parts = self.README.replace("](docs/", "](").strip().split("\n\n")
        missing = [part for part in parts if " ".join(part.split()) not in index]
        assert [part for part in missing if not part.startswith(self.ONLY_IN_README)] == []

    def test_cells_are_those_of_the_comparison(self) -> None:
        """Each cell of the short table begins the one in the same row and column of the whole."""
        whole = cells((ROOT / "docs" / "comparison.md").read_text())
        short = cells(self.README)
        assert len(short) > 50
        differing = {
            place: text for place, text in short.items() if not whole[place].startswith(text)
        }
        assert differing == {}


class TestComparison:
    """docs/comparison.md."""

    PAGE = (ROOT / "docs" / "comparison.md").read_text()

    def test_each_cell_has_a_source(self) -> None:
        """In the section of its column; but for what a package does not have, and for ours."""
        sources = {}
        for section in self.PAGE.split("\n### ")[1:]:
            title, _, text = section.partition("\n")
            rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
            sources[title.lower()] = {row for rows_of in rows for row in rows_of.split("; ")}
        missing = "no", "\N{EN DASH}"
        without = [
            (row, column)
            for (row, column), text in cells(self.PAGE).items()
            if column != "dwebsocket2" and not text.startswith(missing)
            if row not in sources[column.lower()]
        ]
        assert without == []

    def test_each_source_is_of_a_row(self) -> None:
        """A row that was renamed is not forgotten there."""
        named = re.findall(r"^\| (.+?) \|", self.PAGE.split("\n### ", 1)[1], re.MULTILINE)
        rows = {row for row, _ in cells(self.PAGE)}
        assert {row for each in named for row in each.split("; ")} - rows == {"row"}


class TestSettings:
    """docs/settings.md."""

    def test_lists_exactly_the_settings(self) -> None:
        """In the order of the code."""
        assert list(sections()) == list(conf.SETTINGS)

    @pytest.mark.parametrize("name", conf.SETTINGS)
    def test_default(self, name: str) -> None:
        """Is that of the code."""
        default = eval(field(name, "Default"), {})
        assert (default, type(default)) == (
            conf.SETTINGS[name].default,
            type(conf.SETTINGS[name].default),
        )

    @pytest.mark.parametrize("name", conf.SETTINGS)
    def test_keyword(self, name: str) -> None:
        """Is there for those that can differ from view to view, and only for them."""
        if name.lower() in conf.OPTION_NAMES:
            assert field(name, "Per view") == name.lower()
        else:
            assert "- Per view" not in sections()[name]

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
