"""What must exist before measuring: the load generator and an environment for the servers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from machine import BenchError, need_program

BENCH = Path(__file__).resolve().parent
TARGET = BENCH / "target"
ROOT = BENCH.parent
VENV = ROOT / ".cache" / "bench-venv"
REQUIREMENTS = BENCH / "servers" / "requirements.txt"
# All that goes into the wheel.
SOURCES = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "src", "python")


def load_generator() -> Path:
    """Build the load generator and return its path."""
    need_program("cargo", "the load generator is written in Rust")
    manifest = BENCH / "load" / "Cargo.toml"
    _run(
        [
            *["cargo", "build", "--release", "--locked", "--quiet"],
            *["--manifest-path", str(manifest), "--target-dir", str(TARGET)],
        ],
        "the load generator does not build",
    )
    return TARGET / "release" / "load"


def environment() -> Path:
    """Make the environment with the peers and return its interpreter."""
    python = VENV / "bin" / "python"
    wanted = _digest([REQUIREMENTS], sys.version)
    if _stamp("peers") != wanted:
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)], "no environment can be made")
        _pip(python, "--upgrade", "-r", str(REQUIREMENTS))
        _write_stamp("peers", wanted)
    return python


def install_checkout(python: Path) -> None:
    """Build this checkout's wheel and put it into the environment, unless nothing changed."""
    files = [ROOT / name for name in SOURCES]
    wanted = _digest(files)
    if _stamp("checkout") != wanted:
        _pip(python, "--force-reinstall", "--no-deps", str(ROOT))
        _write_stamp("checkout", wanted)


def _pip(python: Path, *arguments: str) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *arguments], f"pip install {arguments[-1]} failed")


def _run(command: list[str], failure: str) -> None:
    try:
        # A target folder of our own: neither waits for a build in the checkout nor disturbs it.
        subprocess.run(command, check=True, env=os.environ | {"CARGO_TARGET_DIR": str(TARGET)})
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{failure} (exit status {error.returncode})") from error


def _digest(paths: list[Path], *more: str) -> str:
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            # The built module lies among the sources of a development install.
            if file.is_file() and file.suffix not in {".pyc", ".so"}:
                digest.update(os.fsencode(file) + b"\0" + file.read_bytes())
    for text in more:
        digest.update(text.encode())
    return digest.hexdigest()


def _stamp(name: str) -> str | None:
    try:
        return (VENV / f"{name}.stamp").read_text()
    except OSError:
        return None


def _write_stamp(name: str, text: str) -> None:
    (VENV / f"{name}.stamp").write_text(text)
