"""Functions with the plugin's fixtures."""

import contextlib

import pytest
from django.contrib.auth.models import User

from chat import views
from chat.models import Note
from dwebsocket import ReceiveTimeout
from dwebsocket.testing import WebSocketClient


def test_two_clients_in_one_room(websocket_client):
    with (
        websocket_client.websocket("/rooms/lobby/") as ada,
        WebSocketClient().websocket("/rooms/lobby/") as grace,
    ):
        assert ada.receive() == grace.receive() == "welcome to lobby"
        ada.send("hello")
        assert ada.receive() == grace.receive() == "hello"


def test_rooms_are_apart(websocket_client):
    with contextlib.ExitStack() as stack:
        rooms = [
            stack.enter_context(websocket_client.websocket(f"/rooms/{name}/")) for name in "abc"
        ]
        assert [ws.receive() for ws in rooms] == [f"welcome to {name}" for name in "abc"]
        rooms[0].send("only here")
        assert rooms[0].receive() == "only here"
        with pytest.raises(ReceiveTimeout, match=r"chat\.views\.room is at"):
            rooms[1].receive(timeout=0.01)


def test_leaving_a_room(websocket_client):
    with websocket_client.websocket("/rooms/exit/") as ws:
        assert ws.receive() == "welcome to exit"
        assert len(views.rooms["exit"]) == 1
    # The view has ended when the block has.
    assert views.rooms["exit"] == set()


def test_vanishing_from_a_room(websocket_client):
    with websocket_client.websocket("/rooms/gone/") as ws:
        assert ws.receive() == "welcome to gone"
        ws.vanish()
    assert views.rooms["gone"] == set()


def test_left_open(websocket_client):
    ws = websocket_client.websocket("/echo/").__enter__()
    ws.send("closed by the fixture")
    assert ws.receive() == "closed by the fixture"


@pytest.mark.django_db
def test_login_required(websocket_client):
    with websocket_client.websocket("/members/") as ws:
        assert ws.response.status_code == 302
        assert ws.response.url == "/login/?next=/members/"
    websocket_client.force_login(User.objects.create_user("ada"))
    with websocket_client.websocket("/members/") as ws:
        assert list(ws) == ["hello ada"]


@pytest.mark.django_db
def test_password(websocket_client):
    User.objects.create_user("grace", password="secret")
    assert websocket_client.login(username="grace", password="secret")
    with websocket_client.websocket("/me/") as ws:
        assert ws.receive_json()["user"] == "grace"


@pytest.mark.django_db
def test_session_is_the_clients(websocket_client):
    session = websocket_client.session
    session["visits"] = 41
    session.save()
    with websocket_client.websocket("/visits/") as ws:
        ws.send("again")
        assert ws.receive() == "42"
    assert websocket_client.session["visits"] == 42


def test_permission_denied_is_a_close_code(websocket_client):
    with websocket_client.websocket("/secret/") as ws:
        assert ws.wait_closed() == 1008


def test_view_sees_the_tests_data(websocket_client, db):
    Note.objects.create(text="from the test")
    with websocket_client.websocket("/notes/") as ws:
        assert ws.receive_json() == ["from the test"]


@pytest.mark.parametrize("round", [1, 2])
def test_view_writes_are_rolled_back(websocket_client, db, round):
    with websocket_client.websocket("/notes/") as ws:
        assert ws.receive_json() == []
        ws.send("the same in both rounds")
        assert ws.receive_json() == 1


@pytest.mark.django_db(transaction=True)
def test_transactional(websocket_client):
    Note.objects.create(text="committed")
    with websocket_client.websocket("/notes/") as ws:
        assert ws.receive_json() == ["committed"]
        ws.send("by the view")
        assert ws.receive_json() == 2


def test_query_count(websocket_client, db, django_assert_num_queries):
    with websocket_client.websocket("/notes/") as ws:
        ws.receive()
        with django_assert_num_queries(2):
            ws.send("counted")
            assert ws.receive_json() == 1


class TestTime:
    def test_pings(self, websocket_client, websocket_clock):
        with websocket_client.websocket("/patient/") as ws:
            websocket_clock.advance(55)
            assert ws.pings_received == 2
            ws.send("still here")
            assert ws.receive() == "still here"

    def test_silent_client_is_given_up(self, websocket_client, websocket_clock):
        with websocket_client.websocket("/patient/", answer_pings=False) as ws:
            websocket_clock.advance(46)
            assert ws.wait_closed() in (1006, 1011)

    def test_timeout_of_a_view(self, websocket_client, websocket_clock):
        with websocket_client.websocket("/patient/") as ws:
            websocket_clock.advance(61)
            assert ws.receive() == "too slow"

    def test_ticker_of_a_view(self, websocket_client, websocket_clock):
        with websocket_client.websocket("/leaves/") as ws:
            ws.send("begin")
            assert ws.receive() == "begin"
            websocket_clock.advance(3600)
            assert ws.receive() == "an hour has passed"

    def test_drain(self, websocket_client, websocket_clock):
        import dwebsocket

        with (
            websocket_client.websocket("/echo/") as first,
            websocket_client.websocket("/echo/") as second,
        ):
            dwebsocket.drain(window=60, timeout=0)
            with websocket_client.websocket("/echo/") as late:
                assert late.response.status_code == 503
            websocket_clock.advance(60)
            assert first.wait_closed() == second.wait_closed() == 1012
