"""Subject picows: callbacks on uvloop, on the listening socket whose descriptor is given."""

from __future__ import annotations

import http
import socket
import sys

import uvloop
from picows import (
    WSListener,
    WSMsgType,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

members = []
MESSAGES = (WSMsgType.TEXT, WSMsgType.BINARY)


class Echo(WSListener):
    """Sends every message back."""

    def on_ws_frame(self, transport, frame):
        """Take one frame."""
        if frame.msg_type in MESSAGES:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


class Chat(Echo):
    """Sends every message to all members."""

    def on_ws_connected(self, transport):
        """Become a member."""
        members.append(transport)

    def on_ws_disconnected(self, transport):
        """Leave the members."""
        members.remove(transport)

    def on_ws_frame(self, transport, frame):
        """Take one frame."""
        if frame.msg_type not in MESSAGES:
            super().on_ws_frame(transport, frame)
            return
        payload = frame.get_payload_as_bytes()
        for member in list(members):
            member.send(frame.msg_type, payload)


def accept(request):
    """Answer the benchmark's question, or open a WebSocket."""
    if request.path == b"/ready":
        # It has no other answers than errors.
        answer = WSUpgradeResponse.create_error_response(http.HTTPStatus.NOT_FOUND, b"ready")
        return WSUpgradeResponseWithListener(answer, None)
    return Chat() if request.path == b"/chat" else Echo()


async def main(descriptor):
    """Serve until killed."""
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    server = await ws_create_server(accept, sock=listener, max_frame_size=2**24)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
