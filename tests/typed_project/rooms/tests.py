"""Tests of this project: for unittest, with the mix-in's clients."""

from django.contrib.auth.models import User
from django.test import RequestFactory, TestCase

from dwebsocket.testing import WebSocketTestMixin
from rooms import apps, views


class TestRooms(WebSocketTestMixin, TestCase):  # pyright: ignore[reportIncompatibleVariableOverride]
    """The views do what their types say."""

    def test_echo(self) -> None:
        """Page and WebSocket."""
        self.assertContains(self.client.get("/echo/?name=Ada"), "hello Ada")
        with self.client.websocket("/echo/") as ws:
            ws.send("a")
            ws.send_bytes(b"\xff")
            self.assertEqual([ws.receive(), ws.receive(timeout=5)], ["a", b"\xff"])
            ws.close(4001)
        self.assertIn(4001, apps.ends)

    async def test_aecho(self) -> None:
        """In the test's event loop."""
        async with self.async_client.websocket("/aecho/", subprotocols=["chat.v2"]) as ws:
            await ws.send("a")
            self.assertEqual((await ws.receive(), ws.subprotocol), ("a", "chat.v2"))

    def test_room(self) -> None:
        """Published messages are recorded."""
        self.client.force_login(User.objects.create(username="ada"))
        with self.client.websocket(
            "/rooms/kitchen/", headers={"origin": "http://testserver"}
        ) as ws:
            self.assertEqual(ws.receive_json()["group"], "room-kitchen")
            ws.send("hello")
            ws.close()
        self.assertEqual([sent.group.name for sent in self.groups_sent], ["room-kitchen"])

    def test_refused(self) -> None:
        """By a response."""
        response = self.assertWebSocketRefused("/arooms/closed/", 403)
        self.assertEqual(response.content, b"closed")
        self.assertWebSocketRefused("/members/", 302)

    def test_aroom(self) -> None:
        """By a view that decides."""
        with self.client.websocket("/arooms/kitchen/") as ws:
            self.assertEqual((ws.receive(), ws.headers["x-room"]), ("welcome", "kitchen"))
            ws.send("hello")
            self.assertEqual(ws.wait_closed(), 4000)

    def test_members(self) -> None:
        """With a session."""
        self.client.force_login(User.objects.create(username="ada"))
        with self.client.websocket("/members/") as ws:
            self.assertEqual(ws.receive_json(), {"user": "ada", "visits": 0})
            ws.send("hello")
            self.assertEqual(ws.receive_json(), [5, "nothing"])

    def test_classes(self) -> None:
        """Both ways to decorate them."""
        for path in ("/class/", "/whole-class/"):
            self.assertContains(self.client.get(path), "open a WebSocket here")
            with self.client.websocket(path) as ws:
                self.assertEqual(ws.receive(), "from a class")

    def test_handlers(self) -> None:
        """A function and a coroutine function."""
        self.assertContains(self.client.get("/handler/kitchen/"), "kitchen")
        self.assertWebSocketRefused("/handler/closed/", 403)
        with self.client.websocket("/handler/kitchen/") as one:
            with self.client.websocket("/handler/kitchen/") as other:
                # It is a member by then.
                self.assertTrue(other.receive_json()["recovered"])
                one.send("hello")
                self.assertEqual(other.receive_json()["data"], "hello")
        with self.client.websocket("/async-handler/kitchen/") as ws:
            ws.send("hello")
            self.assertEqual(ws.receive(), "hello")

    def test_asgi_application(self) -> None:
        """Behind a view."""
        with self.client.websocket("/asgi/") as ws:
            ws.send("hello")
            self.assertEqual(ws.receive(), "hello")

    def test_called_by_a_test(self) -> None:
        """A decorated view takes every request."""
        response = views.plain_request(RequestFactory().get("/here/"))
        self.assertEqual(response.status_code, 200)
