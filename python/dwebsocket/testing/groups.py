"""One test's groups: their messages stay in this process and in this test."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dwebsocket.groups import backends, groups_sent
from dwebsocket.groups.backends import process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.groups.groups_sent import Publication


@contextmanager
def groups_of_a_test() -> Iterator[list[Publication]]:
    """
    Sets the groups of one test for all threads of the process, whatever ``WEBSOCKET_GROUPS`` says.

    Each backend is replaced by one of this process, so that nothing reaches another test, another
    process of the test run, or a site that runs on this machine. Within the block of another one it
    goes on with that one's groups.

    Yields:
        What is published: a list that grows.
    """
    if groups_sent.recorded is not None:
        yield groups_sent.recorded
        return
    recorded: list[Publication] = []
    groups_sent.recorded = recorded
    try:
        with backends.replaced(process.Backend):
            yield recorded
    finally:
        groups_sent.recorded = None
