"""Tests of the recipes of docs/groups.md, within a project that is made of them."""

import threading
from unittest import mock

from django.db.models.query import QuerySet
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

    def test_a_change_overtakes_the_first_look(self):
        order = Order.objects.create(state="new")
        get, has_come = QuerySet.get, threading.Event()

        def get_and_change(*args, **kwargs):
            found = get(*args, **kwargs)
            if found.state == "new":
                Order.objects.filter(pk=found.pk).update(state="paid")
                group(f"order-{found.pk}").send_json({"state": "paid"})
                assert has_come.wait(60)
            return found

        with (
            mock.patch.object(QuerySet, "get", get_and_change),
            self.client.websocket(f"/orders/{order.pk}/") as ws,
        ):
            assert ws.receive_json() == {"state": "paid"}
            has_come.set()
            assert ws.receive_json() == {"state": "new"}
            assert ws.receive_json() == {"state": "paid"}


class Fragments(WebSocketTestMixin, TransactionTestCase):
    def test_all_but_the_browser_that_asked(self):
        order = Order.objects.create(state="paid")
        with self.client.websocket("/board/") as one, self.client.websocket("/board/") as two:
            name = one.receive().split('content="')[1].split('"')[0]
            two.receive()
            assert self.client.get(f"/ship/{order.pk}/").status_code == 405
            answer = self.client.post(f"/ship/{order.pk}/", headers={"X-Socket-Id": name})
            self.assertContains(answer, f'<li id="order-{order.pk}">')
            assert "shipped" in two.receive()
            group("orders").send("marker")
            assert one.receive() == "marker"
