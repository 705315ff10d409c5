"""Handlers in tests: connecting, messages, ends, ticks, groups, errors, the database."""

import pytest
from asgiref.sync import sync_to_async

from chat import handlers
from chat.models import Note
from dwebsocket import group
from dwebsocket.testing import ViewStillRuns, WebSocketClient

clubs = pytest.mark.parametrize("path", ["/clubs/red/", "/aclubs/red/", "/mixed-clubs/red/"])
of_notes = pytest.mark.parametrize("path", ["/handled-notes/", "/handled-anotes/"])


@pytest.fixture
def ada(db, django_user_model):
    return django_user_model.objects.create_user("ada")


@pytest.fixture(autouse=True)
def _no_ends():
    handlers.ends.clear()


@clubs
class TestClubs:
    def test_refuses_by_an_exception(self, websocket_client, ada, path):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path.replace("red", "closed")) as ws:
            assert ws.response.status_code == 403
        assert handlers.ends == {}

    def test_refuses_by_a_response(self, websocket_client, db, path):
        with websocket_client.websocket(path) as ws:
            assert ws.response.status_code == 302
            assert ws.response.url == "/login/"
        assert handlers.ends == {}

    def test_groups(self, websocket_client, ada, path, groups_sent):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path) as one, websocket_client.websocket(path) as two:
            assert group("club-red").count() == 2
            one.send("hello")
            assert two.receive_json() == {"from": "ada", "said": "hello"}
            group("club-red").send("from the test")
            assert one.receive() == two.receive() == "from the test"
        assert group("club-red").count() == 0
        assert len(groups_sent) == 2

    def test_its_own_close(self, websocket_client, ada, path):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path) as ws:
            ws.send("bye")
            assert ws.wait_closed() == 4000
        assert handlers.ends == {path: (4000, "as you wish")}

    def test_the_clients_close(self, websocket_client, ada, path):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path) as ws:
            ws.close(4001, "bye")
        assert handlers.ends == {path: (4001, "bye")}

    def test_the_end_of_the_block(self, websocket_client, ada, path):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path):
            pass
        assert handlers.ends == {path: (1000, "")}

    def test_vanishing(self, websocket_client, ada, path):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path) as ws:
            ws.vanish()
        assert handlers.ends[path][0] == 1006

    def test_exception(self, websocket_client, ada, path):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path) as ws:
            ws.send("fail")
            with pytest.raises(ValueError, match="cannot stand it") as caught:
                ws.receive()
        assert caught.traceback[-1].name == "receive"
        assert handlers.ends == {path: (1011, "")}

    def test_what_the_browser_sees(self, websocket_client, ada, path):
        client = WebSocketClient(raise_request_exception=False)
        client.force_login(ada)
        with client.websocket(path) as ws:
            ws.send("fail")
            assert ws.wait_closed() == 1011

    def test_an_exception_that_is_an_answer(self, websocket_client, ada, path):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path) as ws:
            ws.send("secret")
            assert ws.wait_closed() == 1008
        assert handlers.ends == {path: (1008, "")}

    def test_ticks(self, websocket_client, websocket_clock, ada, path):
        websocket_client.force_login(ada)
        with websocket_client.websocket(path) as ws:
            websocket_clock.advance(59)
            group("club-red").send("not yet")
            assert ws.receive() == "not yet"
            websocket_clock.advance(182)
            assert [ws.receive() for _ in range(4)] == [f"minute {n}" for n in (1, 2, 3, 4)]
            group("club-red").send("no more")
            assert ws.receive() == "no more"

    @pytest.mark.asyncio
    async def test_async(self, async_websocket_client, websocket_clock, ada, path):
        await sync_to_async(async_websocket_client.force_login)(ada)
        async with async_websocket_client.websocket(path) as two:
            async with async_websocket_client.websocket(path) as one:
                await one.send("hello")
                assert await two.receive_json() == {"from": "ada", "said": "hello"}
                await websocket_clock.aadvance(181)
                received = [await one.receive() for _ in range(3)]
                assert received == ["minute 1", "minute 2", "minute 3"]
                await one.send("bye")
                assert await one.wait_closed() == 4000
            # The end of the block waits for the view, and so for its disconnect().
            assert handlers.ends == {path: (4000, "as you wish")}
            await two.send("fail")
            with pytest.raises(ValueError, match="cannot stand it"):
                assert [message async for message in two] == ["minute 1", "minute 2", "minute 3"]
        assert handlers.ends == {path: (1011, "")}

    def test_live(self, live_websocket, transactional_db, django_user_model, path):
        live_websocket.force_login(django_user_model.objects.create_user("grace"))
        with live_websocket.websocket(path) as one, live_websocket.websocket(path) as two:
            # A client on a real port gets its 101 a moment before it is a member.
            two.send("here?")
            assert two.receive() == "here"
            one.send("hello")
            assert two.receive_json() == {"from": "grace", "said": "hello"}
            one.close(4001)
        with live_websocket.websocket(path.replace("red", "closed")) as ws:
            assert ws.response.status_code == 403

    def test_left_open(self, websocket_client, ada, path):
        websocket_client.force_login(ada)
        websocket_client.websocket(path).__enter__()


@of_notes
def test_database(websocket_client, db, path):
    Note.objects.create(text="from the test")
    with websocket_client.websocket(path) as ws:
        ws.send("from the handler")
        assert ws.receive_json() == ["from the test", "connect", "from the handler"]
    assert Note.objects.count() == 4


@of_notes
@pytest.mark.asyncio
async def test_database_async(async_websocket_client, db, path):
    await Note.objects.acreate(text="from the test")
    async with async_websocket_client.websocket(path) as ws:
        await ws.send("from the handler")
        assert await ws.receive_json() == ["from the test", "connect", "from the handler"]
    assert await Note.objects.acount() == 4


def test_everything_was_rolled_back(db):
    assert Note.objects.count() == 0


def test_error_behind_the_end(websocket_client):
    with pytest.raises(ValueError, match="too late for the client"):
        with websocket_client.websocket("/handled-fail-late/"):
            pass


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/handled-stuck/", r"chat\.handlers\.Stuck is at:(.|\n)*receive\n.*release\.wait\(\)"),
        ("/handled-astuck/", r"chat\.handlers\.AsyncStuck is at:(.|\n)*wait_for_it\n"),
    ],
)
def test_stuck(websocket_client, path, where):
    handlers.begun.clear()
    handlers.release.clear()
    try:
        with pytest.raises(ViewStillRuns, match=where):  # noqa: PT012
            with websocket_client.websocket(path) as ws:
                ws.send("x")
                assert handlers.begun.wait(60)
                ws.timeout = 0.05
    finally:
        handlers.release.set()


def test_page(websocket_client):
    assert websocket_client.get("/handled-page/").content == b"open a WebSocket here"
    assert websocket_client.post("/handled-page/").status_code == 405
    assert websocket_client.get("/clubs/red/").status_code == 400
    with websocket_client.websocket("/handled-page/", subprotocols=["chat.v1"]) as ws:
        assert ws.subprotocol == "chat.v1"
        ws.send("x" * 1001)
        assert ws.wait_closed() == 1009
