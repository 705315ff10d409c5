"""The request that an open WebSocket keeps: the same values, in less memory."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.urls import ResolverMatch, URLResolver, path
from django.urls.resolvers import RegexPattern
from django.utils.safestring import SafeString, mark_safe
from visit import handshake

from dwebsocket.request import request_copy

if TYPE_CHECKING:
    from collections.abc import Callable


def view(request: HttpRequest, **arguments: Any) -> None:
    """Do nothing."""


def other(request: HttpRequest) -> None:
    """Do nothing either."""


class Pages:
    """A URLconf."""

    app_name = "pages"
    urlpatterns = (
        path("other/", other, name="other"),
        path("one/", view, name="one"),
        path("<int:number>/", view, name="numbered"),
    )


ROUTES = URLResolver(RegexPattern(r"^/"), Pages, app_name="pages", namespace="here")
BROWSER = {
    "HTTP_USER_AGENT": "Browser/7.0",
    "HTTP_COOKIE": "sessionid=abc",
    "HTTP_ORIGIN": "http://testserver",
}


def request_for(url: str, **headers: str) -> WSGIRequest:
    """Make a request as it is when its view is about to run, of strings of its own."""
    environ = {
        name: "".join(list(value)) if isinstance(value, str) else value
        for name, value in handshake(url, **BROWSER, **headers).items()
    }
    request = WSGIRequest(environ)
    request.resolver_match = ROUTES.resolve(request.path_info)
    return request


def facts(request: HttpRequest) -> list[Any]:
    """Give the attributes of a request that views use."""
    match = request.resolver_match
    assert match is not None
    streams = ("wsgi.input", "wsgi.errors")
    meta = {name: value for name, value in request.META.items() if name not in streams}
    about = [request.path, request.path_info, request.get_full_path(), request.scheme]
    about += [request.method, request.GET.dict(), request.COOKIES, request.get_host()]
    return [*about, dict(request.headers), meta, request.body, vars(match)]


@pytest.mark.parametrize("url", ["/one/?q=x", "/7/"])
def test_request_is_what_it_was(url: str) -> None:
    """Also when others with the same route came before."""
    before = facts(request_for(url))
    for _ in range(3):
        request = request_for(url)
        _ = request.headers
        request_copy.keep(request)
        assert facts(request) == before
        assert request.environ is request.META


def test_environ_is_the_requests_own() -> None:
    """uWSGI empties its own when the response is done."""
    request = request_for("/one/")
    servers = request.environ
    request_copy.keep(request)
    servers.clear()
    assert request.META["HTTP_HOST"] == "testserver"


def test_two_requests_hold_the_same_strings_and_match() -> None:
    """Names and values of headers, paths; not what is one client's own."""
    one, two = request_for("/one/"), request_for("/one/")
    assert one.META["HTTP_USER_AGENT"] is not two.META["HTTP_USER_AGENT"]
    request_copy.keep(one)
    request_copy.keep(two)
    for name in ("HTTP_USER_AGENT", "HTTP_ORIGIN", "HTTP_HOST", "PATH_INFO"):
        assert one.META[name] is two.META[name]
    assert one.META["HTTP_COOKIE"] is not two.META["HTTP_COOKIE"]
    assert one.path is two.path is one.path_info
    assert one.method is two.method is one.META["REQUEST_METHOD"]
    assert one.resolver_match is two.resolver_match


def test_long_values_are_not_kept_for_others() -> None:
    """A thousand of them would be a lot."""
    long = "x" * 10_000
    one, two = request_for("/one/", HTTP_A=long), request_for("/one/", HTTP_A=long)
    request_copy.keep(one)
    request_copy.keep(two)
    assert one.META["HTTP_A"] is not two.META["HTTP_A"]


def test_no_more_than_so_many_are_kept() -> None:
    """Whatever clients send: they are forgotten, and begun again."""

    def keep(number: int) -> object:
        request = request_for("/one/", HTTP_A=f"value {number}")
        request_copy.keep(request)
        assert request.META["HTTP_A"] == f"value {number}"
        return request.META["HTTP_A"]

    keep(0)
    early = keep(1)
    assert keep(1) is early
    for number in range(2, 1500):
        keep(number)
    assert keep(1) is not early


def test_each_request_keeps_its_own_headers() -> None:
    """However those before it were: other names, as many of them; other values of the same."""
    sets = [{"HTTP_A": "1"}, {"HTTP_B": "1"}, {"HTTP_A": "2"}, {"HTTP_A": ""}, {}, {"HTTP_B": "2"}]
    for headers in sets * 2:
        request = request_for("/one/", **headers)
        before = dict(request.META)
        request_copy.keep(request)
        # Its body is let go of.
        del before["wsgi.input"], request.META["wsgi.input"]
        assert request.META == before


@pytest.mark.parametrize("name", ["HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_SEC_WEBSOCKET_KEY"])
def test_what_is_secret_is_forgotten_with_its_request(name: str) -> None:
    """No other request gets it, and no object keeps it."""
    request = request_for("/one/")
    secret = request.META[name] = "".join(["very ", "secret"])
    holders = sys.getrefcount(secret)
    request_copy.keep(request)
    assert request.META[name] is secret
    del request
    gc.collect()
    assert sys.getrefcount(secret) == holders - 1


def test_strings_of_a_class_of_their_own_stay_what_they_are() -> None:
    """Django marks strings that are safe in HTML in that way."""
    plain, safe = request_for("/one/", HTTP_A="text"), request_for("/one/", HTTP_A="text")
    safe.META["HTTP_A"] = mark_safe("text")
    request_copy.keep(plain)
    request_copy.keep(safe)
    assert type(safe.META["HTTP_A"]) is SafeString
    assert type(plain.META["HTTP_A"]) is str


def test_arguments_are_each_requests_own() -> None:
    """Of a match with arguments only the parts of the route are shared."""
    one, two = request_for("/7/"), request_for("/8/")
    request_copy.keep(one)
    request_copy.keep(two)
    assert one.resolver_match is not None
    assert two.resolver_match is not None
    assert (one.resolver_match.kwargs, two.resolver_match.kwargs) == ({"number": 7}, {"number": 8})
    assert one.resolver_match.tried is two.resolver_match.tried
    assert one.resolver_match.namespaces is two.resolver_match.namespaces


def test_matches_live_as_long_as_their_connections() -> None:
    """A URLconf that is exchanged leaves nothing behind."""

    def short_lived(request: HttpRequest) -> None:
        """Do nothing."""

    request = request_for("/one/")
    request.resolver_match = ResolverMatch(short_lived, (), {}, route="x/")
    request_copy.keep(request)
    gone = weakref.ref(short_lived)
    del request, short_lived
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    "read",
    [lambda body: body.read(), lambda body: body.read(7), lambda body: body.readline(), list],
)
def test_body_is_at_its_end_for_everybody(read: Callable[[Any], Any]) -> None:
    """Also when other code has closed it."""
    one, two = request_for("/one/"), request_for("/one/")
    request_copy.keep(one)
    request_copy.keep(two)
    one.META["wsgi.input"].close()
    with pytest.raises(OSError, match="nothing can be written"):
        one.META["wsgi.input"].write(b"x")
    assert not read(two.META["wsgi.input"])
    assert two.read() == b""


def test_request_without_environ() -> None:
    """One of ASGI has a META of its own making."""
    request = HttpRequest()
    request.path = request.path_info = "/one/"
    request.META = {"HTTP_HOST": "testserver"}
    request_copy.keep(request)
    assert request.META == {"HTTP_HOST": "testserver"}
    assert request.resolver_match is None
