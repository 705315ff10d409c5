"""Undocumented parts of Channels, versions 4.0 to 4.3: its consumers and its routers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The attribute in which a consumer keeps ``send``, sync ones as ``async_to_sync(send)``.
SEND = "base_send"


def sync_consumer_of(application: object) -> Any:
    """
    Gives the class of a sync consumer of which ``as_asgi()`` has made ``application``, else None.

    ``consumer_class`` of the application, in all these versions. Where it is missing: None, and the
    application is one like any other. Imports nothing.
    """
    # A process with a consumer has imported the module.
    channels = sys.modules.get("channels.consumer")
    consumer = getattr(application, "consumer_class", None)
    if channels is None or consumer is None or not issubclass(consumer, channels.SyncConsumer):
        return None
    return consumer


def remade(application: Any, consumer: Any) -> Any:
    """
    Gives the application of ``as_asgi()`` of another class, with the same arguments.

    ``consumer_initkwargs`` of the application, in all these versions. Where it is missing:
    ``application`` itself.
    """
    arguments = getattr(application, "consumer_initkwargs", None)
    return application if arguments is None else consumer.as_asgi(**arguments)


def by_type(router: object) -> Mapping[str, Any] | None:
    """
    Gives the applications of a ``ProtocolTypeRouter``, by the type of the scope.

    ``application_mapping``, in all these versions. Where it is missing: None, and the router is an
    application like any other.
    """
    found: Mapping[str, Any] | None = getattr(router, "application_mapping", None)
    return found


def asks_now() -> bool:
    """
    Whether a consumer calls the function that calls this one: its ``receive``, by the frames.

    ``await_many_dispatch`` of ``channels.utils``, in all these versions. Where it is missing:
    false, and the application is one like any other.
    """
    return sys._getframe(2).f_globals.get("__name__") == "channels.utils"
