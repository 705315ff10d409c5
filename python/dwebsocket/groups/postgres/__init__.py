"""
Groups through the project's own PostgreSQL: ``NOTIFY`` in its transactions, no other server.

A message leaves with Django's transaction or not at all (:mod:`publishing`). Each process that has
members holds one connection that listens (:mod:`listener`), to one channel, whose name comes from
``SECRET_KEY`` and ``PREFIX``. Messages that do not fit into ``NOTIFY`` pass through a table
(:mod:`table`).
"""

from __future__ import annotations

from dwebsocket.group_settings import DEFAULT
from dwebsocket.groups import backends
from dwebsocket.groups.postgres.backend import Backend

__all__ = ["Backend", "find_problems"]


def find_problems(alias: str = DEFAULT) -> list[str]:
    """Gives what is wrong with the set-up of one backend: :meth:`Backend.find_problems`."""
    backend = backends.backend(alias)
    return backend.find_problems() if isinstance(backend, Backend) else []
