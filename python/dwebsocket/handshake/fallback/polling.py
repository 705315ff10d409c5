"""
Polls of the fallback: GET requests that bring a client what has come since the last one.

The engine answers them, at once or when there is something to bring, wherever the connection is
(see :mod:`.forwarding`): so answers that clients do not read are counted, and
there is one for each connection.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from django.http import HttpResponse

from dwebsocket import _core
from dwebsocket.compat.django import headers_of
from dwebsocket.exceptions import GroupUnavailable, UnsupportedServer
from dwebsocket.handshake.fallback import forwarding, posting
from dwebsocket.handshake.refusal import refuse
from dwebsocket.servers.asgi.fallback import AsgiHeldRequest
from dwebsocket.servers.fallback import HeldRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest

    from dwebsocket.conf import Options

_log = logging.getLogger("dwebsocket")

# As `WAIT` of src/engine/polling/relay.rs, where there is no ping interval.
_WAIT_S = 25.0
# Seconds that an answer may take from another process, after the wait there.
_TRANSFER_S = 3.0
# A poll for another process waits for so long at most: this one is not told when the other process
# is killed, and the next poll finds it out.
_ELSEWHERE_S = 10.0


class HeldResponse(HttpResponse):
    """The response to a poll: for middleware an empty one. The engine sends the real."""

    def __init__(
        self, held: HeldRequest, hold: _core.PendingPoll, timeout: float, ack: int
    ) -> None:
        super().__init__(content_type="application/json")
        self["Cache-Control"] = "private, no-store"
        self._held = held
        self._hold = hold
        self._timeout = timeout
        self._ack = ack
        self._is_open = False

    def __iter__(self) -> Iterator[bytes]:
        self.open()
        return iter(self._held.body)

    def open(self) -> None:
        """Has the engine answer the client. Once; later calls do nothing."""
        if self._is_open:
            return
        self._is_open = True
        cookies = [("Set-Cookie", each.output(header="").strip()) for each in self.cookies.values()]
        headers = [*headers_of(self), *cookies]
        nothing = json.dumps({"n": self._ack, "events": []}).encode()
        try:
            self._held.hold(self._hold, headers, timeout=self._timeout, otherwise=nothing)
        except OSError as error:
            # The events stay until they are acknowledged.
            _log.debug("The client of a poll was lost: %s", error)

    def close(self) -> None:
        """Called by the server when it is done with the response."""
        self._held.finish()
        super().close()


def answer(request: HttpRequest, key: bytes, options: Options) -> HttpResponse:
    """
    Answers a poll of the connection with a key, or returns a response that waits.

    Returns:
        200, by the engine; 410 when the connection has ended; 503 when the client has to repeat it
        later; 400 for a wrong ``ack``; 501 when the server does not give its clients away.
    """
    told = request.GET.get("ack", "")
    if not (told.isascii() and told.isdecimal()) or len(told) > len(str(posting.LAST_NUMBER)):
        return refuse(request, 400, "ack must be the n of the last answer.", "info")
    ack, hold = int(told), _core.PendingPoll()
    held = _held_of(request)
    timeout = (options.ping_interval or _WAIT_S) + _TRANSFER_S
    try:
        if forwarding.is_elsewhere(key):
            timeout = min(timeout, _ELSEWHERE_S)
        held.find()
        found = forwarding.poll(key, ack, hold, timeout)
        if found == "held":
            held.prepare()
    except UnsupportedServer as error:
        return refuse(request, 501, str(error), "error")
    except forwarding.Gone:
        found = "over"
    except forwarding.Doubtful:
        return posting.later("The process that has the connection does not answer now.")
    except GroupUnavailable as error:
        _log.warning("A poll of the fallback did not reach its process: %s", error)
        return posting.later("The process that has the connection cannot be reached now.")
    except OSError as error:
        _log.error("The system has nothing left for another poll: %s", error)
        return posting.later("There is no room for another poll now.")
    if found == "no room":
        return posting.later("There is no room for the answer now.")
    if found == "held":
        return HeldResponse(held, hold, timeout, ack)
    if found == "out of turn":
        return refuse(request, 400, f"ack={ack} was not the n of an answer.", "info")
    return posting.short(410, "The connection has ended.")


def _held_of(request: HttpRequest) -> HeldRequest:
    scope = request.__dict__.get("scope")
    kind = HeldRequest if scope is None else AsgiHeldRequest
    return kind(request.method or "", request.META, scope)
