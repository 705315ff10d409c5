"""The queue of questions to the connection that listens to PostgreSQL, and a loss of it."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from dwebsocket.api.waiting.steps import run
from dwebsocket.conf.group_settings import BackendSettings
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.groups.backends.postgres import Backend
from dwebsocket.groups.backends.postgres.listener import CannotListen
from dwebsocket.groups.backends.postgres.queries import Queries

LOST = ConnectionError("lost")


def ask(link: Any, found: Future[Any]) -> None:
    """Ask nothing: the tests end the futures themselves."""


def test_equal_ones_share_one_until_it_has_begun() -> None:
    """An answer to an earlier question may be too old for a later one."""
    queries = Queries()
    first = queries.add("room", ask)
    assert queries.add("room", ask) is first
    assert [query.future for query in queries.take()] == [first]
    assert queries.take() == []
    assert queries.add("room", ask) is not first


@pytest.mark.parametrize("has_begun", [True, False])
def test_all_end_with_the_connection(*, has_begun: bool) -> None:
    """One that has its result keeps it."""
    queries = Queries()
    done = queries.add("done", ask)
    if has_begun:
        wanted = queries.add("room", ask)
        queries.take()
    else:
        queries.take()
        wanted = queries.add("room", ask)
    done.set_result(7)
    queries.fail(LOST)
    assert wanted.exception() is LOST
    assert done.result() == 7
    assert queries.take() == []


@pytest.mark.parametrize(
    ("losses", "asked"),
    [(1, 2), (2, 2), (0, 1)],
    ids=["it is lost once", "it is lost twice", "the server refuses"],
)
def test_a_question_is_asked_once_more(losses: int, asked: int) -> None:
    """Where the connection was lost meanwhile: it may be the reason for a second loss."""
    backend: Any = Backend("default", BackendSettings())
    backend._listener = SimpleNamespace(connection=1, listening=lambda: None)
    futures: list[Future[str]] = []

    def ask() -> Future[str]:
        futures.append(Future())
        if len(futures) > losses > 0:
            futures[-1].set_result("found")
        else:
            futures[-1].set_exception(CannotListen("no"))
            backend._listener.connection += bool(losses)
        return futures[-1]

    if losses == 1:
        assert run(backend._query(ask)) == "found"
    else:
        with pytest.raises(GroupUnavailable, match="no"):
            run(backend._query(ask))
    assert len(futures) == asked
