"""Guards of Django: who may not see a page gets no WebSocket of it, in whichever form."""

from __future__ import annotations

from typing import Any

import django
import pytest
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import (
    login_required,
    permission_required,
    user_passes_test,
)
from django.contrib.auth.mixins import (
    LoginRequiredMixin,
)
from django.core.exceptions import MiddlewareNotUsed, PermissionDenied
from django.http import HttpResponseForbidden
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from echoing import talks
from guarding import (
    IN_PROCESS,
    MIDDLEWARE,
    PLACES,
    SIGN_IN,
    AsksUser,
    NeedsPermission,
    OwnDispatch,
    Page,
    on_class,
    outcome,
    reached,
    refuses,
    table,
    talk,
)
from visit import Serve, handshake

from dwebsocket import accept_websocket, require_websocket
from dwebsocket.middleware import WebSocketMiddleware

LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"

needs_login_required_middleware = pytest.mark.skipif(
    django.VERSION < (5, 1), reason="LoginRequiredMiddleware: since 5.1"
)


# -- guards ---------------------------------------------------------------------------------------


class NeedsPermissionOr403(NeedsPermission):
    """The same, without a way to sign in."""

    raise_exception = True


class OwnSetup:
    """A project's own, before dispatch."""

    def setup(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)  # type: ignore[misc]
        if not request.user.is_authenticated:
            raise PermissionDenied


class AsyncDispatch:
    """A coroutine function."""

    async def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if not (await request.auser()).is_authenticated:
            return HttpResponseForbidden("not you")
        return await super().dispatch(request, *args, **kwargs)  # type: ignore[misc]


class AfterDispatch:
    """One that replaces the answer of the others."""

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        return response if request.user.is_authenticated else HttpResponseForbidden("not you")


def own_decorator(view: Any) -> Any:
    """A project's own, which has no attributes of the view."""

    def guarded(request: Any, *args: Any, **kwargs: Any) -> Any:
        if not request.user.is_authenticated:
            return HttpResponseForbidden("not you")
        return view(request, *args, **kwargs)

    return guarded


# As the rows of the table are headed.
GUARDS: dict[str, list[Any]] = {
    "`login_required`, `LoginRequiredMixin`": [login_required, LoginRequiredMixin],
    "`permission_required`, `PermissionRequiredMixin`": [
        permission_required("rooms.enter"),
        NeedsPermission,
    ],
    "the same with `raise_exception`": [
        permission_required("rooms.enter", raise_exception=True),
        NeedsPermissionOr403,
    ],
    "`user_passes_test`, `UserPassesTestMixin`": [
        user_passes_test(lambda user: user.is_superuser),
        AsksUser,
    ],
    "`staff_member_required`": [staff_member_required(login_url="/log-in/")],
    "a decorator, `dispatch` or `setup` of your own": [own_decorator, OwnDispatch, OwnSetup],
}


class ProcessView:
    """Middleware that lets nobody else in, by `process_view`."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        return self.get_response(request)

    def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> Any:
        return None if request.user.is_authenticated else HttpResponseForbidden()


def no_guard(view: Any) -> Any:
    """Leave a view as it is."""
    return view


@pytest.mark.parametrize("place", PLACES)
class TestTable:
    """Each cell of the table in docs/security.md, on each way into the view."""

    @pytest.mark.parametrize("guard", GUARDS)
    def test_decorators_and_mixins(self, visit: Serve, guard: str, place: str) -> None:
        """Strangers get what the table says, users the connection."""
        for each in GUARDS[guard]:
            for view in PLACES[place](each):
                refuses(visit, view, [SIGN_IN], table()[guard][place])
                talks(visit(view, middleware=[SIGN_IN], environ=handshake("/?user=1")))
                assert reached

    def test_methods(self, visit: Serve, place: str) -> None:
        """A handshake is a GET."""
        for view in PLACES[place](require_POST):
            expected = table()["`require_POST`"][place]
            assert outcome(visit, view, [], handshake()) == expected
            assert reached == []

    @needs_login_required_middleware
    @pytest.mark.parametrize("position", [1, 2])
    def test_login_required_middleware(self, visit: Serve, place: str, position: int) -> None:
        """Above and below ours."""
        middleware = [SIGN_IN, MIDDLEWARE]
        middleware.insert(position, LOGIN_REQUIRED)
        for view in PLACES[place](no_guard):
            refuses(visit, view, middleware, table()["`LoginRequiredMiddleware`"][place])
            talks(visit(view, middleware=middleware, environ=handshake("/?user=1")))

    @needs_login_required_middleware
    def test_login_not_required(self, visit: Serve, place: str) -> None:
        """Says that a view is for all."""
        from django.contrib.auth.decorators import login_not_required

        for view in PLACES[place](login_not_required):
            talks(visit(view, middleware=[SIGN_IN, LOGIN_REQUIRED]))

    @pytest.mark.parametrize("position", [1, 2])
    def test_process_view(self, visit: Serve, place: str, position: int) -> None:
        """Above and below ours."""
        middleware = [SIGN_IN, MIDDLEWARE]
        middleware.insert(position, "test_guards.ProcessView")
        for view in PLACES[place](no_guard):
            refuses(visit, view, middleware, table()["middleware with `process_view`"][place])


class TestUndecorated:
    """Views that get WebSockets from the middleware alone."""

    @pytest.mark.parametrize(
        ("below", "status"),
        [
            ("test_guards.ProcessView", "403"),
            ("test_guards.AsyncProcessView", "403"),
            pytest.param(LOGIN_REQUIRED, "302", marks=needs_login_required_middleware),
        ],
    )
    @pytest.mark.parametrize("is_last", [False, True])
    def test_process_view_of_others(
        self, visit: Serve, override: Any, below: str, status: str, is_last: bool
    ) -> None:
        """Is asked before the view is detached, though Django would skip it below ours."""
        override(WEBSOCKET_ACCEPT_ALL=True, WEBSOCKET_FALLBACK=True)
        middleware = [SIGN_IN, below, MIDDLEWARE] if is_last else [SIGN_IN, MIDDLEWARE, below]
        refuses(visit, talk, middleware, status)
        talks(visit(talk, middleware=middleware, environ=handshake("/?user=1")))

    def test_middleware_that_is_not_used(self, visit: Serve, override: Any) -> None:
        """Is left out, as by Django."""
        override(WEBSOCKET_ACCEPT_ALL=True)
        talks(visit(talk, middleware=[MIDDLEWARE, "test_guards.Unused"]))

    def test_subclass_of_ours(self, visit: Serve, override: Any) -> None:
        """Asks those below it."""
        override(WEBSOCKET_ACCEPT_ALL=True)
        middleware = [SIGN_IN, "test_guards.OwnWebSocketMiddleware", "test_guards.ProcessView"]
        assert outcome(visit, talk, middleware, handshake()) == "403"

    @pytest.mark.parametrize("guard", [each for guard in GUARDS.values() for each in guard])
    def test_decorators_and_mixins(self, visit: Serve, override: Any, guard: Any) -> None:
        """Are asked behind the 101: nothing of the view runs."""
        override(WEBSOCKET_ACCEPT_ALL=True)
        view = on_class(guard, Page)
        assert outcome(visit, view, [SIGN_IN, MIDDLEWARE], handshake()) == "101, then 1008"
        assert reached == []

    def test_decorated_dispatch_behind_a_mixin(self, visit: Serve) -> None:
        """The middleware knows that it takes WebSockets."""
        decorated = method_decorator(accept_websocket, name="dispatch")(type("D", (Page,), {}))
        view = on_class(LoginRequiredMixin, decorated)
        assert outcome(visit, view, [SIGN_IN, MIDDLEWARE], handshake()) == "302"
        environ = handshake("/?user=1")
        talks(visit(view, middleware=[SIGN_IN, MIDDLEWARE], environ=environ))


class AsyncProcessView(ProcessView):
    """A coroutine function."""

    async def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> Any:
        return None if request.user.is_authenticated else HttpResponseForbidden()


class Unused(ProcessView):
    """Middleware that is left out."""

    def __init__(self, get_response: Any) -> None:
        raise MiddlewareNotUsed


class OwnWebSocketMiddleware(WebSocketMiddleware):
    """A project's own."""


class TestGroups:
    """Groups of a decorator that stands above a guard."""

    @pytest.mark.parametrize("mode", [accept_websocket, require_websocket])
    @pytest.mark.parametrize(
        "guarded",
        [
            login_required(talk),
            csrf_exempt(permission_required("rooms.enter")(talk)),
            on_class(LoginRequiredMixin, Page),
            on_class(OwnDispatch, Page),
            csrf_exempt(on_class(OwnDispatch, Page)),
        ],
    )
    def test_groups_above_a_guard(self, mode: Any, guarded: Any) -> None:
        """A stranger would get their history before the guard is asked."""
        with pytest.raises(TypeError, match=rf"^{mode.__name__}\(groups=…\) on .*: clients would"):
            mode(groups=["news"], resume=True)(guarded)
        # Here the guard is asked first, and here nothing refuses.
        mode(groups=["news"], accept=False)(guarded)
        mode(groups=["news"])(csrf_exempt(on_class(no_guard, Page)))

    def test_groups_above_the_dispatch_of_a_class(self, visit: Serve) -> None:
        """Which is known with the first request."""
        cls = type("Secret", (LoginRequiredMixin, Page), {})
        view = method_decorator(accept_websocket(groups=["news"]), name="dispatch")(cls).as_view()  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="decorate the method get"):
            view(RequestFactory().get("/"))

    def test_groups_below_a_guard(self, visit: Serve, override: Any) -> None:
        """Are what the errors advise."""
        override(WEBSOCKET_GROUPS=IN_PROCESS)

        class Inner(Page):
            @method_decorator(accept_websocket(groups=["news"]))
            def get(self, request: Any, **kwargs: Any) -> Any:
                return talk(request)

        decorated = login_required(accept_websocket(groups=["news"])(talk))
        for view in (decorated, on_class(LoginRequiredMixin, Inner)):
            assert outcome(visit, view, [SIGN_IN], handshake()) == "302"
            talks(visit(view, middleware=[SIGN_IN], environ=handshake("/?user=1")))
