"""Tests of the recipes of docs/groups.md, within a project that is made of them."""

import threading

from django.contrib.auth.models import User
from django.test import TestCase, TransactionTestCase
from recipes.models import Order

from dwebsocket import group
from dwebsocket.testing import WebSocketTestMixin


class Chat(WebSocketTestMixin, TestCase):
    def test_everybody_in_a_room_hears_it(self):
        self.client.force_login(User.objects.create_user("ada"))
        with (
            self.client.websocket("/chat/lobby/") as one,
            self.client.websocket("/chat/lobby/") as two,
            self.client.websocket("/chat/elsewhere/") as other,
        ):
            one.send("hello")
            for each in (one, two):
                assert each.receive_json() == {"user": "ada", "text": "hello"}
            other.send("x")
            assert other.receive_json() == {"user": "ada", "text": "x"}
        self.assertContains(self.client.get("/chat/lobby/"), "lobby")

    def test_needs_a_user(self):
        self.assertWebSocketRefused("/chat/lobby/", 302)


class Signals(WebSocketTestMixin, TestCase):
    def test_a_saved_order_is_shown(self):
        order = Order.objects.create(state="new")
        with self.client.websocket(f"/orders/{order.pk}/") as ws:
            assert ws.receive_json() == {"state": "new"}
            with self.captureOnCommitCallbacks(execute=True):
                order.state = "paid"
                order.save()
            assert ws.receive_json() == {"state": "paid"}


class Tasks(WebSocketTestMixin, TestCase):
    def test_progress(self):
        with self.client.websocket("/export/") as ws:
            steps = [ws.receive_json() for _ in range(5)]
            assert steps == [{"done": done, "of": 5} for done in range(1, 6)]
            assert (ws.wait_closed(), ws.close_reason) == (1000, "finished")


class Notifications(WebSocketTestMixin, TransactionTestCase):
    def test_every_tab_of_the_user(self):
        ada, bert = (User.objects.create_user(name) for name in ("ada", "bert"))
        self.client.force_login(ada)
        path = "/notifications/"
        with self.client.websocket(path) as one, self.client.websocket(path) as two:
            other = self.client_class()
            other.force_login(bert)
            with other.websocket(path) as berts:
                assert other.post(f"/like/{ada.pk}/").status_code == 204
                assert one.receive_json() == {"by": "bert"}
                assert two.receive_json() == {"by": "bert"}
                self.client.post(f"/like/{bert.pk}/")
                assert berts.receive_json() == {"by": "ada"}


class Fragments(WebSocketTestMixin, TransactionTestCase):
    def test_all_but_the_browser_that_asked(self):
        order = Order.objects.create(state="paid")
        with self.client.websocket("/board/") as one, self.client.websocket("/board/") as two:
            name = one.receive().split('content="')[1].split('"')[0]
            two.receive()
            answer = self.client.post(f"/ship/{order.pk}/", headers={"X-Socket-Id": name})
            self.assertContains(answer, f'<li id="order-{order.pk}">')
            assert "shipped" in two.receive()
            group("orders").send("marker")
            assert one.receive() == "marker"


class Dashboard(WebSocketTestMixin, TransactionTestCase):
    def test_the_newest_figures(self):
        with self.client.websocket("/figures/") as ws:
            assert ws.receive_json() == {}
            order = Order.objects.create(state="new")
            assert ws.receive_json() == {"new": 1}
            thread = threading.Thread(target=order.delete)
            thread.start()
            assert ws.receive_json() == {}
            thread.join(60)
