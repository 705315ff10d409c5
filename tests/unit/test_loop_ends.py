"""Async views whose loop ends before they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.test import RequestFactory
from peer import LiveWebSocket

from dwebsocket.runners import view as runner

Open = Callable[..., LiveWebSocket]


def running(live: LiveWebSocket, begun: list[str]) -> Any:
    """Give a view that runs for ever behind a WebSocket, as a coroutine."""

    async def view(request: Any) -> None:
        begun.append("begun")
        await asyncio.sleep(600)

    return runner.arun(view, RequestFactory().get("/"), ((), {}), live.websocket)


@pytest.mark.parametrize("is_first", [True, False])
def test_all_tasks_are_cancelled(open_websocket: Open, request_log: Any, *, is_first: bool) -> None:
    """As at the end of `asyncio.run`: the server's task closes the connection, no view fails."""
    live, begun = open_websocket(), []

    async def serve() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            live.websocket._connection.close(1001, "going away")  # type: ignore[union-attr]

    async def main() -> None:
        pair = [running(live, begun), serve()]
        tasks = [asyncio.create_task(each) for each in (pair if is_first else pair[::-1])]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    asyncio.run(main())
    assert begun == ["begun"]
    assert live.client.closing() == (1001, "going away")
    assert request_log("django.request") == []


def test_loop_is_closed(open_websocket: Open, request_log: Any) -> None:
    """The client is closed, and nothing is awaited in a loop that has been closed."""
    live, begun = open_websocket(), []

    async def main() -> Any:
        coroutine = running(live, begun)
        coroutine.send(None)
        return coroutine

    coroutine = asyncio.run(main())
    coroutine.close()
    assert begun == ["begun"]
    assert live.client.closing() == (1001, "going away")
    assert request_log("django.request") == []
