"""Projects use the REST framework, class-based views and middleware of their own."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import InvalidStatus

from support.raw_peer import RawPeer, handshake_request

if TYPE_CHECKING:
    from wild_subject import Subject


def test_rest_method(subject: Subject) -> None:
    """`method_decorator(accept_websocket)` on `APIView.get` works without our middleware."""
    with subject.scenario():
        with subject.client("/rest/ada/?greeting=hello") as client:
            client.send("you")
            assert client.recv(20) == "hello ada: you"
        assert subject.get("/rest/ada/").json() == {"name": "ada", "user": "AnonymousUser"}


def test_rest_post_beside_it(subject: Subject) -> None:
    """Another method of the same class is untouched."""
    url = subject.server.url("/rest/ada/", "http")
    with (
        subject.scenario(),
        urllib.request.urlopen(url, data=b"text=hi", timeout=20) as answer,
    ):
        assert answer.read() == b'{"posted":"hi"}'


def test_rest_method_that_requires(subject: Subject) -> None:
    """`require_websocket` on `APIView.get` gives 400 to a plain request."""
    with subject.scenario():
        with subject.client("/rest-requiring/") as client:
            client.send("hi")
            assert client.recv(20) == "hi"
        assert subject.get("/rest-requiring/").status == 400


def test_rest_dispatch(subject: Subject) -> None:
    """The decorator around `dispatch` serves both kinds of request through the framework."""
    with subject.scenario():
        with subject.client("/rest-dispatch/") as client:
            client.send("hi")
            assert client.recv(20) == "hi"
        assert subject.get("/rest-dispatch/").json() == {"plain": True}


def test_method_of_a_class_based_view(subject: Subject) -> None:
    """`method_decorator(accept_websocket)` on `View.get`."""
    with subject.scenario(), subject.client("/plain-view/") as client:
        client.send("hi")
        assert client.recv(20) == "hi"


def test_own_middleware(subject: Subject) -> None:
    """Middleware on the factory shakes hands and closes by itself; the view is undecorated."""
    with subject.scenario(), subject.client("/own/echo/") as client:
        for text in ("one", "two"):
            client.send(text)
            assert client.recv(20) == text


def test_own_middleware_sees_a_plain_request(subject: Subject) -> None:
    """`create_websocket()` gives None for it."""
    with subject.scenario():
        assert subject.get("/own/page/").json() == {"websocket": None}
        assert subject.get("/own/echo/").body == b"page"


def test_own_middleware_and_a_refusal(subject: Subject) -> None:
    """A handshake without a key is not accepted, and the next one is."""
    with subject.scenario():
        with RawPeer(subject.server.address) as peer:
            headers = {"Sec-WebSocket-Key": None, "Sec-WebSocket-Version": None}
            peer.send(handshake_request("/asked/", subject.server.host, headers=headers))
            assert peer.read_response().status >= 400
        with subject.client("/asked/") as client:
            client.send("hi")
            assert client.recv(20) == "websocket True: hi"


def test_asking_middleware_and_a_decorator(subject: Subject) -> None:
    """Middleware creates a WebSocket to know the kind of a request; the decorator serves it."""
    with subject.scenario():
        assert subject.get("/asked/").json() == {"kind": "page", "asked": False}
        with subject.client("/asked/") as client:
            client.send("hi")
            assert client.recv(20) == "websocket True: hi"


def test_types(subject: Subject) -> None:
    """`request.websocket` is an instance of the classes that projects import."""
    with subject.scenario():
        with subject.client("/types/") as client:
            assert client.recv(20) == "DefaultWebSocket WebSocket"
            client.send("seen")
        assert subject.get("/types/").json() == {"found": []}


def test_view_that_does_not_accept(subject: Subject) -> None:
    """A WebSocket request to a page that is not decorated leaves nothing behind."""
    with (
        subject.scenario(),
        pytest.raises(InvalidStatus),
        subject.client("/screens/"),
    ):
        pass
