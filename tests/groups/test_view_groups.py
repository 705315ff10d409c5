"""`@accept_websocket(groups=…)`, and the group of a user."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ImproperlyConfigured
from django.urls import path
from visit import handshake

from dwebsocket import UsageError, accept_websocket, group, require_websocket, user
from dwebsocket.request import request_copy
from dwebsocket.testing import WebSocketClient
from support.waiting import eventually

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from memory_backend import Switchboard

Override = Callable[..., None]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def says_its_groups(request: Any, **kwargs: Any) -> None:
    """Send the names of the groups before anything else, then wait."""
    request.websocket.send_json(sorted(request.websocket.groups))
    for _ in request.websocket:
        pass


async def says_its_groups_async(request: Any, **kwargs: Any) -> None:
    """The same in a task."""
    await request.websocket.asend_json(sorted(request.websocket.groups))
    async for _ in request.websocket:
        pass


def serve(override: Override, view: Any) -> WebSocketClient:
    """Give a client of one view, at `/<room>/`."""
    override(ROOT_URLCONF=(path("<path:room>/", view),), MIDDLEWARE=MIDDLEWARE)
    return WebSocketClient()


@pytest.mark.parametrize("view", [says_its_groups, says_its_groups_async])
@pytest.mark.parametrize("decorator", [accept_websocket, require_websocket])
@pytest.mark.parametrize(
    ("wanted", "joined"),
    [
        (["room-{room}", "all"], ["all", "room-7"]),
        ("room-{room}", ["room-7"]),
        ([group("fixed")], ["fixed"]),
        (lambda request, room: [f"f-{room}", group("g")], ["f-7", "g"]),
        (lambda request, room: f"f-{room}", ["f-7"]),
        (lambda request, room: None, []),
        (["{user.pk}", "all"], ["all"]),
        ([], []),
    ],
)
def test_are_joined_before_the_first_line(
    override: Override, decorator: Any, view: Any, wanted: Any, joined: list[str]
) -> None:
    """Filled in from the URL's arguments; what names the user is left out for an anonymous one."""
    with serve(override, decorator(groups=wanted)(view)).websocket("/7/") as ws:
        assert ws.receive_json() == joined
        for name in joined:
            assert group(name).count() == 1
    for name in joined:
        eventually(lambda name=name: group(name).count() == 0)


def test_are_joined_before_the_client_gets_the_101(
    override: Override, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a client has published then reaches itself, too."""
    keep = request_copy.keep

    def publish_first(request: Any, **options: Any) -> None:
        # The first call behind the opening: the 101 may be with the client.
        group("room-7").send("published at once")
        keep(request, **options)

    monkeypatch.setattr(request_copy, "keep", publish_first)
    view = accept_websocket(groups=["room-{room}"])(says_its_groups)
    with serve(override, view).websocket("/7/") as ws:
        assert sorted([ws.receive(), ws.receive()]) == ['["room-7"]', "published at once"]


def test_of_a_user(override: Override, anna: User) -> None:
    """The user's key is filled in, and each connection belongs to the group of its user."""
    client = serve(override, accept_websocket(groups=["inbox-{user.pk}"])(says_its_groups))
    client.force_login(anna)
    with client.websocket("/7/") as ws:
        assert ws.receive_json() == [f"inbox-{anna.pk}"]
        assert user(anna).count() == user(anna.pk).count() == 1
        user(anna).send("for anna")
        assert ws.receive() == "for anna"
        with serve(override, accept_websocket(says_its_groups)).websocket("/7/") as anonymous:
            assert anonymous.receive_json() == []
            assert user(anna).count() == 1
    eventually(lambda: user(anna).count() == 0)


@pytest.mark.parametrize("room", ["x" * 300, "a%00b", "%0A"])
def test_impossible_names_are_not_found(override: Override, room: str) -> None:
    """The handshake is answered with 404, before anything is opened."""
    client = serve(override, accept_websocket(groups=["{room}"])(says_its_groups))
    with client.websocket(f"/{room}/") as ws:
        assert ws.response.status_code == 404
        # Django itself knows no address with a line feed at its end.
        assert ws.response.content == b"This address has no group.\n" or room == "%0A"


def test_a_backend_that_is_away_refuses(
    override: Override, switchboard: Switchboard, anna: User
) -> None:
    """With 503; the group of a user alone does not, as it is tried again."""
    switchboard.broken |= {"room", f"dwebsocket.user:{anna.pk}"}
    for groups, status in ((["other", "room"], 503), (["other"], 101)):
        assert not switchboard.subscribers.get("other")
        client = serve(override, accept_websocket(groups=groups)(says_its_groups))
        client.force_login(anna)
        with client.websocket("/7/") as ws:
            assert ws.response.status_code == status


def test_with_accept_false_they_are_joined_at_the_acceptance(override: Override) -> None:
    """Before that there is no connection."""

    @accept_websocket(accept=False, groups=["room-{room}"])
    def view(request: Any, room: str) -> None:
        assert group(f"room-{room}").count() == 0
        request.websocket.accept()
        says_its_groups(request)

    with serve(override, view).websocket("/7/") as ws:
        assert ws.receive_json() == ["room-7"]


def test_a_refusal_of_the_view_joins_nothing(override: Override) -> None:
    """The subscription is given back."""

    @accept_websocket(accept=False, groups=["room"])
    def view(request: Any, room: str) -> None:
        request.websocket.reject(403)

    with serve(override, view).websocket("/7/") as ws:
        assert ws.response.status_code == 403
    assert group("room").count() == 0


@pytest.mark.parametrize("wanted", [7, b"room", {"a": 1}, [7], [None]])
def test_no_names_are_an_error_of_the_decorator(wanted: Any) -> None:
    """When the view is imported."""
    with pytest.raises(TypeError, match=r"accept_websocket\(groups=…\) takes names of groups"):
        accept_websocket(groups=wanted)


def test_a_template_that_cannot_be_read_is_an_error_of_the_decorator() -> None:
    """When the view is imported."""
    with pytest.raises(ValueError, match="expected '}'"):
        accept_websocket(groups=["room-{room"])


@pytest.mark.parametrize("wanted", [["{pk}"], ["{room.pk}"], ["{0}"]])
def test_a_template_without_its_argument_names_itself(override: Override, wanted: Any) -> None:
    """It is an error of the project, as a page that fails."""
    client = serve(override, accept_websocket(groups=wanted)(says_its_groups))
    with pytest.raises(ImproperlyConfigured, match="the view has no argument for it"):
        client.websocket("/7/").__enter__()


def test_an_async_function_is_refused(override: Override) -> None:
    """It could query in the handshake, which waits for no task."""

    async def names(request: Any, room: str) -> list[str]:
        return ["room"]

    client = serve(override, accept_websocket(groups=names)(says_its_groups))
    with pytest.raises(UsageError, match="takes a sync function"):
        client.websocket("/7/").__enter__()


def sign_in(get_response: Any) -> Any:
    """Give a request its user, as middleware of a project can."""

    def middleware(request: Any) -> Any:
        request.user = request.META["test.user"]
        return get_response(request)

    return middleware


@pytest.mark.parametrize("is_signed_in", [False, True])
def test_a_response_that_middleware_drops(
    visit: Callable[..., Any], switchboard: Switchboard, anna: User, is_signed_in: bool
) -> None:
    """It answers something else: the next handshake gives the subscriptions back."""
    view = accept_websocket(groups=["dropped"])(says_its_groups)
    chain = [f"{__name__}.sign_in", "test_upgrade.replace"]
    someone = {"test.user": anna if is_signed_in else AnonymousUser()}
    for _ in range(3):
        made = visit(view, middleware=chain, environ={**handshake(), **someone})
        assert made.response.status_code == 418
    # On Python 3.10, exceptions within Django hold the response in a cycle now and then.
    gc.collect()
    names = ["dropped", *([f"dwebsocket.user:{anna.pk}"] if is_signed_in else [])]
    eventually(lambda: all(switchboard.subscribers.get(name) for name in names))
    other = visit(accept_websocket(says_its_groups))
    eventually(lambda: not any(switchboard.subscribers[name] for name in names))
    other.response.close()
