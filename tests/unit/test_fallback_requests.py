"""POSTs and polls of the fallback as requests: ids, bodies, and what clients are told."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.sessions.backends import cache, signed_cookies
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import RequestFactory
from visit import Serve, handshake

from dwebsocket import _core, accept_websocket, conf
from dwebsocket.compat import unpatched
from dwebsocket.exceptions import GroupUnavailable
from dwebsocket.handshake import fallback
from dwebsocket.handshake.fallback import forwarding, posting
from dwebsocket.handshake.fallback.polling import HeldResponse
from dwebsocket.middleware import WebSocketMiddleware
from dwebsocket.telemetry import clock
from dwebsocket.testing import websockets_of_a_test
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

MIB = 1024 * 1024
FACTORY = RequestFactory()


@pytest.fixture(autouse=True)
def _groups_of_a_test() -> Iterator[None]:
    with websockets_of_a_test():
        yield


def new_id() -> str:
    """Give an id whose connection is not there."""
    return posting.address(FACTORY.get("/chat/"), "")[1]


class SealedSession(signed_cookies.SessionStore):
    """The session of a project that seals its cookies in another way."""


def with_session(request: Any, session: Any) -> Any:
    """Give a request that has a session."""
    request.session = session
    return request


def post(body: bytes, name: str | None = None, **overrides: Any) -> HttpResponse:
    """Answer a POST."""
    target = f"/chat/?transport=sse&id={new_id() if name is None else name}"
    # Django's factory names no length of an empty body.
    length = {"CONTENT_LENGTH": str(len(body))}
    request = FACTORY.post(target, body, content_type="application/json", **length)
    return answered(request, **overrides)


def answered(request: HttpRequest, **overrides: Any) -> HttpResponse:
    """Answer a request."""
    answer = fallback.answer(request, conf.Options.current({"fallback": True, **overrides}))
    assert answer is not None
    return answer


def poll(name: str) -> HttpResponse:
    """Answer a poll."""
    return answered(FACTORY.get(f"/chat/?transport=polling&id={name}&ack=0"))


def post_under_wsgi(body: io.RawIOBase, **environ: Any) -> WSGIRequest:
    """Give a POST without `Content-Length` on a WSGI server that has a body."""
    given = FACTORY.post(f"/chat/?transport=sse&id={new_id()}").environ
    del given["CONTENT_LENGTH"]
    return WSGIRequest({**given, "wsgi.input": body, **environ})


def post_under_asgi(body: bytes) -> ASGIRequest:
    """Give a POST without `Content-Length` whose body an ASGI server has sent."""
    query = f"transport=sse&id={new_id()}".encode()
    headers = [(b"host", b"testserver"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/chat/", "query_string": query}
    return ASGIRequest({**scope, "headers": headers}, io.BytesIO(body))


ONE = b'{"n": 1, "messages": [{"text": "hi"}]}'


class TestIds:
    """Which connection an id names."""

    def test_an_id_is_of_one_path_and_ends_after_a_day(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a process that has ended would be asked for by old ids for ever."""
        key, name = posting.address(FACTORY.get("/chat/"), "")
        request = FACTORY.get(f"/chat/?id={name}")
        assert posting.key_of(request) == key
        assert posting.key_of(FACTORY.get(f"/other/?id={name}")) is None
        made = clock.wall()
        monkeypatch.setattr(clock, "wall", lambda: made + posting.LIFETIME_S - 1)
        assert posting.key_of(request) == key
        monkeypatch.setattr(clock, "wall", lambda: made + posting.LIFETIME_S + 1)
        assert posting.key_of(request) is None

    @pytest.mark.parametrize("store", [signed_cookies.SessionStore, SealedSession])
    def test_a_session_in_a_cookie_may_change(self, store: Any) -> None:
        """Whichever class has it, and whoever has put it there: its key is the cookie itself."""
        key, name = posting.address(with_session(FACTORY.get("/chat/"), store("before it")), "")
        later = with_session(FACTORY.get(f"/chat/?id={name}"), store("after it"))
        assert posting.key_of(later) == key

    def test_another_session_has_other_ids(self, override: Any) -> None:
        """Also of a store that is not the site's."""
        override(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
        mia, ben = cache.SessionStore("of-mia--"), cache.SessionStore("of-ben--")
        key, name = posting.address(with_session(FACTORY.get("/chat/"), mia), "")
        request = FACTORY.get(f"/chat/?id={name}")
        assert posting.key_of(with_session(request, mia)) == key
        assert posting.key_of(with_session(request, ben)) is None

    def test_no_part_of_a_path_belongs_to_an_id(self) -> None:
        """A path with a NUL has in its seal what that of another path begins with."""
        _, name = posting.address(FACTORY.get("/any/%00/chat/"), "")
        code = base64.urlsafe_b64decode(name)
        longer = posting._encode(code[:20] + b"\0/any/" + code[20:])
        assert posting.key_of(FACTORY.get(f"/chat/?id={longer}")) is None

    @pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 35, 36, 37, 60])
    def test_no_other_bytes_are_an_id(self, length: int) -> None:
        """Of any length."""
        name = posting._encode(b"x" * length)
        assert posting.key_of(FACTORY.get(f"/chat/?id={name}")) is None


class TestOtherProcesses:
    """What a client is told when the process that has its connection does not answer."""

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (forwarding.Gone(), 410),
            (forwarding.Doubtful(), 503),
            (GroupUnavailable("away"), 503),
        ],
        ids=["gone", "doubtful", "away"],
    )
    def test_the_client_is_told_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
    ) -> None:
        """To connect anew, or to come again in a moment."""

        def ask(*_: Any) -> Any:
            raise error

        name = new_id()
        monkeypatch.setattr(forwarding.node(), "number", b"other.")
        monkeypatch.setattr(forwarding.node(), "ask", ask)
        monkeypatch.setattr(
            "dwebsocket.handshake.fallback.polling._held_of", lambda request: Held()
        )
        for response in (post(ONE, name), poll(name)):
            assert response.status_code == status
            assert response.get("Retry-After") == ("1" if status == 503 else None)

    def test_a_poll_for_another_process_waits_ten_seconds_at_most(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That may be killed meanwhile, which the next poll finds out."""
        name = new_id()
        monkeypatch.setattr(forwarding.node(), "number", b"other.")
        monkeypatch.setattr(forwarding.node(), "ask", lambda *_: "held")
        monkeypatch.setattr(
            "dwebsocket.handshake.fallback.polling._held_of", lambda request: Held()
        )
        response = poll(name)
        assert isinstance(response, HeldResponse)
        assert response._timeout == 10

    @pytest.mark.parametrize("kind", ["polling", "sse"])
    def test_without_a_thread_it_comes_again_in_a_moment(
        self, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """The system gives none for what other processes say."""

        def refuse(*_: Any) -> None:
            raise RuntimeError("can't start new thread")

        request = FACTORY.get(f"/chat/?transport={kind}")
        options = conf.Options.current({"fallback": True})
        with monkeypatch.context() as patch:
            patch.setattr(unpatched, "start_thread", refuse)
            response = fallback.answer(request, options)
        assert response is not None
        assert (response.status_code, response["Retry-After"]) == (503, "5")
        assert fallback.answer(request, options) is None


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_middleware_may_ask_behind_the_view_what_a_request_is(method: str) -> None:
    """A poll, or a POST: no WebSocket."""
    target = f"/chat/?transport=polling&id={new_id()}&ack=0"
    request = FACTORY.generic(method, target, ONE, content_type="application/json")
    WebSocketMiddleware(answered)(request)
    assert not request.is_websocket()  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", ["transport=polling&id=x&ack=0", "transport=x"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_decorator_may_ask_behind_the_view_what_a_request_is(method: str, target: str) -> None:
    """Without the middleware, too."""
    request: Any = FACTORY.generic(method, f"/chat/?{target}")
    response = accept_websocket(fallback=True)(HttpResponse)(request)
    assert response.status_code in (400, 410)
    assert (request.is_websocket(), request.websocket) == (False, None)


class Held:
    """A request that waits, of a server that gives its clients away."""

    def find(self) -> None:
        """Find the client."""

    def prepare(self) -> None:
        """Make ready to take it."""


class _Body(io.RawIOBase):
    """The body that a WSGI server gives: these bytes, or without end; then the server's error."""

    def __init__(self, content: bytes | None, error: Exception | None = None) -> None:
        self._content = None if content is None else io.BytesIO(content)
        self._error = error
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        """Give the next bytes, and count them."""
        found = b" " * size if self._content is None else self._content.read(size)
        if not found and self._error is not None:
            raise self._error
        self.taken += len(found)
        return found


class TestBodies:
    """What the body of a POST may have."""

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (ONE, 410),
            (b'{"n": 1, "messages": [' + b",".join([b'{"text": ""}'] * 1024) + b"]}", 410),
            (b'{"n": 1, "messages": [' + b",".join([b'{"text": ""}'] * 1025) + b"]}", 413),
            (b'{"n": 1, "messages": [' + b"[]," * 50_000 + b"[]]}", 400),
            (b'{"n": 1, "messages": [], "x": ' + b"[" * 1000 + b"]" * 1000 + b"}", 413),
            (b"[" * 100_000, 400),
            (ONE[:-1], 400),
            (b"", 400),
        ],
        ids=["one", "1,024", "1,025", "of lists", "deep", "only deep", "cut", "empty"],
    )
    def test_messages(self, body: bytes, status: int) -> None:
        """Their number and depth are limited before anything is built of them."""
        assert post(body).status_code == status

    @pytest.mark.parametrize(
        ("size", "status"), [(1334 + 66 * 1024, 413), (1334 + 64 * 1024, 410), (50 * MIB, 413)]
    )
    def test_size(self, size: int, status: int) -> None:
        """A message of the largest size in base64, and 64 KiB: what is larger is not read."""
        response = post(ONE.ljust(size), max_message_size=1000)
        assert response.status_code == status
        if status == 413:
            assert response.content == b"The messages are too large.\n"

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (ONE, 410),
            (ONE.ljust(1334 + 64 * 1024), 410),
            (ONE.ljust(1334 + 66 * 1024), 413),
            (ONE[:-1], 400),
            (b"", 400),
        ],
        ids=["one", "largest", "larger", "cut", "empty"],
    )
    def test_without_a_length(self, body: bytes, status: int) -> None:
        """It is read up to its end where there is one: ASGI's, or that of the WSGI server."""
        with_end = post_under_wsgi(_Body(body), **{"wsgi.input_terminated": True})
        for request in (with_end, post_under_asgi(body)):
            assert answered(request, max_message_size=1000).status_code == status

    def test_a_wsgi_server_that_tells_no_end(self) -> None:
        """A read would wait for the client for ever: it is told to name the length."""
        body = _Body(ONE)
        for environ in ({}, {"wsgi.input_terminated": False}):
            response = answered(post_under_wsgi(body, **environ))
            assert response.status_code == 411
            assert response.content == b"This server needs a Content-Length.\n"
        assert body.taken == 0

    def test_a_server_that_takes_a_whole_chunk_into_memory(self) -> None:
        """Of whatever size a client has made it: cheroot."""
        body = type("ChunkedRFile", (_Body,), {"__module__": "cheroot.server"})(ONE)
        request = post_under_wsgi(body, **{"wsgi.input_terminated": True})
        assert answered(request).status_code == 411
        assert body.taken == 0

    def test_a_body_without_end(self) -> None:
        """It takes no more memory than one that says its length, and one byte is read too much."""
        body = _Body(None)
        request = post_under_wsgi(body, **{"wsgi.input_terminated": True})
        assert answered(request, max_message_size=1000).status_code == 413
        assert body.taken == _core.Post.max_size(1000) + 1

    @pytest.mark.parametrize("error", [OSError(), ValueError("chunk"), Exception("gunicorn's")])
    def test_chunks_that_are_none(self, error: Exception) -> None:
        """Each server has an exception of its own for them."""
        body = _Body(ONE, error)
        request = post_under_wsgi(body, **{"wsgi.input_terminated": True})
        response = answered(request)
        assert response.status_code == 400
        assert response.content == b"The client has not sent the whole body.\n"

    def test_a_body_counts_among_what_the_process_buffers(self) -> None:
        """At the limit the client is told to come again."""
        # This process's node sets the limit of the settings when it is made.
        forwarding.node()
        before = _core.buffered_bytes()
        body = _core.Post(64 * MIB)
        try:
            _core.limit_buffered(before + 8 * MIB)
            found = [body.take_in(bytes(MIB)) for _ in range(8)]
            assert ("no room", "the process buffers too much") in found
            assert 0 < _core.buffered_bytes() - before <= 8 * MIB
            large = b'{"n": 1, "messages": [{"text": "' + b"x" * 4 * MIB + b'"}]}'
            response = post(large)
            assert (response.status_code, response["Retry-After"]) == (503, "1")
            assert post(ONE).status_code == 410
        finally:
            _core.limit_buffered(None)
        del body
        assert _core.buffered_bytes() == before

    def test_what_was_not_read_says_nothing(self) -> None:
        """A body that was refused neither."""
        body = _core.Post(1000)
        for use in (lambda: body.number, lambda: body.frames, lambda: body.put(bytes(16))):
            with pytest.raises(RuntimeError, match="was not taken"):
                use()
        assert body.read() == ("malformed", "it is no JSON of this form")
        for use in (lambda: body.number, body.read, lambda: body.take_in(b"")):
            with pytest.raises(RuntimeError, match="was not taken"):
                use()


def closes(get_response: Any) -> Any:
    """Middleware of a project's own, which closes each WebSocket, as the original's does."""

    def middleware(request: Any) -> HttpResponse:
        response: HttpResponse = get_response(request)
        if request.is_websocket():
            request.websocket.close()
        return response

    return middleware


@pytest.mark.parametrize("query", ["transport=sse", "transport=polling", None])
@pytest.mark.parametrize("accept", [True, False])
def test_middleware_that_closes_behind_the_view(visit: Serve, query: str, accept: bool) -> None:
    """The connection opens later, and is not closed."""

    @accept_websocket(fallback=True, accept=accept)
    def view(request: Any) -> None:
        if not accept:
            request.websocket.accept()
        seen.append(request.websocket.closed)

    seen: list[bool] = []
    environ = handshake() if query is None else FACTORY.get(f"/?{query}").environ
    made = visit(view, environ={**environ}, middleware=["test_fallback_requests.closes"])
    assert made.response.status_code == (101 if query is None else 200)
    made.serve()
    eventually(lambda: seen == [False])
