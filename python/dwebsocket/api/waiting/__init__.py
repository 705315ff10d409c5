"""
How a caller sleeps until its connection has a message, room or the end for it.

A thread sleeps in the engine (:mod:`~dwebsocket.api.waiting.waiter`). A green thread must not: it
yields to its hub (:mod:`~dwebsocket.api.waiting.green`), as a task does to its event loop
(:mod:`~dwebsocket.api.waiting.loop_hub`). The two are woken by one descriptor for all connections
of a hub or loop (:class:`dwebsocket._core.Hub`).
"""
