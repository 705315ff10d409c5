"""Subject socketify: Python callbacks on µWebSockets, which is C++."""

from __future__ import annotations

import socket
import sys

from socketify import App, AppListenOptions, CompressOptions

LIMIT = 2**24
members = []


def echo(ws, message, opcode):
    """Send every message back."""
    ws.send(message, opcode)


def enter(ws):
    """Become a member."""
    members.append(ws.clone())


def leave(ws, code, message):
    """Leave the members."""
    members[:] = [member for member in members if member.ws != ws.ws]


def subscribe(ws):
    """Become a member of a topic."""
    ws.subscribe("room")


def publish(ws, message, opcode):
    """Send every message to all members of the topic."""
    app.publish("room", message, opcode)


def chat(ws, message, opcode):
    """Send every message to all members."""
    for member in members:
        member.send(message, opcode)


def behaviour(**handlers):
    """Return the options of a route: nothing is to be compressed, dropped or timed out."""
    return {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": LIMIT,
        "max_backpressure": 4 * LIMIT,
        "idle_timeout": 0,
        **handlers,
    }


# It takes no socket that is open already. The runner tries again until this is done.
with socket.socket(fileno=int(sys.argv[1])) as listener:
    host, port = listener.getsockname()
app = App()
app.get("/ready", lambda res, req: res.end("ready"))
app.ws("/echo", behaviour(message=echo))
app.ws("/chat", behaviour(open=subscribe, message=publish))
app.ws("/loop", behaviour(open=enter, message=chat, close=leave))
app.listen(AppListenOptions(port=port, host=host), lambda config: None)
app.run()
