"""`WEBSOCKET_CONTEXT` and `WEBSOCKET_REALM`: around all code of a connection, and for its user."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

import django
import pytest
import worldly
from accounts import BACKEND, MIDDLEWARE
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model, login, logout
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import RequestFactory, override_settings
from worldly import SEEN

import dwebsocket
from dwebsocket import UsageError, WebSocket, conf, signals
from dwebsocket.asgi import get_asgi_application
from dwebsocket.groups import backends, names
from dwebsocket.handshake import fallback
from dwebsocket.handshake.fallback import posting
from dwebsocket.operations import listing
from dwebsocket.request import worlds
from dwebsocket.servers.asgi import no_body
from dwebsocket.testing import AsyncWebSocketClient, WebSocketClient
from dwebsocket.users import authentication, registry
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User

    Override = Callable[..., None]

ACME = {"x-tenant": "acme"}
GLOBEX = {"x-tenant": "globex"}


@pytest.fixture(autouse=True)
def _site() -> Iterator[None]:
    """The site of `worldly`, in groups of this process."""
    SEEN.clear()
    worldly.ENTRIES.clear()
    with override_settings(
        ROOT_URLCONF="worldly",
        MIDDLEWARE=["worldly.Middleware", *MIDDLEWARE],
        SESSION_ENGINE="django.contrib.sessions.backends.db",
        WEBSOCKET_CONTEXT="worldly.context",
        WEBSOCKET_REALM="worldly.realm",
        WEBSOCKET_GROUPS={"default": {"BACKEND": "dwebsocket.groups.process"}},
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    ):
        yield
    assert worldly.tenant() == "nobody"


pytestmark = pytest.mark.usefixtures("tables", "nobody_left")


# -- what is entered -------------------------------------------------------------------------------

ASYNC = {"start", "every", "async on_close"}
PLACES = {
    "sync": {"view", "message", "start", "every", "on_close", "async on_close"},
    "async": {"view", "view goes on", "message", "thread", "on_close", *ASYNC},
    "handler": {"connect", "receive", "tick", "disconnect"},
    "async-handler": {"connect", "receive", "tick", "disconnect"},
    "mixed": {"connect", "receive", "tick", "disconnect"},
    "consumer": {"connect", "receive", "disconnect"},
    "async-consumer": {"connect", "receive", "disconnect"},
    "own-consumer": {"connect", "receive", "disconnect"},
}
THREADS = {
    "async": ASYNC,
    "sync": {"async on_close"},
    "async-handler": PLACES["async-handler"],
    "mixed": {"receive"},
    "async-consumer": PLACES["async-consumer"],
    "own-consumer": PLACES["own-consumer"],
}


@pytest.fixture
def received() -> Iterator[None]:
    """Receivers of all signals of a connection note where they run."""
    connected = []
    for name in ("websocket_opened", "websocket_message", "websocket_closed"):

        def receive(name: str = name, **_: Any) -> None:
            worldly.see(f"receiver of {name}")

        getattr(signals, name).connect(receive, weak=False)
        connected.append((name, receive))
        if django.VERSION >= (5, 0):

            async def areceive(name: str = name, **_: Any) -> None:
                # Django makes a task of its own for each, perhaps on a thread of its own.
                await sync_to_async(worldly.see)(f"async receiver of {name}")

            getattr(signals, name).connect(areceive, weak=False)
            connected.append((name, areceive))
    yield
    for name, receive in connected:
        getattr(signals, name).disconnect(receive)


@pytest.mark.parametrize("kind", ["context", "context_of_lease"])
@pytest.mark.parametrize("view", PLACES)
def test_all_code_of_a_connection_runs_within_its_context(
    view: str, kind: str, received: object, override: Override
) -> None:
    """In each place where code of the project runs, on threads and in event loops."""
    override(WEBSOCKET_CONTEXT=f"worldly.{kind}", MIDDLEWARE=MIDDLEWARE)
    places = {*PLACES[view], *(f"thread of {each}" for each in THREADS.get(view, ()))}
    kinds = ["receiver", "async receiver"] if django.VERSION >= (5, 0) else ["receiver"]
    ends = ("opened", "message", "closed")
    places |= {f"{kind} of websocket_{end}" for kind in kinds for end in ends}
    with WebSocketClient().websocket(f"/{view}/", headers=ACME) as websocket:
        websocket.send("hello")
        assert websocket.receive() in ("hello", b"hello")
        if "tick" in places:
            eventually(lambda: ("tick", "acme") in SEEN)
    eventually(lambda: places <= {place for place, _ in SEEN}, what=str(places))
    assert [each for each in SEEN if each[1] != "acme"] == []


def test_tasks_of_one_loop_do_not_see_each_others_tenant() -> None:
    """The context belongs to the thread, and the tasks take turns on it."""

    async def talk() -> None:
        client = AsyncWebSocketClient()
        async with (
            client.websocket("/between/", headers=ACME) as acme,
            client.websocket("/between/", headers=GLOBEX) as globex,
        ):
            for _ in range(3):
                await acme.send("")
                await globex.send("")
                assert await acme.receive() == "acme"
                assert await globex.receive() == "globex"
                assert worldly.tenant() == "nobody"

    asyncio.run(talk())


@pytest.mark.parametrize("path", ["/raises/", "/araises/"])
def test_the_error_of_a_view_is_reported_within_its_context(path: str) -> None:
    """As to receivers of `got_request_exception`, and to handlers of the log."""
    from django.core.signals import got_request_exception

    def receive(**_: Any) -> None:
        worldly.see("report")

    got_request_exception.connect(receive)
    try:
        client = WebSocketClient(raise_request_exception=False)
        with client.websocket(path, headers=ACME) as websocket:
            assert websocket.wait_closed() == 1011
    finally:
        got_request_exception.disconnect(receive)
    assert ("report", "acme") in SEEN
    assert [each for each in SEEN if each[1] != "acme"] == []


@pytest.mark.parametrize("path", ["/raises/", "/araises/"])
def test_a_context_may_take_the_exception_of_its_view(path: str, override: Override) -> None:
    """As any `with` statement: the view has ended then."""
    override(WEBSOCKET_CONTEXT="worldly.swallowing")
    with WebSocketClient().websocket(path, headers=ACME) as websocket:
        assert websocket.wait_closed() == 1000
    assert ("swallowed", "ValueError") in SEEN


def test_an_async_context_is_entered_once_around_a_coroutine(override: Override) -> None:
    """So code within may work for another tenant over a pause, and on the thread of its ORM."""
    override(WEBSOCKET_CONTEXT="worldly.context_of_variable")
    with WebSocketClient().websocket("/switches/", headers=ACME) as websocket:
        for _ in range(2):
            websocket.send("")
            assert websocket.receive() == "other"
            assert websocket.receive() == "acme"


def test_an_async_context_is_entered_on_the_threads_of_a_coroutine_too(override: Override) -> None:
    """For what a query sets there, where `__aenter__` does nothing."""
    override(WEBSOCKET_CONTEXT="worldly.context_of_database")
    with WebSocketClient().websocket("/queries/", headers=ACME) as websocket:
        assert websocket.receive() == "nobody, acme"


def test_a_thread_of_a_view_has_a_context_of_its_own_and_the_variables_of_the_view(
    override: Override,
) -> None:
    """The step of the coroutine has been left by then, and what its context has made has ended."""
    override(WEBSOCKET_CONTEXT="worldly.context_of_lease")
    with WebSocketClient().websocket("/notes/", headers=ACME) as websocket:
        assert websocket.receive() == "acme: there and back"


@pytest.mark.parametrize("path", ["/sync/", "/async/", "/handler/", "/async-handler/"])
def test_code_that_is_not_entered_does_not_run(path: str, override: Override) -> None:
    """A context that cannot be entered is an error of the view, and none of its code runs."""
    override(WEBSOCKET_CONTEXT="worldly.unable")
    client = WebSocketClient(raise_request_exception=False)
    with client.websocket(path, headers=ACME) as websocket:
        if websocket.response.status_code == 101:
            assert websocket.wait_closed() == 1011
        else:
            assert websocket.response.status_code == 500
    assert {place for place, _ in SEEN if "on_close" not in place} == set()


@pytest.mark.parametrize(("path", "end"), [("/sync/", 1013), ("/async/", 1013), ("/handler/", 500)])
def test_a_signed_in_client_of_what_is_not_entered_comes_back(
    path: str, end: int, anna: User, override: Override
) -> None:
    """Whether its user is signed in cannot be asked either, as when the database is away."""
    override(WEBSOCKET_CONTEXT="worldly.unable")
    client = WebSocketClient(raise_request_exception=False)
    with client.websocket(path, headers=ACME | sign_in(anna)) as websocket:
        status = websocket.response.status_code
        assert (websocket.wait_closed() if status == 101 else status) == end


@pytest.mark.parametrize("path", ["/sync/", "/async/", "/handler/", "/async-handler/"])
def test_a_connection_that_has_ended_refers_to_no_request(path: str) -> None:
    """The context knows the request, which knows its WebSocket: that would be a cycle."""
    found: list[WebSocket] = []

    def note(websocket: Any, **_: Any) -> None:
        found.append(websocket)

    signals.websocket_opened.connect(note)
    try:
        with WebSocketClient().websocket(path, headers=ACME) as websocket:
            websocket.send("hello")
            websocket.receive()
            assert found[0]._world is not None
    finally:
        signals.websocket_opened.disconnect(note)
    eventually(lambda: found[0]._world is None)


def test_a_realm_that_is_looked_up_opens_the_fallback_in_an_event_loop(
    override: Override, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function is called on the request's thread alone: it may query the database."""

    def look_up(request: Any) -> str:
        assert not get_user_model().objects.filter(username="nobody").exists()
        return worldly.tenant_of(request)

    monkeypatch.setattr(worldly, "realm", look_up)
    override(WEBSOCKET_FALLBACK=True)
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def ask() -> None:
        given = {b"host": b"testserver", b"x-tenant": b"acme"}
        scope = {"type": "http", "method": "GET", "path": "/sync/", "headers": [*given.items()]}
        query = {"query_string": b"transport=polling", "http_version": "1.1"}
        await get_asgi_application()({**scope, **query}, no_body(), send)

    asyncio.run(ask())
    assert sent[0]["status"] == 200
    assert b'"id"' in sent[1]["body"]


def test_requests_of_the_fallback_are_answered_within_the_context(override: Override) -> None:
    """Where no middleware has entered it."""
    override(MIDDLEWARE=[])
    request = RequestFactory().post("/?transport=sse&id=x", headers=ACME)
    asked = posting.key_of

    def note(request: Any) -> Any:
        worldly.see("post")
        return asked(request)

    posting.key_of = note
    try:
        answer = fallback.answer(request, conf.Options.current({"fallback": True}))
    finally:
        posting.key_of = asked
    assert answer is not None
    assert answer.status_code == 410
    assert SEEN == [("post", "acme")]


# -- wrong values ----------------------------------------------------------------------------------

WRONG = [
    (7, "must be the dotted path of a function, not 7"),
    ("worldly", "must be the dotted path of a function, not 'worldly'"),
    ("worldly.missing", "is 'worldly.missing', which cannot be imported"),
    ("missing.context", "is 'missing.context', which cannot be imported"),
    ("worldly.NO_FUNCTION", "is 'worldly.NO_FUNCTION', which cannot be called"),
]


@pytest.mark.parametrize("name", ["WEBSOCKET_CONTEXT", "WEBSOCKET_REALM"])
@pytest.mark.parametrize(("value", "message"), WRONG)
def test_a_value_that_is_no_function_is_an_error_of_the_check_and_at_use(
    override: Override, name: str, value: object, message: str
) -> None:
    """The same sentence."""
    override(**{name: value})
    with pytest.raises(SystemCheckError, match=f"{name} {message}"):
        call_command("check")
    with (
        pytest.raises(ImproperlyConfigured, match=f"{name} {message}"),
        WebSocketClient().websocket("/sync/", headers=ACME),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WEBSOCKET_CONTEXT", "no_manager", "no_manager must give a context manager, not str"),
        ("WEBSOCKET_CONTEXT", "coroutine", "coroutine must give a context manager, not coroutine"),
        ("WEBSOCKET_REALM", "nameless", "nameless names no realm for a request: it gives None"),
        ("WEBSOCKET_REALM", "numbered", "numbered must be a str, not int"),
        ("WEBSOCKET_REALM", "long_named", "must have 1 to 100 characters, not 101"),
    ],
)
def test_a_function_that_gives_something_else_refuses_the_handshake(
    override: Override, name: str, value: str, message: str
) -> None:
    """No view begins without its context, and no user without its realm."""
    override(**{name: f"worldly.{value}"})
    with (
        pytest.raises(ImproperlyConfigured, match=f"{name}: worldly.*{message}"),
        WebSocketClient().websocket("/sync/", headers=ACME),
    ):
        pass
    assert SEEN == []


# -- realms ----------------------------------------------------------------------------------------


def sign_in(user: User) -> dict[str, str]:
    """Log in as by a form; give the header."""
    request: Any = RequestFactory().get("/")
    request.session = import_module("django.contrib.sessions.backends.db").SessionStore()
    login(request, user, backend=BACKEND)
    request.session.save()
    return {"cookie": f"sessionid={request.session.session_key}"}


@pytest.fixture
def in_both(anna: User) -> Iterator[tuple[Any, Any]]:
    """The same primary key in two realms, each with a WebSocket."""
    cookie = sign_in(anna)
    client = WebSocketClient()
    with (
        client.websocket("/waits/", headers=ACME | cookie) as acme,
        client.websocket("/waits/", headers=GLOBEX | cookie) as globex,
    ):
        yield acme, globex


def _evict(user: Any, **realm: Any) -> None:
    dwebsocket.group("room").evict(user, **realm)


def _aevict(user: Any, **realm: Any) -> None:
    asyncio.run(dwebsocket.group("room").aevict(user, **realm))


NAMERS = [dwebsocket.user, dwebsocket.close_user, _evict, _aevict]


class TestRealm:
    """Users with the same primary key, in two realms."""

    def test_a_message_for_a_user_stays_in_the_realm(
        self, anna: User, in_both: tuple[Any, Any]
    ) -> None:
        """That is named, or in which the code runs."""
        acme, globex = in_both
        dwebsocket.user(anna, realm="acme").send("for acme")
        with worldly.entered("globex"):
            dwebsocket.user(anna).send("for globex")
            dwebsocket.user(anna.pk, realm="acme").send("more for acme")
        assert acme.receive() == "for acme"
        assert acme.receive() == "more for acme"
        assert globex.receive() == "for globex"
        # Nothing else has come.
        for realm, websocket in (("acme", acme), ("globex", globex)):
            dwebsocket.user(anna, realm=realm).send("last")
            assert websocket.receive() == "last"

    def test_a_user_is_closed_in_the_realm(self, anna: User, in_both: tuple[Any, Any]) -> None:
        """By `close_user`."""
        acme, globex = in_both
        assert dwebsocket.close_user(anna, realm="acme") == 1
        assert acme.wait_closed() == 4401
        dwebsocket.user(anna, realm="globex").send("still here")
        assert globex.receive() == "still here"

    @pytest.mark.parametrize("evict", [_evict, _aevict])
    def test_a_user_is_evicted_in_the_realm(self, anna: User, evict: Any) -> None:
        """Which a command has to name."""
        cookie = sign_in(anna)
        client = WebSocketClient()
        with (
            client.websocket("/joins/", headers=ACME | cookie) as acme,
            client.websocket("/joins/", headers=GLOBEX | cookie) as globex,
        ):
            assert acme.receive() == globex.receive() == "joined"
            evict(anna, realm="acme")
            dwebsocket.group("room").send("for those who stay")
            dwebsocket.user(anna, realm="acme").send("still here")
            assert globex.receive() == "for those who stay"
            assert acme.receive() == "still here"

    @pytest.mark.parametrize("evict", [_evict, _aevict])
    def test_a_connection_has_no_realm_to_be_named(self, evict: Any) -> None:
        """Its id is of one only."""
        with pytest.raises(ValueError, match="a realm is that of a user, and evict"):
            evict("x" * 16, realm="acme")

    @pytest.mark.parametrize("call", NAMERS)
    def test_a_realm_that_is_not_known_has_to_be_named(self, call: Any) -> None:
        """As in a command: nothing is sent to another one by mistake."""
        with pytest.raises(UsageError, match="name it, as realm="):
            call(7)
        with pytest.raises(ValueError, match="realm must have 1 to 100 characters, not 0"):
            call(7, realm="")
        with pytest.raises(TypeError, match="realm must be a str, not int"):
            call(7, realm=3)

    @pytest.mark.parametrize("call", NAMERS)
    def test_a_realm_needs_the_setting(self, call: Any, override: Override) -> None:
        """Without it nobody has one."""
        override(WEBSOCKET_REALM=None)
        with pytest.raises(UsageError, match="WEBSOCKET_REALM is not set"):
            call(7, realm="acme")

    def test_each_realm_has_its_own_limit_for_a_user(self, anna: User, override: Override) -> None:
        """`WEBSOCKET_MAX_CONNECTIONS_PER_USER`."""
        override(WEBSOCKET_MAX_CONNECTIONS_PER_USER=1)
        cookie = sign_in(anna)
        client = WebSocketClient()
        with (
            client.websocket("/waits/", headers=ACME | cookie) as first,
            client.websocket("/waits/", headers=ACME | cookie) as second,
            client.websocket("/waits/", headers=GLOBEX | cookie) as third,
        ):
            codes = [each.response.status_code for each in (first, second, third)]
        assert codes == [101, 429, 101]

    def test_no_two_users_share_a_name(self) -> None:
        """With any characters in realms and keys."""
        parts = ["a", "a:", ":a", "a:b", "b", "%3A", ":", "a/b", "ä", "a b"]
        named = {names.of_user(key, realm) for key in parts for realm in parts}
        assert len(named) == len(parts) ** 2

    def test_a_user_of_two_realms_is_two_members_of_a_group_with_presence(
        self, anna: User, override: Override
    ) -> None:
        """And each is shown with the key."""
        presence = {"BACKEND": "dwebsocket.groups.process", "PRESENCE": {"lobby": {}}}
        override(WEBSOCKET_GROUPS={"default": presence})
        cookie = sign_in(anna)
        client = WebSocketClient()

        def join(websocket: Any, **_: Any) -> None:
            websocket.join("lobby")

        signals.websocket_opened.connect(join)
        try:
            with (
                client.websocket("/waits/", headers=ACME | cookie) as acme,
                client.websocket("/waits/", headers=GLOBEX | cookie) as globex,
            ):
                lobby = dwebsocket.group("lobby")
                eventually(lambda: [each.user for each in lobby.members()] == [str(anna.pk)] * 2)
                acme.close()
                globex.close()
        finally:
            signals.websocket_opened.disconnect(join)


# -- signing out -----------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The questions whether users are signed in: the tenant there, and the realms of the users."""
    found: list[tuple[str, list[str]]] = []
    ask = authentication.signed_out

    def noted(visitors: Any) -> Any:
        found.append((worldly.tenant(), [each.realm for each in visitors]))
        return ask(visitors)

    monkeypatch.setattr(authentication, "signed_out", noted)
    return found


class TestSignOut:
    """Who is asked about, and where."""

    def test_a_user_is_looked_up_in_the_own_world(
        self, asked: list[Any], in_both: tuple[Any, Any]
    ) -> None:
        """When it opens, and by the recheck: one question for each realm."""
        assert asked == [("acme", ["acme"]), ("globex", ["globex"])]
        del asked[:]
        from dwebsocket.users import recheck

        visitors = [
            visitor
            for bucket in range(registry.BUCKETS)
            for visitor in registry.present("bucket", bucket)
        ]
        assert recheck._check(visitors, {})
        assert sorted(asked) == [("acme", ["acme"]), ("globex", ["globex"])]

    def test_one_question_for_all_users_of_a_realm(self, anna: User, asked: list[Any]) -> None:
        """However many there are."""
        from dwebsocket.users import recheck

        cookie = sign_in(anna)
        client = WebSocketClient()
        with (
            client.websocket("/waits/", headers=ACME | cookie),
            client.websocket("/waits/", headers=ACME | cookie),
        ):
            del asked[:]
            visitors = registry.present("user of any realm", anna.pk)
            assert recheck._check(visitors, {})
            assert asked == [("acme", ["acme", "acme"])]

    def test_a_change_of_a_user_is_asked_about_in_its_realm(
        self, anna: User, asked: list[Any], in_both: tuple[Any, Any]
    ) -> None:
        """The one in which the user was saved; in each, where that is not known."""
        del asked[:]
        with worldly.entered("acme"):
            anna.set_password("another")
            anna.save()
        assert asked == [("acme", ["acme"])]
        acme, globex = in_both
        assert acme.wait_closed() == 4401
        # Its client knows that before it has left the register.
        eventually(lambda: len(registry.present("user of any realm", anna.pk)) == 1)
        del asked[:]
        anna.set_password("a third")
        anna.save()
        assert asked == [("globex", ["globex"])]
        assert globex.wait_closed() == 4401

    def test_a_log_out_is_asked_about_in_each_realm_of_its_session(
        self, anna: User, asked: list[Any], in_both: tuple[Any, Any]
    ) -> None:
        """Also where the thread has none, as that of an event loop."""
        visitor = registry.present("user of any realm", anna.pk)[0]
        del asked[:]
        request: Any = RequestFactory().get("/", headers=ACME)
        request.session, request.user = visitor.who.store(visitor.who.session), anna
        logout(request)
        assert sorted(asked) == [("acme", ["acme"]), ("globex", ["globex"])]
        assert [each.wait_closed() for each in in_both] == [4401, 4401]

    @pytest.mark.parametrize("kind", ["users", "anywhere"])
    def test_what_another_process_announces_is_asked_about_in_its_realm(
        self, anna: User, asked: list[Any], in_both: tuple[Any, Any], kind: str
    ) -> None:
        """Or in each, where that process did not know it."""
        import json

        del asked[:]
        named = worlds.user_key(anna.pk, "globex") if kind == "users" else str(anna.pk)
        backends.backend("default").send("dwebsocket.sign-outs", json.dumps({kind: [named]}), [])
        wanted = [("globex", ["globex"])]
        if kind == "anywhere":
            wanted.insert(0, ("acme", ["acme"]))
        eventually(lambda: asked == wanted, what=str(wanted))

    def test_a_realm_that_cannot_be_asked_leaves_the_others_alone(
        self, anna: User, in_both: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its users are sent away to come back, as where a database is away."""
        acme, globex = in_both
        ask = authentication.signed_out

        def fail(visitors: Any) -> Any:
            if worldly.tenant() == "acme":
                raise LookupError("the schema is away")
            return ask(visitors)

        monkeypatch.setattr(authentication, "signed_out", fail)
        anna.set_password("another")
        anna.save()
        assert acme.wait_closed() == 1013
        assert globex.wait_closed() == 4401


# -- the page in the admin -------------------------------------------------------------------------


class TestPage:
    """What the page of one realm shows and closes."""

    def test_shows_and_closes_the_websockets_of_its_realm(
        self, anna: User, in_both: tuple[Any, Any]
    ) -> None:
        """And no others."""
        anna.is_staff = anna.is_superuser = True
        anna.save()
        assert listing.rows(listing.Query())["count"] == 2
        own = listing.rows(listing.Query(realm="acme"))
        assert own["count"] == 1
        assert listing.leaders("acme")["users"] == {str(anna.pk): 1}
        key = own["rows"][0]["id"]
        assert listing.close(key, 1008, "", "globex") == 0
        assert listing.close(key, 1008, "", "acme") == 1
        acme, globex = in_both
        assert acme.wait_closed() == 1008
        assert registry.close_here(worlds.user_key(anna.pk, "globex"), 1008, "") == 1
        assert globex.wait_closed() == 1008


def test_a_process_without_the_settings_asks_nobody(override: Override) -> None:
    """The names of users are their keys, and no connection has a world."""
    override(WEBSOCKET_CONTEXT=None, WEBSOCKET_REALM=None, MIDDLEWARE=[])
    assert names.of_user(7) == "dwebsocket.user:7"
    found: list[WebSocket] = []

    def note(websocket: Any, **_: Any) -> None:
        found.append(websocket._world)

    signals.websocket_opened.connect(note)
    try:
        with WebSocketClient().websocket("/waits/", headers=ACME):
            pass
    finally:
        signals.websocket_opened.disconnect(note)
    assert found == [None]
