"""
The calls of ``request.websocket``, a file for each kind.

:class:`dwebsocket.websocket.WebSocket` puts them together: :mod:`~dwebsocket.api.opening`,
:mod:`~dwebsocket.api.receiving`, :mod:`~dwebsocket.api.sending`, :mod:`~dwebsocket.api.ending` and
:mod:`~dwebsocket.api.beside`, all on :mod:`~dwebsocket.api.base`.
"""
