"""The contract of backends, for each of this package, and for one as other authors write it."""

from __future__ import annotations

import unittest
from typing import ClassVar

import pytest

from dwebsocket import _core
from dwebsocket.testing.contract import BackendContract

pytestmark = pytest.mark.usefixtures("tables")


class TestProcess(BackendContract, unittest.TestCase):
    """Groups of this process only."""

    backend: ClassVar = {"BACKEND": "dwebsocket.groups.process"}
    crosses_processes = False
    has_database = True


class TestMemory(BackendContract, unittest.TestCase):
    """The tests' own backend, which waits, as one with a server."""

    backend: ClassVar = {"BACKEND": "memory_backend.MemoryBackend"}
    crosses_processes = False
    has_database = True


class TestLocal(BackendContract, unittest.TestCase):
    """All processes of one machine."""

    backend: ClassVar = {"BACKEND": "dwebsocket.groups.local"}
    has_database = True

    def test_others_have_the_clock_of_this_process(self) -> None:
        """A test may have stepped it; what comes from another time counts for five minutes."""
        _core.step_clock(400.0)
        self.test_presence_in_several_processes()
