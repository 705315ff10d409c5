"""
In plain Python, what the native engine does elsewhere for connections that an ASGI server keeps.

For Windows, where there is no engine: :mod:`dwebsocket._core` is made of these modules there. The
server implements the protocol, and :mod:`dwebsocket.servers.asgi.connection` uses it; here are the
rules of the handshake, the places of connections, the wake-ups of loops and threads, and the groups
of one process. :mod:`.missing` refuses the rest. ``_core.pyi`` documents all names.
"""
