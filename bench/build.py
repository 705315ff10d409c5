"""Builds the programs in Rust and the environments of the servers."""

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
CACHE = ROOT / ".cache"
VENV = CACHE / "bench-venv"
# The original does not run on the Django of all others.
ORIGINAL_VENV = CACHE / "bench-original-venv"
SERVERS = BENCH / "servers"
LIMIT = BENCH / "limit"
# All that goes into the wheel.
SOURCES = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "src", "python")


def load_generator() -> Path:
    """Build the load generator and return its path."""
    return _program("load", "the load generator does not build")


def limit() -> Path:
    """Build the server without Python, the limit of the others, and return its path."""
    return _program("limit", "the server in Rust does not build")


def environment() -> Path:
    """Make the environment with the peers and return its interpreter."""
    return _environment(VENV, SERVERS / "requirements.txt")


def original_environment() -> Path:
    """Make the environment with the original package and return its interpreter."""
    return _environment(ORIGINAL_VENV, SERVERS / "requirements-original.txt")


def _environment(venv: Path, requirements: Path) -> Path:
    python = venv / "bin" / "python"
    wanted = _digest([requirements], sys.version)
    if _stamp(venv, "peers") != wanted:
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], "no environment can be made")
        _pip(python, "--upgrade", "-r", str(requirements))
        _write_stamp(venv, "peers", wanted)
    return python


def _program(name: str, failure: str) -> Path:
    need_program("cargo", f"bench/{name} is written in Rust")
    manifest = BENCH / name / "Cargo.toml"
    _run(
        [
            *["cargo", "build", "--release", "--locked", "--quiet"],
            *["--manifest-path", str(manifest), "--target-dir", str(TARGET)],
        ],
        failure,
    )
    return TARGET / "release" / name


def install_checkout(python: Path) -> None:
    """Build this checkout's wheel and put it into the environment, unless nothing changed."""
    files = [ROOT / name for name in SOURCES]
    wanted = _digest(files)
    if _stamp(VENV, "checkout") != wanted:
        _pip(python, "--force-reinstall", "--no-deps", str(ROOT))
        _write_stamp(VENV, "checkout", wanted)


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


def _stamp(venv: Path, name: str) -> str | None:
    try:
        return (venv / f"{name}.stamp").read_text()
    except OSError:
        return None


def _write_stamp(venv: Path, name: str, text: str) -> None:
    (venv / f"{name}.stamp").write_text(text)
