"""One test's groups: their messages stay in this process and in this test."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dwebsocket.groups import backends, publications
from dwebsocket.groups.backends import process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.groups.publications import Publication


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
    if publications.recorded is not None:
        yield publications.recorded
        return
    recorded: list[Publication] = []
    publications.recorded = recorded
    try:
        with backends.replaced(process.Backend):
            yield recorded
    finally:
        publications.recorded = None
