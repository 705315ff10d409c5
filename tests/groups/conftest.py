"""Groups of the process backend for each test, and what the unit tests have: live WebSockets."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

UNIT = Path(__file__).resolve().parent.parent / "unit"
if str(UNIT) not in sys.path:
    sys.path.append(str(UNIT))
# By another name: this file is a `conftest`, too.
_spec = util.spec_from_file_location("unit_fixtures", UNIT / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_unit = sys.modules.setdefault("unit_fixtures", util.module_from_spec(_spec))
_spec.loader.exec_module(_unit)

_no_callback_thread_is_left = _unit._no_callback_thread_is_left
override = _unit.override
open_websocket = _unit.open_websocket
own = _unit.own
request_log = _unit.request_log
tables = _unit.tables
visit = _unit.visit
anna = _unit.anna

from memory_backend import Switchboard  # noqa: E402

from dwebsocket.groups import backends, process  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _own_groups(override: Callable[..., None]) -> Iterator[None]:
    """Each test has groups of its own."""
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}})
    with backends.replaced(process.Backend):
        yield


@pytest.fixture
def switchboard(_own_groups: None) -> Iterator[Switchboard]:
    """Replace the backend by one that waits, as one with a server, and can be told to fail."""
    board = Switchboard()
    with backends.replaced(board.make):
        yield board
