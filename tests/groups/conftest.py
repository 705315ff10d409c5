"""Groups of the process backend for each test, and what the unit tests have: live WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.unit_fixtures import fixtures as _unit

_no_callback_thread_is_left = _unit._no_callback_thread_is_left
override = _unit.override
open_websocket = _unit.open_websocket
own = _unit.own
request_log = _unit.request_log
tables = _unit.tables
visit = _unit.visit
anna = _unit.anna

from memory_backend import Switchboard  # noqa: E402

from dwebsocket.groups import backends  # noqa: E402
from dwebsocket.groups.backends import process  # noqa: E402

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
