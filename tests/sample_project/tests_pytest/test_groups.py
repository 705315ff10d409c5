"""Groups in tests: each test has its own, whatever `WEBSOCKET_GROUPS` says."""

import pytest
from django.test import TestCase

from chat.models import Note
from dwebsocket import group, user


@pytest.fixture(scope="module", autouse=True)
def _published_beside_the_tests():
    group("team-red").send("of the module")
    yield
    group("team-red").send("of the module")


@pytest.mark.parametrize("path", ["/teams/red/", "/ateams/red/"])
def test_publishing_reaches_the_clients(websocket_client, path, groups_sent):
    with websocket_client.websocket(path) as ada, websocket_client.websocket(path) as grace:
        assert ada.receive() == grace.receive() == "welcome to red"
        group("team-red").send("from the test")
        assert ada.receive() == grace.receive() == "from the test"
        ada.send("hello")
        assert grace.receive_json() == {"said": "hello"}
        group("team-red").send_json([1], exclude="the id of none of them")
        assert ada.receive_json() == grace.receive_json() == [1]
        assert group("team-red").count() == 2
    assert group("team-red").count() == 0
    assert [sent.message for sent in groups_sent] == ["from the test", '{"said": "hello"}', "[1]"]


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/teams/red/", "/ateams/red/"])
async def test_async(async_websocket_client, path, groups_sent):
    async with async_websocket_client.websocket(path) as ws:
        assert await ws.receive() == "welcome to red"
        await group("team-red").asend("from the test")
        assert await ws.receive() == "from the test"
        assert await group("team-red").acount() == 1
    assert len(groups_sent) == 1


@pytest.mark.parametrize("time", [1, 2])
def test_nothing_is_left_for_the_next_test(groups_sent, time):
    assert groups_sent == []
    assert group("team-red").count() == 0
    group("team-red").send("x")
    assert len(groups_sent) == 1


def test_without_any_fixture():
    group("team-red").send("x")
    user(1).send("x")
    assert group("team-red").count() == group("team-red", using="other").count() == 0


@pytest.mark.django_db
def test_what_is_recorded(groups_sent):
    group("a").send("text")
    group("b", using="other").send(b"bytes", exclude="some id")
    group("c").send_json({"n": 1}, on_commit="default")
    user(1).send("to ada", exclude=["one", "two"])
    assert [(s.group, s.message, s.exclude, s.on_commit) for s in groups_sent] == [
        (group("a"), "text", None, False),
        (group("b", using="other"), b"bytes", "some id", False),
        (group("c"), '{"n": 1}', None, "default"),
        (user(1), "to ada", ["one", "two"], False),
    ]


def test_on_commit(websocket_client, client, db, django_capture_on_commit_callbacks, groups_sent):
    with websocket_client.websocket("/teams/notes/") as ws:
        assert ws.receive() == "welcome to notes"
        with django_capture_on_commit_callbacks() as callbacks:
            client.post("/add-note/", {"text": "n"})
        (sent,) = groups_sent
        assert (sent.group, sent.on_commit) == (group("team-notes"), True)
        group("team-notes").send("marker")
        assert ws.receive() == "marker"
        (callback,) = callbacks
        callback()
        assert ws.receive_json() == {"note": Note.objects.get().pk}


@pytest.mark.django_db(transaction=True)
def test_on_commit_in_transactions(websocket_client, client):
    with websocket_client.websocket("/teams/notes/") as ws:
        assert ws.receive() == "welcome to notes"
        client.post("/add-note/", {"text": "n"})
        assert ws.receive_json() == {"note": Note.objects.get().pk}


class DjangosOwn(TestCase):
    @classmethod
    def setUpTestData(cls):
        group("team-red").send("of the class")

    def test_without_the_mixin(self):
        group("team-red").send("x")
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post("/add-note/", {"text": "n"})
