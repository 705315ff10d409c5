"""Channel layers on each backend of groups."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest

from support.unit_fixtures import fixtures as _unit

override = _unit.override
open_websocket = _unit.open_websocket

from asgiref.sync import sync_to_async  # noqa: E402
from django.conf import settings  # noqa: E402
from django.db import connections  # noqa: E402
from layer_others import Other  # noqa: E402
from layer_sites import Site, running  # noqa: E402

from dwebsocket.channels import ChannelLayer  # noqa: E402
from dwebsocket.groups import backends  # noqa: E402
from support.waiting import eventually  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Start what a backend needs; the parameter names it."""
    with running(request.param) as found:
        yield found


@pytest.fixture
def _backend(site: Site, override: Callable[..., None]) -> Iterator[None]:
    """Each test has backends of its own, one of them with another prefix."""
    override(WEBSOCKET_GROUPS={"default": site.groups, "apart": {**site.groups, "PREFIX": "apart"}})
    own = backends.Backends(backends.make)
    with backends.swapped(own):
        yield
        for made in filter(None, map(own.made, ("default", "apart"))):
            # The nodes of one process would meet those of all tests before, too.
            if hasattr(made, "stop"):
                made.stop()
            if hasattr(made, "_listener"):
                listener = made._listener
                eventually(lambda: not listener.is_listening, what="the thread has ended")  # noqa: B023
        asyncio.run(sync_to_async(connections.close_all)())
        gc.collect()


@pytest.fixture
def layer(_backend: None) -> Iterator[Callable[..., ChannelLayer]]:
    """Make layers: `layer(capacity=3)`. They leave at the end of the test."""
    made: list[ChannelLayer] = []

    def make(**config: Any) -> ChannelLayer:
        made.append(ChannelLayer(**config))
        return made[-1]

    yield make
    for each in made:
        asyncio.run(each.close())


@pytest.fixture
def settings_of_others(site: Site) -> Callable[..., dict[str, Any]]:
    """Give the settings of other processes: `settings_of_others(capacity=3)`."""

    def make(**config: Any) -> dict[str, Any]:
        layers = {"BACKEND": "dwebsocket.channels.ChannelLayer", "CONFIG": config}
        return {
            "SECRET_KEY": settings.SECRET_KEY,
            "WEBSOCKET_GROUPS": {"default": site.groups},
            "DATABASES": site.databases,
            "CHANNEL_LAYERS": {"default": layers},
        }

    return make


@pytest.fixture
def other(settings_of_others: Callable[..., dict[str, Any]]) -> Iterator[Callable[..., Other]]:
    """Start other processes: `other(capacity=3)`."""
    started: list[Other] = []

    def start(**config: Any) -> Other:
        process = Other(settings_of_others(**config))
        started.append(process)
        return process

    with contextlib.ExitStack() as undo:
        undo.callback(lambda: [each.end() for each in started])
        yield start
