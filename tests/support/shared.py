"""A folder for what all processes of a run of tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_VARIABLE = "TESTS_SHARED_FOLDER"


def shared_folder() -> Path:
    """Give it; it is made by the first process that asks, and ends with that one."""
    if _VARIABLE not in os.environ:
        os.environ[_VARIABLE] = folder = tempfile.mkdtemp(prefix="dws-shared-")
        atexit.register(_remove, folder, os.getpid())
    return Path(os.environ[_VARIABLE])


def _remove(folder: str, maker: int) -> None:
    # Not by a child that was forked.
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)
