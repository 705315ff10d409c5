"""Undocumented parts of Twisted, on which daphne runs: its signal handlers."""

from __future__ import annotations


def is_handler(handler: object) -> bool:
    """
    Whether ``handler`` is a signal handler of Twisted's reactor, which stops it at once.

    Recognised by its module. Where that has another name the handler is called at once, and close
    frames may not reach the clients.
    """
    return (getattr(handler, "__module__", None) or "").startswith("twisted.")
