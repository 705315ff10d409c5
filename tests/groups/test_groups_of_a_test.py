"""`groups_of_a_test`: what the test kit does for groups."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dwebsocket import GroupUnavailable, group
from dwebsocket.groups import Backend, backends
from dwebsocket.testing.groups import groups_of_a_test

Override = Callable[..., None]


@pytest.fixture(autouse=True)
def _real_backend(override: Override) -> None:
    override(WEBSOCKET_GROUPS={"default": {"BACKEND": f"{__name__}.Unreachable"}})


class Unreachable(Backend):
    """The backend of production."""

    def publish(self, name: str, envelope: bytes) -> None:
        """Fail."""
        raise self.unavailable("no test may come here")


@pytest.fixture(autouse=True)
def _used_by_the_project(_real_backend: None) -> object:
    with backends.replaced(backends.make):
        yield


def test_replaces_backends_for_all_threads() -> None:
    """And puts the real ones back."""
    with pytest.raises(GroupUnavailable, match="no test may come here"):
        group("a").send("x")
    with groups_of_a_test() as sent:
        group("a").send("1")
        thread = threading.Thread(target=group("a").send, args=("2",))
        thread.start()
        thread.join(60)
        assert [each.message for each in sent] == ["1", "2"]
    with pytest.raises(GroupUnavailable, match="no test may come here"):
        group("a").send("x")


def test_each_block_has_its_own() -> None:
    """Nothing is left for the next one."""
    with groups_of_a_test() as first:
        group("a").send("x")
        before = backends.backend("default")
    with groups_of_a_test() as second:
        assert second == []
        assert backends.backend("default") is not before
    assert len(first) == 1


def test_a_block_within_another_one_shares_its_groups() -> None:
    """A fixture and the mixin may both open one."""
    with groups_of_a_test() as outer:
        backend = backends.backend("default")
        with groups_of_a_test() as inner:
            assert inner is outer
            assert backends.backend("default") is backend
        assert backends.backend("default") is backend


def test_what_fails_is_not_recorded() -> None:
    """Wrong arguments publish nothing."""
    with groups_of_a_test() as sent:
        for arguments in ((1,), (None,)):
            with pytest.raises(TypeError):
                group("a").send(*arguments)
        with pytest.raises(TypeError):
            group("a").send("x", exclude=1)
        with pytest.raises(TypeError):
            group("a").send("x", on_commit=1)  # type: ignore[arg-type]
    assert sent == []


def test_an_iterator_can_be_looked_at_again() -> None:
    """It is recorded as a list."""
    with groups_of_a_test() as sent:
        group("a").send("x", exclude=iter(["one", "two"]))
    assert sent[0].exclude == ["one", "two"]
