"""Runs the code of a page as a small site, with the test client's WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.unit_fixtures import fixtures as _unit

_no_callback_thread_is_left = _unit._no_callback_thread_is_left
override = _unit.override
open_websocket = _unit.open_websocket
tables = _unit.tables
anna = _unit.anna

from django.urls import path  # noqa: E402
from users_of_pages import signed_in  # noqa: E402

from dwebsocket.testing import WebSocketClient, websockets_of_a_test  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def serve(override: Callable[..., None]) -> Iterator[Callable[..., WebSocketClient]]:
    """
    Serve views of a page: `serve(view, other=…, settings={…})` at `/`, `/other/`; give a client.

    Keywords beginning with `room` have an argument of that name: `/room/42/`. The header `X-User`
    signs a user in.
    """

    def serve_(
        view: Any = None, *, settings: dict[str, Any] | None = None, **views: Any
    ) -> WebSocketClient:
        routes = [path(f"{name}/<room>/", each) for name, each in views.items()]
        routes += [path(f"{name}/", each, name=name) for name, each in views.items()]
        if view is not None:
            routes.append(path("", view))
        override(ROOT_URLCONF=tuple(routes), MIDDLEWARE=[f"{signed_in.__module__}.signed_in"])
        override(**settings or {})
        return WebSocketClient()

    with websockets_of_a_test():
        yield serve_
