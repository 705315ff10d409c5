"""`@accept_websocket`, `@require_websocket`, `@websocket`, on every kind of view."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, ClassVar

import django
import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser, User
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.clickjacking import xframe_options_deny, xframe_options_exempt
from django.views.decorators.csrf import csrf_exempt, csrf_protect, ensure_csrf_cookie
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import condition, require_http_methods, require_safe
from django.views.decorators.vary import vary_on_cookie, vary_on_headers
from echoing import AsyncEcho, Echo, async_echo, echo, talks
from visit import Serve, handshake

from dwebsocket import accept_websocket, require_websocket, websocket
from dwebsocket.handshake.response import UpgradeResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpResponse

MODES = [accept_websocket, require_websocket]
MIDDLEWARE = ["dwebsocket.middleware.WebSocketMiddleware"]


def sign_in(get_response: Any) -> Any:
    """Middleware: let a user sign in by a query parameter."""

    def middleware(request: Any) -> HttpResponse:
        request.user = AnonymousUser()
        if "user" in request.GET:
            request.user = User(username="somebody")
        return get_response(request)

    return middleware


class TestForms:
    """How they are written."""

    def test_websocket_is_another_name(self) -> None:
        """Tutorials use it."""
        assert websocket is accept_websocket

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("view", [echo, async_echo])
    def test_with_and_without_parentheses(self, mode: Any, view: Any) -> None:
        """Both give the view."""
        for decorated in (mode(view), mode()(view), mode(ping_interval=5)(view)):
            assert decorated.__name__ == view.__name__
            assert decorated.__doc__ == view.__doc__
            assert decorated.__wrapped__ is view
            assert iscoroutinefunction(decorated) == iscoroutinefunction(view)

    @pytest.mark.parametrize("mode", MODES)
    def test_both_attributes_are_those_of_the_original(self, mode: Any) -> None:
        """Middleware of a project's own reads them. The view itself stays as it was."""
        decorated = mode(echo)
        assert decorated.accept_websocket is True
        assert decorated.require_websocket is (mode is require_websocket)
        assert mode(require_websocket(echo)).require_websocket is True
        assert not hasattr(echo, "accept_websocket")

    @pytest.mark.parametrize("mode", MODES)
    def test_options_are_checked_at_once(self, mode: Any) -> None:
        """At import, not at the first handshake."""
        name = mode.__name__
        wrong = "unexpected keyword argument 'ping_intervall'"
        with pytest.raises(TypeError, match=rf"^{name}\(\) got an {wrong}"):
            mode(ping_intervall=5)
        with pytest.raises(ValueError, match=rf"^{name}\(ping_interval=…\) must be a number"):
            mode(ping_interval="often")
        with pytest.raises(ValueError, match=rf"^{name}\(text_type=…\) must be"):
            mode(echo, text_type=int)

    @pytest.mark.parametrize("mode", MODES)
    def test_only_what_can_be_called(self, mode: Any) -> None:
        """A view by name is a mistake of another framework."""
        with pytest.raises(TypeError, match=rf"^{mode.__name__}\(\) decorates views, not str$"):
            mode("views.echo")
        with pytest.raises(TypeError):
            mode(echo, echo)


class TestPlainRequests:
    """The same address by plain HTTP."""

    @pytest.mark.parametrize("view", [echo, async_echo, Echo.as_view(), AsyncEcho.as_view()])
    def test_accepted(self, view: Any) -> None:
        """Get the page, without the middleware as well."""
        response = accept_websocket(view)(RequestFactory().get("/"))
        if iscoroutinefunction(view):
            response = asyncio.run(response)
        assert (response.status_code, response.content) == (200, b"a page")

    @pytest.mark.parametrize("view", [echo, async_echo, Echo.as_view(), AsyncEcho.as_view()])
    def test_refused(self, view: Any) -> None:
        """Get 400 where a WebSocket is required."""
        response = require_websocket(view)(RequestFactory().get("/"))
        if iscoroutinefunction(view):
            response = asyncio.run(response)
        assert response.status_code == 400
        assert response.content == b"This address is for WebSockets only.\n"


class TestViews:
    """Kinds of views that can be decorated, with and without the middleware, in both chains."""

    VIEWS: ClassVar[dict[str, Any]] = {
        "function": accept_websocket(echo),
        "async function": accept_websocket(async_echo),
        "partial": accept_websocket(functools.partial(echo, extra=1)),
        "async partial": accept_websocket(functools.partial(async_echo, extra=1)),
        "around as_view": accept_websocket(Echo.as_view()),
        "around async as_view": require_websocket(AsyncEcho.as_view()),
        "dispatch": method_decorator(accept_websocket, name="dispatch")(
            type("Dispatch", (Echo,), {})
        ).as_view(),
        "async dispatch": method_decorator(accept_websocket, name="dispatch")(
            type("AsyncDispatch", (AsyncEcho,), {})
        ).as_view(),
        "dispatch with options": method_decorator(require_websocket(text_type=str), "dispatch")(
            type("Options", (Echo,), {})
        ).as_view(),
    }

    @pytest.mark.parametrize("in_async_chain", [False, True])
    @pytest.mark.parametrize("middleware", [[], MIDDLEWARE])
    @pytest.mark.parametrize("name", VIEWS)
    def test_talks(
        self, visit: Serve, name: str, middleware: list[str], in_async_chain: bool
    ) -> None:
        """Each becomes a WebSocket."""
        view = self.VIEWS[name]
        talks(visit(view, middleware=middleware, in_async_chain=in_async_chain))

    def test_callable_object(self, visit: Serve) -> None:
        """A view need not be a function."""

        class Callable_:
            def __call__(self, request: Any) -> None:
                echo(request)

        talks(visit(accept_websocket(Callable_())))

    def test_decorated_twice(self, visit: Serve) -> None:
        """A class by `dispatch` and in the URL configuration: one WebSocket."""
        talks(visit(require_websocket(self.VIEWS["dispatch"])))
        talks(visit(require_websocket(self.VIEWS["async dispatch"]), middleware=MIDDLEWARE))

    def test_decorated_view_called_by_another(self, visit: Serve) -> None:
        """It talks through the connection that is there."""
        inner = accept_websocket(echo)

        @accept_websocket
        def outer(request: Any) -> Any:
            return inner(request)

        talks(visit(outer))

    def test_decorated_handler_under_accept_all(self, visit: Serve, override: Any) -> None:
        """The middleware upgrades, the decorator on `get` finds it done."""
        override(WEBSOCKET_ACCEPT_ALL=True)
        cls = method_decorator(accept_websocket, name="get")(type("Get", (Echo,), {}))
        talks(visit(cls.as_view(), middleware=MIDDLEWARE))

    def test_required_view_called_by_another_for_a_plain_request(self) -> None:
        """Its own rule still holds."""
        inner = require_websocket(echo)
        outer = accept_websocket(lambda request: inner(request))
        assert outer(RequestFactory().get("/")).status_code == 400


DECORATORS: dict[str, Callable[[Any], Any]] = {
    "csrf_exempt": csrf_exempt,
    "csrf_protect": csrf_protect,
    "ensure_csrf_cookie": ensure_csrf_cookie,
    "never_cache": never_cache,
    "cache_control": cache_control(private=True),
    "require_http_methods": require_http_methods(["GET"]),
    "require_safe": require_safe,
    "condition": condition(etag_func=lambda request: '"etag"'),
    "xframe_options_deny": xframe_options_deny,
    "xframe_options_exempt": xframe_options_exempt,
    "vary_on_cookie": vary_on_cookie,
    "vary_on_headers": vary_on_headers("Accept"),
    "gzip_page": gzip_page,
}
# Those that take async views on every Django that we support; from 5.0 on nearly all do.
ASYNC_DECORATORS = (
    {}
    if django.VERSION < (5, 0)
    else {
        n: d
        for n, d in DECORATORS.items()
        if n
        in (
            "csrf_exempt",
            "never_cache",
            "cache_control",
            "require_http_methods",
            "require_safe",
            "xframe_options_deny",
            "xframe_options_exempt",
            "vary_on_cookie",
            "vary_on_headers",
        )
    }
)


class TestWithOtherDecorators:
    """Over and under those of Django, without a record in the log."""

    @pytest.mark.parametrize(
        ("name", "view"),
        [(name, echo) for name in DECORATORS] + [(name, async_echo) for name in ASYNC_DECORATORS],
        ids=lambda one: one if isinstance(one, str) else one.__name__,
    )
    @pytest.mark.parametrize("order", ["over", "under"])
    def test_order(self, visit: Serve, request_log: Any, name: str, view: Any, order: str) -> None:
        """The view has no response to which a decorator under ours could add headers."""
        decorate = DECORATORS[name]
        view = (
            accept_websocket(decorate(view))
            if order == "over"
            else decorate(accept_websocket(view))
        )
        talks(visit(view, middleware=MIDDLEWARE))
        assert request_log("django.request") == []

    @pytest.mark.parametrize("name", DECORATORS)
    def test_plain_requests_keep_what_they_had(self, visit: Serve, name: str) -> None:
        """The decorators do their work on the page."""
        view = DECORATORS[name](accept_websocket(echo))
        environ = RequestFactory().get("/").environ
        made = visit(view, middleware=MIDDLEWARE, environ=environ)
        assert b"".join(made.response) == b"a page"

    def test_all_at_once(self, visit: Serve, request_log: Any) -> None:
        """Around and below."""
        view: Any = echo
        for decorate in DECORATORS.values():
            view = decorate(view)
        view = accept_websocket(view)
        for decorate in DECORATORS.values():
            view = decorate(view)
        talks(visit(view))
        assert request_log("django.request") == []

    def test_on_classes(self, visit: Serve, request_log: Any) -> None:
        """Several by `method_decorator`."""
        cls = type("Decorated", (Echo,), {})
        cls = method_decorator([never_cache, accept_websocket, never_cache], name="dispatch")(cls)
        talks(visit(cls.as_view(), middleware=MIDDLEWARE))
        assert request_log("django.request") == []

    def test_projects_decorator_that_wants_a_response_is_reported(
        self, visit: Serve, request_log: Any
    ) -> None:
        """Only those of frameworks are known to do no harm."""

        def stamped(view: Any) -> Any:
            @functools.wraps(view)
            def wrapper(request: Any) -> Any:
                response = view(request)
                response["X-Stamp"] = "1"
                return response

            return wrapper

        talks(visit(accept_websocket(stamped(echo))))
        (record,) = request_log("django.request")
        assert isinstance(record.exc_info[1], TypeError)

    @pytest.mark.parametrize(
        "error", [AttributeError("no such thing"), TypeError("bad argument"), KeyError("x")]
    )
    def test_decorator_that_fails_is_reported(
        self, visit: Serve, request_log: Any, error: Exception
    ) -> None:
        """Its own mistake is no missing response."""

        def broken(view: Any) -> Any:
            @functools.wraps(view)
            def wrapper(request: Any) -> Any:
                raise error

            return wrapper

        made = visit(accept_websocket(broken(echo))).serve()
        assert made.client.closing() == (1011, "")
        (record,) = request_log("django.request")
        assert record.exc_info[1] is error

    def test_view_that_fails_on_none_is_reported(self, visit: Serve, request_log: Any) -> None:
        """An error in the view itself is reported as the view's."""

        @accept_websocket
        @never_cache
        def view(request: Any) -> None:
            request.websocket.wait(0).decode()

        made = visit(view).serve()
        assert made.client.closing() == (1011, "")
        (record,) = request_log("django.request")
        assert "'NoneType' object has no attribute 'decode'" in str(record.exc_info[1])

    def test_login_required_over(self, visit: Serve) -> None:
        """Decides before the handshake is answered."""
        view = login_required(accept_websocket(echo))
        middleware = ["test_decorators.sign_in", *MIDDLEWARE]
        made = visit(view, middleware=middleware)
        assert made.response.status_code == 302
        talks(visit(view, middleware=middleware, environ=handshake("/?user=1")))

    def test_login_required_under(self, visit: Serve) -> None:
        """Decides in place of the view: the connection opens and is refused."""
        view = accept_websocket(login_required(echo))
        middleware = ["test_decorators.sign_in", *MIDDLEWARE]
        made = visit(view, middleware=middleware).serve()
        assert made.client.closing() == (1008, "")
        talks(visit(view, middleware=middleware, environ=handshake("/?user=1")))

    def test_require_http_methods_over(self, visit: Serve) -> None:
        """A handshake is a GET."""
        made = visit(require_http_methods(["POST"])(accept_websocket(echo)))
        assert made.response.status_code == 405


class TestUpgrade:
    """The response that each decorator sees."""

    def test_decorators_over_ours_see_a_response(self, visit: Serve) -> None:
        """Their headers go into the 101."""
        made = visit(never_cache(xframe_options_deny(accept_websocket(echo))))
        assert isinstance(made.response, UpgradeResponse)
        made.serve()
        assert made.header("X-Frame-Options") == ["DENY"]
        assert "no-store" in made.header("Cache-Control")[0]
