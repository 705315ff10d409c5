"""
Builds the wheel for Windows: the Python part alone, with which pages can be developed there.

    python .ci/windows_wheel.py FOLDER

Runs on any system that has Rust, maturin and the source, and compiles nothing: the metadata is
maturin's, and Rust only tells the version.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Not "any": pip would prefer it to the source on systems where the engine can be built.
TAGS = ("win_amd64", "win_arm64", "win32")


def metadata(folder: Path) -> Path:
    """Has maturin write the metadata; gives their folder."""
    command = [sys.executable, "-m", "maturin", "pep517", "write-dist-info"]
    subprocess.run([*command, "--metadata-directory", str(folder)], cwd=ROOT, check=True)
    return next(folder.glob("*.dist-info"))


def build(into: Path) -> Path:
    """Builds the wheel in a folder; gives its path."""
    if os.environ.get("RELEASE"):
        subprocess.run([sys.executable, ROOT / ".ci" / "release.py"], check=True)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        info = metadata(Path(scratch))
        lines = ["Wheel-Version: 1.0", "Generator: dwebsocket2", "Root-Is-Purelib: true"]
        lines += [f"Tag: py3-none-{tag}" for tag in TAGS]
        (info / "WHEEL").write_text("\n".join(lines) + "\n", newline="\n")
        (info / "RECORD").unlink(missing_ok=True)
        source = ROOT / "python"
        files = {
            path.relative_to(source).as_posix(): path.read_bytes()
            for path in sorted((source / "dwebsocket").rglob("*"))
            if path.is_file() and path.suffix not in (".pyc", ".so", ".pyd")
        }
        for path in sorted(info.rglob("*")):
            if path.is_file():
                files[f"{info.name}/{path.relative_to(info).as_posix()}"] = path.read_bytes()
        record = "".join(
            f"{name},sha256={digest(content)},{len(content)}\n" for name, content in files.items()
        )
        files[f"{info.name}/RECORD"] = f"{record}{info.name}/RECORD,,\n".encode()
        wheel = into / f"{info.name.removesuffix('.dist-info')}-py3-none-{'.'.join(TAGS)}.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    return wheel


def digest(content: bytes) -> str:
    """Gives a checksum as a wheel's record has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
