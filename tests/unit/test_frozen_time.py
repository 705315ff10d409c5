"""Timeouts pass while a test has frozen the time, by the libraries that projects do that with."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import path

import dwebsocket
from dwebsocket import ReceiveTimeout, accept_websocket
from dwebsocket.testing import (
    AsyncWebSocketClient,
    Clock,
    ViewStillRuns,
    WebSocketClient,
    websockets_of_a_test,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

DAY = "2020-02-29"
PACKAGE = Path(dwebsocket.__file__).parent


def by_freezegun() -> AbstractContextManager[object]:
    """Its time stands still, that of event loops too."""
    freezegun = pytest.importorskip("freezegun", reason="pip install -r tests/requirements.txt")
    # It looks into all modules, and would load what this lazy one gives: a server's package.
    return freezegun.freeze_time(DAY, ignore=["aiohttp", "websockets"])


def by_time_machine() -> AbstractContextManager[object]:
    """Its time stands still."""
    machine = pytest.importorskip("time_machine", reason="pip install -r tests/requirements.txt")
    return machine.travel(DAY, tick=False)


@accept_websocket(text_type=str)
def patient(request: Any) -> None:
    seconds = float(request.GET["seconds"])
    try:
        request.websocket.send(request.websocket.receive(timeout=seconds))
    except ReceiveTimeout:
        request.websocket.send("too slow")


@accept_websocket(text_type=str)
async def apatient(request: Any) -> None:
    seconds = float(request.GET["seconds"])
    try:
        await request.websocket.asend(await request.websocket.areceive(timeout=seconds))
    except ReceiveTimeout:
        await request.websocket.asend("too slow")


@accept_websocket
async def stuck(request: Any) -> None:
    await asyncio.get_running_loop().create_future()


@pytest.fixture(autouse=True)
def _views(override: Callable[..., None]) -> None:
    views = {"patient": patient, "apatient": apatient, "stuck": stuck}
    override(ROOT_URLCONF=tuple(path(f"{name}/", view) for name, view in views.items()))


@pytest.fixture(params=[by_freezegun, by_time_machine])
def _frozen(request: pytest.FixtureRequest) -> Iterator[None]:
    with websockets_of_a_test(), request.param():
        yield


@pytest.mark.usefixtures("_frozen")
@pytest.mark.parametrize("view", ["patient", "apatient"])
class TestTimeouts:
    """Of the test and of views, sync and async."""

    def test_of_a_sync_test(self, view: str) -> None:
        """`receive(timeout=…)` raises, and the view goes on."""
        with WebSocketClient().websocket(f"/{view}/?seconds=60") as ws:
            with pytest.raises(ReceiveTimeout):
                ws.receive(timeout=0.05)
            ws.send("hello")
            assert ws.receive() == "hello"

    def test_of_an_async_test(self, view: str) -> None:
        """As in a sync one."""

        async def main() -> None:
            async with AsyncWebSocketClient().websocket(f"/{view}/?seconds=60") as ws:
                with pytest.raises(ReceiveTimeout):
                    await ws.receive(timeout=0.05)
                await ws.send("hello")
                assert await ws.receive() == "hello"

        asyncio.run(main())

    def test_of_a_view(self, view: str) -> None:
        """By the time that passes."""
        with WebSocketClient().websocket(f"/{view}/?seconds=0.05") as ws:
            assert ws.receive() == "too slow"

    def test_of_a_view_that_shares_the_tests_loop(self, view: str) -> None:
        """Whose own timers stand still."""

        async def main() -> None:
            async with AsyncWebSocketClient().websocket(f"/{view}/?seconds=0.05") as ws:
                assert await ws.receive() == "too slow"

        asyncio.run(main())

    def test_by_the_clock_of_the_test(self, view: str) -> None:
        """Which steps as ever."""
        with WebSocketClient().websocket(f"/{view}/?seconds=60") as ws:
            Clock().advance(61)
            assert ws.receive() == "too slow"


@pytest.mark.usefixtures("_frozen")
def test_view_that_never_ends_is_named() -> None:
    """Also where the event loop's time stands still."""

    async def main() -> None:
        client = AsyncWebSocketClient()
        with pytest.raises(ViewStillRuns, match="stuck"):
            async with client.websocket("/stuck/", timeout=0.05):
                pass

    asyncio.run(main())


def test_nothing_waits_by_a_clock_that_tests_freeze() -> None:
    """But by `compat.system.monotonic`."""
    frozen = re.compile(r"time\.monotonic\(|from time import .*monotonic|loop\(\)\.call_later\(")
    using = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if frozen.search(path.read_text())
    ]
    assert using == []
