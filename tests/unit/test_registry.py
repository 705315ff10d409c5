"""The register of connections: limits for one client, and the ends of signed-out users."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from accounts import BACKEND, MIDDLEWARE
from django.contrib.auth import login, logout
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends.cache import SessionStore
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject
from visit import Serve, handshake
from waiting_views import awaits, waits

from dwebsocket import WebSocket, accept_websocket, close_user, conf
from dwebsocket.runners import loop, thread
from dwebsocket.users import registry
from dwebsocket.users.registry import Visitor, Who

Override = Callable[..., None]
Log = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("tables", "nobody_left")


class Person(User):
    """A proxy of the user model."""

    class Meta:
        """No table of its own."""

        app_label = "auth"
        proxy = True


def sign_in(user: User) -> Any:
    """Log in as by a form; give the request whose session it is."""
    request: Any = RequestFactory().get("/")
    request.session = SessionStore()
    request.user = user
    login(request, user, backend=BACKEND)
    request.session.save()
    return request


def cookie(request: Any) -> dict[str, str]:
    """Give what a browser sends from then on."""
    return {"HTTP_COOKIE": f"sessionid={request.session.session_key}"}


class TestWho:
    """The client that a request belongs to."""

    @pytest.mark.parametrize(
        ("address", "counted"),
        [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", ""),
            ("unix:", "unix:"),
        ],
    )
    def test_address(self, address: str, counted: str) -> None:
        """An IPv4 address, or the network that one client is given."""
        request: Any = SimpleNamespace(META={"REMOTE_ADDR": address})
        assert Who.of(request) == Who(counted)

    def test_headers_are_not_believed(self) -> None:
        """Headers about the client's address are ignored."""
        headers = dict.fromkeys(
            ("HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_FORWARDED"), "192.0.2.99"
        )
        request: Any = SimpleNamespace(META={"REMOTE_ADDR": "192.0.2.7", **headers})
        assert Who.of(request).address == "192.0.2.7"

    def test_without_any(self) -> None:
        """Nothing is counted."""
        request: Any = SimpleNamespace(META={})
        assert Who.of(request).keys() == []

    def test_anonymous(self) -> None:
        """Has a session at most."""
        request: Any = SimpleNamespace(
            META={}, user=AnonymousUser(), session=SimpleNamespace(session_key="k")
        )
        assert Who.of(request) == Who("", session="k")

    def test_user_of_another_kind(self) -> None:
        """The user of a project's own authentication need not be a model."""
        user = SimpleNamespace(is_authenticated=True, pk=7)
        request: Any = SimpleNamespace(META={}, user=user)
        assert Who.of(request) == Who("", "7")
        nameless = SimpleNamespace(is_authenticated=True)
        assert Who.of(SimpleNamespace(META={}, user=nameless)) == Who()  # type: ignore[arg-type]

    def test_lazy_user(self) -> None:
        """Looked up, unless that is done in a session that there is not."""
        looked: list[str] = []

        def look_up() -> Any:
            looked.append("up")
            return SimpleNamespace(is_authenticated=True, pk=7)

        request: Any = SimpleNamespace(META={}, session=SimpleNamespace(session_key=None))
        request.user = SimpleLazyObject(look_up)
        assert Who.of(request) == Who("", "7")
        look_up.__module__ = "django.contrib.auth.middleware"
        request.user = SimpleLazyObject(look_up)
        assert Who.of(request) == Who()
        assert looked == ["up"]

    def test_page_without_a_session_costs_no_query(
        self, visit: Serve, django_assert_no_queries: None
    ) -> None:
        """No user can be signed in there."""
        made = visit(waits, middleware=MIDDLEWARE).serve()
        made.client.close()
        made.client.closing()


@pytest.fixture
def django_assert_no_queries() -> Iterator[None]:
    """Fail when the test asks the database."""
    from django.db import connection

    def refuse(*args: Any) -> None:
        raise AssertionError(f"a query: {args[1]}")

    with connection.execute_wrapper(refuse):
        yield


@pytest.mark.parametrize("view", [waits, awaits])
class TestLimits:
    """One more than allowed is refused with 429."""

    def test_address(self, visit: Serve, override: Override, request_log: Log, view: Any) -> None:
        """Others may still connect, and so may it when one has gone."""
        override(WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=2)
        mine = {"REMOTE_ADDR": "192.0.2.1"}
        first, second = (visit(view, environ=handshake(**mine)).serve() for _ in range(2))
        refused = visit(view, environ=handshake(**mine)).response
        assert (refused.status_code, refused["Retry-After"]) == (429, "5")
        assert refused.content == b"There are too many WebSockets from you.\n"
        (record,) = request_log("dwebsocket")
        assert record.getMessage() == (
            "WebSocket refused with 429: /: All 2 connections of "
            "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS are taken by address 192.0.2.1."
        )
        other = visit(view, environ=handshake(REMOTE_ADDR="192.0.2.2")).serve()
        for made in (first, second, other):
            made.client.close()
            made.client.closing()
        assert thread.join(10)
        assert loop.join(10)
        again = visit(view, environ=handshake(**mine)).serve()
        again.client.close()
        again.client.closing()

    def test_promised_places_count(self, visit: Serve, override: Override, view: Any) -> None:
        """Those that are validated but not open yet; and are given back if they never are."""
        override(WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=1)
        promised = visit(view)
        assert visit(view).response.status_code == 429
        promised.response.close()
        assert visit(view).response.status_code == 101

    def test_response_that_vanishes(self, visit: Serve, override: Override, view: Any) -> None:
        """Some middleware has answered something else: the place is given back."""
        override(WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=1)
        made = visit(view, middleware=["test_upgrade.replace"])
        assert made.response.status_code == 418
        # On Python 3.10, exceptions within Django hold the response in a cycle now and then.
        gc.collect()
        again = visit(view)
        assert again.response.status_code == 101
        again.response.close()

    def test_end_of_a_response_is_no_place_for_an_interrupt(
        self, visit: Serve, override: Override, view: Any
    ) -> None:
        """No Python code runs when one is released: Ctrl-C would be lost there."""
        override(WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS=2)
        ran: list[str] = []
        promised, made = visit(view), visit(view).serve()
        gone = weakref.ref(promised.response)

        def note(frame: Any, event: str, _: object) -> None:
            # asgiref's event loop may go together with the response, and asyncio has its tasks in a
            # weak set, which is written in Python.
            if event == "call" and not frame.f_code.co_filename.endswith("_weakrefset.py"):
                ran.append(frame.f_code.co_name)

        gc.collect()
        # Other libraries' tests may have the collector call them.
        others, gc.callbacks[:] = gc.callbacks[:], []
        sys.setprofile(note)
        try:
            promised.response = made.response = None
            gc.collect()
        finally:
            sys.setprofile(None)
            gc.callbacks[:] = others
        assert ran == []
        assert gone() is None
        made.client.close()
        made.client.closing()

    def test_user(self, visit: Serve, override: Override, anna: User, view: Any) -> None:
        """Whatever the address; anonymous ones are not counted."""
        override(WEBSOCKET_MAX_CONNECTIONS_PER_USER=1)
        mine = cookie(sign_in(anna))
        made = visit(view, middleware=MIDDLEWARE, environ=handshake(**mine)).serve()
        environ = handshake(REMOTE_ADDR="192.0.2.9", **mine)
        assert visit(view, middleware=MIDDLEWARE, environ=environ).response.status_code == 429
        anybody = [visit(view, middleware=MIDDLEWARE).serve() for _ in range(2)]
        for each in (made, *anybody):
            each.client.close()
            each.client.closing()

    def test_other_refusals_count_nothing(
        self, visit: Serve, override: Override, view: Any
    ) -> None:
        """The place is given back."""
        override(WEBSOCKET_MAX_CONNECTIONS=0)
        assert visit(view).response.status_code == 503
        assert registry._register.visitors == {}


@pytest.mark.parametrize("view", [waits, awaits])
class TestSignedOut:
    """Connections of a user end with the right to have them."""

    def open(self, visit: Serve, view: Any, request: Any) -> Any:
        """Open one with the session of a request."""
        environ = handshake(**cookie(request))
        return visit(view, middleware=MIDDLEWARE, environ=environ).serve()

    def goes_on(self, made: Any) -> None:
        """See that a connection is open, and end it."""
        made.client.close(4000)
        assert made.client.closing()[0] == 4000

    def test_close_user(self, visit: Serve, anna: User, view: Any) -> None:
        """All of the user's connections, and no other's."""
        bert = User.objects.create_user("bert", password="secret")
        mine = [self.open(visit, view, sign_in(anna)) for _ in range(2)]
        his = self.open(visit, view, sign_in(bert))
        assert close_user(anna) == 2
        assert [made.client.closing() for made in mine] == [(4401, "signed out")] * 2
        assert close_user(bert.pk, code=4403, reason="see the rules") == 1
        assert his.client.closing() == (4403, "see the rules")
        assert thread.join(10)
        assert loop.join(10)
        assert close_user(anna) == close_user(bert) == 0
        bert.delete()

    def test_code_that_must_not_be_sent(self, visit: Serve, anna: User, view: Any) -> None:
        """Is the caller's mistake, and closes nothing."""
        made = self.open(visit, view, sign_in(anna))
        with pytest.raises(ValueError, match="close code 1006"):
            close_user(anna, code=1006)
        self.goes_on(made)

    def test_logout(self, visit: Serve, anna: User, view: Any) -> None:
        """Those of the session; the user's other devices stay."""
        here, elsewhere = sign_in(anna), sign_in(anna)
        mine, other = self.open(visit, view, here), self.open(visit, view, elsewhere)
        logout(here)
        assert mine.client.closing() == (4401, "signed out")
        self.goes_on(other)

    def test_logout_with_another_key(self, visit: Serve, anna: User, view: Any) -> None:
        """The session has got a new one, which ends the one that the WebSocket came with."""
        request = sign_in(anna)
        made = self.open(visit, view, request)
        request.session.cycle_key()
        assert made.client.closing() == (4401, "signed out")
        made = self.open(visit, view, request)
        logout(request)
        assert made.client.closing() == (4401, "signed out")

    def test_logout_while_sessions_cannot_be_looked_up(
        self,
        visit: Serve,
        anna: User,
        request_log: Log,
        monkeypatch: pytest.MonkeyPatch,
        view: Any,
    ) -> None:
        """Those of the session are closed, to come back: the next handshake asks again."""
        request = sign_in(anna)
        made = self.open(visit, view, request)

        def fail(*args: Any) -> None:
            raise OSError("the cache is gone")

        monkeypatch.setattr(SessionStore, "load", fail)
        logout(request)
        assert made.client.closing() == (1013, "try again later")
        said = [record.getMessage() for record in request_log("dwebsocket")]
        assert any("cannot be looked up" in message for message in said)

    def test_password(self, visit: Serve, anna: User, view: Any) -> None:
        """All of the user's connections, whichever code changed it."""
        made = [self.open(visit, view, sign_in(anna)) for _ in range(2)]
        anna.set_password("better")
        anna.save()
        for each in made:
            assert each.client.closing() == (4401, "password changed")

    @pytest.mark.parametrize("update_fields", [None, ["is_active"]])
    def test_deactivated(
        self, visit: Serve, anna: User, view: Any, update_fields: list[str] | None
    ) -> None:
        """By the admin, for instance."""
        made = self.open(visit, view, sign_in(anna))
        anna.is_active = False
        anna.save(update_fields=update_fields)
        assert made.client.closing() == (4401, "deactivated")

    def test_by_another_model_of_the_same_users(self, visit: Serve, anna: User, view: Any) -> None:
        """Projects have proxies, for an admin page of their own for instance."""
        made = self.open(visit, view, sign_in(anna))
        person = Person.objects.get(pk=anna.pk)
        person.is_active = False
        person.save()
        assert made.client.closing() == (4401, "deactivated")
        assert thread.join(10)
        assert loop.join(10)
        person.is_active = True
        person.save()
        made = self.open(visit, view, sign_in(anna))
        person.delete()
        assert made.client.closing() == (4401, "deleted")

    def test_what_sends_no_signal(self, visit: Serve, anna: User, view: Any) -> None:
        """Django sends no signal for this: the project has to call `close_user`."""
        made = self.open(visit, view, sign_in(anna))
        User.objects.filter(pk=anna.pk).update(is_active=False)
        self.goes_on(made)

    def test_deleted(self, visit: Serve, anna: User, view: Any) -> None:
        """All connections of a deleted user."""
        made = self.open(visit, view, sign_in(anna))
        User.objects.get(pk=anna.pk).delete()
        assert made.client.closing() == (4401, "deleted")

    def test_any_other_change(self, visit: Serve, anna: User, view: Any) -> None:
        """Does nothing: a login, a new name, a field that is not loaded."""
        made = self.open(visit, view, sign_in(anna))
        anna.first_name = "Anna"
        anna.save()
        sign_in(anna)
        partly = User.objects.only("first_name").get(pk=anna.pk)
        partly.first_name = "A."
        partly.save()
        self.goes_on(made)


def test_closed_before_it_is_open(visit: Serve, anna: User) -> None:
    """Between the judgement and the 101."""
    environ = handshake(**cookie(sign_in(anna)))
    made = visit(waits, middleware=MIDDLEWARE, environ=environ)
    assert close_user(anna) == 1
    made.serve()
    assert made.client.closing() == (4401, "signed out")


def test_closed_while_the_view_decides(visit: Serve, anna: User) -> None:
    """It opens, and is closed at once; the view sees a closed connection."""
    seen: list[Any] = []

    @accept_websocket(accept=False)
    def decides(request: Any) -> None:
        close_user(request.user)
        request.websocket.accept()
        seen.append(request.websocket.close_code)

    environ = handshake(**cookie(sign_in(anna)))
    made = visit(decides, middleware=MIDDLEWARE, environ=environ).serve()
    assert made.client.closing() == (4401, "signed out")
    assert thread.join(10)
    assert seen == [4401]


@pytest.mark.parametrize("end", ["leaves", "vanishes", "vanishes open"])
def test_visitor_is_released_at_once(end: str) -> None:
    """Without a garbage collection, however it ended."""

    class Response:
        """It will open a WebSocket."""

    websocket, response = WebSocket(), Response()
    gone = weakref.ref(websocket)
    visitor = registry.enter(Who(user="7"), websocket, conf.Admission.current())
    assert isinstance(visitor, Visitor)
    visitor.leave_with(response)
    gc.disable()
    try:
        if end == "vanishes open":
            websocket._never_open()
        if end == "leaves":
            visitor.leave()
        del response
        if end == "vanishes open":
            registry._register.sweep()
            visitor.leave()
        del websocket, visitor
        registry._register.sweep()
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "user",
    [
        pytest.param(Group(pk=7), id="a model's object that is no user"),
        pytest.param(object(), id="object"),
        b"7",
        True,
        7.0,
        [7],
    ],
)
def test_close_user_takes_no_other_object(user: Any) -> None:
    """It might close a stranger's connections, or nobody's."""
    with pytest.raises(TypeError, match="a user, or a primary key of one, is needed"):
        close_user(user)


@pytest.mark.parametrize(
    "user", [None, "", User(), AnonymousUser(), SimpleLazyObject(AnonymousUser)]
)
def test_close_user_takes_nobody(user: Any) -> None:
    """A ban that does nothing would be taken for one."""
    with pytest.raises(ValueError, match="an anonymous user has no group"):
        close_user(user)


def test_many_threads_come_and_go() -> None:
    """No visitor is lost, and none is left over."""
    start = threading.Barrier(4)

    def live(number: int) -> None:
        start.wait()
        for turn in range(200):
            who = Who("192.0.2.1", str(number % 2), f"{number}-{turn}")
            visitor = registry.enter(who, WebSocket(), conf.Admission.current())
            assert isinstance(visitor, Visitor)
            close_user(number % 2)
            visitor.leave()
            visitor.leave()

    threads = [threading.Thread(target=live, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
