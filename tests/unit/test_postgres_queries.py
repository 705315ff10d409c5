"""The queue of questions to the connection that listens to PostgreSQL, and a loss of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dwebsocket.groups.backends.postgres.queries import Queries

if TYPE_CHECKING:
    from concurrent.futures import Future

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


def test_one_that_lasts_is_asked_once_more() -> None:
    """By another connection; the second time it may be the reason for the loss."""
    queries = Queries()
    reading = queries.add("history", ask, is_lasting=True)
    for is_over in (False, True):
        assert queries.is_lasting
        assert [query.future for query in queries.take()] == [reading]
        queries.fail(LOST, put_back=True)
        assert reading.done() is is_over
    assert reading.exception() is LOST
    assert not queries.is_lasting


def test_one_that_has_not_begun_waits_as_long_as_it_takes() -> None:
    """It cannot be the reason."""
    queries = Queries()
    reading = queries.add("history", ask, is_lasting=True)
    for _ in range(3):
        queries.fail(LOST, put_back=True)
    assert not reading.done()


def test_a_younger_equal_one_takes_the_place_of_one_that_is_put_back() -> None:
    """The older one gets the error, as there is one query for each key."""
    queries = Queries()
    older = queries.add("history", ask, is_lasting=True)
    queries.take()
    younger = queries.add("history", ask, is_lasting=True)
    queries.fail(LOST, put_back=True)
    assert older.exception() is LOST
    assert [query.future for query in queries.take()] == [younger]


@pytest.mark.parametrize("is_lasting", [True, False])
@pytest.mark.parametrize("has_begun", [True, False])
def test_all_end_where_nothing_is_put_back(*, is_lasting: bool, has_begun: bool) -> None:
    """And those that do not last, in any case; one that has its result keeps it."""
    queries = Queries()
    done = queries.add("done", ask)
    if has_begun:
        wanted = queries.add("room", ask, is_lasting=is_lasting)
        queries.take()
    else:
        queries.take()
        wanted = queries.add("room", ask, is_lasting=is_lasting)
    done.set_result(7)
    queries.fail(LOST, put_back=not is_lasting)
    assert wanted.exception() is LOST
    assert done.result() == 7
