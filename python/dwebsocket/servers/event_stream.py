"""A handshake of the fallback: the engine answers it with server-sent events, in place of a 101."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.servers.wsgi import WsgiHandshake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from django.http import HttpRequest

    from dwebsocket.conf import Options
    from dwebsocket.servers.handshake import Headers, Memberships, Refusal


class EventStreamHandshake(WsgiHandshake):
    """
    See :class:`dwebsocket.servers.handshake.Handshake`.

    HTTP/1.0 will do: the response has no length, and ends with the connection.
    """

    def __init__(
        self,
        request: HttpRequest,
        scope: Mapping[str, Any] | None,
        new_address: Callable[[], tuple[bytes, str]],
    ) -> None:
        """
        Begins with a request.

        Args:
            request: Django's.
            scope: Its ASGI scope, if it has one.
            new_address: Gives the key of the connection and the id for its client; called when the
                connection opens, behind all middleware.
        """
        super().__init__(request.method or "", request.META, scope)
        self._wanted = request.GET.getlist("protocol")
        self._new_address = new_address

    def judge(self) -> Refusal | None:
        """Judges the subprotocols that the URL offers."""
        if (refusal := self._judge_version()) is not None:
            return refusal
        if len({*self._wanted}) < len(self._wanted) or not all(map(_core.is_token, self._wanted)):
            return 400, "protocol must be different tokens"
        self.offered = self._wanted
        return None

    def open(
        self,
        headers: Headers,
        subprotocol: str | None,
        options: Options,
        permit: _core.Permit,
        memberships: Memberships,
    ) -> _core.Connection:
        """
        As :meth:`WsgiHandshake.open`, for a response with events.

        Raises:
            OSError, ShuttingDown, ValueError: As there.
        """
        assert self._takeover is not None
        key, name = self._new_address()
        head = _core.event_stream_head(name, subprotocol, headers)
        descriptor, _ = self._takeover.exchange()
        return _core.adopt(
            descriptor, b"", head, permit, options.for_engine, None, memberships, key
        )
