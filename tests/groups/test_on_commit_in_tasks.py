"""`await group(…).asend(…, on_commit=True)`: the transaction is where `sync_to_async` runs code."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, transaction
from django.utils.connection import ConnectionDoesNotExist

from dwebsocket import group

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Send = Callable[[str], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("tables")


async def send_text(text: str) -> None:
    """Publish a text."""
    await group("room").asend(text, on_commit=True)


async def send_json(text: str) -> None:
    """Publish JSON."""
    await group("room").asend_json(text, on_commit="default")


@pytest.fixture(params=[send_text, send_json])
def send(request: pytest.FixtureRequest) -> Send:
    """Publish in one of two ways."""
    found: Send = request.param
    return found


class Member:
    """A WebSocket in the room."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        opened.websocket.join("room")

    def got(self) -> list[str]:
        """Give what has come so far, without the quotes of JSON."""
        # Behind all others of the group.
        group("room").send("marker")
        found = []
        while (message := self._opened.client.receive()) != "marker":
            found.append(message.strip('"'))
        return found


@pytest.fixture
def member(open_websocket: Callable[..., Any]) -> Member:
    """A member of the room."""
    return Member(open_websocket())


def test_within_the_callers_transaction(member: Member, send: Send) -> None:
    """Sync code may call async code inside `atomic()`: the message leaves with its commit."""
    with transaction.atomic():
        async_to_sync(send)("a")
        with transaction.atomic():
            async_to_sync(send)("b")
        assert member.got() == []
    assert member.got() == ["a", "b"]


def test_never_after_the_callers_rollback(member: Member, send: Send) -> None:
    """Also that of a savepoint."""
    with transaction.atomic():
        async_to_sync(send)("kept")
        with pytest.raises(KeyError), transaction.atomic():  # noqa: PT012
            async_to_sync(send)("lost")
            raise KeyError
    with transaction.atomic():
        async_to_sync(send)("lost, too")
        transaction.set_rollback(True)
    assert member.got() == ["kept"]


@pytest.mark.parametrize(("commits", "expected"), [(True, ["in it"]), (False, [])])
def test_a_transaction_that_the_task_has_begun(
    member: Member, send: Send, commits: bool, expected: list[str]
) -> None:
    """By `sync_to_async`, which keeps to one thread, and so to one connection."""

    async def main() -> None:
        block = transaction.atomic()
        await sync_to_async(block.__enter__)()
        try:
            await send("in it")
            assert await asyncio.to_thread(member.got) == []
        finally:
            await sync_to_async(transaction.set_rollback)(not commits)
            await sync_to_async(block.__exit__)(None, None, None)
        assert await asyncio.to_thread(member.got) == expected
        await send("behind it")
        assert await asyncio.to_thread(member.got) == ["behind it"]
        await sync_to_async(connections.close_all)()

    asyncio.run(main())


def test_in_sync_code_of_a_task(member: Member) -> None:
    """The sync call belongs there, too: inside the function that has the transaction."""

    def save() -> None:
        with transaction.atomic():
            group("room").send("saved", on_commit=True)
            assert member.got() == []
        connections.close_all()

    asyncio.run(sync_to_async(save)())
    assert member.got() == ["saved"]


def test_the_loops_own_thread_has_none(member: Member, send: Send) -> None:
    """Django refuses one there. Without any the message leaves at once."""

    async def main() -> None:
        with pytest.raises(SynchronousOnlyOperation):
            transaction.atomic().__enter__()
        await send("at once")

    asyncio.run(main())
    assert member.got() == ["at once"]


def test_mistakes_are_found_at_the_call(member: Member) -> None:
    """And nothing is published."""

    async def main() -> None:
        with pytest.raises(TypeError, match="on_commit must be"):
            await group("room").asend("x", on_commit=None)  # type: ignore[arg-type]
        with pytest.raises(ConnectionDoesNotExist):
            await group("room").asend("x", on_commit="nowhere")

    asyncio.run(main())
    assert member.got() == []
