"""Which of the parts that tests/setup installs are here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.server import Kind


def needs(kind: Kind) -> None:
    """Skip when the server that `kind` names was not installed by tests/setup."""
    if kind.folder is not None and not kind.folder.is_dir():
        pytest.skip(f"{kind.folder} is missing; run tests/setup")
    for program in kind.programs:
        beside = Path(sys.executable).with_name(program)
        if not beside.exists() and shutil.which(program) is None:
            pytest.skip(f"{program} is missing; run tests/setup")
