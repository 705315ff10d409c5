"""The pytest plugin: fixtures for WebSockets. pytest loads it by itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.groups.groups_sent import Publication
    from dwebsocket.testing import AsyncWebSocketClient, Clock, LiveWebSocketClient, WebSocketClient

# pytest-django's fixtures that give a test a database.
_DATABASES = (
    "transactional_db",
    "django_db_reset_sequences",
    "django_db_serialized_rollback",
    "db",
)


def _uses_django() -> bool:
    # The plugin is loaded in every project where dwebsocket2 is installed.
    module = sys.modules.get("django.conf")
    return module is not None and module.settings.configured


@pytest.fixture(scope="session", autouse=True)
def _groups_of_this_run() -> Iterator[None]:
    """Keep in this process what is published beside the tests, by fixtures of a wider scope."""
    if not _uses_django():
        yield
        return
    from dwebsocket.groups import backends
    from dwebsocket.groups.backends import process

    with backends.replaced(process.Backend):
        yield


@pytest.fixture(autouse=True)
def _groups_of_a_test(_groups_of_this_run: None) -> Iterator[list[Publication]]:
    """Sets groups for each test alone, also one that names no fixture of this plugin."""
    if not _uses_django():
        yield []
        return
    from dwebsocket.testing.groups import groups_of_a_test

    with groups_of_a_test() as sent:
        yield sent


@pytest.fixture
def groups_sent(_groups_of_a_test: list[Publication]) -> list[Publication]:
    """Returns what the test publishes to groups: a list that grows."""
    return _groups_of_a_test


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
    """Returns a Django test client that opens WebSockets."""
    from dwebsocket.testing import WebSocketClient

    return WebSocketClient()


@pytest.fixture
def async_websocket_client(_websockets: None) -> AsyncWebSocketClient:
    """Returns an async Django test client that opens WebSockets."""
    from dwebsocket.testing import AsyncWebSocketClient

    return AsyncWebSocketClient()


@pytest.fixture
def live_websocket(live_server: Any, _websockets: None) -> LiveWebSocketClient:
    """Returns a client for the port of pytest-django's `live_server`; `force_login` works."""
    from dwebsocket.testing import LiveWebSocketClient

    return LiveWebSocketClient(live_server.url)


@pytest.fixture
def websocket_clock(_websockets: None) -> Clock:
    """Returns a clock that lets time pass at once."""
    from dwebsocket.testing import Clock

    return Clock()
