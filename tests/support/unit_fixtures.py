"""Django as in tests/unit, and the fixtures there, for other folders of tests."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path

_UNIT = Path(__file__).resolve().parent.parent / "unit"
if str(_UNIT) not in sys.path:
    sys.path.append(str(_UNIT))
# By another name: that file is a `conftest`, too.
_spec = util.spec_from_file_location("unit_fixtures", _UNIT / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
#: The conftest of tests/unit.
fixtures = sys.modules.setdefault("unit_fixtures", util.module_from_spec(_spec))
if not hasattr(fixtures, "override"):
    _spec.loader.exec_module(fixtures)
