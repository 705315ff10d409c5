"""Libraries on top of Channels, run as they are: GraphQL by strawberry, models by DCRF."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed

from support.clients import websocket
from support.server import GUNICORN_GTHREAD, RUNSERVER, UVICORN, Kind, Server, thread_names
from support.waiting import eventually
from support.workers import ENGINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

pytestmark = [
    pytest.mark.extended("libraries on top of Channels"),
    *(
        pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")
        for name in ("strawberry", "djangochannelsrestframework")
    ),
]
SITE = Path(__file__).resolve().parent.parent / "api_site"
# Views, by each kind of server; and the project's own router on the engine, without a view.
ROUTER = Kind(
    "uvicorn-dwebsocket-router",
    "asgi",
    tuple(
        "{python} -m uvicorn --port {port} --log-level warning "
        "--ws dwebsocket.uvicorn:WebSocketProtocol apisite.router_asgi:application".split()
    ),
    alone=True,
)
as_gthread = pytest.mark.extended("consumers run there as under gthread")
KINDS = [GUNICORN_GTHREAD, UVICORN, pytest.param(RUNSERVER, marks=as_gthread), ROUTER]
NEW, OLD = "graphql-transport-ws", "graphql-ws"
LIMIT_S = 20


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tables."""
    path = tmp_path_factory.mktemp("api") / "db.sqlite3"
    # The checks import the URL conf, and so all libraries.
    manage("migrate", "--run-syncdb", "--skip-checks", "--verbosity", "0", PROJECT_DB=str(path))
    return path


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(request: pytest.FixtureRequest, database: Path) -> Iterator[Server]:
    """Start the site; gunicorn has two workers, so that messages cross between processes."""
    kind = request.param
    options = ("--workers", "2") if kind is GUNICORN_GTHREAD else ()
    with Server(
        kind, cwd=SITE, module="apisite", database=database, probe="/notes/0/", options=options
    ) as server:
        yield server
        assert "Traceback" not in server.stderr(), server.stderr()


def manage(*arguments: str, **environment: str) -> None:
    """Run a command of the site, in a process of its own."""
    paths = os.pathsep.join(filter(None, [str(SITE), os.getenv("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "apisite.settings",
            "PYTHONPATH": paths,
            **environment,
        },
        check=True,
        timeout=60,
    )


def post(server: Server, path: str, body: bytes, kind: str) -> bytes:
    """Send a POST request to a page; give the answer."""
    request = Request(server.url(path, "http"), body, {"Content-Type": kind})
    with urlopen(request, timeout=LIMIT_S) as response:
        return response.read()


class Client:
    """A WebSocket whose messages are JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, **message: Any) -> None:
        """Send a message."""
        self.connection.send(json.dumps(message))

    def receive(self) -> Any:
        """Give the next message."""
        return json.loads(self.connection.recv(LIMIT_S))

    def expect(self, **message: Any) -> None:
        """Assert what the next message is."""
        assert self.receive() == message

    def wait_closed(self) -> tuple[int | None, str | None]:
        """Give the code and the reason of the server's close."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.connection.recv(LIMIT_S)
        return self.connection.close_code, self.connection.close_reason


@contextlib.contextmanager
def connected(server: Server, path: str, **options: Any) -> Iterator[Client]:
    """Connect as a page of the site does."""
    origin = server.url("", "http")
    with websocket(server, path, origin=origin, **options) as connection:
        yield Client(connection)


@contextlib.contextmanager
def on_all_workers(server: Server, path: str, **options: Any) -> Iterator[list[Client]]:
    """Connect two at least, and until each worker has a WebSocket."""
    with contextlib.ExitStack() as stack:
        clients: list[Client] = []

        def are_there() -> bool:
            clients.append(stack.enter_context(connected(server, path, **options)))
            return len(clients) > 1 and all(
                thread_names(pid).count(ENGINE) == 1 for pid in server.workers()
            )

        eventually(are_there)
        yield clients


@contextlib.contextmanager
def graphql(server: Server, protocol: str) -> Iterator[Client]:
    """Connect, and agree on the protocol."""
    with connected(server, "/ws/graphql/", subprotocols=[protocol]) as client:
        assert client.connection.subprotocol == protocol
        client.send(type="connection_init", payload={})
        client.expect(type="connection_ack")
        yield client


def ask(client: Client, protocol: str, key: str, query: str, **variables: Any) -> None:
    """Begin a query, a mutation or a subscription."""
    kind = "subscribe" if protocol == NEW else "start"
    client.send(type=kind, id=key, payload={"query": query, "variables": variables})


def expect_data(client: Client, protocol: str, key: str, **data: Any) -> None:
    """Assert what the next message of a subscription holds."""
    kind = "next" if protocol == NEW else "data"
    client.expect(type=kind, id=key, payload={"data": data})


BOTH = pytest.mark.parametrize("protocol", [NEW, OLD])
COUNT = "subscription ($target: Int!) { count(target: $target) }"
MESSAGES = "subscription ($room: String!) { messages(room: $room) { text } }"
SAY = "mutation ($room: String!, $text: String!) { say(room: $room, text: $text) { text } }"


class TestGraphql:
    """Subscriptions by both of its protocols."""

    @BOTH
    def test_subscription_to_its_end(self, server: Server, protocol: str) -> None:
        """Several at the same time: each value, and then the end."""
        with server.quiet(), graphql(server, protocol) as client:
            ask(client, protocol, "a", COUNT, target=3)
            ask(client, protocol, "b", COUNT, target=2)
            got: dict[str, list[Any]] = {"a": [], "b": []}
            ended = 0
            while ended < 2:
                message = client.receive()
                if message["type"] == "complete":
                    ended += 1
                else:
                    got[message["id"]].append(message["payload"]["data"]["count"])
            assert got == {"a": [0, 1, 2], "b": [0, 1]}

    @BOTH
    def test_client_that_has_heard_enough(self, server: Server, protocol: str) -> None:
        """It ends one subscription; the connection and its name are free for others."""
        with server.quiet(), graphql(server, protocol) as client:
            ask(client, protocol, "room", MESSAGES, room="quiet")
            expect_data(client, protocol, "room", messages={"text": "you are here"})
            client.send(type="complete" if protocol == NEW else "stop", id="room")
            if protocol == OLD:
                client.expect(type="complete", id="room")
            ask(client, protocol, "count", COUNT, target=1)
            expect_data(client, protocol, "count", count=0)
            client.expect(type="complete", id="count")

    @BOTH
    def test_errors(self, server: Server, protocol: str) -> None:
        """Of a query, which never begins, and of a subscription under way; the connection stays."""
        with graphql(server, protocol) as client:
            ask(client, protocol, "wrong", "subscription { nothing }")
            message = client.receive()
            assert (message["type"], message["id"]) == ("error", "wrong")
            assert "Cannot query field 'nothing'" in json.dumps(message["payload"])
            ask(client, protocol, "broken", "subscription { broken }")
            expect_data(client, protocol, "broken", broken=1)
            assert "no more numbers" in json.dumps(client.receive()["payload"])
            client.expect(type="complete", id="broken")
            ask(client, protocol, "count", COUNT, target=1)
            expect_data(client, protocol, "count", count=0)
            client.expect(type="complete", id="count")

    @BOTH
    @pytest.mark.parametrize("by", ["a page", "a WebSocket"])
    def test_messages_of_others(self, server: Server, protocol: str, by: str) -> None:
        """What is said in a room reaches its subscribers in all processes, and no others."""
        room = f"{by.rpartition(' ')[2]}-{protocol}"

        def say(text: str) -> None:
            if by == "a WebSocket":
                with graphql(server, NEW) as client:
                    ask(client, NEW, "say", SAY, room=room, text=text)
                    expect_data(client, NEW, "say", say={"text": text})
                    client.expect(type="complete", id="say")
            else:
                body = {"query": SAY, "variables": {"room": room, "text": text}}
                found = post(server, "/graphql/", json.dumps(body).encode(), "application/json")
                assert json.loads(found)["data"] == {"say": {"text": text}}

        with on_all_workers(server, "/ws/graphql/", subprotocols=[protocol]) as clients:
            for client in clients:
                client.send(type="connection_init")
                client.expect(type="connection_ack")
                other = client is clients[0]
                ask(client, protocol, "1", MESSAGES, room="other" if other else room)
                expect_data(client, protocol, "1", messages={"text": "you are here"})
            for text in ("hello", "grüße"):
                say(text)
                for client in clients[1:]:
                    expect_data(client, protocol, "1", messages={"text": text})
            ask(clients[0], protocol, "2", COUNT, target=0)
            clients[0].expect(type="complete", id="2")

    def test_queries(self, server: Server) -> None:
        """They may use the ORM, and find the user in the scope."""
        with server.quiet(), graphql(server, NEW) as client:
            ask(client, NEW, "1", "{ users me }")
            expect_data(client, NEW, "1", users=0, me="AnonymousUser")
            client.expect(type="complete", id="1")

    def test_pings(self, server: Server) -> None:
        """Those of the protocol, which are messages."""
        with server.quiet(), graphql(server, NEW) as client:
            client.send(type="ping")
            client.expect(type="pong")

    @pytest.mark.parametrize(
        ("messages", "code", "reason"),
        [
            (
                [{"type": "subscribe", "id": "1", "payload": {"query": "{ users }"}}],
                4401,
                "Unauthorized",
            ),
            ([{"type": "connection_init"}] * 2, 4429, "Too many initialisation requests"),
            ([{"type": "unheard of"}], 4400, "Unknown message type: unheard of"),
        ],
        ids=["not initialised", "initialised twice", "unknown type"],
    )
    def test_close_codes(self, server: Server, messages: list[Any], code: int, reason: str) -> None:
        """The protocol's own reach the client with their reasons."""
        with connected(server, "/ws/graphql/", subprotocols=[NEW]) as client:
            for message in messages:
                client.send(**message)
            assert client.wait_closed() == (code, reason)

    def test_name_in_use(self, server: Server) -> None:
        """Two subscriptions of one name: the protocol's own code, too."""
        with graphql(server, NEW) as client:
            ask(client, NEW, "1", MESSAGES, room="lobby")
            expect_data(client, NEW, "1", messages={"text": "you are here"})
            ask(client, NEW, "1", MESSAGES, room="lobby")
            assert client.wait_closed() == (4409, "Subscriber for 1 already exists")

    def test_subprotocol_that_it_does_not_know(self, server: Server) -> None:
        """Accepted without one, and then closed by the library."""
        with connected(server, "/ws/graphql/", subprotocols=["mqtt"]) as client:
            assert client.connection.subprotocol is None
            assert client.wait_closed() == (4406, "Subprotocol not acceptable")


class Notes(Client):
    """A WebSocket of the notes: each request has an answer."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__(connection)
        self._numbers = itertools.count(1)

    def call(self, action: str, **more: Any) -> tuple[int, Any]:
        """Request something; give the answer's status, and its data or errors."""
        number = next(self._numbers)
        self.send(action=action, request_id=number, **more)
        answer = self.receive()
        assert (answer["action"], answer["request_id"]) == (action, number)
        return answer["response_status"], answer["data"] or answer["errors"]

    def change(self) -> tuple[str, Any]:
        """Give what was pushed: which change, and the data."""
        message = self.receive()
        assert message["errors"] == []
        return message["action"], message["data"]


@contextlib.contextmanager
def notes(server: Server) -> Iterator[Notes]:
    """Connect to the notes."""
    with connected(server, "/ws/notes/") as client:
        yield Notes(client.connection)


@contextlib.contextmanager
def observers(server: Server) -> Iterator[tuple[int, list[Notes]]]:
    """Give a note, and WebSockets of all workers that observe it."""
    with notes(server) as first, on_all_workers(server, "/ws/notes/") as others:
        key = first.call("create", data={"text": "old"})[1]["id"]
        clients = [first, *(Notes(each.connection) for each in others)]
        for client in clients:
            assert client.call("subscribe_instance", pk=key)[0] == 201
        yield key, clients


class TestObservedModels:
    """A consumer with the actions of an API, and observers of a model."""

    def test_actions(self, server: Server) -> None:
        """Create, retrieve, list and change, as by an API of pages."""
        with server.quiet(), notes(server) as client:
            status, note = client.call("create", data={"text": "grüße"})
            assert (status, note["text"]) == (201, "grüße")
            key = note["id"]
            assert client.call("retrieve", pk=key) == (200, note)
            assert client.call("patch", pk=key, data={"text": "new"}) == (
                200,
                {"id": key, "text": "new"},
            )
            status, found = client.call("list")
            assert status == 200
            assert {"id": key, "text": "new"} in found
            assert server.get(f"/notes/{key}/").body == b"new"

    @pytest.mark.parametrize(
        ("action", "more", "status", "text"),
        [
            ("retrieve", {"pk": 0}, 404, "Not found"),
            ("create", {"data": {}}, 400, "This field is required."),
            ("delete", {"pk": 0}, 403, "You do not have permission"),
            ("explode", {}, 405, "not allowed."),
        ],
    )
    def test_refused_actions(
        self, server: Server, action: str, more: dict[str, Any], status: int, text: str
    ) -> None:
        """The answer has the status of an API, and the connection stays."""
        with server.quiet(), notes(server) as client:
            found, errors = client.call(action, **more)
            assert found == status
            assert text in json.dumps(errors)
            assert client.call("list")[0] == 200

    @pytest.mark.parametrize("by", ["a WebSocket", "a page"])
    def test_observed_instance(self, server: Server, by: str) -> None:
        """Each save reaches the subscribers in all processes, and no save of another instance."""

        def save(key: int, text: str) -> None:
            if by == "a page":
                post(server, f"/notes/{key}/", text.encode(), "text/plain")
            else:
                assert other.call("patch", pk=key, data={"text": text})[0] == 200

        with server.quiet(), notes(server) as other, observers(server) as (key, clients):
            another = other.call("create", data={"text": "old"})[1]["id"]
            for text in ("hello", "grüße"):
                save(another, "of no interest")
                save(key, text)
                for client in clients:
                    assert client.change() == ("update", {"id": key, "text": text})

    @pytest.mark.parametrize("server", [GUNICORN_GTHREAD], indirect=True, ids=str)
    def test_saved_by_a_command(self, server: Server) -> None:
        """A process that serves nothing reaches the subscribers, too."""
        with server.quiet(), observers(server) as (key, clients):
            # Its checks import the URL conf, and with it the consumer, which observes the model.
            places = {name: server.env[name] for name in ("PROJECT_DB", "WEBSOCKET_RUNTIME_DIR")}
            manage("rename_note", str(key), "by a command", **places)
            for client in clients:
                assert client.change() == ("update", {"id": key, "text": "by a command"})

    def test_every_note(self, server: Server) -> None:
        """One that observes the model is told of all changes, and of none once it is not."""
        with server.quiet(), notes(server) as observer, notes(server) as other:
            assert observer.call("subscribe_to_notes")[0] == 201
            key = other.call("create", data={"text": "one"})[1]["id"]
            other.call("patch", pk=key, data={"text": "two"})
            server.get(f"/notes/{key}/", method="DELETE")
            assert observer.change() == ("create", {"id": key, "text": "one"})
            assert observer.change() == ("update", {"id": key, "text": "two"})
            assert observer.change() == ("delete", {"id": key, "text": "two"})

    def test_unsubscribed_instance(self, server: Server) -> None:
        """Nothing is pushed any more."""
        with server.quiet(), notes(server) as observer, notes(server) as other:
            key = other.call("create", data={"text": "one"})[1]["id"]
            assert observer.call("subscribe_instance", pk=key)[0] == 201
            other.call("patch", pk=key, data={"text": "two"})
            assert observer.change() == ("update", {"id": key, "text": "two"})
            assert observer.call("unsubscribe_instance", pk=key)[0] == 204
            assert observer.call("subscribe_to_notes")[0] == 201
            other.call("patch", pk=key, data={"text": "three"})
            assert observer.change() == ("update", {"id": key, "text": "three"})
            assert observer.call("list")[0] == 200
