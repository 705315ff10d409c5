"""The attributes of `request.websocket` about its connection, and their types."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from visit import Serve, handshake

import dwebsocket
from dwebsocket import (
    WebSocket,
    WebSocketHandler,
    WebSocketRequest,
    accept_websocket,
    conf,
    decorators,
    require_websocket,
)
from dwebsocket.backends.default.factory import WebSocketFactory
from dwebsocket.runners import thread
from dwebsocket.typing import CommonOptions, ViewOptions

if TYPE_CHECKING:
    from pathlib import Path

    from peer import LiveWebSocket

Open = Callable[..., "LiveWebSocket"]


def seen_by_view(visit: Serve, look: Callable[[WebSocket], Any], **environ: str | None) -> Any:
    """Give the values that a view sees."""
    seen: list[Any] = []

    @accept_websocket
    def view(request: WebSocketRequest) -> None:
        seen.append(look(request.websocket))

    visit(view, environ=handshake(**environ)).serve().client.closing()
    return seen[0]


class TestRemoteAddress:
    """`REMOTE_ADDR`, as Django sees it."""

    @pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::7"])
    def test_address(self, visit: Serve, address: str) -> None:
        """Of the client, or of a proxy."""
        found = seen_by_view(visit, lambda ws: ws.remote_address, REMOTE_ADDR=address)
        assert found == address

    @pytest.mark.parametrize("address", ["", None])
    def test_none(self, visit: Serve, address: str | None) -> None:
        """Where the server gives none, as over Unix sockets."""
        assert seen_by_view(visit, lambda ws: ws.remote_address, REMOTE_ADDR=address) is None

    def test_before_the_view_has_decided(self, visit: Serve) -> None:
        """A view may refuse by it."""

        @accept_websocket(accept=False)
        def view(request: WebSocketRequest) -> None:
            request.websocket.reject(403 if request.websocket.remote_address == "::1" else 404)

        made = visit(view, environ=handshake(REMOTE_ADDR="::1"))
        assert made.response.status_code == 403


class TestOpenedAt:
    """When the client got its 101."""

    def test_aware(self, visit: Serve) -> None:
        """As `timezone.now()` is, in UTC."""
        before = datetime.now(tz=timezone.utc)
        opened_at = seen_by_view(visit, lambda ws: ws.opened_at)
        assert opened_at.utcoffset() == timedelta(0)
        assert before - timedelta(seconds=1) <= opened_at <= datetime.now(tz=timezone.utc)

    def test_stays(self, open_websocket: Open) -> None:
        """Also behind the end."""
        live = open_websocket()
        opened_at = live.websocket.opened_at
        live.websocket.close()
        assert live.websocket.opened_at == opened_at is not None

    def test_before(self) -> None:
        """None."""
        assert WebSocket().opened_at is None


class TestBeforeItIsOpen:
    """The attributes before the connection is open."""

    def test_view_that_decides(self, visit: Serve) -> None:
        """It has not ended, until it was refused."""
        seen: list[Any] = []

        def look(websocket: WebSocket) -> None:
            seen.append((websocket.closed, websocket.close_code, websocket.close_reason))

        @accept_websocket(accept=False)
        def view(request: WebSocketRequest) -> None:
            look(request.websocket)
            request.websocket.reject()
            look(request.websocket)

        assert visit(view).response.status_code == 403
        assert seen == [(False, None, ""), (True, 1006, "the WebSocket was never opened")]

    def test_view_that_accepts(self, visit: Serve) -> None:
        """It is the same object before and after."""
        seen: list[bool] = []

        @accept_websocket(accept=False)
        def view(request: WebSocketRequest) -> None:
            seen.append(request.websocket.closed)
            request.websocket.accept()
            seen.append(request.websocket.closed)
            request.websocket.close()
            seen.append(request.websocket.closed)

        visit(view).serve().client.closing()
        # The close frame is out before `close()` returns.
        assert thread.join(10)
        assert seen == [False, False, True]

    def test_one_of_a_factory(self) -> None:
        """Middleware may look at what it has made."""
        request = RequestFactory().get("/", HTTP_UPGRADE="websocket", HTTP_CONNECTION="upgrade")
        websocket = WebSocketFactory(request).create_websocket()
        assert websocket is not None
        assert (websocket.closed, websocket.close_code) == (False, None)

    def test_one_that_was_closed_before(self) -> None:
        """By a sign-out during the handshake."""
        websocket = WebSocket()
        websocket._close_soon(4401, "signed out")
        assert (websocket.closed, websocket.close_code, websocket.close_reason) == (
            *(True, 4401, "signed out"),
        )


class TestMessages:
    """`messages()`: `for` and `async for` alike, exact, and without a None."""

    @pytest.mark.parametrize("text_type", [bytes, str])
    def test_sync(self, open_websocket: Open, text_type: type[Any]) -> None:
        """Until the close."""
        live = open_websocket(text_type=text_type)
        live.client.send("text")
        live.client.send(b"binary")
        live.client.close()
        assert [*live.websocket.messages()] == ["text", b"binary"]
        assert [*live.websocket.messages()] == []

    @pytest.mark.parametrize("iterate", [lambda ws: ws.messages(), lambda ws: ws])
    def test_async(self, visit: Serve, iterate: Callable[[WebSocket], Any]) -> None:
        """The same, over the websocket itself or over this."""
        seen: list[Any] = []

        @accept_websocket
        async def view(request: WebSocketRequest) -> None:
            seen.extend([message async for message in iterate(request.websocket)])
            await request.websocket.asend("unheard")

        made = visit(view).serve()
        made.client.send("text")
        made.client.send(b"binary")
        made.client.close()
        made.client.closing()
        from dwebsocket.runners import loop

        assert loop.join(10)
        assert seen == ["text", b"binary"]


DECORATORS = [accept_websocket, require_websocket, decorators.websocket, dwebsocket.websocket]


class TestDecoratorsKeywords:
    """They stand in the signature, for editors and for `help()`."""

    @pytest.mark.parametrize("decorator", DECORATORS)
    def test_are_all_options(self, decorator: Any) -> None:
        """One for each setting that can differ from view to view, in the order of the docs."""
        view, *keywords = inspect.signature(decorator).parameters.values()
        assert view.kind is inspect.Parameter.POSITIONAL_ONLY
        assert {each.kind for each in keywords} == {inspect.Parameter.KEYWORD_ONLY}
        assert [each.name for each in keywords] == [
            "accept",
            "groups",
            "resume",
            "presence",
            *conf.OPTION_NAMES,
        ]

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="Python keeps no overloads")
    @pytest.mark.parametrize("decorator", DECORATORS)
    def test_are_typed(self, decorator: Any) -> None:
        """Type checkers look at the overloads only."""
        sync, coroutine, called = typing.get_overloads(decorator)
        for bare in (sync, coroutine):
            assert [*inspect.signature(bare).parameters] == ["view"]
        (options,) = inspect.signature(called).parameters.values()
        assert (options.kind, options.annotation) == (
            inspect.Parameter.VAR_KEYWORD,
            "Unpack[ViewOptions]",
        )

    def test_options_are_typed(self) -> None:
        """Each of them, wherever they are given."""
        own = {"accept", "groups", "resume", "presence"}
        assert ViewOptions.__optional_keys__ == {*own, *conf.OPTION_NAMES}
        # An application of ASGI decides about these itself.
        without = {"accept", "resume", "presence", "text_type", "subprotocols"}
        assert CommonOptions.__optional_keys__ == ViewOptions.__optional_keys__ - without
        in_handlers = WebSocketHandler.__annotations__
        assert {*conf.OPTION_NAMES} <= {*in_handlers}
        for name in conf.OPTION_NAMES:
            written = ViewOptions.__annotations__[name].__forward_arg__
            assert in_handlers[name] == f"ClassVar[{written}]"

    @pytest.mark.parametrize("decorator", DECORATORS)
    def test_what_is_not_given_is_left_to_the_settings(self, decorator: Any) -> None:
        """The signature says so."""
        default = inspect.signature(decorator).parameters["ping_interval"].default
        assert repr(default) == "as in the settings"


class TestWebSocketRequest:
    """`dwebsocket.WebSocketRequest`, for annotations."""

    def test_is_a_request(self) -> None:
        """Of Django's, with two attributes more."""
        assert issubclass(WebSocketRequest, HttpRequest)
        assert typing.get_type_hints(WebSocketRequest, {"WebSocket": WebSocket})["websocket"]
        assert WebSocketRequest().is_websocket() is False

    @pytest.mark.timeout(400)
    @pytest.mark.every("checks types, as `make lint` does")
    def test_type_checker_knows_what_a_view_has(self, tmp_path: Path) -> None:
        """It finds the wrong lines, and no others."""
        pytest.importorskip("mypy")
        views = tmp_path / "views.py"
        views.write_text(
            "from dwebsocket import WebSocketRequest, accept_websocket, require_websocket\n"
            "\n"
            "@accept_websocket(text_type=str, max_message_size=1024, subprotocols=['a'])\n"
            "def chat(request: WebSocketRequest, room: str) -> None:\n"
            "    if not request.is_websocket():\n"
            "        return\n"
            "    request.websocket.send(room)\n"
            "    took: float = request.websocket.ping(timeout=5)\n"
            "    print(request.GET, request.websocket.opened_at, took)\n"
            "    request.websocket.snd('x')  # line 10\n"
            "\n"
            "@require_websocket(max_mesage_size=1024)  # line 12\n"
            "async def ticker(request: WebSocketRequest) -> None:\n"
            "    async for message in request.websocket.messages():\n"
            "        await request.websocket.asend(message)\n"
        )
        check = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
        cache = ["--cache-dir", str(tmp_path), "--config-file", ""]
        found = subprocess.run(
            [*check, *cache, str(views)], capture_output=True, text=True, timeout=300, check=False
        )
        lines = [line for line in found.stdout.splitlines() if "views.py" in line]
        errors = [line.split("views.py:")[1].split(":")[0] for line in lines if "error:" in line]
        assert sorted(set(errors), key=int) == ["10", "12"], found
