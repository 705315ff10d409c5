"""What tests of `dwebsocket.js` connect to."""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

from dwebsocket import accept_websocket

PAGE = """\
{% load static %}<!doctype html>
<title>A page</title>
<script type="module">
  import { connect } from "{% static "dwebsocket/dwebsocket.js" %}";
  window.states = [];
  window.messages = [];
  window.socket = connect("/client/ws/");
  window.fails = () => { throw new Error("mine"); };
  window.addEventListener("unhandledrejection", ({ reason }) => messages.push(reason.message));
  socket.on("state", (state) => states.push(state));
  socket.on("message", (message) => messages.push(message));
</script>
"""


@accept_websocket(text_type=str, subprotocols=["chat"])
def answers(request: HttpRequest) -> None:
    """Answer requests, close as told, echo all else."""
    websocket = request.websocket
    for message in websocket:
        asked = json.loads(message) if message[:1] in ("{", b"{") else {}
        if "id" in asked:
            websocket.send_json({"id": asked["id"], "data": {"got": asked["data"]}})
        elif "close" in asked:
            websocket.close(*asked["close"])
        else:
            websocket.send(message)


def page(request: HttpRequest) -> HttpResponse:
    """Load the module."""
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))


urlpatterns = [path("ws/", answers), path("page/", page)]
