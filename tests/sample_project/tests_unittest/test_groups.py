"""Groups in Django's test cases."""

from django.test import SimpleTestCase, TestCase

from chat.models import Note
from dwebsocket import ReceiveTimeout, group
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

    def test_of_a_view_that_publishes(self):
        for path in ("/board/", "/aboard/"):
            with self.client.websocket(path) as ada, self.client.websocket(path) as grace:
                self.assertEqual((ada.receive(), grace.receive()), ("welcome", "welcome"))
                with self.captureOnCommitCallbacks(execute=True):
                    ada.send(path)
                    self.websocket_clock.advance(0)
                note = Note.objects.last()
                self.assertEqual(ada.receive_json(), {"note": note.pk})
                self.assertEqual(grace.receive_json(), {"note": note.pk})

    async def test_of_a_view_that_publishes_to_async_tests(self):
        for path in ("/board/", "/aboard/"):
            async with self.async_client.websocket(path) as ws:
                self.assertEqual(await ws.receive(), "welcome")
                with self.captureOnCommitCallbacks(execute=True):
                    await ws.send(path)
                    await self.websocket_clock.aadvance(0)
                note = await Note.objects.alast()
                self.assertEqual(await ws.receive_json(), {"note": note.pk})

    async def test_of_an_async_test(self):
        async with self.async_client.websocket("/teams/notes/") as ws:
            self.assertEqual(await ws.receive(), "welcome to notes")
            with self.captureOnCommitCallbacks(execute=True):
                await self.async_client.post("/add-note/", {"text": "n"})
            self.assertIn("note", await ws.receive_json())

    def test_error_names_what_is_missing(self):
        said = r"captureOnCommitCallbacks\(execute=True\).*never committed.*1 in 'default'"
        with self.client.websocket("/board/") as ws:
            self.assertEqual(ws.receive(), "welcome")
            ws.send("no commit")
            self.websocket_clock.advance(0)
            with self.assertRaisesRegex(ReceiveTimeout, said):
                ws.receive(timeout=0.01)

    async def test_error_of_async_tests_names_it_too(self):
        async with self.async_client.websocket("/aboard/") as ws:
            self.assertEqual(await ws.receive(), "welcome")
            await ws.send("no commit")
            await self.websocket_clock.aadvance(0)
            with self.assertRaisesRegex(ReceiveTimeout, "captureOnCommitCallbacks"):
                await ws.receive(timeout=0.01)

    def test_error_does_not_name_it_where_nothing_waits(self):
        with self.client.websocket("/board/") as ws:
            self.assertEqual(ws.receive(), "welcome")
            with self.assertRaisesRegex(ReceiveTimeout, r"within 0.01 s\. The view"):
                ws.receive(timeout=0.01)

    def test_never_without_a_commit(self):
        with self.client.websocket("/teams/notes/") as ws:
            self.assertEqual(ws.receive(), "welcome to notes")
            self.client.post("/add-note/", {"text": "n"})
            group("team-notes").send("marker")
            self.assertEqual(ws.receive(), "marker")
        self.assertEqual([sent.on_commit for sent in self.groups_sent], [True, False])
