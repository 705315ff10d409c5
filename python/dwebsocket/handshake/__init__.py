"""
From a request to a WebSocket or a refusal.

In the order of the steps: :mod:`~dwebsocket.handshake.upgrade_request` finds out whether a request
is a handshake, :mod:`~dwebsocket.handshake.upgrade` whether it is accepted, with the
:mod:`~dwebsocket.handshake.origin` of its page. :mod:`~dwebsocket.handshake.refusal` refuses it;
:mod:`~dwebsocket.handshake.response` opens the WebSocket when the server iterates over it, and
:mod:`~dwebsocket.handshake.start` starts the view. :mod:`~dwebsocket.handshake.inline` is for
WebSockets that a project's own middleware opens.
"""
