"""
The engine as uvicorn's WebSocket protocol, for any ASGI application::

    uvicorn --ws dwebsocket.uvicorn:WebSocketProtocol site.asgi:application

or ``uvicorn.run(application, ws=configured(ping_interval=5))``. Settings are those of the Django
project, and without one environment variables (:mod:`dwebsocket.environment`). uvicorn's own
options count above both, and the keywords of :func:`configured` above these.

uvicorn reads the request; when the application accepts, the engine takes the connection over. Where
uvicorn encrypts by itself, its own protocol serves the connection.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import unquote

from dwebsocket import _core, conf, environment, shutdown
from dwebsocket.api.base import current_websocket, set_own_websocket
from dwebsocket.asgi_views.events import Events, Stage
from dwebsocket.compat import consumers, uvicorn
from dwebsocket.exceptions import ConnectionClosed, SendTimeout, ShuttingDown
from dwebsocket.handshake import origin
from dwebsocket.servers.asgi import NativeHandshake
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from dwebsocket.connection import Message
    from dwebsocket.servers.asgi.events import Event

__all__ = ["WebSocketProtocol", "configured"]

_log = logging.getLogger("uvicorn.error")

_NORMAL, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1000, 1011, 1013
# Seconds between two checks whether a response before has been sent.
_LOOK_S = 0.01
_PHRASES = {
    403: b"Forbidden",
    431: b"The handshake is too large.",
    500: b"Internal Server Error",
    503: b"This server takes no more WebSockets now.",
}
# uvicorn's options, and the options of ours that they set.
_OPTIONS: Final = {
    "ws_max_size": "max_message_size",
    "ws_ping_interval": "ping_interval",
    "ws_ping_timeout": "ping_timeout",
    "ws_per_message_deflate": "compression",
}


def configured(**options: Any) -> type[WebSocketProtocol]:
    """
    Gives the protocol with other options, for ``uvicorn.run(application, ws=…)``.

    Args:
        **options: As the keywords of :func:`dwebsocket.accept_websocket`.

    Raises:
        TypeError: An option that there is not.
        ValueError: A value that it cannot have.
    """
    checked = conf.overrides("configured", options)
    return type("WebSocketProtocol", (WebSocketProtocol,), {"_keywords": checked})


class WebSocketProtocol(asyncio.Protocol):
    """
    One connection, from uvicorn's request on. Belongs to the server's loop.

    It is the :class:`~dwebsocket.asgi_views.events.Peer` of its application.
    """

    _keywords: ClassVar[Mapping[str, Any]] = {}

    def __new__(cls, config: Any, *args: Any, **kwargs: Any) -> Any:
        """Gives uvicorn's own protocol where uvicorn encrypts."""
        if config.is_ssl:
            return uvicorn.protocol_for_tls(config, *args, **kwargs)
        return super().__new__(cls)

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        """Called by uvicorn for each request that asks for a WebSocket."""
        if not config.loaded:
            config.load()
        self.config = config
        self.connections = server_state.connections
        self.transport: asyncio.Transport
        self._state = server_state
        self._app_state = app_state
        self._is_lost = False
        # Whether the application is a consumer of Channels. Known with its first `receive`.
        self._is_consumer: bool | None = None
        self._websocket: WebSocket | None = None
        self._opened = asyncio.Event()
        self._handshake: NativeHandshake
        self._permit: _core.Permit | None = None
        self._options: conf.Options
        self._events: Events
        self._method = ""
        self._scope: dict[str, Any] = {}

    # -- what uvicorn calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins behind the request of the transport's protocol before."""
        self.transport = transport  # type: ignore[assignment]
        self.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Either the engine has the connection, or the client has gone before that."""
        if self._websocket is None:
            self.connections.discard(self)
            self._is_lost = True
            self._websocket = WebSocket()
            self._websocket._never_open()
            self._opened.set()

    def data_received(self, data: bytes) -> None:
        """Takes the request, which uvicorn writes anew. It reads no more from then on."""
        if self._scope:
            # Read on for the end of a refused handshake.
            return
        self._scope = self._scope_of(data)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run())
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)
        self.transport.pause_reading()

    def eof_received(self) -> None:
        """Nothing: a client may close its half."""

    def shutdown(self) -> None:
        """Ends the connection, as uvicorn ends: all of them, within ``WEBSOCKET_DRAIN``."""
        if self._websocket is None:
            self._answer(503)
        elif not _core.is_leaving():
            shutdown.depart()

    # -- what the application calls ------------------------------------------------------------

    def asgi_receive(self) -> Coroutine[Any, Any, Event]:
        """Gives the application's next event."""
        if self._is_consumer is None:
            self._is_consumer = consumers.asks_now()
        return self._events.receive()

    async def asgi_send(self, event: Event) -> None:
        """
        Does what the application's event says. `ClientDisconnected` when the client has gone.

        Not for consumers of Channels: the error would end them, and they learn of the end by
        ``receive``, as the call of their ``disconnect``.
        """
        try:
            await self._events.send(event)
        except uvicorn.parts().disconnected:
            if not self._is_consumer:
                raise

    # -- Peer ----------------------------------------------------------------------------------

    async def accept(self, subprotocol: str | None, headers: list[tuple[str, str]]) -> None:
        """Has the engine take the connection over."""
        if subprotocol is not None and subprotocol not in self._handshake.offered:
            offers = ", ".join(self._handshake.offered) or "none"
            raise ValueError(f"the client does not offer subprotocol {subprotocol!r}, but {offers}")
        # A response before may still be on its way.
        while self.transport.get_write_buffer_size() and not self._is_lost:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        self._permit = permit = _core.Permit.claim(conf.Admission.current().max_connections)
        if permit is None:
            self._answer(503)
        if self._is_lost or permit is None:
            raise uvicorn.parts().disconnected
        self._tell("[accepted]")
        own = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._state.default_headers
        ]
        options = self._options
        try:
            if not shutdown.has_begun():
                shutdown.begin(
                    dies_of_sigterm=False, departure=self._handshake.departure, at_exit=None
                )
            self._handshake.prepare()
            connection = self._handshake.open([*own, *headers], subprotocol, options, permit, [])
            # uvicorn writes nothing more.
            self._handshake.finish()
        except (OSError, ShuttingDown) as error:
            # Unless the server has let go of the connection already.
            self._answer(503)
            raise uvicorn.parts().disconnected from error
        self._websocket = websocket = WebSocket()
        websocket._attach(connection, options, subprotocol)
        self._opened.set()

    async def reject(self) -> None:
        """Refuses the handshake with 403."""
        self._answer(403)

    async def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Refuses it with a response."""
        self._answer(status, body, headers)

    async def receive(self) -> Message:
        """Gives the next message."""
        await self._opened.wait()
        assert self._websocket is not None
        return await self._websocket.areceive()

    async def send(self, message: Message) -> None:
        """Sends a message, and waits for room."""
        assert self._websocket is not None
        if current_websocket() is not self._websocket:
            # Only the tasks of its own view wait for room.
            set_own_websocket(self._websocket)
        try:
            await self._websocket.asend(message, strict=True)
        except SendTimeout:
            self._websocket.close(_TRY_AGAIN_LATER)
            raise uvicorn.parts().disconnected from None
        except ConnectionClosed:
            raise uvicorn.parts().disconnected from None

    async def close(self, code: int, reason: str) -> None:
        """Closes the connection."""
        assert self._websocket is not None
        await self._websocket.aclose(code, reason)

    # -- the application -----------------------------------------------------------------------

    async def _run(self) -> None:
        connection = uvicorn.UvicornConnection(self)
        self._handshake = NativeHandshake(self._scope, connection, self._method)
        if (refusal := self._refusal()) is not None:
            self._answer(*refusal)
            return
        self._events = Events(self)
        code = _NORMAL
        try:
            await self.config.loaded_app(self._scope, self.asgi_receive, self.asgi_send)
        except uvicorn.parts().disconnected:
            pass
        except BaseException:
            _log.exception("Exception in ASGI application\n")
            code = _INTERNAL_ERROR
        finally:
            self._end(code)

    def _end(self, code: int) -> None:
        """Does what remains to be done when the application has ended."""
        stage = self._events.stage
        if stage in (Stage.UNDECIDED, Stage.RESPONDING) and not self._is_lost:
            if code == _NORMAL:
                _log.error("ASGI callable returned without completing handshake.")
            self._answer(500)
        if self._websocket is not None:
            self._websocket._abandon(code, "")
        if self._permit is not None:
            self._permit.release()
        self.connections.discard(self)

    def _refusal(self) -> tuple[int, bytes] | None:
        """Gives the answer to a handshake that the application does not see."""
        environment.use()
        self._options = self._current_options()
        largest = conf.Admission.current().max_handshake_size
        if largest is not None and self._handshake.size > largest:
            return 431, _PHRASES[431]
        if (refusal := self._handshake.judge()) is not None:
            return refusal[0], str(refusal[1]).encode()
        if not self._may_connect():
            return 403, _PHRASES[403]
        return (503, _PHRASES[503]) if _core.is_leaving() else None

    def _may_connect(self) -> bool:
        """Judges the Origin, where that is not left to the application."""
        options = self._options
        is_ours = "allowed_origins" in self._keywords or not environment.has_django()
        if not (is_ours and options.allowed_origins):
            return True
        headers = dict(self._scope["headers"])
        named = headers.get(b"origin")
        if named is None:
            return not options.require_origin
        own = f"http{self._scope['scheme'][2:]}://{headers.get(b'host', b'').decode('latin-1')}"
        text = named.decode("latin-1").strip(" \t").lower()
        return origin.may_connect(text, own.lower(), options.allowed_origins)

    def _current_options(self) -> conf.Options:
        given = {}
        for theirs, ours in _OPTIONS.items():
            value = getattr(self.config, theirs)
            if value != uvicorn.parts().defaults[theirs]:
                given[ours] = conf.read(
                    ours.upper(), value or (False if ours == "compression" else None)
                )
        return conf.Options.current({**given, "text_type": str, **self._keywords})

    def _answer(
        self, status: int, body: bytes | None = None, headers: list[tuple[str, str]] | None = None
    ) -> None:
        """Answers the handshake by an HTTP response, once."""
        if self._is_lost or self.transport.is_closing():
            return
        self._tell(str(status))
        own = list(self._state.default_headers)
        if headers is None:
            body = _PHRASES.get(status, b"") if body is None else body
            own += [(b"content-type", b"text/plain; charset=utf-8")]
            own += [(b"content-length", b"%d" % len(body))]
            if status == 426:
                own += [(b"sec-websocket-version", b"13")]
        else:
            own += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._handshake.respond(status, own, body or b"")

    def _tell(self, outcome: str) -> None:
        parts = uvicorn.parts()
        scope: Any = self._scope
        client, target = parts.name_of_client(scope), parts.target_of(scope)
        _log.info('%s - "WebSocket %s" %s', client, target, outcome)

    def _scope_of(self, request: bytes) -> dict[str, Any]:
        """Gives the scope of a request that uvicorn has checked, and written in one way."""
        first, *lines = request.split(b"\r\n\r\n", 1)[0].split(b"\r\n")
        method, target, _ = first.split(b" ")
        self._method = method.decode("ascii")
        raw_path, _, query = target.partition(b"?")
        headers = [
            (name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)
        ]
        offers = b",".join(value for name, value in headers if name == b"sec-websocket-protocol")
        root, parts = self.config.root_path, uvicorn.parts()
        return {
            "type": "websocket",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": parts.server_of(self.transport),
            "client": parts.client_of(self.transport),
            "root_path": root,
            "path": root + unquote(raw_path.decode("ascii")),
            "raw_path": root.encode("ascii") + raw_path,
            "query_string": query,
            "headers": headers,
            "subprotocols": [
                name.strip() for name in offers.decode("latin-1").split(",") if name.strip()
            ],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }


uvicorn.keep_early_bytes()
# A wrong variable must not wait for the first connection.
environment.values()
