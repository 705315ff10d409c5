"""Django's own test cases, run by Django's runner or by pytest."""

from django.contrib.auth.models import User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.urls import path

from chat import views
from chat.models import Note
from dwebsocket import ConnectionClosed, ReceiveTimeout, accept_websocket
from dwebsocket.testing import ViewStillRuns, WebSocketClient, WebSocketRefused, WebSocketTestMixin


@accept_websocket
def elsewhere(request):
    request.websocket.send("elsewhere")


class Messages(WebSocketTestMixin, SimpleTestCase):
    def test_text_and_bytes_come_back_as_what_they_are(self):
        with self.client.websocket("/echo/") as ws:
            ws.send("hello")
            self.assertEqual(ws.receive(timeout=5), "hello")
            ws.send_bytes(b"\x00\xff")
            self.assertEqual(ws.receive(), b"\x00\xff")
            ws.send_json({"a": 1})
            self.assertEqual(ws.receive_json(), {"a": 1})

    def test_fragments_are_one_message(self):
        with self.client.websocket("/echo/") as ws:
            ws.send_frame(0x1, b"hel", is_final=False)
            ws.ping()
            ws.send_frame(0x0, b"lo")
            self.assertEqual(ws.receive(), "hello")

    def test_view_closes(self):
        with self.client.websocket("/echo/") as ws:
            ws.send("bye")
            self.assertEqual(ws.wait_closed(), 4000)
            self.assertEqual(ws.close_reason, "as you wish")
            with self.assertRaises(ConnectionClosed):
                ws.receive()

    def test_limit_holds(self):
        with self.client.websocket("/echo/") as ws:
            ws.send("x" * 1001)
            self.assertEqual(ws.wait_closed(), 1009)

    def test_broken_protocol_is_answered_as_on_the_wire(self):
        with self.client.websocket("/echo/") as ws:
            ws.send_frame(0x1, b"\xff")
            self.assertEqual(ws.wait_closed(), 1007)

    def test_subprotocol(self):
        with self.client.websocket("/echo/", subprotocols=["chat.v1", "chat.v2"]) as ws:
            self.assertEqual(ws.subprotocol, "chat.v2")

    def test_same_view_over_http(self):
        self.assertEqual(self.client.get("/echo/").content, b"open a WebSocket here")

    def test_language_of_the_request(self):
        with self.client.websocket("/language/", headers={"accept-language": "de"}) as ws:
            self.assertEqual(list(ws), ["de"])

    @override_settings(ROOT_URLCONF=(path("elsewhere/", elsewhere),))
    def test_url_conf_of_the_test(self):
        with self.client.websocket("/elsewhere/") as ws:
            self.assertEqual(ws.receive(), "elsewhere")


class NoDatabase(WebSocketTestMixin, SimpleTestCase):
    def test_forbidden_to_the_view_as_to_the_test(self):
        # Django raises the one, pytest-django the other.
        with self.assertRaisesRegex((AssertionError, RuntimeError), "not allowed"):
            with self.client.websocket("/notes/") as ws:
                ws.receive()


class Refusals(WebSocketTestMixin, SimpleTestCase):
    def test_origin(self):
        self.assertWebSocketRefused("/echo/", 403, headers={"origin": "https://evil.example"})
        with self.client.websocket("/echo/", headers={"origin": "http://testserver"}) as ws:
            self.assertFalse(ws.refused)

    def test_no_such_address(self):
        self.assertWebSocketRefused("/nowhere/", 404)

    def test_using_a_refused_one_says_why(self):
        with self.client.websocket("/nowhere/") as ws:
            with self.assertRaisesRegex(WebSocketRefused, "404"):
                ws.send("hello")

    @override_settings(WEBSOCKET_MAX_CONNECTIONS=1)
    def test_full(self):
        with self.client.websocket("/echo/"):
            self.assertWebSocketRefused("/echo/", 503)


class Failures(WebSocketTestMixin, SimpleTestCase):
    def test_exception_of_the_view(self):
        with self.client.websocket("/fail/") as ws:
            ws.send("hello")
            self.assertEqual(ws.receive(), "hello")
            with self.assertRaisesRegex(ValueError, "cannot stand 'hello'"):
                ws.receive()

    def test_exception_behind_the_end(self):
        with self.assertRaisesRegex(ValueError, "too late"):
            with self.client.websocket("/fail-late/"):
                pass

    def test_what_the_client_sees(self):
        client = WebSocketClient(raise_request_exception=False)
        with client.websocket("/fail/") as ws:
            ws.send("hello")
            self.assertEqual((ws.receive(), ws.wait_closed()), ("hello", 1011))

    def test_view_that_never_ends_is_named(self):
        views.begun.clear()
        views.release.clear()
        self.addCleanup(views.release.set)
        with self.assertRaisesRegex(ViewStillRuns, r"chat\.views\.stuck is at(.|\n)*release\.wait"):
            with self.client.websocket("/stuck/") as ws:
                self.assertTrue(views.begun.wait(60))
                ws.timeout = 0.05
                with self.assertRaisesRegex(ReceiveTimeout, r"release\.wait"):
                    ws.receive()
        views.release.set()


class Database(WebSocketTestMixin, TestCase):
    def test_what_is_done_at_the_end_is_done_behind_the_block(self):
        with self.client.websocket("/leaves/") as ws:
            ws.send("hello")
            self.assertEqual(ws.receive(), "hello")
            self.assertFalse(Note.objects.exists())
        self.assertEqual(Note.objects.get().text, "left")

    def test_view_sees_what_the_test_has_not_committed(self):
        Note.objects.create(text="from the test")
        with self.client.websocket("/notes/") as ws:
            self.assertEqual(ws.receive_json(), ["from the test"])
            ws.send("from the view")
            self.assertEqual(ws.receive_json(), 2)
        self.assertEqual(Note.objects.count(), 2)

    def test_nothing_of_other_tests_is_left(self):
        self.assertEqual(Note.objects.count(), 0)
        with self.client.websocket("/notes/") as ws:
            self.assertEqual(ws.receive_json(), [])
            ws.send("from the view")
            self.assertEqual(ws.receive_json(), 1)

    def test_transactions_of_the_view_and_of_the_test_stay_apart(self):
        with self.client.websocket("/import/") as ws:
            with transaction.atomic():
                ws.send_json(["twice", "twice"])
                Note.objects.create(text="from the test")
            self.assertEqual(ws.receive_json(), {"error": "IntegrityError"})
        self.assertEqual([note.text for note in Note.objects.all()], ["from the test"])

    async def test_async(self):
        await Note.objects.acreate(text="from the test")
        async with self.async_client.websocket("/anotes/") as ws:
            self.assertEqual(await ws.receive_json(), ["from the test"])
            await ws.send("from the view")
            self.assertEqual(await ws.receive_json(), 2)
        self.assertEqual(await Note.objects.acount(), 2)

    def test_user(self):
        self.client.force_login(User.objects.create_user("ada"))
        with self.client.websocket("/me/", {"q": "x"}) as ws:
            self.assertEqual(ws.receive_json(), {"user": "ada", "term": "x"})


class Committed(WebSocketTestMixin, TransactionTestCase):
    def test_committed_data(self):
        Note.objects.create(text="from the test")
        with self.client.websocket("/notes/") as ws:
            self.assertEqual(ws.receive_json(), ["from the test"])


class Live(WebSocketTestMixin, StaticLiveServerTestCase):
    def test_real_port(self):
        self.client.force_login(User.objects.create_user("ada"))
        with self.live_websocket_client().websocket("/me/") as ws:
            self.assertEqual(ws.receive_json(), {"user": "ada", "term": ""})
