"""What Twisted, below daphne, does not document: its signal handlers."""

from __future__ import annotations


def is_handler(handler: object) -> bool:
    """
    Whether ``handler`` is a signal handler of Twisted's reactor, which stops it at once.

    Told by the module that it is from. Where that has another name the handler is called at once,
    and close frames may not reach the clients.
    """
    return (getattr(handler, "__module__", None) or "").startswith("twisted.")
