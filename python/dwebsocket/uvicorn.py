"""
The engine as uvicorn's WebSocket protocol, for any ASGI application::

    uvicorn --ws dwebsocket.uvicorn:WebSocketProtocol site.asgi:application

or ``uvicorn.run(application, ws=configured(ping_interval=5))``. Settings are those of the Django
project, and without one environment variables (:mod:`dwebsocket.conf.environment`). uvicorn's own
options count above both, and the keywords of :func:`configured` above these.

uvicorn reads the request; when the application accepts, the engine takes the connection over. Where
uvicorn encrypts by itself, its own protocol serves the connection.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import unquote

from dwebsocket import _core, conf
from dwebsocket.api.base import current_websocket, set_own_websocket
from dwebsocket.api.waiting import loop_hub
from dwebsocket.compat import uvicorn
from dwebsocket.compat.system import NO_TAKEOVER
from dwebsocket.conf import environment
from dwebsocket.exceptions import ConnectionClosed, SendTimeout, ShuttingDown
from dwebsocket.handshake import origin
from dwebsocket.runners import application_threads, shutdown
from dwebsocket.runners.asgi_apps import consumers
from dwebsocket.runners.asgi_apps.events import Events, Stage
from dwebsocket.servers import asgi
from dwebsocket.servers.asgi import NativeHandshake, replies
from dwebsocket.servers.handshake import Opening, begin_beat
from dwebsocket.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dwebsocket.api.arguments import Message

__all__ = ["WebSocketProtocol", "configured"]

_log = logging.getLogger("uvicorn.error")

_NORMAL, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1000, 1011, 1013
# Bytes that are kept for an application that has not yet decided.
_MOST_EARLY = 65536
_FORBIDDEN = frozenset("\r\n\0")
# Names of headers that are kept.
_NAMES = 128
# uvicorn's options, and the options of ours that they set.
_OPTIONS: Final = {
    "ws_max_size": "max_message_size",
    "ws_ping_interval": "ping_interval",
    "ws_ping_timeout": "ping_timeout",
    "ws_per_message_deflate": "compression",
}


def configured(**options: Any) -> type[WebSocketProtocol]:
    """
    Returns the protocol with other options, for ``uvicorn.run(application, ws=…)``.

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

    It is the :class:`~dwebsocket.runners.asgi_apps.events.Peer` of its application.
    """

    _keywords: ClassVar[Mapping[str, Any]] = {}

    def __new__(cls, config: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns uvicorn's own protocol where uvicorn encrypts, and on Windows."""
        if NO_TAKEOVER or config.is_ssl:
            return uvicorn.own_protocol(config, *args, **kwargs)
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
        self.websocket: WebSocket | None = None
        self._is_decided = False
        # Made for an application that waits. Most do not, and there are many connections.
        self._decided: asyncio.Event | None = None
        # Until the connection is open.
        self._handshake: NativeHandshake
        self._permit: _core.Permit | None = None
        self._options: conf.Options
        self._admission: conf.Admission
        self._has_django: bool
        self._events: Events
        self._method = ""
        self._scope: dict[str, Any] = {}

    # -- what uvicorn calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins after the request of the transport's protocol before."""
        self.transport = transport  # type: ignore[assignment]
        self.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Either the engine has the connection, or the client has gone before that."""
        if self.websocket is None:
            self.connections.discard(self)
            self._is_lost = True
            self.websocket = WebSocket()
            self.websocket._never_open()
            self._wake()
        else:
            # It stays as long as the WebSocket.
            del self.transport

    def data_received(self, data: bytes) -> None:
        """Takes the request, which uvicorn writes anew, and what comes before it is decided."""
        if self._scope:
            if uvicorn.keep_more(self, data) > _MOST_EARLY:
                self.transport.pause_reading()
            return
        try:
            self._scope = self._scope_of(data)
        except Exception:
            self._fail()
            return
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run())
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def eof_received(self) -> bool:
        """Tells an application that waits. One that accepts may still answer what has come."""
        self._wake()
        return True

    def _wake(self) -> None:
        """Wakes the application: the connection is open, or its client has gone."""
        self._is_decided = True
        if self._decided is not None:
            self._decided.set()
            self._decided = None

    def shutdown(self) -> None:
        """
        Ends the connection, as its server ends: all of them, within ``WEBSOCKET_DRAIN``.

        The process may have other servers, whose connections stay.
        """
        if self.websocket is None:
            if hasattr(self, "_handshake"):
                self._answer(503)
            else:
                # Its task has not begun.
                self.transport.close()
        elif (connection := self.websocket._connection) is not None:
            code, reason, window = shutdown.closing()
            asgi.close_within(window, connection, code, reason)

    # -- Peer ----------------------------------------------------------------------------------

    async def accept(self, subprotocol: str | None, headers: list[tuple[str, str]]) -> None:
        """Has the engine take the connection over."""
        if subprotocol is not None and subprotocol not in self._handshake.offered:
            offers = ", ".join(self._handshake.offered) or "none"
            raise ValueError(f"the client does not offer subprotocol {subprotocol!r}, but {offers}")
        own = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._state.default_headers
        ]
        headers = [*own, *headers]
        # A wrong header raises here: the application may accept once more, or refuse.
        _core.response_head("", subprotocol, headers)
        options = self._options
        self._permit = permit = _core.Permit.claim(self._admission.max_connections)
        if permit is None:
            self._answer(503)
        elif not await self._has_turn(permit):
            permit = None
        if self._is_lost or self.transport.is_closing() or permit is None:
            self._tell_that_client_has_gone()
            return
        self._tell("[accepted]")
        if self.transport.is_reading():
            self.transport.pause_reading()
        try:
            plan = self._handshake.client.shutdown_plan
            shutdown.begin(dies_of_sigterm=False, shutdown_plan=plan)
            self._handshake.prepare()
            connection = self._handshake.open(Opening(headers, subprotocol, options, permit, []))
            # uvicorn writes nothing more.
            self._handshake.finish()
            del self._handshake
        except (OSError, ShuttingDown):
            # Unless the server has let go of the connection already.
            self._answer(503)
            self._tell_that_client_has_gone()
            return
        self.websocket = websocket = WebSocket()
        websocket._attach(connection, options, subprotocol)
        # Not that of the engine: the signal about messages may have receivers.
        self._events.messages = websocket._engine.next(loop_hub.current_core)
        begin_beat(connection, self._scope["query_string"].decode("latin-1"))
        self._wake()

    async def _has_turn(self, permit: _core.Permit) -> bool:
        """Waits for a response before, which may still be on its way; else drops the permit."""
        has_turn = False
        try:
            has_turn = await self._handshake.has_turn(self._options.handshake_timeout)
        except asyncio.CancelledError:
            # By a time limit of the application, which may accept once more, or refuse.
            self._events.stage = Stage.UNDECIDED
            raise
        finally:
            if not has_turn:
                permit.release()
        return has_turn

    async def reject(self) -> None:
        """Refuses the handshake with 403."""
        self._answer(403)

    async def respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Refuses it with a response."""
        for name, value in headers:
            if not _core.is_token(name):
                raise ValueError(f"{name!r} is not the name of a header")
            if not _FORBIDDEN.isdisjoint(value):
                raise ValueError(f"the value of {name} holds a forbidden character")
        self._answer(status, body, headers)

    async def receive(self) -> Message:
        """Returns the next message."""
        if (websocket := self.websocket or await self._opened()) is None:
            raise ConnectionClosed
        return await websocket.areceive()

    async def _opened(self) -> WebSocket | None:
        """Waits until it is decided: another task may be in `accept`. None without a WebSocket."""
        if not self._is_decided:
            if self._decided is None:
                self._decided = asyncio.Event()
            await self._decided.wait()
        return self.websocket

    async def send(self, message: Message) -> None:
        """Sends a message, and waits for room."""
        if (websocket := self.websocket or await self._opened()) is None:
            # The handshake was refused after the application's `accept`.
            self._tell_that_client_has_gone()
            return
        if current_websocket() is not websocket:
            # Only the tasks of its own view wait for room.
            set_own_websocket(websocket)
        try:
            # Most often nothing has to be waited for.
            if websocket._is_sending_long() or not websocket._post(message):
                await websocket.asend(message, strict=True)
        except (ConnectionClosed, SendTimeout) as error:
            if isinstance(error, SendTimeout):
                websocket.close(_TRY_AGAIN_LATER)
            self._tell_that_client_has_gone()

    def send_here(self, message: Message) -> bool:
        """Sends a message of a consumer, which learns by ``receive`` that the client has gone."""
        return self.websocket is None or self.websocket._send_beyond(message)

    def drop(self, message: Message) -> None:
        """For the application the client has gone."""
        self._tell_that_client_has_gone()

    def _tell_that_client_has_gone(self) -> None:
        # The error would end a consumer without a call of its `disconnect`.
        if not self._events.is_of_consumer:
            raise uvicorn.parts().disconnected from None

    async def close(self, code: int, reason: str) -> None:
        """Closes the connection."""
        if (websocket := self.websocket or await self._opened()) is not None:
            await websocket.aclose(code, reason)

    # -- the application -----------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            self._handshake = NativeHandshake(
                self._scope, uvicorn.UvicornConnection(self), self._method
            )
            if (refusal := self._refusal()) is not None:
                self._answer(*refusal)
                # It refers to this object: both, and the request, would stay for a while.
                del self._handshake
                return
        except Exception:
            self._fail()
            return
        self._events = Events(self)
        code = _NORMAL
        try:
            application, events = self.config.loaded_app, self._events
            if self._has_django:
                result = await consumers.run(application, self._scope, events)
            else:
                result = await events.run(application, self._scope)
            if result is not None:
                _log.error("ASGI callable should return None, but returned %r.", result)
                code = _INTERNAL_ERROR
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
        if self.websocket is not None:
            self.websocket._abandon(code, "")
        if self._permit is not None:
            self._permit.release()
        self.connections.discard(self)

    def _refusal(self) -> tuple[int, bytes] | None:
        """Returns the answer to a handshake that the application does not see."""
        self._has_django = environment.has_django()
        now = conf.present()
        self._options = self._current_options(now)
        self._admission = conf.Admission.current(now)
        if self._handshake.validate_size(self._admission.max_handshake_size) is not None:
            return 431, replies.PHRASES[431]
        if (refusal := self._handshake.validate()) is not None:
            return refusal[0], str(refusal[1]).encode()
        if not self._may_connect():
            return 403, replies.PHRASES[403]
        return (503, replies.PHRASES[503]) if _core.is_leaving() else None

    def _may_connect(self) -> bool:
        """Validates the Origin, where that is not left to the application."""
        options = self._options
        is_ours = "allowed_origins" in self._keywords or not self._has_django
        if not (is_ours and options.allowed_origins):
            return True
        headers = dict(self._scope["headers"])
        named = headers.get(b"origin")
        if named is None:
            return not options.require_origin
        own = f"http{self._scope['scheme'][2:]}://{headers.get(b'host', b'').decode('latin-1')}"
        text = named.decode("latin-1").strip(" \t").lower()
        return origin.may_connect(text, own.lower(), options.allowed_origins)

    def _current_options(self, now: conf.Snapshot) -> conf.Options:
        given = {}
        for theirs, ours in _OPTIONS.items():
            value = getattr(self.config, theirs)
            if value != uvicorn.parts().defaults[theirs]:
                given[ours] = conf.read(
                    ours.upper(), value or (False if ours == "compression" else None)
                )
        return conf.Options.current({**given, "text_type": str, **self._keywords}, now)

    def _answer(
        self, status: int, body: bytes | None = None, headers: list[tuple[str, str]] | None = None
    ) -> None:
        """Answers the handshake by an HTTP response, once."""
        if self._is_lost or self.transport.is_closing():
            return
        self._tell(str(status))
        own, body = replies.http_response(status, body, headers)
        self._handshake.respond(status, [*self._state.default_headers, *own], body)

    def _fail(self) -> None:
        """Answers a handshake with 500, of which only its bytes may be known, and logs why."""
        _log.exception("A WebSocket handshake failed before the application\n")
        if not self._is_lost and not self.transport.is_closing():
            self.transport.write(replies.FAILURE)
            self.transport.close()

    def _tell(self, outcome: str) -> None:
        parts = uvicorn.parts()
        scope: Any = self._scope
        client, target = parts.name_of_client(scope), parts.target_of(scope)
        _log.info('%s - "WebSocket %s" %s', client, target, outcome)

    def _scope_of(self, request: bytes) -> dict[str, Any]:
        """Returns the scope of a request that uvicorn has checked, and written in one way."""
        first, *lines = request.split(b"\r\n\r\n", 1)[0].split(b"\r\n")
        method, target, _ = first.split(b" ")
        self._method = method.decode("ascii")
        raw_path, _, query = target.partition(b"?")
        headers = [
            (_one_name(name), value) for name, _, value in (line.partition(b": ") for line in lines)
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


@functools.lru_cache(_NAMES)
def _one_name(name: bytes) -> bytes:
    """Returns a header's name in lower case: one object for the scopes of all connections."""
    return name.lower()


application_threads.begin()
uvicorn.keep_early_bytes()
# A wrong variable must not wait for the first connection.
environment.values()
