"""Groups in Django's test cases."""

from django.test import SimpleTestCase, TestCase

from chat.models import Note
from dwebsocket import group
from dwebsocket.testing import WebSocketTestMixin


class Groups(WebSocketTestMixin, SimpleTestCase):
    def test_publishing_reaches_the_clients(self):
        with self.client.websocket("/teams/red/") as ada:
            self.assertEqual(ada.receive(), "welcome to red")
            group("team-red").send("from the test")
            self.assertEqual(ada.receive(), "from the test")
        self.assertEqual([sent.message for sent in self.groups_sent], ["from the test"])

    def test_nothing_is_left_by_other_tests(self):
        self.assertEqual(self.groups_sent, [])
        self.assertEqual(group("team-red").count(), 0)

    async def test_async(self):
        async with self.async_client.websocket("/ateams/red/") as ws:
            self.assertEqual(await ws.receive(), "welcome to red")
            await group("team-red").asend_json([1])
            self.assertEqual(await ws.receive_json(), [1])
        (sent,) = self.groups_sent
        self.assertEqual((sent.group, sent.message), (group("team-red"), "[1]"))


class OnCommit(WebSocketTestMixin, TestCase):
    def test_as_all_that_waits_for_a_commit(self):
        with self.client.websocket("/teams/notes/") as ws:
            self.assertEqual(ws.receive(), "welcome to notes")
            with self.captureOnCommitCallbacks(execute=True):
                self.client.post("/add-note/", {"text": "n"})
            self.assertEqual(ws.receive_json(), {"note": Note.objects.get().pk})

    def test_never_without_a_commit(self):
        with self.client.websocket("/teams/notes/") as ws:
            self.assertEqual(ws.receive(), "welcome to notes")
            self.client.post("/add-note/", {"text": "n"})
            group("team-notes").send("marker")
            self.assertEqual(ws.receive(), "marker")
        self.assertEqual([sent.on_commit for sent in self.groups_sent], [True, False])
