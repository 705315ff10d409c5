"""What Twisted, below daphne, does not document: its signal handlers."""

from __future__ import annotations


def is_handler(handler: object) -> bool:
    """
    Whether ``handler`` is a signal handler of Twisted's reactor, which stops it at once.

    By the module that it is from. Where that has another name it is called at once, and what
    clients were to be told as their last word may not reach them.
    """
    return (getattr(handler, "__module__", None) or "").startswith("twisted.")
