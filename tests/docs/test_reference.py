"""docs/reference.md and docs/reference-testing.md: each public name has its docstring there."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dwebsocket
from support.pages import text_of

PAGES = REFERENCE, TEST_KIT = ("docs/reference.md", "docs/reference-testing.md")
#: The modules that projects import, with the number of public names that each has at least.
MODULES = {
    **dict.fromkeys(["", ".client", ".exceptions", ".groups", ".signals", ".testing"], 4),
    **dict.fromkeys([".asgi", ".channels", ".decorators", ".handler", ".middleware"], 1),
    **dict.fromkeys([".operations", ".rooms", ".tenants", ".uvicorn"], 1),
}
#: Has a model: it can be imported where the package is among the applications, and not here.
APPLICATION = "dwebsocket.admin"


def names_on(page: str) -> list[str]:
    """Give the names from which a page takes docstrings."""
    names: list[str] = re.findall(r"^::: (\S+)$", text_of(page), re.MULTILINE)
    assert len(names) == len(set(names))
    return names


def named(page: str) -> dict[str, Any]:
    """Give what a page takes docstrings from, by its name there."""
    return {name: resolve(name) for name in names_on(page) if not name.startswith(APPLICATION)}


def resolve(name: str) -> Any:
    """
    Import a name as the site does, which reads files: by the modules of its path.

    `pkgutil.resolve_name` would take `dwebsocket.websocket` for the decorator of that name.
    """
    module, _, last = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ImportError:
        return getattr(importlib.import_module(module), last)


def names_of(module: ModuleType) -> list[str]:
    """Give a module's public names."""
    listed = getattr(module, "__all__", None)
    return listed or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]


@pytest.mark.parametrize(("name", "least"), MODULES.items())
def test_has_every_public_name(name: str, least: int) -> None:
    """By itself, or by its whole module."""
    module = importlib.import_module(f"dwebsocket{name}")
    found = list(named(TEST_KIT if name == ".testing" else REFERENCE).values())
    whole = {value.__name__ for value in found if isinstance(value, ModuleType)}
    assert len(names_of(module)) >= least
    assert [
        name
        for name in names_of(module)
        if getattr(module, name) not in found
        and module.__name__ not in whole
        and getattr(getattr(module, name), "__module__", "") not in whole
    ] == []


def test_has_every_public_name_of_the_admin() -> None:
    """By reading its file."""
    path = Path(dwebsocket.__path__[0], "admin.py")
    (listed,) = re.findall(r"^__all__ = \[(.+)\]$", path.read_text(), re.MULTILINE)
    names = [f"{APPLICATION}.{name}" for name in re.findall(r"\w+", listed)]
    assert len(names) == 2
    assert set(names) <= set(names_on(REFERENCE))


@pytest.mark.parametrize("page", PAGES)
def test_names_are_public(page: str) -> None:
    """The names on the page are documented, and none is private."""
    for name, value in named(page).items():
        assert not any(part.startswith("_") for part in name.split(".")), name
        assert (value.__doc__ or "").strip(), name


def test_site_reads_the_same_names() -> None:
    """`pkgutil` finds every module that a name begins with."""
    modules = {info.name for info in pkgutil.walk_packages(dwebsocket.__path__, "dwebsocket.")}
    for page in PAGES:
        for name in names_on(page):
            assert name in modules or name.rpartition(".")[0] in modules, name
