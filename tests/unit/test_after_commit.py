"""`after_commit` in each way in which Django makes transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.test import TestCase

from dwebsocket.compat.django_commits import after_commit, is_in_transaction

if TYPE_CHECKING:
    from django.db.transaction import Atomic

pytestmark = pytest.mark.usefixtures("tables")


@contextmanager
def manual_mode() -> Iterator[None]:
    """Switch autocommit off, as Django's documentation says."""
    transaction.set_autocommit(False)
    try:
        yield
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.fixture
def calls() -> list[str]:
    """Note what was called."""
    return []


@pytest.fixture
def wait(calls: list[str]) -> Callable[..., None]:
    """Have a call wait for the commit."""
    connection.ensure_connection()

    def wait(name: str = "called", **options: bool) -> None:
        after_commit(lambda: calls.append(name), "default", **options)

    return wait


Wait = Callable[..., None]


def test_in_autocommit(wait: Wait, calls: list[str]) -> None:
    """At once."""
    wait()
    assert calls == ["called"]


def test_opens_no_connection(calls: list[str]) -> None:
    """A database that is not used has no transaction."""
    connection.close()
    after_commit(lambda: calls.append("called"), "default")
    assert calls == ["called"]
    assert connection.connection is None
    assert not is_in_transaction(connection)


@pytest.mark.parametrize("options", [{}, {"durable": True}, {"savepoint": False}])
def test_in_atomic(wait: Wait, calls: list[str], options: dict[str, bool]) -> None:
    """With the commit, and not with a rollback, also one of a savepoint."""
    with transaction.atomic(**options):
        wait("1")
        with pytest.raises(KeyError), transaction.atomic():  # noqa: PT012
            wait("lost")
            raise KeyError
        assert calls == []
    assert calls == ["1"]
    with pytest.raises(KeyError), transaction.atomic(**options):  # noqa: PT012
        wait("lost")
        raise KeyError
    assert calls == ["1"]


class TestManualMode:
    """Where autocommit is off, and `transaction.on_commit` raises."""

    def test_commit(self, wait: Wait, calls: list[str]) -> None:
        """Makes the calls in order, each once, though autocommit stays off."""
        with manual_mode():
            for name in ("1", "2"):
                wait(name)
            assert calls == []
            transaction.commit()
            assert calls == ["1", "2"]
            transaction.commit()
            wait("3")
            transaction.commit()
        assert calls == ["1", "2", "3"]
        assert "commit" not in vars(connection)

    @pytest.mark.parametrize("end", [transaction.rollback, lambda: connection.close()])
    def test_rollback(self, wait: Wait, calls: list[str], end: Callable[[], object]) -> None:
        """And the end of the connection: never, whatever is committed later."""
        with manual_mode():
            wait()
            end()
            transaction.commit()
        with transaction.atomic():
            wait("later")
        assert calls == ["later"]

    def test_in_atomic(self, wait: Wait, calls: list[str]) -> None:
        """Which is a savepoint there: with the commit, unless the savepoint is rolled back."""
        with manual_mode():
            with transaction.atomic():
                wait("1")
            with pytest.raises(KeyError), transaction.atomic():  # noqa: PT012
                wait("lost")
                raise KeyError
            assert calls == []
            transaction.commit()
            assert calls == ["1"]

    def test_calls_of_others_wait_as_django_has_it(self, wait: Wait, calls: list[str]) -> None:
        """Until autocommit is on again."""
        with manual_mode():
            with transaction.atomic():
                transaction.on_commit(lambda: calls.append("another's"))
                wait("1")
            transaction.commit()
            assert calls == ["1"]
            transaction.set_autocommit(True)
            assert calls == ["1", "another's"]
            transaction.set_autocommit(False)

    def test_commit_that_fails(
        self, wait: Wait, calls: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Calls nothing; the next one does."""

        def fail() -> None:
            raise OSError("no database")

        with manual_mode():
            with monkeypatch.context() as patch:
                patch.setattr(connection, "_commit", fail)
                wait()
                with pytest.raises(OSError, match="no database"):
                    transaction.commit()
            assert calls == []
            transaction.commit()
        assert calls == ["called"]

    def test_what_a_call_writes_is_committed(self) -> None:
        """As everything that calls after a commit write in autocommit."""
        with manual_mode():
            after_commit(lambda: User.objects.create(username="written"), "default")
            transaction.commit()
        assert User.objects.filter(username="written").delete()[0] == 1


def test_exceptions(wait: Wait, request_log: Callable[..., list[object]]) -> None:
    """Are raised by the commit, or logged when the caller wants that."""

    def fail() -> None:
        raise OSError("it failed")

    for options in ({}, {"robust": True}):
        for block in (transaction.atomic, manual_mode):
            try:
                with block():
                    after_commit(fail, "default", **options)
                    if block is manual_mode:
                        transaction.commit()
            except OSError:
                assert not options
            else:
                assert options
    assert len(request_log("dwebsocket")) == 2


def test_in_a_test_case(calls: list[str], wait: Wait) -> None:
    """Django's tools for tests find the call."""
    blocks: dict[str, Atomic] = TestCase._enter_atomics()  # type: ignore[attr-defined]
    try:
        with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
            wait()
        assert calls == ["called"]
        assert len(callbacks) == 1
    finally:
        TestCase._rollback_atomics(blocks)  # type: ignore[attr-defined]


def test_database_without_transactions(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and at the end of `atomic()`: as Django calls it there."""
    connections.databases["plain"] = dict(connections["default"].settings_dict)
    plain = connections["plain"]
    monkeypatch.setattr(plain.features, "supports_transactions", False)
    monkeypatch.setattr(plain.features, "uses_savepoints", False)
    for name in ("_commit", "_rollback", "_start_transaction_under_autocommit"):
        monkeypatch.setattr(plain, name, lambda: None)
    monkeypatch.setattr(plain, "_set_autocommit", lambda autocommit: None)
    try:
        plain.ensure_connection()
        after_commit(lambda: calls.append("1"), "plain")
        assert calls == ["1"]
        with transaction.atomic(using="plain"):
            after_commit(lambda: calls.append("2"), "plain")
        assert calls == ["1", "2"]
    finally:
        plain.close()
        del connections["plain"], connections.databases["plain"]
