"""
Whether the tests that run by default find as many faults as all that there are.

    python tests/mutants.py [--language python|rust] [--count 40] [--seed 36] [--skip N]
                            [--default-only]

Draws mutants of `ROOMS` with a fixed seed, applies each in a scratch copy, and runs the part of
`TESTS` that runs by default, and where that is Rust the engine's own tests. The survivors run once
more with `--every-server`, all of them in one copy. If that run passes, each of them survives. If
it fails, each half of them runs by itself.

Mutants of Python come from cosmic-ray, those of Rust from cargo-mutants, which have to be there
(`pip install cosmic-ray`, `cargo install --locked cargo-mutants`); each of Rust is compiled.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
# The rooms that the lists of behaviours go through.
ROOMS = {
    "python": ("handshake", "runners", "servers", "websocket.py", "decorators.py", "handler.py"),
    "rust": (
        "src/protocol/**",
        "src/engine/connection/**",
        "src/engine/driver/**",
        "src/binding/*.rs",
    ),
}
TESTS = (
    "tests/conformance",
    "tests/handlers",
    "tests/servers/test_contract.py",
    "tests/servers/test_fallback.py",
    "tests/servers/test_polling.py",
    "tests/servers/test_consumers.py",
    "tests/robustness/test_floods.py",
    "tests/unit",
)


# Cargo compiles quickly: each mutant serves one run of the tests.
QUICK = {"LTO": "off", "CODEGEN_UNITS": "16", "OPT_LEVEL": "1"}


class Mutant(NamedTuple):
    """A change of one file: its path, what the change is, and the text with it."""

    path: str
    what: str
    text: str

    def lines(self) -> str:
        """Return the lines that are not those of the tree."""
        before = (ROOT / self.path).read_text().splitlines()
        changes = difflib.unified_diff(before, self.text.splitlines(), lineterm="", n=1)
        return "\n".join(f"    {line}" for line in list(changes)[2:])


def of_python() -> Iterator[tuple[str, str, int]]:
    """Give the places that cosmic-ray can change: path, name of the operator, its occurrence."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    # Those of variables want to be told which.
    names = sorted(name for name in operator_names() if "Variable" not in name)
    operators = {name: get_operator(name)() for name in names}
    package = ROOT / "python" / "dwebsocket"
    for room in ROOMS["python"]:
        found = package / room
        for path in [found] if found.is_file() else sorted(found.rglob("*.py")):
            nodes = list(ast_nodes(get_ast_from_path(path)))
            for name, operator in operators.items():
                places = sum(1 for node in nodes for _ in operator.mutation_positions(node))
                yield from ((str(path.relative_to(ROOT)), name, nth) for nth in range(places))


def draw_python(seed: int) -> Iterator[Mutant]:
    """Draw mutants of Python: first a kind, as some have a hundred times the places of others."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    kinds: dict[str, list[tuple[str, str, int]]] = {}
    for place in of_python():
        # Of ReplaceComparisonOperator_Lt_GtE and its like one kind each.
        kinds.setdefault(place[1].split("_")[0], []).append(place)
    chance, drawn = random.Random(seed), set()
    while True:
        path, name, nth = chance.choice(kinds[chance.choice(sorted(kinds))])
        before = (ROOT / path).read_text()
        try:
            text = mutate_code(before, get_operator(name)(), nth)
        except AttributeError:
            # The operator for exceptions cannot change those that are written with a module.
            continue
        mutant = Mutant(path, f"{path}: {name} {nth}", text or before)
        if mutant not in drawn and _differs(before, mutant.text):
            drawn.add(mutant)
            yield mutant


def _differs(before: str, after: str) -> bool:
    """Whether a change is one of code, not of an annotation, and can be parsed."""
    import ast

    class Annotations(ast.NodeTransformer):
        def visit_arg(self, node: ast.arg) -> ast.arg:
            node.annotation = None
            return node

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            node.returns = None
            return self.generic_visit(node)

        visit_AsyncFunctionDef = visit_FunctionDef

        def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
            node.annotation = ast.Constant(None)
            return self.generic_visit(node)

    try:
        trees = [ast.dump(Annotations().visit(ast.parse(text))) for text in (before, after)]
    except SyntaxError:
        return False
    return trees[0] != trees[1]


def draw_rust(seed: int) -> Iterator[Mutant]:
    """Draw mutants of Rust."""
    files = [word for room in ROOMS["rust"] for word in ("--file", room)]
    listed = subprocess.run(
        ["cargo", "mutants", "--list", "--json", "--diff", *files],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    found = json.loads(listed.stdout)
    random.Random(seed).shuffle(found)
    for each in found:
        path = each["file"]
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "file.rs"
            shutil.copy(ROOT / path, copy)
            subprocess.run(
                ["patch", "--quiet", str(copy)], input=each["diff"], text=True, check=True
            )
            yield Mutant(path, each["name"], copy.read_text())


class Copy:
    """A copy of the tree, in which tests run with some mutants applied."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "tree"
        self._target, self._tests = folder / "target", folder / "tests"
        ignored = shutil.ignore_patterns(".git", "target", ".venv", "dist", "__pycache__")
        shutil.copytree(ROOT, self._root, symlinks=True, ignore=ignored)

    @contextmanager
    def changed(self, mutants: Sequence[Mutant]) -> Iterator[bool]:
        """Apply these mutants in the block; give whether that compiles."""
        for mutant in mutants:
            (self._root / mutant.path).write_text(mutant.text)
        try:
            yield not any(mutant.path.endswith(".rs") for mutant in mutants) or self.build()
        finally:
            for mutant in mutants:
                shutil.copy(ROOT / mutant.path, self._root / mutant.path)

    def build(self) -> bool:
        """Compile the engine into the copy; return whether it compiles."""
        quick = {f"CARGO_PROFILE_RELEASE_{name}": value for name, value in QUICK.items()}
        command = ["cargo", "build", "--quiet", "--release", "--lib", "--target-dir", self._target]
        env = {**os.environ, **quick, "CARGO_INCREMENTAL": "1", "PYO3_BUILD_EXTENSION_MODULE": "1"}
        quiet = subprocess.DEVNULL
        if subprocess.run(command, cwd=self._root, env=env, stderr=quiet, check=False).returncode:
            return False
        shutil.copy(
            self._target / "release" / "lib_core.so",
            self._root / "python" / "dwebsocket" / "_core.abi3.so",
        )
        return True

    def engine_passes(self) -> bool:
        """Run the engine's own tests, which are the same with `--every-server`."""
        command = ["cargo", "test", "--quiet", "--no-default-features", "--target-dir", self._tests]
        quiet = subprocess.DEVNULL
        # A failure counts if it comes again.
        return any(
            subprocess.run(command, cwd=self._root, stdout=quiet, stderr=quiet).returncode == 0
            for _ in range(2)
        )

    def passes(self, *options: str) -> bool:
        """Run the tests. A failure counts if the test fails alone, too, or if it is the third."""
        together = ("-n", "4", "--dist", "loadgroup", "--cache-clear", *options)
        for _ in range(3):
            if self._pytest(*together):
                return True
            if not self._pytest("--last-failed", "--last-failed-no-failures=none", *options):
                return False
        return False

    def _pytest(self, *options: str) -> bool:
        env = {**os.environ, "PYTHONPATH": str(self._root / "python")}
        # Else each of its processes would rewrite the assertions of all tests.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-qq", "-x", *options, *TESTS],
            cwd=self._root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode == 0


def those_killed(copy: Copy, mutants: Sequence[Mutant]) -> list[Mutant]:
    """Return those of some mutants that only the tests of `--every-server` find."""
    if not mutants:
        return []
    with copy.changed(mutants) as compiles:
        if compiles and copy.passes("--every-server"):
            return []
    if len(mutants) == 1:
        return list(mutants)
    half = len(mutants) // 2
    return those_killed(copy, mutants[:half]) + those_killed(copy, mutants[half:])


def main() -> int:
    """Print each mutant and its fate, then the figures of tests/README.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("--language", choices=ROOMS, default="python")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=36)
    parser.add_argument("--skip", type=int, default=0, help="mutants that were tried before")
    parser.add_argument("--default-only", action="store_true", help="without --every-server")
    options = parser.parse_args()
    draw = draw_python if options.language == "python" else draw_rust
    tried, survivors = 0, []
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        is_rust = options.language == "rust"
        if not copy.build() or not copy.passes() or (is_rust and not copy.engine_passes()):
            print("the tests fail without a mutant")
            return 1
        for mutant in islice(draw(options.seed), options.skip, None):
            with copy.changed([mutant]) as compiles:
                if not compiles:
                    continue
                is_alive = copy.passes() and (not is_rust or copy.engine_passes())
            print(f"{'survives' if is_alive else 'killed'}: {mutant.what}", flush=True)
            if is_alive:
                survivors.append(mutant)
                print(mutant.lines(), flush=True)
            tried += 1
            if tried == options.count:
                break
        more = [] if options.default_only else those_killed(copy, survivors)
    for mutant in more:
        print(f"killed by --every-server alone: {mutant.what}")
    killed = tried - len(survivors)
    print(f"{options.language}, seed {options.seed}: {killed} of {tried} by default", end="")
    print("" if options.default_only else f", {killed + len(more)} by every test")
    return 0


if __name__ == "__main__":
    sys.exit(main())
