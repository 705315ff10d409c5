"""Handlers in Django's test cases."""

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.test import TestCase

from chat import handlers
from chat.models import Note
from dwebsocket import group
from dwebsocket.testing import WebSocketTestMixin

CLUBS = ["/clubs/red/", "/aclubs/red/", "/mixed-clubs/red/"]


class Clubs(WebSocketTestMixin, TestCase):
    def setUp(self):
        handlers.ends.clear()
        self.ada = User.objects.create_user("ada")

    def test_refused(self):
        for path in CLUBS:
            with self.subTest(path):
                self.assertWebSocketRefused(path, 302)
        self.assertEqual(handlers.ends, {})

    def test_groups_and_ends(self):
        self.client.force_login(self.ada)
        for path in CLUBS:
            with (
                self.subTest(path),
                self.client.websocket(path) as one,
                self.client.websocket(path) as two,
            ):
                one.send("hello")
                self.assertEqual(two.receive_json(), {"from": "ada", "said": "hello"})
                two.close(4001)
                one.close(4001)
            # Behind the blocks: then the handlers have ended, too.
            self.assertEqual(group("club-red").count(), 0)
        self.assertEqual({code for code, _ in handlers.ends.values()}, {4001})
        self.assertEqual(len(self.groups_sent), 3)

    def test_ticks(self):
        self.client.force_login(self.ada)
        for path in CLUBS:
            with self.subTest(path), self.client.websocket(path) as ws:
                self.websocket_clock.advance(120)
                self.assertEqual([ws.receive(), ws.receive()], ["minute 1", "minute 2"])

    def test_exception(self):
        self.client.force_login(self.ada)
        for path in CLUBS:
            with self.subTest(path), self.client.websocket(path) as ws:
                ws.send("fail")
                with self.assertRaisesMessage(ValueError, "cannot stand it"):
                    ws.receive()

    async def test_async(self):
        await sync_to_async(self.async_client.force_login)(self.ada)
        for path in CLUBS:
            with self.subTest(path):
                async with self.async_client.websocket(path) as ws:
                    await ws.send("bye")
                    self.assertEqual(await ws.wait_closed(), 4000)
                self.assertEqual(handlers.ends[path], (4000, "as you wish"))

    async def test_left_open(self):
        await sync_to_async(self.async_client.force_login)(self.ada)
        for path in CLUBS:
            ws = await self.async_client.websocket(path).__aenter__()
            await ws.send("here?")
            self.assertEqual(await ws.receive(), "here")

    def test_database(self):
        with self.client.websocket("/handled-notes/") as ws:
            ws.send("from the handler")
            self.assertEqual(ws.receive_json(), ["connect", "from the handler"])
        self.assertEqual(Note.objects.count(), 3)


class LiveClubs(WebSocketTestMixin, StaticLiveServerTestCase):
    def test_live(self):
        self.client.force_login(User.objects.create_user("ada"))
        for path in CLUBS:
            client = self.live_websocket_client()
            with self.subTest(path), client.websocket(path) as one, client.websocket(path) as two:
                two.send("here?")
                self.assertEqual(two.receive(), "here")
                one.send("hello")
                self.assertEqual(two.receive_json(), {"from": "ada", "said": "hello"})
