"""The answer to a handshake by a server that cannot hand over its socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.raw_peer import RawPeer, handshake_request
from support.waiting import eventually

if TYPE_CHECKING:
    from support.server import Server


def error_of_501(server: Server, start: str = "ERROR", **headers: str) -> str:
    """
    See that the answer is 501, that one error is logged, and that pages are served as ever.

    Returns:
        The error: the one line of the log with `start` in it.
    """
    with RawPeer(server.address) as peer:
        peer.send(handshake_request("/echo/", server.host, headers=headers))
        response = peer.read_response()
    assert response.status == 501
    assert response.header("Sec-WebSocket-Accept") is None
    errors: list[str] = eventually(
        lambda: [line for line in server.stderr().splitlines() if start in line], 60
    )
    assert len(errors) == 1, errors
    assert server.get("/echo/").body == b"a page"
    return errors[0]
