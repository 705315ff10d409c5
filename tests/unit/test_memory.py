"""How much memory a process may use, in containers and without."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from dwebsocket.conf import memory

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine has 1 GiB."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_MOUNT", tmp_path / "mount")
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**18}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)


def limit(folder: Path, cgroup: str | None, **files: str) -> int:
    """Give the limit of a process whose cgroup is this, where `a__b` is the file `a/b`."""
    if cgroup is not None:
        (folder / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = folder / "mount" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return memory.limit.__wrapped__()


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (None, {}, 1024),
        ("", {}, 1024),
        ("0::/\n", {}, 1024),
        ("0::/a/b\n", {"a__b__memory_dot_max": str(100 * MIB)}, 100),
        ("0::/a/b\n", {"a__b__memory_dot_max": "max", "a__memory_dot_max": str(200 * MIB)}, 200),
        # Within a container the path is that outside.
        ("0::/docker/abc\n", {"memory_dot_max": str(300 * MIB)}, 300),
        ("0::/../abc\n", {"memory_dot_max": str(300 * MIB)}, 300),
        ("0::/\n", {"memory_dot_max": str(5000 * MIB)}, 1024),
        (
            "12:cpu:/x\n4:memory:/a\n0::/\n",
            {"memory__a__memory_dot_limit_in_bytes": str(400 * MIB)},
            400,
        ),
        (
            "4:memory,cpu:/a\n",
            {"memory__memory_dot_limit_in_bytes": str(2**63 - 4096)},
            1024,
        ),
        ("0::/\n", {"memory_dot_max": "nonsense"}, 1024),
        ("0::/\n", {"memory_dot_max": "0"}, 1024),
        ("nonsense", {}, 1024),
    ],
)
def test_the_least_counts(
    tmp_path: Path, cgroup: str | None, files: dict[str, str], expected: int
) -> None:
    """Of the machine's and those of all cgroups above the process."""
    assert limit(tmp_path, cgroup, **files) == expected * MIB


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has some."""

    def sysconf(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", sysconf)
    assert limit(tmp_path, None) == 2048 * MIB
    monkeypatch.setattr(os, "sysconf", lambda name: -1)
    assert limit(tmp_path, "") > 0
