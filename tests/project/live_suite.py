"""
A test suite as a project would write it for Django's live test server.

`test_live_server.py` runs it with Django's own runner, on an in-memory database.
"""

from contextlib import ExitStack

from django.contrib.auth.models import User
from django.test import LiveServerTestCase
from websockets.sync.client import connect


class LiveServer(LiveServerTestCase):
    """Views behind WebSockets see what the test has committed, and the test sees theirs."""

    def address(self, path: str) -> str:
        return self.live_server_url.replace("http", "ws") + path

    def test_echo(self) -> None:
        with connect(self.address("/echo/")) as websocket:
            websocket.send("hello")
            assert websocket.recv(timeout=10) == "hello"

    def test_database_is_that_of_the_test(self) -> None:
        User.objects.create_user("ada")
        with connect(self.address("/orm/")) as websocket:
            websocket.send("grace")
            assert websocket.recv(timeout=10) == '{"there": 1}'
        names = User.objects.order_by("username").values_list("username", flat=True)
        assert list(names) == ["ada", "grace"]

    def test_socket_left_open_does_not_hold_the_end(self) -> None:
        client = ExitStack()
        # After the server has been taken down.
        self.addClassCleanup(client.close)
        websocket = client.enter_context(connect(self.address("/echo/")))
        websocket.send("still here")
        assert websocket.recv(timeout=10) == "still here"
