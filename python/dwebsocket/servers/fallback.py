"""
Handshakes and polls of the fallback, whose clients are taken over from their server.

A handshake is answered by the engine, with server-sent events or a whole response, in place of a
101. A poll that has to wait does so in the engine, too. For ASGI servers see
:mod:`dwebsocket.servers.asgi.fallback`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dwebsocket import _core
from dwebsocket.servers.handshake import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from django.http import HttpRequest

    from dwebsocket.servers.handshake import Opening, Refusal

# Seconds that a client may take for the head of its response.
_TIMEOUT_S = 10.0


class FallbackHandshake(Handshake):
    """
    The part that the handshakes of all transports have in common.

    HTTP/1.0 will do: each response ends with its connection.
    """

    def __init__(
        self,
        request: HttpRequest,
        scope: Mapping[str, Any] | None,
        new_address: Callable[[str], tuple[bytes, str]],
    ) -> None:
        """
        Begins with a request.

        Args:
            request: Django's.
            scope: Its ASGI scope, if it has one.
            new_address: Returns the connection's key and the id for its client, by the realm of its
                user; called when the connection opens, after all middleware.
        """
        super().__init__(request.method or "", request.META, scope)
        self._wanted = request.GET.getlist("protocol")
        self._new_address = new_address

    def _validate(self) -> Refusal | None:
        """Validates the subprotocols that the URL offers."""
        if (refusal := self._validate_version()) is not None:
            return refusal
        if len({*self._wanted}) < len(self._wanted) or not all(map(_core.is_token, self._wanted)):
            return 400, "protocol must be different tokens"
        self.offered = self._wanted
        return None


class EventStreamHandshake(FallbackHandshake):
    """A handshake that is answered with server-sent events."""

    transport = "sse"

    def open(self, opening: Opening) -> _core.Connection:
        """Opens the connection by a response with events."""
        headers, subprotocol, options, permit, memberships = opening
        key, name = self._new_address(self.realm)
        head = _core.event_stream_head(name, subprotocol, headers)
        descriptor, _ = self._take_client()
        return _core.adopt(
            descriptor, b"", head, permit, options.for_engine, None, memberships, key
        )


class PollingHandshake(FallbackHandshake):
    """A handshake that is answered at once, and whose client then polls."""

    transport = "polling"

    def open(self, opening: Opening) -> _core.Connection:
        """Opens the connection by a response with the id."""
        headers, subprotocol, options, permit, memberships = opening
        key, name = self._new_address(self.realm)
        head = _core.polling_head(headers)
        descriptor, _ = self._take_client()
        try:
            connection = _core.open_polled(key, permit, options.for_engine, memberships)
        except BaseException:
            os.close(descriptor)
            raise
        answer = _core.PendingPoll()
        answer.answer(_core.fallback_opened(name, subprotocol))
        answer.attach(descriptor, head, timeout=_TIMEOUT_S, otherwise=b"")
        return connection


class HeldRequest(Handshake):
    """A poll that waits in the engine; no worker of the server waits with it."""

    def hold(
        self,
        hold: _core.PendingPoll,
        headers: list[tuple[str, str]],
        *,
        timeout: float,
        otherwise: bytes,
    ) -> None:
        """
        Takes the client from the server, to be answered as ``hold`` is.

        Args:
            headers: Those of the response.
            timeout: Seconds, after which the answer is ``otherwise``.

        Raises:
            OSError: The client has gone.
            ValueError: Headers that no response may have.
        """
        head = _core.polling_head(headers)
        descriptor, _ = self._take_client()
        hold.attach(descriptor, head, timeout=timeout, otherwise=otherwise)
