"""Tests of the recipes of docs/groups.md, within a project that is made of them."""

from django.test import TestCase, TransactionTestCase
from recipes.models import Order

from dwebsocket import group
from dwebsocket.testing import WebSocketTestMixin


class Signals(WebSocketTestMixin, TestCase):
    def test_a_saved_order_is_shown(self):
        order = Order.objects.create(state="new")
        with self.client.websocket(f"/orders/{order.pk}/") as ws:
            assert ws.receive_json() == {"state": "new"}
            with self.captureOnCommitCallbacks(execute=True):
                order.state = "paid"
                order.save()
            assert ws.receive_json() == {"state": "paid"}


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
