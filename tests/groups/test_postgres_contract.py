"""The contract of backends, on PostgreSQL."""

from __future__ import annotations

import gc
import unittest
from typing import ClassVar

import pytest
from django.db import connections

from dwebsocket.api import callbacks
from dwebsocket.groups.backends.postgres import Backend
from dwebsocket.testing import contract
from support import postgres as database_server
from support.waiting import eventually

pytestmark = [
    pytest.mark.needs("postgresql"),
    pytest.mark.usefixtures("tables"),
    # Threads of the contract publish, and end: as with any use of Django's connections there.
    pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning"),
]

ALIAS = "groups"


@pytest.fixture(autouse=True)
def _no_callback_thread_is_left() -> None:
    """Let the thread for callbacks stay: it watches for TIMEOUT after each publication."""


class TestPostgres(contract.BackendContract, unittest.TestCase):
    """The project's database."""

    backend: ClassVar = {
        "BACKEND": "dwebsocket.groups.postgres",
        "DATABASE": ALIAS,
        # One that a busy machine does not reach.
        "TIMEOUT": 20.0,
    }
    has_database = True

    @classmethod
    def setUpClass(cls) -> None:
        """Start a server."""
        super().setUpClass()
        server = database_server.postgres()
        folder = server.__enter__()
        cls.addClassCleanup(server.__exit__, None, None, None)
        entry = database_server.entry(folder)
        cls.process_settings = {"DATABASES": {"default": {}, ALIAS: entry}}
        database = database_server.database(ALIAS, entry)
        database.__enter__()
        cls.addClassCleanup(database.__exit__, None, None, None)
        cls.addClassCleanup(callbacks.dismiss, 60)

    @classmethod
    def tearDownClass(cls) -> None:
        """End the threads of the backends, before they are dropped and their server goes."""
        for backend in contract._backends._made.values():
            if isinstance(backend, Backend):
                backend.stop()
                listener = backend._listener
                eventually(lambda listener=listener: not listener.is_listening)
        super().tearDownClass()

    def tearDown(self) -> None:
        """Close what the test has opened on this thread."""
        super().tearDown()
        connections[ALIAS].close()
        # While their warnings are ignored.
        gc.collect()
