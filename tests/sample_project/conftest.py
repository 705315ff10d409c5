"""Checks that the tests of this project leave nothing behind, beyond the tests themselves."""

import asyncio
import contextlib
import gc
import os
import threading
import time

import pytest
from asgiref.sync import sync_to_async
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


def settled():
    """Give them when they do not change any more: threads end a moment after their last work."""
    found, since, deadline = leftovers(), time.monotonic(), time.monotonic() + 30
    while time.monotonic() < since + 1 and time.monotonic() < deadline:
        time.sleep(0.1)
        if (now := leftovers()) != found:
            found, since = now, time.monotonic()
    return found


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(django_db_setup):
    # The engine and the thread for thread-sensitive calls, with their descriptors, stay for as long
    # as the process.
    with websockets_of_a_test(), WebSocketClient().websocket("/language/"):
        pass
    asyncio.run(sync_to_async(bool)())
    before = settled()
    yield
    after = settled()
    # Threads of what came before the tests may have ended meanwhile.
    assert (after[0], after[1] - before[1]) == (before[0], set())
