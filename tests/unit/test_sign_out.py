"""Signing out: a WebSocket and the end of its user's right, whichever comes first."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from accounts import BACKEND, MIDDLEWARE
from asgiref.sync import async_to_sync
from django.contrib import auth
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.test import RequestFactory, TestCase
from peer import TIMEOUT_S
from visit import Serve, handshake
from waiting_views import awaits, waits

from dwebsocket import accept_websocket
from dwebsocket.runners import loop, thread
from dwebsocket.users import registry

Override = Callable[..., None]

pytestmark = pytest.mark.usefixtures("tables", "nobody_left")
ENGINES = ["db", "cached_db", "cache", "file"]


@pytest.fixture
def bert() -> Iterator[User]:
    """Another one."""
    user = User.objects.create_user("bert", password="secret")
    yield user
    User.objects.filter(username="bert").delete()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, override: Override) -> str:
    """Where sessions are kept."""
    use(override, request.param)
    return str(request.param)


def use(override: Override, engine: str) -> None:
    """Keep sessions in a store, and have rechecks find nothing in time."""
    name = f"django.contrib.sessions.backends.{engine}"
    override(SESSION_ENGINE=name, WEBSOCKET_AUTH_RECHECK=0)


class Browser:
    """Has a cookie, and makes requests with it."""

    def __init__(self, user: User) -> None:
        request = self._request(None)
        login(request, user, backend=BACKEND)
        request.session.save()
        self.cookie = request.session.session_key

    def _request(self, cookie: str | None) -> Any:
        from django.conf import settings

        request: Any = RequestFactory().get("/")
        request.COOKIES = {} if cookie is None else {"sessionid": cookie}
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(cookie)
        return request

    def request(self, user: User | None = None) -> Any:
        """Make one, of the user, where that matters."""
        request = self._request(self.cookie)
        if user is not None:
            request.user = user
        return request

    def handshake(self) -> dict[str, Any]:
        """Give the environ of one."""
        return handshake(HTTP_COOKIE=f"sessionid={self.cookie}")


def is_over(made: Any) -> bool:
    """Whether a close frame is there, or comes within a moment."""
    made.client.sock.settimeout(0.1)
    try:
        return bool(made.client.sock.recv(1, 2))
    except TimeoutError:
        return False
    finally:
        made.client.sock.settimeout(TIMEOUT_S)


def goes_on(made: Any) -> None:
    """See that a connection is open, and end it."""
    made.client.close(4000)
    assert made.client.closing()[0] == 4000


def elsewhere(act: Callable[[], object]) -> None:
    """Do something on another thread, which has a database connection of its own."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(20)
    assert not worker.is_alive()
    if errors:
        raise errors[0]


CHANGES: dict[str, tuple[Callable[[Browser, User], object], str]] = {
    "logout": (lambda browser, user: logout(browser.request(user)), "signed out"),
    "flush": (lambda browser, _: browser.request().session.flush(), "signed out"),
    "password": (lambda _, user: (user.set_password("better"), user.save()), "password changed"),
    "deactivated": (
        lambda _, user: (setattr(user, "is_active", False), user.save()),
        "deactivated",
    ),
    "deleted": (lambda _, user: user.delete(), "deleted"),
}
has_auser = pytest.mark.skipif(not hasattr(auth, "aget_user"), reason="since Django 5.0")
changes = pytest.mark.parametrize("change", CHANGES)


@pytest.fixture
def in_database(override: Override, anna: User) -> Browser:
    """Anna's, whose session is in the database."""
    use(override, "db")
    return Browser(anna)


def opened(visit: Serve, browser: Browser, view: Any = waits) -> Any:
    """Serve a WebSocket of a browser's user."""
    return visit(view, middleware=MIDDLEWARE, environ=browser.handshake()).serve()


class TestTransaction:
    """A change that is not committed does not count."""

    @changes
    @pytest.mark.parametrize("view", [waits, awaits])
    def test_closes_after_the_commit(
        self, visit: Serve, in_database: Browser, anna: User, change: str, view: Any
    ) -> None:
        """Views that write as they end do not meet the lock of the transaction."""
        act, reason = CHANGES[change]
        made = opened(visit, in_database, view)
        with transaction.atomic():
            act(in_database, anna)
            assert not is_over(made)
        assert made.client.closing() == (4401, reason)

    @changes
    def test_does_not_close_when_it_is_rolled_back(
        self, visit: Serve, in_database: Browser, anna: User, change: str
    ) -> None:
        """The user is signed in as before."""
        act, _ = CHANGES[change]
        made = opened(visit, in_database)
        with transaction.atomic():
            act(in_database, anna)
            transaction.set_rollback(True)
        assert not is_over(made)
        goes_on(made)

    @changes
    def test_comes_back_before_the_commit(
        self, visit: Serve, in_database: Browser, anna: User, change: str
    ) -> None:
        """Old rows let it in; the commit closes it."""
        act, reason = CHANGES[change]
        made: list[Any] = []

        def come_back() -> None:
            made.append(opened(visit, in_database))

        elsewhere(come_back)
        with transaction.atomic():
            act(in_database, anna)
            elsewhere(come_back)
        assert [each.client.closing() for each in made] == [(4401, reason)] * 2

    @changes
    def test_test_case_that_never_commits(
        self, visit: Serve, in_database: Browser, anna: User, change: str
    ) -> None:
        """A project's tests see the end without a commit."""
        act, reason = CHANGES[change]
        made = opened(visit, in_database)
        blocks = TestCase._enter_atomics()  # type: ignore[attr-defined]
        try:
            act(in_database, anna)
            assert made.client.closing() == (4401, reason)
        finally:
            TestCase._rollback_atomics(blocks)  # type: ignore[attr-defined]


class TestLogout:
    """The signal of a logout comes before the session is flushed."""

    def test_comes_back_between_signal_and_flush(
        self, visit: Serve, anna: User, engine: str
    ) -> None:
        """Old rows let it in; the flush closes it."""
        browser = Browser(anna)
        made = [opened(visit, browser)]

        def come_back(**_: Any) -> None:
            made.append(opened(visit, browser))
            assert not any(is_over(each) for each in made)

        user_logged_out.connect(come_back)
        try:
            logout(browser.request(anna))
        finally:
            user_logged_out.disconnect(come_back)
        assert [each.client.closing() for each in made] == [(4401, "signed out")] * 2

    def test_handshake_that_was_judged_before(self, visit: Serve, anna: User, engine: str) -> None:
        """It opens, and is closed at once."""
        browser = Browser(anna)
        made = visit(waits, middleware=MIDDLEWARE, environ=browser.handshake())
        logout(browser.request(anna))
        made.serve()
        assert made.client.closing() == (4401, "signed out")

    def test_other_browsers_stay(self, visit: Serve, anna: User, engine: str) -> None:
        """Each has a session of its own."""
        here, there = Browser(anna), Browser(anna)
        made = visit(waits, middleware=MIDDLEWARE, environ=there.handshake()).serve()
        logout(here.request(anna))
        assert not is_over(made)
        goes_on(made)

    def test_page_has_a_session_of_another_class(
        self, visit: Serve, override: Override, anna: User
    ) -> None:
        """A project's middleware may choose another class than the settings name."""
        use(override, "cache")
        browser = Browser(anna)
        made = opened(visit, browser)
        request = browser.request(anna)
        kind = type(request.session)
        unheard = {
            name: inspect.unwrap(vars(kind)[name]) for name in DELETIONS if name in vars(kind)
        }
        request.session = type("Chosen", (kind,), unheard)(browser.cookie)
        logout(request)
        assert made.client.closing() == (4401, "signed out")


DELETIONS = ("delete", "adelete")
ENDS: dict[str, Callable[[Any], object]] = {
    "flush": lambda session: session.flush(),
    "delete": lambda session: session.delete(),
    "delete by another": lambda session: type(session)().delete(session.session_key),
    "cycle_key": lambda session: session.cycle_key(),
}
HAS_ASYNC = hasattr(SessionBase, "adelete")
if HAS_ASYNC:
    ENDS["aflush"] = lambda session: async_to_sync(session.aflush)()
    ENDS["adelete"] = lambda session: async_to_sync(session.adelete)()
    ENDS["acycle_key"] = lambda session: async_to_sync(session.acycle_key)()
ends = pytest.mark.parametrize("end", ENDS)


class TestEnd:
    """A session that ends without a logout, as by a project's own page."""

    @ends
    def test_closes(self, visit: Serve, anna: User, engine: str, end: str) -> None:
        """The end of a session closes its WebSockets, and no other browser's."""
        here, there = Browser(anna), Browser(anna)
        mine, other = opened(visit, here), opened(visit, there)
        session = here.request().session
        assert session["_auth_user_id"] == str(anna.pk)
        ENDS[end](session)
        assert mine.client.closing() == (4401, "signed out")
        goes_on(other)

    @pytest.mark.parametrize("end", ["flush", "aflush"] if HAS_ASYNC else ["flush"])
    def test_in_a_signed_cookie(
        self, visit: Serve, override: Override, anna: User, end: str
    ) -> None:
        """The end of a session in a cookie closes its WebSockets, too."""
        use(override, "signed_cookies")
        browser = Browser(anna)
        made = opened(visit, browser)
        ENDS[end](browser.request().session)
        assert made.client.closing() == (4401, "signed out")


class TestSignedCookies:
    """Sessions that the server does not keep."""

    @pytest.fixture(autouse=True)
    def _engine(self, override: Override) -> None:
        use(override, "signed_cookies")

    def test_logout_closes_those_of_the_cookie(self, visit: Serve, anna: User) -> None:
        """And no other browser's."""
        here, there = Browser(anna), Browser(anna)
        there.cookie = there.cookie.replace(there.cookie, _signed_later(there))
        mine, other = (
            visit(waits, middleware=MIDDLEWARE, environ=browser.handshake()).serve()
            for browser in (here, there)
        )
        logout(here.request(anna))
        assert mine.client.closing() == (4401, "signed out")
        assert not is_over(other)
        goes_on(other)

    def test_password_closes_all(self, visit: Serve, anna: User) -> None:
        """The hash of it is in each cookie."""
        made = visit(waits, middleware=MIDDLEWARE, environ=Browser(anna).handshake()).serve()
        anna.set_password("better")
        anna.save()
        assert made.client.closing() == (4401, "password changed")


def _signed_later(browser: Browser) -> str:
    """Give a cookie of the same user that differs, as another browser's does by its time."""
    session = browser.request().session
    session["browser"] = "another"
    session.save()
    return str(session.session_key)


class TestLogin:
    """`login()` as another user flushes the session and sends no signal for that."""

    def test_as_another_user(self, visit: Serve, anna: User, bert: User, engine: str) -> None:
        """The first user's are closed."""
        browser = Browser(anna)
        made = opened(visit, browser)
        login(browser.request(anna), bert, backend=BACKEND)
        assert made.client.closing() == (4401, "signed out")

    def test_as_another_user_in_a_signed_cookie(
        self, visit: Serve, override: Override, anna: User, bert: User
    ) -> None:
        """The cookie identifies the user."""
        use(override, "signed_cookies")
        browser = Browser(anna)
        made = opened(visit, browser)
        login(browser.request(anna), bert, backend=BACKEND)
        assert made.client.closing() == (4401, "signed out")

    def test_as_the_same_user(self, visit: Serve, anna: User, engine: str) -> None:
        """Nothing ends."""
        browser = Browser(anna)
        made = opened(visit, browser)
        login(browser.request(anna), anna, backend=BACKEND)
        assert not is_over(made)
        goes_on(made)

    def test_of_an_anonymous_visitor(self, visit: Serve, anna: User, engine: str) -> None:
        """The session gets a new key; a WebSocket from before has nothing to lose."""
        browser = Browser(anna)
        session = browser.request().session
        for name in ("_auth_user_id", "_auth_user_backend", "_auth_user_hash"):
            del session[name]
        session.save()
        made = opened(visit, browser)
        login(browser.request(), anna, backend=BACKEND)
        assert not is_over(made)
        goes_on(made)


class TestBetween:
    """A sign-out between a decorator's look at the user and the handshake's own."""

    @changes
    def test_sync(self, visit: Serve, in_database: Browser, anna: User, change: str) -> None:
        """The WebSocket is that of the user whom the decorator saw."""

        def acts_first(request: Any) -> Any:
            elsewhere(lambda: CHANGES[change][0](in_database, User.objects.get(pk=anna.pk)))
            return waits(request)

        view = login_required(acts_first)
        made = visit(view, middleware=MIDDLEWARE, environ=in_database.handshake()).serve()
        assert made.client.closing()[0] == 4401

    @has_auser
    @changes
    def test_async(self, visit: Serve, in_database: Browser, anna: User, change: str) -> None:
        """Also when it asks `auser()`, which has a memory of its own."""

        async def acts_first(request: Any) -> Any:
            user = await auth.aget_user(request)
            request._acached_user = user
            assert user.is_authenticated
            elsewhere(lambda: CHANGES[change][0](in_database, User.objects.get(pk=anna.pk)))
            return await awaits(request)

        made = visit(
            acts_first, middleware=MIDDLEWARE, environ=in_database.handshake(), in_async_chain=True
        ).serve()
        assert made.client.closing()[0] == 4401

    @has_auser
    def test_users_are_looked_up_once(self, visit: Serve, override: Override, anna: User) -> None:
        """`auser()` gives the view the user that the handshake has found."""
        use(override, "db")
        seen: list[Any] = []

        @accept_websocket
        async def view(request: Any) -> None:
            seen.append(request.user is not None and await request.auser())
            seen.append(request._cached_user)

        made = visit(view, middleware=MIDDLEWARE, environ=Browser(anna).handshake()).serve()
        assert made.client.closing()[0] == 1000
        assert loop.join(10)
        assert seen[0] is seen[1]
        assert seen[0] == anna

    def test_in_a_transaction_of_the_handshake(
        self, visit: Serve, in_database: Browser, anna: User
    ) -> None:
        """Rows as old as the transaction do not decide."""

        @transaction.atomic
        def acts_first(request: Any) -> Any:
            assert request.user.is_authenticated
            response = waits(request)
            transaction.on_commit(
                lambda: elsewhere(lambda: in_database.request().session.flush()),
            )
            return response

        made = visit(acts_first, middleware=MIDDLEWARE, environ=in_database.handshake()).serve()
        assert made.client.closing() == (4401, "signed out")


def test_without_room_no_user_is_looked_up(visit: Serve, override: Override, anna: User) -> None:
    """A full process refuses without a query."""
    use(override, "db")
    override(WEBSOCKET_MAX_CONNECTIONS=0)
    environ = Browser(anna).handshake()
    connection.ensure_connection()

    def refuse(*args: Any) -> None:
        raise AssertionError(f"a query: {args[1]}")

    with connection.execute_wrapper(refuse):
        made = visit(waits, middleware=MIDDLEWARE, environ=environ)
    assert made.response.status_code == 503


@pytest.mark.parametrize("fails", ["look", "limit"])
def test_place_is_given_back(
    visit: Serve, override: Override, anna: User, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A client that is refused after all holds no place."""
    override(WEBSOCKET_MAX_CONNECTIONS=1)
    environ = handshake()
    if fails == "limit":
        override(WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=0)
        assert visit(waits, environ=environ).response.status_code == 429
        override(WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=None)
    else:
        with monkeypatch.context() as patch:

            def fail(request: Any) -> None:
                raise OSError("no database")

            patch.setattr(registry.Who, "of", fail)
            assert visit(waits, environ=environ).response.status_code == 500
    made = visit(waits).serve()
    goes_on(made)
    assert thread.join(10)


def test_user_cannot_be_looked_up(
    visit: Serve, anna: User, monkeypatch: pytest.MonkeyPatch, request_log: Callable[..., Any]
) -> None:
    """The look at the user fails as the WebSocket opens: the client is to come back later."""
    made = visit(waits, middleware=MIDDLEWARE, environ=Browser(anna).handshake())

    def fail(_: object) -> None:
        raise OSError("no database")

    monkeypatch.setattr("dwebsocket.users.authentication.signed_out", fail)
    made.serve()
    assert made.client.closing() == (1013, "try again later")
    (record,) = [each for each in request_log("dwebsocket") if each.levelname == "ERROR"]
    assert "cannot be looked up" in record.getMessage()


def test_page_is_a_page(visit: Serve, anna: User) -> None:
    """Plain requests of users are as before."""
    made = visit(lambda request: HttpResponse(request.user.username), middleware=MIDDLEWARE)
    assert made.response.status_code == 200
