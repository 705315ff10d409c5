"""
Groups through the project's own PostgreSQL: ``NOTIFY`` in its transactions, no other server.

A message leaves with Django's transaction or not at all (:mod:`publishing`). Each process that has
members holds one connection that listens (:mod:`listener`), to one channel, whose name comes from
``SECRET_KEY`` and ``PREFIX``. Messages that do not fit into ``NOTIFY`` pass through a table
(:mod:`table`).
"""

from __future__ import annotations

from dwebsocket.groups.backends.postgres.backend import Backend

__all__ = ["Backend"]
