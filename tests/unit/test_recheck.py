"""Repeated looks at users: changes without a signal in this process are found in time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from accounts import BACKEND, MIDDLEWARE
from django.contrib.auth import login
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import connection, connections
from django.test import RequestFactory
from django.utils import timezone
from visit import Serve, handshake
from waiting_views import awaits, waits

from dwebsocket import WebSocket, conf
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.testing import Clock
from dwebsocket.users import authentication, recheck, registry
from dwebsocket.users.announcements import Announcement, Listener
from dwebsocket.users.registry import BUCKETS, Visitor, Who
from support.waiting import eventually

Override = Callable[..., None]

pytestmark = pytest.mark.usefixtures("tables", "nobody_left")
# So often that a test need not wait; each look is a whole one all the same.
OFTEN_S = 0.2


@pytest.fixture(autouse=True)
def _nothing_looks() -> Iterator[None]:
    """When all have left, nothing looks any more."""
    yield

    def is_idle() -> bool:
        # Does nothing while the thread that looks has the lock.
        recheck._schedule.stop_if_idle()
        return recheck._schedule._cancel is None

    eventually(is_idle, what="nothing looks")


@pytest.fixture(autouse=True)
def _sessions(override: Override) -> None:
    """Sessions are rows, unless a test says otherwise."""
    use(override, "db")


def use(override: Override, engine: str) -> None:
    """Keep sessions there."""
    override(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}")


class OwnBackend(ModelBackend):
    """Finds users in its own way."""

    hidden = False

    def get_user(self, user_id: Any) -> Any:
        """Give the user, unless all are hidden."""
        return None if self.hidden else super().get_user(user_id)


class AnybodyBackend(ModelBackend):
    """Lets users in that are not active."""

    def user_can_authenticate(self, user: Any) -> bool:
        """Let every user in."""
        return True


def store(key: str | None = None) -> Any:
    """Give a session."""
    from django.conf import settings

    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def sign_in(user: User, backend: str = BACKEND) -> str:
    """Log in as by a form; give the session's key."""
    request: Any = RequestFactory().get("/")
    request.session = store()
    login(request, user, backend=backend)
    request.session.save()
    return str(request.session.session_key)


def enter(visit: Serve, key: str, view: Any = waits) -> Any:
    """Open a WebSocket with a session."""
    environ = handshake(HTTP_COOKIE=f"sessionid={key}")
    return visit(view, middleware=MIDDLEWARE, environ=environ).serve()


def goes_on(made: Any) -> None:
    """See that a connection is open, and end it."""
    made.client.close(4000)
    assert made.client.closing()[0] == 4000


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many users each look was about."""
    looks: list[int] = []
    look = authentication.signed_out

    def noted(visitors: Any) -> Any:
        found = look(visitors)
        looks.append(len(visitors))
        return found

    monkeypatch.setattr(authentication, "signed_out", noted)
    return looks


SILENT: dict[str, tuple[Callable[[User, str], object], str]] = {
    "deactivated": (lambda user, _: _update(user, is_active=False), "deactivated"),
    "password": (lambda user, _: _update(user, password="better"), "password changed"),
    "deleted": (lambda user, _: _sql("DELETE FROM auth_user WHERE id = %s", user.pk), "deleted"),
    "session deleted": (lambda _, key: _sql(_DELETE_SESSION, key), "signed out"),
    "session over": (
        lambda _, key: Session.objects.filter(pk=key).update(
            expire_date=timezone.now() - timedelta(seconds=1)
        ),
        "signed out",
    ),
    "session of another": (lambda _, key: _take_over(key), "signed out"),
}
_DELETE_SESSION = "DELETE FROM django_session WHERE session_key = %s"


def _update(user: User, **values: Any) -> None:
    User.objects.filter(pk=user.pk).update(**values)


def _sql(statement: str, value: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [value])


def _take_over(key: str) -> None:
    session = store(key)
    session["_auth_user_id"] = "0"
    session.save()


class TestFinds:
    """Changes for which Django sends no signal, or sends it in another process."""

    @pytest.mark.parametrize("silent", SILENT)
    @pytest.mark.parametrize("view", [waits, awaits])
    def test_closes(
        self, visit: Serve, override: Override, anna: User, silent: str, view: Any
    ) -> None:
        """Within the time that the setting says; others stay."""
        act, reason = SILENT[silent]
        override(WEBSOCKET_AUTH_RECHECK=OFTEN_S)
        bert = User.objects.create_user("bert", password="secret")
        key = sign_in(anna)
        made, other = enter(visit, key, view), enter(visit, sign_in(bert), view)
        act(anna, key)
        assert made.client.closing() == (4401, reason)
        goes_on(other)
        bert.delete()

    @pytest.mark.parametrize("engine", ["cached_db", "cache", "file"])
    def test_other_stores(self, visit: Serve, override: Override, anna: User, engine: str) -> None:
        """Each session is asked for; a cache in front of rows is not believed."""
        use(override, engine)
        override(WEBSOCKET_AUTH_RECHECK=OFTEN_S)
        key = sign_in(anna)
        made = enter(visit, key)
        if engine == "cached_db":
            _sql(_DELETE_SESSION, key)
            assert cache.get(f"django.contrib.sessions.cached_db{key}")
        else:
            store(key).delete()
        assert made.client.closing() == (4401, "signed out")

    def test_cookie_that_is_over(
        self, visit: Serve, override: Override, anna: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A session in a signed cookie ends by its time."""
        use(override, "signed_cookies")
        override(WEBSOCKET_AUTH_RECHECK=OFTEN_S)
        made = enter(visit, sign_in(anna))
        override(SESSION_COOKIE_AGE=-1)
        assert made.client.closing() == (4401, "signed out")

    def test_own_backend(
        self, visit: Serve, override: Override, anna: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Is asked for the user as Django asks it."""
        path = "test_recheck.OwnBackend"
        override(AUTHENTICATION_BACKENDS=[path], WEBSOCKET_AUTH_RECHECK=OFTEN_S)
        made = enter(visit, sign_in(anna, path))
        monkeypatch.setattr(OwnBackend, "hidden", True)
        assert made.client.closing() == (4401, "deleted")


class TestStays:
    """Users that are still signed in stay connected."""

    @pytest.mark.parametrize("engine", ["db", "cached_db", "cache", "file", "signed_cookies"])
    @pytest.mark.parametrize("view", [waits, awaits])
    def test_signed_in(
        self,
        visit: Serve,
        override: Override,
        anna: User,
        looks: list[int],
        engine: str,
        view: Any,
    ) -> None:
        """However often it is looked up."""
        use(override, engine)
        override(WEBSOCKET_AUTH_RECHECK=OFTEN_S)
        made = enter(visit, sign_in(anna), view)
        eventually(lambda: len(looks) > 3, what="looks")
        goes_on(made)

    def test_inactive_user_of_a_backend_that_lets_him_in(
        self, visit: Serve, override: Override, anna: User, looks: list[int]
    ) -> None:
        """The backend's answer counts."""
        path = "test_recheck.AnybodyBackend"
        override(AUTHENTICATION_BACKENDS=[path], WEBSOCKET_AUTH_RECHECK=OFTEN_S)
        _update(anna, is_active=False)
        made = enter(visit, sign_in(anna, path))
        eventually(lambda: len(looks) > 3, what="looks")
        goes_on(made)

    def test_user_of_a_projects_own_kind(self) -> None:
        """The place where such a user is stored is unknown."""
        visitor = registry.enter(Who(user="7"), WebSocket(), conf.Admission.current())
        assert isinstance(visitor, Visitor)
        assert authentication.signed_out([visitor]) == {}
        visitor.leave()

    def test_signed_in_without_a_session(self, anna: User) -> None:
        """By a token, for instance: the user counts alone."""
        who = Who(user=str(anna.pk), auth_hash=anna.get_session_auth_hash(), is_stored=True)
        visitor = registry.enter(who, WebSocket(), conf.Admission.current())
        assert isinstance(visitor, Visitor)
        assert authentication.signed_out([visitor]) == {}
        _update(anna, is_active=False)
        assert authentication.signed_out([visitor]) == {visitor: "deactivated"}
        visitor.leave()

    def test_off(self, visit: Serve, override: Override, anna: User, looks: list[int]) -> None:
        """0 is never; the handshake's own look is made all the same."""
        override(WEBSOCKET_AUTH_RECHECK=0)
        made = enter(visit, sign_in(anna))
        assert looks == [1]
        assert recheck._schedule._cancel is None
        goes_on(made)


class OtherDatabase:
    """Has an opinion about no model."""


def put_another(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Middleware that keeps users, as some projects do."""

    def answer(request: Any) -> Any:
        request.user = User.objects.get(pk=request.user.pk)
        return get_response(request)

    return answer


def hear_of_others(visit: Serve, user: User) -> Any:
    """Open a WebSocket, with which a process hears of the sign-outs in others."""
    made = enter(visit, sign_in(user))
    eventually(recheck._schedule.latest, what="others are heard")
    return made


class TestOpening:
    """The check of a handshake, for whose user a process has looked already."""

    @pytest.mark.parametrize("view", [waits, awaits])
    def test_asks_no_second_time_for_what_the_request_has_read(
        self, visit: Serve, anna: User, looks: list[int], view: Any
    ) -> None:
        """The session and the user were looked up after the request began."""
        first = hear_of_others(visit, anna)
        made = enter(visit, sign_in(anna), view)
        assert looks == [1]
        goes_on(made)
        goes_on(first)

    @pytest.mark.parametrize("reads", ["a cache", "a replica", "in its own way", "what is kept"])
    def test_asks_where_the_request_may_have_read_something_older(
        self, visit: Serve, override: Override, anna: User, looks: list[int], reads: str
    ) -> None:
        """What is asked counts: the rows, where they are written."""
        first = hear_of_others(visit, anna)
        backend, middleware = BACKEND, MIDDLEWARE
        if reads == "a cache":
            use(override, "cached_db")
        elif reads == "a replica":
            override(DATABASE_ROUTERS=["test_recheck.OtherDatabase"])
        elif reads == "in its own way":
            backend = "test_recheck.OwnBackend"
            override(AUTHENTICATION_BACKENDS=[backend])
        else:
            middleware = [*MIDDLEWARE, "test_recheck.put_another"]
        environ = handshake(HTTP_COOKIE=f"sessionid={sign_in(anna, backend)}")
        made = visit(waits, middleware=middleware, environ=environ).serve()
        assert looks == [1, 1]
        goes_on(made)
        goes_on(first)

    @pytest.mark.parametrize("where", ["here", "in another process"])
    def test_sees_a_sign_out_since_the_request_began(
        self,
        visit: Serve,
        override: Override,
        anna: User,
        monkeypatch: pytest.MonkeyPatch,
        where: str,
    ) -> None:
        """It comes when the user is looked up, and the connection is not in the register yet."""
        override(WEBSOCKET_AUTH_RECHECK=0)
        first, key = hear_of_others(visit, anna), sign_in(anna)
        register = registry.enter

        def sign_out_first(*args: Any) -> Any:
            if where == "here":
                Session.objects.get(pk=key).delete()
            else:
                _sql(_DELETE_SESSION, key)
                said = Announcement([("sessions", registry.digest(key))], [], asks=False)
                recheck._schedule._on_announced(said)
            return register(*args)

        monkeypatch.setattr(registry, "enter", sign_out_first)
        assert enter(visit, key).client.closing() == (4401, "signed out")
        goes_on(first)

    def test_asks_as_long_as_others_are_not_heard(
        self, visit: Serve, anna: User, looks: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A sign-out in another process might have been announced to nobody."""

        def fail(*_: object) -> None:
            raise GroupUnavailable("The server is away.")

        monkeypatch.setattr(Listener, "_subscribe", fail)
        made = [enter(visit, sign_in(anna)) for _ in range(3)]
        assert looks == [1, 1, 1]
        for each in made:
            goes_on(each)

    def test_asks_anew_when_sign_outs_were_not_heard_for_a_while(
        self, visit: Serve, anna: User, looks: list[int]
    ) -> None:
        """Nobody was there, so nothing listened."""
        goes_on(enter(visit, sign_in(anna)))
        made = enter(visit, sign_in(anna))
        assert looks == [1, 1]
        goes_on(made)


class TestCost:
    """Many are looked up at once, spread over the time."""

    def test_one_query_for_many(self, anna: User) -> None:
        """One for all sessions, and one for all users."""
        users = [User.objects.create_user(f"u{number}", password="x") for number in range(20)]
        visitors = []
        for user in users:
            key = sign_in(user)
            who = Who(
                user=str(user.pk),
                session=key,
                auth_hash=user.get_session_auth_hash(),
                login=str(user.pk),
                store=type(store()),
                backend=BACKEND,
                is_stored=True,
            )
            visitor = registry.enter(who, WebSocket(), conf.Admission.current())
            assert isinstance(visitor, Visitor)
            visitors.append(visitor)
        _update(users[3], is_active=False)
        queries: list[str] = []

        def note(execute: Any, sql: str, *rest: Any) -> Any:
            queries.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(note):
            assert authentication.signed_out(visitors) == {visitors[3]: "deactivated"}
        assert len(queries) == 2
        for visitor in visitors:
            visitor.leave()
        User.objects.filter(username__startswith="u").delete()

    def test_buckets_are_equally_large(self) -> None:
        """Many that come at once are not looked up at once."""
        visitors = [
            registry.enter(Who(user=str(number)), WebSocket(), conf.Admission.current())
            for number in range(3 * BUCKETS)
        ]
        sizes = [len(registry.present("bucket", bucket)) for bucket in range(BUCKETS)]
        assert sizes == [3] * BUCKETS
        for visitor in visitors:
            assert isinstance(visitor, Visitor)
            visitor.leave()
        assert not registry.has_users()

    def test_connections_are_given_back(
        self, visit: Serve, override: Override, anna: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between two checks it holds none."""
        opened: list[Any] = []
        look = authentication.signed_out

        def noted(visitors: Any) -> Any:
            found = look(visitors)
            opened.append((threading.current_thread(), connections["default"]))
            return found

        monkeypatch.setattr(authentication, "signed_out", noted)
        override(WEBSOCKET_AUTH_RECHECK=OFTEN_S)
        made = enter(visit, sign_in(anna))
        eventually(lambda: len(opened) > 2, what="looks")
        beside = [each for worker, each in opened if worker is not threading.current_thread()]
        eventually(lambda: beside[0].connection is None, what="the connection is closed")
        goes_on(made)


def test_database_that_is_away_for_a_while(
    visit: Serve,
    override: Override,
    anna: User,
    monkeypatch: pytest.MonkeyPatch,
    request_log: Callable[..., Any],
) -> None:
    """It is logged, closes no connection, and the look is repeated."""
    override(WEBSOCKET_AUTH_RECHECK=OFTEN_S)
    made = enter(visit, sign_in(anna))
    failed = threading.Event()

    def fail(_: object) -> None:
        failed.set()
        raise OSError("no database")

    with monkeypatch.context() as patch:
        patch.setattr(authentication, "signed_out", fail)
        assert failed.wait(10)
    eventually(
        lambda: any("tried again" in each.getMessage() for each in request_log("dwebsocket")),
        what="a record",
    )
    _update(anna, is_active=False)
    assert made.client.closing() == (4401, "deactivated")


def test_no_thread(
    visit: Serve, override: Override, anna: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next timer finds one."""
    override(WEBSOCKET_AUTH_RECHECK=OFTEN_S)
    made = enter(visit, sign_in(anna))
    refused = threading.Event()

    def refuse(*_: object) -> None:
        refused.set()
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(recheck._schedule, "_spawn", refuse)
        assert refused.wait(10)
    _update(anna, is_active=False)
    assert made.client.closing() == (4401, "deactivated")


def test_thread_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that it was to check are closed, to come back; later ones are checked as ever."""
    schedule, checked = recheck.Schedule(), []
    schedule.use(lambda _, look: look(), {})
    for name in ("_refuse", "_check_or_refuse"):
        monkeypatch.setattr(recheck, name, lambda found, name=name: checked.append((name, found)))

    def fail(*_: object) -> None:
        raise OSError("broken")

    first, second = (Visitor(Who(), [], WebSocket()) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(recheck.database, "borrow", fail)
        with pytest.raises(OSError, match="broken"):
            schedule._check_on_thread([first])
    schedule._check_on_thread([second])
    assert checked == [("_refuse", [first]), ("_check_or_refuse", [second])]


def test_thread_that_ends_leaves_others_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Visitors that come while it ends are checked, and not told to come back."""
    schedule, checked = recheck.Schedule(), []
    looks: list[Callable[[], object]] = []
    schedule.use(lambda _, look: looks.append(look), {})
    for name in ("_refuse", "_check_or_refuse"):
        monkeypatch.setattr(recheck, name, lambda found, name=name: checked.append((name, found)))
    first, second = (Visitor(Who(), [], WebSocket()) for _ in range(2))
    schedule._check_on_thread([first])
    with monkeypatch.context() as patch:
        patch.setattr(recheck.database, "release_idle", lambda: schedule._check_on_thread([second]))
        looks.pop()()
    looks.pop()()
    assert checked == [("_check_or_refuse", [first]), ("_check_or_refuse", [second])]


def test_clock_of_tests(visit: Serve, override: Override, anna: User) -> None:
    """Can be stepped to the look; the default is five minutes."""
    # This client answers none.
    override(WEBSOCKET_PING_INTERVAL=None)
    made = enter(visit, sign_in(anna))
    _update(anna, is_active=False)
    clock = Clock()
    clock.advance(300)
    assert made.client.closing() == (4401, "deactivated")


def test_impossible_setting(visit: Serve, override: Override, anna: User) -> None:
    """A system check says so; WebSockets open all the same, and are looked at as by default."""
    override(WEBSOCKET_AUTH_RECHECK="often")
    made = enter(visit, sign_in(anna))
    assert recheck._schedule._cancel is not None
    goes_on(made)
