"""Subject flask-sock: a thread per WebSocket under gunicorn gthread."""

from __future__ import annotations

from flask import Flask
from flask_sock import Sock

application = Flask(__name__)
application.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": 2**24}
sock = Sock(application)


@application.get("/ready")
def ready():
    """Answer the benchmark's question."""
    return "ready"


@sock.route("/echo")
def echo(websocket):
    """Send every message back."""
    while True:
        websocket.send(websocket.receive())


members = []


@sock.route("/chat")
def chat(websocket):
    """Send every message to all members."""
    members.append(websocket)
    try:
        while True:
            message = websocket.receive()
            for member in list(members):
                member.send(message)
    finally:
        members.remove(websocket)
