"""`asgi_websocket`: an ASGI application behind the WebSocket of a view."""

from __future__ import annotations

from http.cookies import Morsel
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse

from dwebsocket import conf
from dwebsocket.api.base import TRY_AGAIN_LATER
from dwebsocket.compat import unpatched
from dwebsocket.compat.consumers import sync_consumer_of
from dwebsocket.compat.django_views import call_without_transactions, name_of
from dwebsocket.decorators import require_websocket
from dwebsocket.exceptions import ConnectionClosed, SendTimeout, UnsupportedServer, UsageError
from dwebsocket.runners import application_threads
from dwebsocket.runners.asgi_apps import consumers, routing
from dwebsocket.runners.asgi_apps.either_way import EitherWay
from dwebsocket.runners.asgi_apps.events import Events
from dwebsocket.runners.asgi_apps.scope import scope_of
from dwebsocket.servers.asgi.replies import OF_CONNECTION

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http.response import HttpResponseBase
    from typing_extensions import Unpack

    from dwebsocket.api.arguments import Message
    from dwebsocket.runners.asgi_apps.events import Headers
    from dwebsocket.typing import CommonOptions, WebSocketRequest
    from dwebsocket.websocket import WebSocket

# The application decides this itself: it gets text as `str`, and chooses the subprotocol.
_OF_APPLICATION = {"text_type", "subprotocols"}
_OPTIONS = ("groups", *(name for name in conf.OPTION_NAMES if name not in _OF_APPLICATION))


def asgi_websocket(
    application: routing.Application,
    /,
    *,
    thread_per_connection: bool = False,
    **options: Unpack[CommonOptions],
) -> Callable[..., HttpResponseBase]:
    """
    Returns the view for an ASGI application that serves WebSockets, under any server.

    The handshake passes Django's middleware and is validated as for any view; then the application
    runs as a task, and decides. The scope has the request's ``session`` and ``user``. A router of
    Channels, also behind its middleware or in a ``ProtocolTypeRouter``, acts as an ``include()``:
    ``path("", asgi_websocket(router))``. Plain requests get 400.

    Args:
        application: A coroutine function, or an object with such a ``__call__``, that takes
            ``scope``, ``receive`` and ``send``: what a consumer's ``as_asgi()`` gives, for example.
        thread_per_connection: Whether thread-sensitive calls, such as those of sync consumers and
            of the ORM, are made on a thread for each connection, of which there are a few, as of
            async views. Without it all applications share those of ``WEBSOCKET_CHANNELS_THREADS``:
            one, as asgiref has it.
        **options: As of :func:`dwebsocket.accept_websocket`, but not ``accept``, ``text_type``
            and ``subprotocols``, which are up to the application.

    Raises:
        TypeError: An application that cannot be called, or an option that does not exist, or has a
            value of a wrong type.
        ValueError: A value that an option cannot have, or a router without WebSockets.
    """
    if not callable(application):
        raise TypeError(
            f"asgi_websocket() takes an ASGI application, not {type(application).__name__}"
        )
    for name in options:
        if name not in _OPTIONS:
            known = ", ".join(("thread_per_connection", *_OPTIONS))
            raise TypeError(f"asgi_websocket() has no option {name!r}; it takes {known}")
    if not isinstance(thread_per_connection, bool):
        raise TypeError(
            f"thread_per_connection must be True or False, not {thread_per_connection!r}"
        )
    decorate = require_websocket(accept=False, text_type=str, subprotocols=(), **options)
    application_threads.begin()

    def view_of(named: Any) -> Callable[..., Any]:
        """Returns the view that runs the application, under the name of a part of it."""
        made = decorate(_view_of(application, name_of(named), named, thread_per_connection))
        view: Callable[..., Any] = EitherWay(made, vars(made)["blocking"])
        # Async views are refused under `ATOMIC_REQUESTS`, and no WebSocket is in a transaction.
        call_without_transactions(view)
        return view

    routes = routing.routes_of(application)
    if routes is None:
        return view_of(application)
    include = routing.Include.of(routes, view_of)
    # Those of its views: a decorator around it makes a view of it.
    vars(include).update(accept_websocket=True, require_websocket=True, handles_websocket=True)
    call_without_transactions(include)
    return include


def _view_of(
    application: routing.Application,
    name: str,
    named: Any,
    thread_per_connection: bool,  # noqa: FBT001
) -> Callable[..., Any]:
    is_sync = sync_consumer_of(named) is not None

    async def view(
        request: WebSocketRequest, *args: Any, path_remaining: str = "", **kwargs: Any
    ) -> None:
        if is_sync and unpatched.patched_by() == "eventlet":
            raise UnsupportedServer(
                f"{name} is a sync consumer, and asgiref's `async_to_sync` stands still in a "
                "process that eventlet has patched: make it async, or use gevent or threads"
            )
        scope = scope_of(request, args, kwargs, path_remaining)
        events = Events(_OwnWebSocket(request.websocket))
        await consumers.run(application, scope, events, thread_per_connection=thread_per_connection)
        if not events.is_decided:
            raise UsageError(
                f"{name} returned {events.stage.value}: an ASGI application accepts or refuses"
            )

    view.__module__, _, view.__qualname__ = name.rpartition(".")
    view.__name__ = view.__qualname__
    view.__doc__ = getattr(named, "__doc__", None)
    return view


class _OwnWebSocket:
    """The WebSocket of a view as the :class:`~.events.Peer` of its application."""

    __slots__ = ("websocket",)

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        try:
            await self.websocket.aaccept(subprotocol, headers)
        except ConnectionClosed:
            # The application sees it by its next `receive`.
            return

    async def reject(self) -> None:
        await self.websocket.areject()

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        self.websocket._answer(_response(status, headers, body))

    async def receive(self) -> Message:
        websocket = self.websocket
        if websocket._connection is None:
            await websocket._await_opening()
        return await websocket.areceive()

    async def send(self, message: Message) -> None:
        websocket = self.websocket
        if websocket._connection is None:
            # Another task is about to accept.
            await websocket._await_opening()
        try:
            await websocket.asend(message)
        except ConnectionClosed:
            # The client has gone, which the application sees by `receive`.
            return
        except SendTimeout:
            websocket.close(*TRY_AGAIN_LATER)

    def send_here(self, message: Message) -> bool:
        return self.websocket._send_beyond(message)

    def drop(self, message: Message) -> None:
        """Nothing: the application sees the end by ``receive``."""

    async def close(self, code: int, reason: str) -> None:
        await self.websocket.aclose(code, reason)


def _response(status: int, headers: Headers, body: bytes) -> HttpResponse:
    response = HttpResponse(body, status=status)
    del response.headers["Content-Type"]
    for name, value in headers:
        if name.lower() == "set-cookie":
            _add_cookie(response, value)
        elif name.lower() not in OF_CONNECTION:
            other = response.headers.get(name)
            response.headers[name] = value if other is None else f"{other}, {value}"
    return response


def _add_cookie(response: HttpResponse, header: str) -> None:
    """Adds a header to the cookies of a response, as `headers` has one value a name."""
    if not (header.isascii() and header.isprintable()):
        raise ValueError("the value of Set-Cookie holds a forbidden character")
    name, _, rest = header.partition("=")
    cookie: Any = Morsel()
    # Behind the name all goes out as it came: Python does not know all attributes. Nor does it set
    # all names.
    cookie.__setstate__({"key": name, "value": rest.partition(";")[0], "coded_value": rest})
    # There may be several of one name, for several paths.
    response.cookies[header if name in response.cookies else name] = cookie
