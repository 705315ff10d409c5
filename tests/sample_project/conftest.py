"""Checks that the tests of this project leave nothing behind, beyond the tests themselves."""

import contextlib
import gc
import os
import threading

import pytest
from django.db import connections

from dwebsocket.testing import WebSocketClient, websockets_of_a_test


def open_descriptors():
    """Give the target of each open descriptor."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield name, os.readlink(f"/proc/self/fd/{name}")


def leftovers():
    """Give the resources of a process that tests may forget."""
    # The runner's own connection stays open between tests.
    connections.close_all()
    # Event loops that tests have closed may wait for it.
    gc.collect()
    return dict(open_descriptors()), {
        thread.name
        for thread in threading.enumerate()
        # asgiref keeps one thread for all of Django's sync code.
        if not thread.name.startswith("ThreadPoolExecutor")
    }


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(django_db_setup):
    # The engine, and the descriptors of its own, stay for as long as the process.
    with websockets_of_a_test(), WebSocketClient().websocket("/language/"):
        pass
    before = leftovers()
    yield
    assert leftovers() == before
