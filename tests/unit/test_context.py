"""The context that middleware has set for a request, on the thread that runs its view."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.local import Local
from asgiref.sync import sync_to_async
from django.urls import get_script_prefix, set_script_prefix
from django.utils import timezone, translation

from dwebsocket.request import context

if TYPE_CHECKING:
    from collections.abc import Callable

own_variable: contextvars.ContextVar[str] = contextvars.ContextVar("own_variable")
own_local: Any = Local()


def everything() -> list[str]:
    """Give what the present context holds."""
    return [
        str(translation.get_language()),
        timezone.get_current_timezone_name(),
        get_script_prefix(),
        own_variable.get("nothing"),
        getattr(own_local, "value", "nothing"),
    ]


@pytest.fixture
def middleware() -> contextvars.Context:
    """Give the context of a request after its middleware."""

    def set_all() -> contextvars.Context:
        translation.activate("de")
        timezone.activate("Asia/Tokyo")
        set_script_prefix("/sub/")
        own_variable.set("mine")
        own_local.value = "mine too"
        return contextvars.copy_context()

    return contextvars.copy_context().run(set_all)


def in_thread(call: Callable[[], Any]) -> Any:
    """Call in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(10)


EXPECTED = ["de", "Asia/Tokyo", "/sub/", "mine", "mine too"]


def test_sync(middleware: contextvars.Context) -> None:
    """Language, time zone, prefix of URLs, and the project's own variables."""

    def view() -> list[str]:
        context.enter_thread()
        return everything()

    assert in_thread(lambda: middleware.run(view)) == EXPECTED


def test_async(middleware: contextvars.Context) -> None:
    """Also in the tasks and threads that the view starts."""

    async def view() -> list[list[str]]:
        context.enter_thread()

        async def task() -> list[str]:
            return everything()

        return [
            everything(),
            await asyncio.create_task(task()),
            await sync_to_async(everything)(),
        ]

    assert in_thread(lambda: middleware.run(asyncio.run, view())) == [EXPECTED] * 3


def test_stays_in_the_context(middleware: contextvars.Context) -> None:
    """The thread's next view starts with a clean one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(middleware.run, context.enter_thread).result(10)
        assert pool.submit(everything).result(10) == [
            "en-us",
            "America/Chicago",
            "/",
            "nothing",
            "nothing",
        ]


@pytest.mark.parametrize("name", ["Storage", "rehome"])
def test_without_what_asgiref_does_not_promise(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A version without it must not keep views from running."""
    monkeypatch.setattr(context, name, None)
    context.enter_thread()


class TestSharing:
    """Values that are the same for all views are held once."""

    @pytest.mark.skipif(context.Storage is None, reason="asgiref before 3.12 keeps other things")
    def test_shares_what_is_equal(self) -> None:
        """Of strings only: nothing else is kept beyond its view."""

        def view(value: object) -> object:
            own_local.value = value
            context.enter_thread()
            assert own_local.value == value
            return next(
                stored.data
                for stored in contextvars.copy_context().values()
                if isinstance(stored, context.Storage) and stored.data.get("value") == value
            )

        def run(value: object) -> object:
            return contextvars.copy_context().run(view, value)

        assert run("".join(["some", "thing"])) is run("something")
        assert run(["a list"]) is not run(["a list"])

    def test_changes_nothing(self, middleware: contextvars.Context) -> None:
        """For the view, and what it sets is its own."""

        def view() -> list[str]:
            context.enter_thread()
            return everything()

        def other() -> list[str]:
            context.enter_thread()
            set_script_prefix("/else/")
            own_local.value = "changed"
            return everything()

        assert in_thread(lambda: middleware.copy().run(view)) == EXPECTED
        assert in_thread(lambda: middleware.copy().run(other))[2:] == ["/else/", "mine", "changed"]
        assert in_thread(lambda: middleware.copy().run(view)) == EXPECTED
