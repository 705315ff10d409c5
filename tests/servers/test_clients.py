"""Client libraries of several languages against the servers, each as its users would use it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import pytest
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from support.certificates import client_context
from support.clients import node, websocket
from support.server import MAIN, TLS, Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

pytestmark = pytest.mark.parametrize("server", [*MAIN, *TLS], indirect=True, ids=str)

T = TypeVar("T")

MEBIBYTE = 1 << 20

# Path, and the close code with which the server ends it.
ENDINGS = [
    ("/returns-at-once/", 1000),
    ("/closes-first/", 4001),
    ("/raises/", 1011),
    ("/denied/", 1008),
    ("/missing/", 4404),
]


def trusting(server: Server) -> ssl.SSLContext | bool:
    """Return the `ssl` argument of aiohttp for a server, encrypted or not."""
    return client_context() if server.kind.tls else True


def run(conversation: Coroutine[Any, Any, T]) -> T:
    """Run a conversation of aiohttp to its end, which with TLS comes later than aiohttp reports."""

    async def to_the_end() -> T:
        try:
            return await conversation
        finally:
            # Closing a session does not wait for the close_notify of encrypted transports.
            transports: Any = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]
            # One that has ended may be garbage for a while.
            while any(transport._sock for transport in transports.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    return asyncio.run(to_the_end())


class TestWebsocketsSync:
    """The threaded client of `websockets`."""

    def test_conversation(self, server: Server) -> None:
        """Text, a large binary message and fragments are echoed; the close is clean."""
        data = os.urandom(MEBIBYTE)
        with websocket(server, "/echo-exact/") as client:
            client.send("grüße")
            assert client.recv(20) == "grüße"
            client.send(data)
            assert client.recv(20) == data
            client.send(iter(["one ", "two ", "three"]))
            assert client.recv(20) == "one two three"
            client.ping().wait(20)
            client.close(4002, "done")
            assert client.close_code == 4002

    @pytest.mark.parametrize(("path", "code"), ENDINGS)
    def test_close_codes(self, server: Server, path: str, code: int) -> None:
        """The client sees the code of the server."""
        with (
            websocket(server, path) as client,
            pytest.raises((ConnectionClosedOK, ConnectionClosedError)),
        ):
            client.recv(20)
        assert client.close_code == code

    def test_refusal(self, server: Server) -> None:
        """A refused handshake is the status of a response."""
        with (
            pytest.raises(InvalidStatus) as caught,
            websocket(server, "/echo/", origin="http://evil.example"),
        ):
            pass
        assert caught.value.response.status_code == 403


class TestWebsocketsAsync:
    """The asyncio client of `websockets`."""

    def test_conversation(self, server: Server) -> None:
        """Fifty connections at once each have their own conversation."""

        async def converse(number: int) -> int:
            address = server.url("/echo-str/")
            context = trusting(server) if server.kind.tls else None
            async with websockets.asyncio.client.connect(
                address, proxy=None, ssl=context
            ) as client:
                for n in range(10):
                    await client.send(f"{number}: {n}")
                    assert await client.recv() == f"{number}: {n}"
            return client.close_code

        async def main() -> list[int]:
            everybody = asyncio.gather(*(converse(number) for number in range(50)))
            return await asyncio.wait_for(everybody, 60)

        assert asyncio.run(main()) == [1000] * 50


class TestAiohttp:
    """The client of `aiohttp`."""

    def test_conversation(self, server: Server) -> None:
        """Text and a large binary message are echoed; the close is clean."""
        data = os.urandom(MEBIBYTE)

        async def main() -> int | None:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(
                    server.url("/echo-exact/", "http"), max_msg_size=0, ssl=trusting(server)
                ) as ws,
            ):
                await ws.send_str("grüße")
                assert await ws.receive_str(timeout=20) == "grüße"
                await ws.send_bytes(data)
                assert await ws.receive_bytes(timeout=20) == data
                await ws.close(code=4002, message=b"done")
                return ws.close_code

        assert run(main()) == 4002

    @pytest.mark.parametrize(("path", "code"), ENDINGS)
    def test_close_codes(self, server: Server, path: str, code: int) -> None:
        """The client sees the code of the server."""

        async def main() -> int | None:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(server.url(path, "http"), ssl=trusting(server)) as ws,
            ):
                message = await ws.receive(timeout=20)
                assert message.type is aiohttp.WSMsgType.CLOSE
                return ws.close_code

        assert run(main()) == code

    def test_cookies_of_the_handshake(self, server: Server) -> None:
        """A cookie that a middleware set with the 101 is in the client's jar."""

        async def main() -> set[str]:
            jar = aiohttp.CookieJar(unsafe=True)
            async with (
                aiohttp.ClientSession(cookie_jar=jar) as session,
                session.ws_connect(server.url("/echo/", "http"), ssl=trusting(server)),
            ):
                return {cookie.key for cookie in jar}

        assert run(main()) == {"stamp", "second"}


@pytest.mark.needs("node")
class TestNodeWs:
    """The `ws` package on Node."""

    def test_conversation(self, server: Server) -> None:
        """Text, a large binary message and fragments are echoed; the close is clean."""
        seen = node(
            "ws",
            server.url("/echo-exact/"),
            send=[
                {"text": "grüße"},
                {"binary_size": MEBIBYTE},
                {"fragments": ["one ", "two ", "three"]},
            ],
            close=[4002, "done"],
        )
        # Whether the answer to a close repeats the reason is the server's choice.
        seen.pop("reason")
        assert seen == {
            "messages": [
                {"binary": False, "text": "grüße"},
                {"binary": True, "same": True, "size": MEBIBYTE},
                {"binary": False, "text": "one two three"},
            ],
            "errors": [],
            "code": 4002,
            "protocol": "",
        }

    @pytest.mark.parametrize(("path", "code"), ENDINGS)
    def test_close_codes(self, server: Server, path: str, code: int) -> None:
        """The client sees the code of the server and no error."""
        seen = node("ws", server.url(path))
        assert (seen["code"], seen["errors"]) == (code, [])

    def test_subprotocol(self, server: Server) -> None:
        """The client learns the agreed subprotocol."""
        seen = node("ws", server.url("/subprotocol/"), protocols=["other", "chat.v1"])
        assert (seen["protocol"], seen["code"]) == ("chat.v1", 1000)

    def test_refusal(self, server: Server) -> None:
        """A refused handshake is the status of a response."""
        seen = node("ws", server.url("/plain/"))
        assert seen["status"] == 400
