"""The pytest plugin: fixtures for WebSockets. pytest loads it by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.testing import AsyncWebSocketClient, Clock, LiveWebSocketClient, WebSocketClient

# pytest-django's fixtures that give a test a database.
_DATABASES = (
    "transactional_db",
    "django_db_reset_sequences",
    "django_db_serialized_rollback",
    "db",
)


@pytest.fixture
def _websockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold the WebSockets of the test, within its transaction."""
    from dwebsocket.testing import websockets_of_a_test

    for name in _DATABASES:
        if name in request.fixturenames:
            # Set it up first, whatever the order of the arguments: it must outlast the views.
            request.getfixturevalue(name)
    with websockets_of_a_test():
        yield


@pytest.fixture
def websocket_client(_websockets: None) -> WebSocketClient:
    """Give a Django test client that opens WebSockets."""
    from dwebsocket.testing import WebSocketClient

    return WebSocketClient()


@pytest.fixture
def async_websocket_client(_websockets: None) -> AsyncWebSocketClient:
    """Give an async Django test client that opens WebSockets."""
    from dwebsocket.testing import AsyncWebSocketClient

    return AsyncWebSocketClient()


@pytest.fixture
def live_websocket(live_server: Any, _websockets: None) -> LiveWebSocketClient:
    """Give a client for the port of pytest-django's `live_server`; `force_login` works."""
    from dwebsocket.testing import LiveWebSocketClient

    return LiveWebSocketClient(live_server.url)


@pytest.fixture
def websocket_clock(_websockets: None) -> Clock:
    """Give a clock that lets time pass at once."""
    from dwebsocket.testing import Clock

    return Clock()
