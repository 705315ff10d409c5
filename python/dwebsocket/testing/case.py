"""For test cases of `unittest` and Django."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from dwebsocket.testing.client import TIMEOUT_S, AsyncWebSocketClient, WebSocketClient
from dwebsocket.testing.clock import Clock
from dwebsocket.testing.groups import groups_of_a_test
from dwebsocket.testing.live import LiveWebSocketClient
from dwebsocket.testing.scope import websockets_of_a_test

if TYPE_CHECKING:
    import unittest

    from django.http import HttpResponse
    from django.test import LiveServerTestCase

    from dwebsocket.groups.groups_sent import Publication

    # The attributes that it finds in the class beside it.
    _Case = LiveServerTestCase
else:
    _Case = object


class WebSocketTestMixin(_Case):
    """
    Makes ``self.client`` and ``self.async_client`` open WebSockets; to stand before ``TestCase``.

    At the end of each test, after its own clean-ups, all WebSockets are closed and their views have
    ended; a view that still runs, or a connection that stays open, fails the test.

    Attributes:
        websocket_timeout: Seconds that a view has to end.
        websocket_clock: A clock that the test can step ahead.
        groups_sent: What the test has published to groups: objects with ``group``, ``message``,
            ``exclude`` and ``on_commit``. Groups are the test's own.
    """

    client_class = WebSocketClient
    async_client_class = AsyncWebSocketClient
    client: WebSocketClient
    async_client: AsyncWebSocketClient
    websocket_timeout = TIMEOUT_S
    websocket_clock = Clock()
    groups_sent: list[Publication]

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Unittest's call to run the test."""
        # A test that is skipped calls no clean-ups: then the block closes the scope.
        with contextlib.ExitStack() as scope:
            self.groups_sent = scope.enter_context(groups_of_a_test())
            scope.enter_context(websockets_of_a_test(self.websocket_timeout))
            # The first one added is called last; its failure is the test's.
            self.addCleanup(scope.close)
            return super().run(result)

    def live_websocket_client(self) -> LiveWebSocketClient:
        """Returns a client, with the cookies of ``self.client``, for a ``LiveServerTestCase``."""
        client = LiveWebSocketClient(self.live_server_url)
        client.cookies = self.client.cookies
        return client

    def assertWebSocketRefused(
        self, path: str, status_code: int | None = None, **options: Any
    ) -> HttpResponse:
        """
        Fails when the site opens a WebSocket, or refuses it with another status.

        Args:
            path: The path of the view.
            status_code: None for any refusal.
            **options: As for :meth:`WebSocketClient.websocket`.

        Returns:
            The response.
        """
        with self.client.websocket(path, **options) as websocket:
            response = websocket.response
        if not websocket.refused:
            self.fail(f"{path} has opened a WebSocket")
        if status_code not in (None, response.status_code):
            self.fail(f"{path} was refused with {response.status_code}, not with {status_code}")
        return response
