"""
Checks of the commands on pages: does the program exist, and does it have these options?

Nothing is run, and nothing is installed. The parsers of servers are asked in a process of their
own, because their packages must not be loaded into that of the tests.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management import get_commands, load_command_class

from support.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Commands that a shell has anyway.
SYSTEM = {"cat", "grep", "ip", "sysctl", "unshare", "wsl"}
#: Packages that pages install beside our own and those of tests/requirements.txt.
OTHERS = {"whitenoise", "cosmic-ray"}

# For each server: code that parses `words`, and raises or exits when it cannot.
PARSERS = {
    "gunicorn": "from gunicorn.config import Config; Config().parser().parse_args(words)",
    "uvicorn": "from uvicorn.main import main; main.make_context('uvicorn', words)",
    "waitress-serve": "from waitress.adjustments import Adjustments; Adjustments.parse_args(words)",
    "celery": """
from celery.bin.worker import worker
assert words[0] == "-A" and words[2] == "worker", words
known = {name for parameter in worker.params for name in parameter.opts}
assert {word for word in words[3:] if word.startswith("-")} <= known, words
""",
}
_ASK = """
import json, sys
for code, words in json.load(sys.stdin):
    try:
        exec(code, {"words": words})
    except BaseException as error:
        sys.exit(f"{words}: {type(error).__name__}: {error}")
"""


def lines_of(text: str) -> Iterator[str]:
    """Give the commands of a block: of a transcript those behind `$`, else every line."""
    text = re.sub(r"\\\n", " ", text)
    is_transcript = re.search(r"^\$ ", text, re.MULTILINE) is not None
    begun = ""
    for line in text.splitlines():
        if is_transcript and not line.startswith("$ "):
            continue
        command = begun + line.removeprefix("$ ")
        try:
            is_command = bool(shlex.split(command, comments=True))
        except ValueError:
            # A quotation that goes on in the next line.
            begun = f"{command}\n"
            continue
        begun = ""
        if is_command:
            yield command
    assert not begun, begun


def words_of(line: str) -> list[str]:
    """Give a command's words, without a comment and without variables in front."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    return words


def check(commands: list[str]) -> None:
    """Fail for the first command that does not exist, or has an option that its program lacks."""
    asked = []
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True, timeout=20)
        words = words_of(command)
        if words[0] in PARSERS:
            asked.append((PARSERS[words[0]], words[1:]))
        else:
            _check_words(words)
    if asked:
        done = subprocess.run(
            [sys.executable, "-c", _ASK],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


def _check_words(words: list[str]) -> None:
    program, rest = words[0].removeprefix(".venv/bin/").removeprefix("venv/bin/"), words[1:]
    if program == ".":
        # That of the environment which the line before makes.
        assert rest == ["venv/bin/activate"]
    elif program.startswith((".", "tests/")):
        assert (ROOT / program).is_file(), f"there is no {program}"
    elif program in SYSTEM or program.startswith("target/"):
        pass
    elif (known := CHECKS.get(program)) is not None:
        known(rest)
    else:
        raise AssertionError(f"no check knows {program}: add it to tests/support/commands.py")


def _python(words: list[str]) -> None:
    match words:
        case ["-c", code]:
            compile(code, "command", "exec")
        case ["-m", "venv", _]:
            pass
        case ["-m", "pytest", *rest]:
            values = {value for option, value in pairwise(rest) if option in ("-k", "-n")}
            tests = [word for word in rest if word[0] != "-" and word not in values]
            assert [name for name in tests if not (ROOT / name).exists()] == []
        case [script, *rest] if script.endswith("manage.py"):
            assert script == "manage.py" or (ROOT / script).is_file(), f"there is no {script}"
            _manage(rest)
        case [script, *rest]:
            path = ROOT / script
            assert path.is_file(), f"there is no {script}"
            _check_options(path, rest)
        case _:
            raise AssertionError(words)


def _check_options(script: Path, words: list[str]) -> None:
    code = script.read_text()
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert [option for option in options if f'"{option}"' not in code] == [], script


def _manage(words: list[str]) -> None:
    name, *rest = words
    if (of_example := next((ROOT / "examples").rglob(f"commands/{name}.py"), None)) is not None:
        return _check_options(of_example, rest)
    # The tests' settings lack Django's app of static files; a new project has it.
    beside = "django.contrib.staticfiles" if name == "collectstatic" else "dwebsocket"
    app = get_commands().get(name, beside)
    try:
        command: Any = load_command_class(app, name)
    except ModuleNotFoundError:
        raise AssertionError(f"no app has a command {name}") from None
    parser = command.create_parser("manage.py", name)
    # It would exit.
    parser.error = _refuse
    parser.parse_args(rest)
    return None


def _refuse(message: str) -> None:
    raise AssertionError(message)


def _pip(words: list[str]) -> None:
    assert words[0] in ("install", "uninstall"), words
    for word in words[1:]:
        if word.startswith("-"):
            continue
        found = re.fullmatch(r"([\w.-]+)(?:\[([\w,]+)\])?([<>=!~].*)?", word)
        assert found is not None, f"{word} is no requirement"
        name, extras, _ = found.groups()
        assert name in {"dwebsocket", "dwebsocket2", "maturin"} | OTHERS | _requirements(), name
        if extras and name == "dwebsocket2":
            assert set(extras.split(",")) <= _extras(), word


@functools.cache
def _requirements() -> frozenset[str]:
    lines = (ROOT / "tests/requirements.txt").read_text()
    return frozenset(re.findall(r"^([\w-]+)", lines, re.MULTILINE))


@functools.cache
def _extras() -> frozenset[str]:
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    return frozenset(re.findall(r"^([\w-]+) =", section, re.MULTILINE))


def _make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable:
            assert f"$({name})" in makefile, f"the Makefile does not use {name}"
        else:
            assert re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE), word


def _django_admin(words: list[str]) -> None:
    assert words[0] in get_commands()
    _manage(words)


def _uwsgi(words: list[str]) -> None:
    program = Path(sys.executable).with_name("uwsgi")
    found = str(program) if program.exists() else shutil.which("uwsgi")
    assert found is not None, "pip install -r tests/requirements.txt"
    known = subprocess.run([found, "--help"], capture_output=True, text=True, timeout=60).stdout
    options = [word for word in words if word.startswith("--")]
    assert [each for each in options if not re.search(rf"{each}\b", known)] == []


def _cargo(words: list[str]) -> None:
    match [word for word in words if not word.startswith(("+", "-"))]:
        case ["install", "cargo-fuzz"]:
            pass
        case ["test", *names]:
            # Of tests, or parts of them.
            assert len(names) <= 1
        case ["fuzz", "run", name]:
            assert (ROOT / f"fuzz/fuzz_targets/{name}.rs").is_file(), f"there is no target {name}"
        case _:
            raise AssertionError(words)


def _maturin(words: list[str]) -> None:
    assert words == ["develop", "--release"]


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "cargo": _cargo,
    "django-admin": _django_admin,
    "make": _make,
    "manage.py": _manage,
    "maturin": _maturin,
    "pip": _pip,
    "python": _python,
    "uwsgi": _uwsgi,
}
