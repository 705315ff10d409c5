"""Files of the crate: no circle; in `src/engine/` each uses its own layer and those below."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from support.imports import circles

SOURCE = Path(__file__).resolve().parent.parent / "src"
ENGINE = SOURCE / "engine"

# From the bottom to the top: the folders of the engine, as its first page names them.
LAYERS = re.findall(r"^//! - `(\w+)/`: ", (ENGINE / "mod.rs").read_text(), re.MULTILINE)

# Tests may use whatever they need.
TESTS = ("tests.rs", "interleavings.rs")


def files() -> list[Path]:
    """Every file of the crate that is not tests as a whole."""
    return sorted(path for path in SOURCE.rglob("*.rs") if path.name not in TESTS)


def module_of(path: Path) -> tuple[str, ...]:
    """Give a file's module: `src/engine/base/mod.rs` is `engine`, `base`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


MODULES = {module_of(path): path for path in files()}


def code_of(path: Path) -> str:
    """Give a file's text without its comments, texts and tests."""
    text = path.read_text()
    tests = r"^#\[cfg\(test\)\]\n(?:pub\(super\) )?mod \w+ \{\n.*?^\}\n"
    text = re.sub(tests, "", text, flags=re.DOTALL | re.M)
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '""', re.sub(r"//.*", "", text))
    return re.sub(r"'(?:[^'\\]|\\.)'", "' '", text)


def split(group: str) -> list[str]:
    """Give the parts of a text in braces, separated by commas that are not nested."""
    parts, depth = [""], 0
    for character in group:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def paths_in(tree: str) -> list[list[str]]:
    """Give the paths behind `use`: `a::{b, c::d}` has two."""
    head, brace, rest = tree.partition("{")
    names = [re.split(r"\s+as\s+", name)[0].strip() for name in head.split("::") if name.strip()]
    if not brace:
        return [names]
    return [names + path for part in split(rest.rpartition("}")[0]) for path in paths_in(part)]


def resolve(path: list[str], module: tuple[str, ...]) -> tuple[str, ...] | None:
    """Give the module that a path leads into, as seen from `module`; None for another crate's."""
    if path[0] == "crate":
        found: tuple[str, ...] = ()
    elif path[0] == "self":
        found = module
    elif path[0] == "super":
        found = module[:-1]
    elif (*module, path[0]) in MODULES:
        # A module of this one, which needs no `self`.
        return resolve(["self", *path], module)
    else:
        return None
    for name in path[1:]:
        if name == "super":
            found = found[:-1]
        elif (*found, name) in MODULES:
            found = (*found, name)
        elif name != "self":
            break
    return found


@functools.cache
def imports(path: Path) -> set[tuple[str, ...]]:
    """Give every module of the crate that a file uses, in `use` and in paths within its code."""
    module = module_of(path)
    code = code_of(path)
    uses = re.findall(r"\buse\s+([^;]+);", code)
    found = [names for tree in uses for names in paths_in(tree)]
    rest = re.sub(r"\buse\s+[^;]+;", "", code)
    found += [
        written.split("::")
        for written in re.findall(r"(?<![\w:])(?:crate|super|self)(?:::\w+)+", rest)
    ]
    resolved = {resolve(names, module) for names in found}
    return {other for other in resolved if other is not None} - {module}


def engine_files() -> list[Path]:
    """Every file of a layer."""
    return [path for path in files() if len(module_of(path)) > 1 and ENGINE in path.parents]


def test_uses_its_own_layer_and_lower_ones_only() -> None:
    """And nothing by the names that `engine/mod.rs` exports for the rest of the crate."""
    wrong = []
    for path in engine_files():
        allowed = LAYERS[: LAYERS.index(module_of(path)[1]) + 1]
        wrong += [
            f"{path.relative_to(ENGINE)} uses {'::'.join(module)}"
            for module in imports(path)
            if module[:1] == ("engine",) and (len(module) == 1 or module[1] not in allowed)
        ]
    assert wrong == []


def test_no_circle() -> None:
    """Of files of the crate, within a layer either. A `mod.rs` is a file like any other."""
    graph = {
        "::".join(module): {"::".join(other) for other in imports(path)}
        for module, path in MODULES.items()
        if module
    }
    assert circles(graph) == []


def test_finds_what_is_used() -> None:
    """In each way in which it can be written; else the tests above would see nothing."""
    driver = imports(ENGINE / "driver" / "mod.rs")
    assert {("engine", "base", "clock"), ("engine", "driver", "keepalive")} <= driver
    assert paths_in("super::{a::{self, B}, c as d}") == [
        ["super", "a", "self"],
        ["super", "a", "B"],
        ["super", "c"],
    ]
    module = ("engine", "base", "clock")
    assert resolve(["super", "super", "driver", "Driver"], module) == ("engine", "driver")
    assert resolve(["crate", "engine", "Engine"], module) == ("engine",)
    assert resolve(["std", "sync"], module) is None


def test_each_layer_is_a_folder() -> None:
    """A layer that is renamed is so in the list and on the page on architecture."""
    folders = {path.name for path in ENGINE.iterdir() if path.is_dir()}
    assert sorted(LAYERS) == sorted(folders)
    page = (SOURCE.parent / "docs" / "architecture.md").read_text()
    assert re.findall(r"^\| `src/engine/(\w+)/`", page, re.MULTILINE) == LAYERS
