"""Guards of Django REST framework, Ninja and django-ratelimit before WebSockets."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.utils.decorators import method_decorator
from django_ratelimit.decorators import ratelimit
from echoing import async_echo, talks
from guarding import HANDLERS, PLACES, SIGN_IN, on_class, outcome, refuses, table, talk
from ninja import NinjaAPI
from rest_framework.decorators import (
    api_view,
    permission_classes,
    renderer_classes,
    throttle_classes,
)
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView
from visit import Serve, handshake

from dwebsocket import accept_websocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ABOVE, GET, HANDLER, _, BELOW = PLACES


@pytest.fixture(autouse=True)
def _nothing_counted() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


class Full(SimpleRateThrottle):
    """Lets only users in."""

    rate = "100/second"
    scope = "full"

    def get_cache_key(self, request: Any, view: Any) -> str | None:
        return None if request.user.is_authenticated else "stranger"

    def throttle_success(self) -> Any:
        return self.throttle_failure()


REST_GUARDS: dict[str, dict[str, Any]] = {
    "`permission_classes` of Django REST framework": {"permission_classes": [IsAuthenticated]},
    "`throttle_classes` of Django REST framework": {"throttle_classes": [Full]},
}


def of_function(guards: dict[str, Any]) -> Any:
    """Make a view by `api_view`, with the decorator below it."""
    view: Any = accept_websocket(fallback=True)(talk)
    view = permission_classes(guards.get("permission_classes", []))(view)
    view = throttle_classes(guards.get("throttle_classes", []))(view)
    return api_view(["GET"])(renderer_classes([JSONRenderer])(view))


def of_class(guards: dict[str, Any], decorate: Any) -> Any:
    """Make a class-based view with a decorated `get`."""

    class Secret(APIView):
        renderer_classes = (JSONRenderer,)

        @method_decorator(decorate)
        def get(self, request: Any, **kwargs: Any) -> Any:
            return talk(request)

    return type("Secret", (Secret,), guards).as_view()  # type: ignore[attr-defined]


REST_PLACES: dict[str, Callable[[dict[str, Any]], Any]] = {
    ABOVE: of_function,
    GET: lambda guards: of_class(guards, accept_websocket(fallback=True)),
    BELOW: lambda guards: accept_websocket(of_class(guards, lambda view: view)),
}


@pytest.mark.parametrize("place", REST_PLACES)
@pytest.mark.parametrize("guard", REST_GUARDS)
def test_rest_framework(visit: Serve, guard: str, place: str) -> None:
    """Its views are asked before their method, with a decorator or without."""
    view = REST_PLACES[place](REST_GUARDS[guard])
    refuses(visit, view, [SIGN_IN], table()[guard][place])
    talks(visit(view, middleware=[SIGN_IN], environ=handshake("/?user=1")))


@pytest.mark.parametrize("guards", REST_GUARDS.values())
def test_groups_above_permissions_of_rest_framework(guards: dict[str, Any]) -> None:
    """Would let strangers hear the groups."""
    view = of_class(guards, lambda view: view)
    if "permission_classes" in guards:
        with pytest.raises(TypeError, match="decorate the method get"):
            accept_websocket(groups=["news"])(view)
    else:
        accept_websocket(groups=["news"])(view)


_numbers = itertools.count()


def of_ninja(view: Any) -> Any:
    """Make the URLs of an API with one operation, for users."""
    api = NinjaAPI(urls_namespace=f"api-{next(_numbers)}")

    def is_user(request: Any) -> bool:
        return bool(request.user.is_authenticated)

    api.api_operation(["GET", "POST"], "/", auth=is_user)(view)
    return api.urls


@pytest.mark.parametrize("view", [talk, async_echo])
def test_ninja(visit: Serve, view: Any) -> None:
    """An operation is asked after its `auth`."""
    row = table()["`auth` of Ninja"]
    urls = of_ninja(accept_websocket(fallback=True)(view))
    refuses(visit, urls, [SIGN_IN], row[ABOVE])
    talks(visit(urls, middleware=[SIGN_IN], environ=handshake("/?user=1")))
    (patterns, *_) = of_ninja(view)
    operation = next(each for each in patterns if str(each.pattern) == "")
    refuses(visit, accept_websocket(operation.callback), [SIGN_IN], row[BELOW])


@pytest.mark.parametrize("place", PLACES)
def test_ratelimit(visit: Serve, place: str) -> None:
    """A handshake counts, and so does each request of the fallback."""
    for view in PLACES[place](ratelimit(key="ip", rate="0/s")):
        refuses(visit, view, [], table()["`ratelimit` of django-ratelimit"][place])
    for view in PLACES[place](ratelimit(key="ip", rate="100/s", group=place)):
        talks(visit(view))


@pytest.mark.parametrize("cls", HANDLERS)
def test_ratelimit_of_handlers(visit: Serve, cls: Any) -> None:
    """The second handshake in an hour is refused."""
    view = on_class(ratelimit(key="ip", rate="1/h"), cls)
    talks(visit(view))
    assert (
        outcome(visit, view, [], handshake()) == table()["`ratelimit` of django-ratelimit"][HANDLER]
    )
