"""`dwebsocket.js` as a file: its tests in Node, its size, its types, and where it is shipped."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.installed import has_program
from support.pages import blocks
from support.server import ROOT, TESTS

HERE = TESTS / "client"
FOLDER = ROOT / "python" / "dwebsocket" / "static" / "dwebsocket"
MODULE = FOLDER / "dwebsocket.js"
_OPTIONS = "--noEmit --strict --module esnext --moduleResolution bundler --target esnext"
TSC = [
    str(TESTS / "clients/node_modules/.bin/tsc"),
    *_OPTIONS.split(),
    *("--exactOptionalPropertyTypes", "--lib", "esnext,dom", "--types", ""),
]
#: Names that blocks of the pages use.
_BEFORE_A_BLOCK = """
import { connect, type Socket } from "dwebsocket";
declare const live: Socket, socket: Socket, show: (text: unknown) => void, document: any;
"""


@pytest.mark.skipif(not has_program("node"), reason="node is missing; run tests/setup")
@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_in_node(name: str) -> None:
    """The tests of a file, with a clock and WebSockets of their own."""
    done = subprocess.run(
        ["node", "--test", str(HERE / name)], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout
    assert "fail 0" in done.stdout


@pytest.mark.parametrize(
    ("name", "most"), [("dwebsocket.js", 8192), ("react.js", 1024), ("vue.js", 1024)]
)
def test_size(name: str, most: int) -> None:
    """The module below 8 KB, hooks below 1 KB, by `gzip -c`, whose header has the file's name."""
    compressed = io.BytesIO()
    with gzip.GzipFile(name, "wb", 6, compressed) as file:
        file.write((FOLDER / name).read_bytes())
    assert compressed.tell() < most


#: The parts of each framework that a hook calls. A script draws a component by hand.
_FRAMEWORKS = {
    "react": """
        const slots = [], effects = [];
        let next = 0;
        const changed = (slot, values) => values.some((value, n) => value !== slot?.values[n]);
        export const draw = (component) => { next = 0; return component(); };
        export const commit = () => effects.splice(0).forEach((run) => run());
        export const useState = (value) => {
          const slot = (slots[next++] ??= { value });
          return [slot.value, (changed) => { slot.value = changed; }];
        };
        export const useRef = (current) => (slots[next++] ??= { current });
        export const useCallback = (call, values) => {
          const n = next++;
          if (changed(slots[n], values)) slots[n] = { call, values };
          return slots[n].call;
        };
        export const useEffect = (begin, values) => {
          const n = next++, slot = slots[n];
          if (!changed(slot, values)) return;
          effects.push(() => { slot?.stop?.(); slots[n] = { values, stop: begin() }; });
        };
    """,
    "vue": """
        const looks = [], begun = [];
        let instance = null;
        export const draw = (component) => {
          instance = { isMounted: false };
          try { return component(); } finally { instance = null; }
        };
        export const mount = () => begun.splice(0).forEach((run) => run());
        export const getCurrentInstance = () => instance;
        export const onMounted = (run) => begun.push(run);
        export const shallowRef = (value) => ({
          get value() { return value; },
          set value(next) { value = next; for (const look of looks) look(); },
        });
        export const toValue = (value) => value;
        export const watch = (get, run) => {
          let before = {};
          looks.push(() => get() === before || run((before = get()), undefined, () => {}));
          looks.at(-1)();
        };
    """,
}
_BEFORE_A_SCRIPT = """
    import { useRoom } from "./hook.mjs";
    const live = { join: (name) => ({
      state: "joined", members: [name], on: () => () => {}, leave() {}, emit: async () => name,
    }) };
"""


def run_hook(name: str, script: str, folder: Path) -> str:
    """Runs a script beside a hook whose framework is that above; returns what it has printed."""
    package = folder / "node_modules" / name
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
    (package / "index.js").write_text(_FRAMEWORKS[name])
    shutil.copy(FOLDER / f"{name}.js", folder / "hook.mjs")
    (folder / "page.mjs").write_text(_BEFORE_A_SCRIPT + script)
    done = subprocess.run(
        ["node", str(folder / "page.mjs")], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not has_program("node"), reason="node is missing; run tests/setup")
@pytest.mark.parametrize("name", _FRAMEWORKS)
def test_what_a_hook_without_a_room_rejects_ends_no_process(name: str, tmp_path: Path) -> None:
    """An `emit` need not be awaited. Its error is that of a room that is left."""
    script = """
        const { emit } = useRoom(null, null);
        emit("say", 1);
        await new Promise((done) => setTimeout(done, 20));
        emit("say", 2).catch(({ name, code }) => console.log(name, code));
    """
    assert run_hook(name, script, tmp_path) == "RoomError left\n"


@pytest.mark.skipif(not has_program("node"), reason="node is missing; run tests/setup")
def test_a_component_of_another_room_shows_and_says_nothing_of_the_one_before(
    tmp_path: Path,
) -> None:
    """React runs effects after it has drawn: until then there is no room of the new name."""
    script = """
        import { commit, draw } from "react";
        for (const name of ["a", "b", null, "b"]) {
          for (const effects of ["before", "after"]) {
            const { members, emit } = draw(() => useRoom(live, name));
            const said = await emit("say").catch(({ code }) => code);
            console.log(name, effects, members.join() || "-", said);
            commit();
          }
          draw(() => useRoom(live, name));
        }
    """
    assert run_hook("react", script, tmp_path).splitlines() == [
        *("a before - left", "a after a a", "b before - left", "b after b b"),
        *("null before - left", "null after - left", "b before - left", "b after b b"),
    ]


@pytest.mark.skipif(not has_program("node"), reason="node is missing; run tests/setup")
def test_what_vue_draws_first_has_no_room(tmp_path: Path) -> None:
    """The browser draws first what the server has drawn. Outside of components nothing is drawn."""
    script = """
        import { draw, mount } from "vue";
        const use = () => useRoom(live, "a");
        const print = async ({ state, members, emit }) => {
          const said = await emit("say").catch(({ code }) => code);
          console.log(state.value, members.value.join() || "-", said);
        };
        const view = draw(use);
        await print(view);
        mount();
        await print(view);
        await print(use());
    """
    assert run_hook("vue", script, tmp_path).splitlines() == [
        *("null - left", "joined a a", "joined a a"),
    ]


def test_it_stands_alone() -> None:
    """It imports nothing, so that the names that collectstatic gives to files do not matter."""
    assert re.findall(r"\bimport\b|\brequire\b|\bfrom \"", MODULE.read_text()) == []


def test_folder_is_a_package_of_npm() -> None:
    """Its files exist, and its version is that of the Python package."""
    package = json.loads((FOLDER / "package.json").read_text())
    assert package["name"] == "dwebsocket"
    assert package["type"] == "module"
    named = [package["types"], *package["exports"]["."].values(), *package["files"]]
    assert [name for name in named if not (FOLDER / name).is_file()] == []
    cargo = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert cargo is not None
    assert package["version"] == cargo[1]


def test_wheel_has_it() -> None:
    """maturin packs all of the Python source's folder that git does not ignore."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert 'python-source = "python"' in pyproject
    assert not re.search(r"^(include|exclude) =", pyproject, re.MULTILINE)
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, FOLDER.iterdir())], cwd=ROOT, capture_output=True
    )
    assert ignored.stdout == b""


@pytest.mark.needs("typescript")
def test_npm_packs_what_is_needed() -> None:
    """The module, the hooks, their types, and the description: nothing else."""
    done = subprocess.run(
        ["npm", "pack", "--dry-run", "--json", "--offline"],
        cwd=FOLDER,
        capture_output=True,
        check=True,
        timeout=110,
    )
    (package,) = json.loads(done.stdout)
    assert sorted(file["path"] for file in package["files"]) == [
        "dwebsocket.d.ts",
        "dwebsocket.js",
        "package.json",
        "react.d.ts",
        "react.js",
        "vue.d.ts",
        "vue.js",
    ]


def check_types(folder: Path, *arguments: str) -> None:
    """Asserts that `tsc --strict` accepts files of a project that has the package."""
    package = folder / "node_modules" / "dwebsocket"
    package.parent.mkdir()
    package.symlink_to(FOLDER)
    done = subprocess.run(
        [*TSC, *arguments], cwd=folder, capture_output=True, text=True, timeout=110
    )
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.needs("typescript")
def test_types(tmp_path: Path) -> None:
    """The types accept the whole API, and each misuse is an error."""
    shutil.copy(HERE / "usage.ts", tmp_path)
    check_types(tmp_path, "usage.ts")


@pytest.mark.needs("typescript")
def test_blocks_of_the_pages_are_typescript(tmp_path: Path) -> None:
    """The blocks of JavaScript that are no whole file compile, each as a module."""
    names = []
    for page in ("docs/client.md", "docs/rooms.md"):
        for each in blocks(page):
            if each.language == "js" and "import " not in each.text:
                names.append(f"{Path(page).stem}-{each.line}.ts")
                (tmp_path / names[-1]).write_text(_BEFORE_A_BLOCK + each.text)
    assert len(names) == 11
    # Not asked for: types of the blocks' own variables.
    lenient = "--noImplicitAny false --useUnknownInCatchVariables false"
    check_types(tmp_path, *lenient.split(), *names)
