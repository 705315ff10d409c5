"""
Django's test clients with one more method: ``websocket``.

The request passes through the handler, all middleware and the URL conf, as every request of the
client; the real engine answers it, at the other end of a socket pair.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import socket
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.test import AsyncClient, Client, RequestFactory

from dwebsocket.compat.django_test import AsyncClientHandler, ClientHandler
from dwebsocket.handshake.response import UpgradeResponse
from dwebsocket.rooms.wire import SUBPROTOCOL
from dwebsocket.runners.view import witness
from dwebsocket.servers import asking, families
from dwebsocket.servers.asgi import SCOPE_KEY
from dwebsocket.servers.contract import Client as ServersClient
from dwebsocket.servers.handshake import Handshake
from dwebsocket.testing.rooms import AsyncClientRooms, BaseRooms, ClientRooms
from dwebsocket.testing.watch import ViewWatch
from dwebsocket.testing.websocket import AsyncClientWebSocket, BaseWebSocket, ClientWebSocket
from dwebsocket.testing.wire import offer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.http import HttpRequest

WebSocketT = TypeVar("WebSocketT", bound=BaseWebSocket[Any, Any, Any, Any])
RoomsT = TypeVar("RoomsT", bound=BaseRooms[Any, Any, Any, Any])
#: Seconds that a test waits for anything, unless it sets another timeout.
TIMEOUT_S = 10.0


# The server's side of a handshake while Django handles its request.
_offer: ContextVar[ServersClient | None] = ContextVar("offer", default=None)


class _LoopHandshake(Handshake):
    """A handshake in the test's event loop, in which async views run too."""

    has_loop = True


def _name_host(environ: dict[str, Any]) -> None:
    """Adds the Host header, which every client sends, but Django's own test clients do not."""
    name, port = environ["SERVER_NAME"], str(environ["SERVER_PORT"])
    is_usual = port == ("443" if environ["wsgi.url_scheme"] == "https" else "80")
    environ.setdefault("HTTP_HOST", name if is_usual else f"{name}:{port}")


def _serve(response: Any) -> None:
    """Iterates over an accepting response, as a server does, before Django closes it."""
    if response.status_code == 101:
        for _ in response:
            pass


class _Answering:
    """The requests that a handler of Django's client answers now; a base class in front of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: set[HttpRequest] = set()

    @contextlib.contextmanager
    def _answers(self, request: HttpRequest) -> Iterator[None]:
        self.requests.add(request)
        try:
            yield
        finally:
            self.requests.discard(request)


class _Handler(_Answering, ClientHandler):
    """The handler of Django's client, which is a server of WebSockets too."""

    def get_response(self, request: HttpRequest) -> Any:
        with self._answers(request):
            if (offer := _offer.get()) is None:
                return super().get_response(request)
            request.META[families.KEY] = offer
            _name_host(request.META)
            response = super().get_response(request)
            _serve(response)
            return response


class _AsyncHandler(_Answering, AsyncClientHandler):
    """
    The handler of Django's async client, which is a server of WebSockets too.

    Unlike :class:`_Handler` it is one in the event loop that the view runs in.
    """

    async def get_response_async(self, request: Any) -> Any:
        with self._answers(request):
            offer = _offer.get()
            # Also of a page: the task begins with what the test's thread has noted last.
            asking.note(is_websocket=offer is not None)
            if offer is None:
                return await super().get_response_async(request)
            environ = {
                **request.META,
                "SERVER_PROTOCOL": f"HTTP/{request.scope['http_version']}",
                families.KEY: offer,
            }
            request.scope[SCOPE_KEY] = _LoopHandshake(request.method, environ, None)
            # As under a server: a consumer that waits for its answer has the thread of the process.
            async with ThreadSensitiveContext():
                response = await super().get_response_async(request)
                if isinstance(response, UpgradeResponse) and response.needs_database:
                    await sync_to_async(response.look_at_user)()
            _serve(response)
            return response


@contextlib.contextmanager
def _offering() -> Iterator[tuple[socket.socket, ViewWatch]]:
    """Makes the requests in the block offer a connection; yields the client's end of it."""
    ours, theirs = socket.socketpair()
    watch = ViewWatch()
    offer = ServersClient(
        server="the test client", descriptor=theirs.fileno(), read_early=bytes, let_go=lambda: None
    )
    tokens = _offer.set(offer), witness.set(watch)
    try:
        with theirs:
            yield ours, watch
    except BaseException:
        ours.close()
        raise
    finally:
        _offer.reset(tokens[0])
        witness.reset(tokens[1])


@dataclass(frozen=True)
class Request:
    """The arguments for an opening handshake, from :meth:`WebSocketClient.websocket`."""

    path: str
    data: Any
    subprotocols: Sequence[str]
    headers: Mapping[str, str] | None
    extra: dict[str, Any]

    def fields(self, key: str, offer: str, defaults: Mapping[str, str]) -> dict[str, str]:
        """
        Returns the headers of the handshake.

        Args:
            key: The ``Sec-WebSocket-Key``, which the server has to answer.
            offer: The extension that is offered; empty for none.
            defaults: Additional headers; the test's own replace those of the same name.
        """
        usual = {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-key": key,
            "sec-websocket-version": "13",
        }
        if self.subprotocols:
            usual["sec-websocket-protocol"] = ", ".join(self.subprotocols)
        if offer:
            usual["sec-websocket-extensions"] = offer
        own = {name.lower(): value for name, value in (self.headers or {}).items()}
        return {**usual, **defaults, **own}


class _OpensWebSockets(RequestFactory, Generic[WebSocketT, RoomsT]):
    """The common part of both clients; a base class in front of Django's client."""

    #: Seconds that a WebSocket's calls wait by default.
    websocket_timeout = TIMEOUT_S
    handler: Any
    raise_request_exception: bool
    _handler_class: type[ClientHandler | AsyncClientHandler]
    _websocket_class: type[WebSocketT]
    _rooms_class: type[RoomsT]

    def __init__(self, enforce_csrf_checks: bool = False, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001, FBT002
        # Calls Django's client, which comes next in the method resolution order.
        super().__init__(enforce_csrf_checks, *args, **kwargs)  # type: ignore[call-arg, arg-type]
        self.handler = self._handler_class(enforce_csrf_checks)

    def store_exc_info(self, **kwargs: Any) -> None:
        """
        Notes the exception of a view that answers this client, for Django's client to raise.

        Not that of a WebSocket that is open meanwhile: its own next call raises it.
        """
        if kwargs.get("request") in self.handler.requests:
            super().store_exc_info(**kwargs)  # type: ignore[misc]

    def websocket(
        self,
        path: str,
        data: Any = None,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        answer_pings: bool = True,
        compression: bool | str = False,
        **extra: Any,
    ) -> WebSocketT:
        """
        Returns a WebSocket, which opens when it is entered: by ``with``, or ``async with``.

        A refusal does not raise: it is the WebSocket's ``response``. Using it then does.

        Example::

            with WebSocketClient().websocket("/echo/") as websocket:
                websocket.send("hello")
                assert websocket.receive() == "hello"

        Args:
            path: As for :meth:`get`, with the query if there is one.
            data: The query as a dictionary.
            subprotocols: The client's offer, the best first.
            headers: Additional headers; one of the usual name replaces the usual one. Browsers send
                ``origin``.
            timeout: Replaces ``websocket_timeout``.
            answer_pings: With False the client never answers a ping.
            compression: True offers permessage-deflate as browsers do; or the offer itself, such as
                ``"permessage-deflate; server_no_context_takeover"``.
            **extra: As for :meth:`get`. Not for a live server.

        Raises:
            TypeError: There is ``extra`` for a live server.
            Exception: Entering raises what :meth:`get` would.
        """
        request = Request(path, data, subprotocols, headers, extra)
        self._check(request)
        return self._websocket_class(
            functools.partial(self._open, request),
            timeout=self.websocket_timeout if timeout is None else timeout,
            raises=self.raise_request_exception,
            answer_pings=answer_pings,
            offer=offer_of(compression),
        )

    def rooms(self, path: str, data: Any = None, **options: Any) -> RoomsT:
        """Returns a WebSocket with rooms, not open yet, for the arguments of :meth:`websocket`."""
        options.setdefault("subprotocols", [SUBPROTOCOL])
        return self._rooms_class(self.websocket(path, data, **options))

    def _check(self, request: Request) -> None:
        """Raises if this client cannot send ``request``."""

    async def _open(self, request: Request, websocket: WebSocketT) -> None:
        """Makes the handshake of a WebSocket, up to its 101 or its refusal."""
        fields = request.fields(websocket._wire.key, websocket._wire.offer, {})
        with _offering() as (sock, watch):
            response: Any = self.get(request.path, request.data, headers=fields, **request.extra)
            if inspect.isawaitable(response):
                response = await response
        websocket._response = response
        if websocket.refused:
            sock.close()
        else:
            await websocket._open(sock, watch)


class WebSocketClient(_OpensWebSockets[ClientWebSocket, ClientRooms], Client):
    """Django's test client, for views with WebSockets too."""

    _handler_class = _Handler
    _websocket_class = ClientWebSocket
    _rooms_class = ClientRooms


class AsyncWebSocketClient(_OpensWebSockets[AsyncClientWebSocket, AsyncClientRooms], AsyncClient):
    """
    Django's async test client, for views with WebSockets too.

    An ``async def`` view is a task of the test's own event loop.
    """

    _handler_class = _AsyncHandler
    _websocket_class = AsyncClientWebSocket
    _rooms_class = AsyncClientRooms
