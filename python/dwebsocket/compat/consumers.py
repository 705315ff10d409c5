"""Undocumented parts of Channels, versions 4.0 to 4.3: its consumers and its routers."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from asgiref.sync import SyncToAsync

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The attribute in which a consumer keeps ``send``, sync ones as ``async_to_sync(send)``.
SEND = "base_send"
# The attribute of an exchanged function.
_CHANNELS_OWN = "channels_own"


def sync_consumer_of(application: object) -> Any:
    """
    Returns the class of a sync consumer of which ``as_asgi()`` has made ``application``, else None.

    ``consumer_class`` of the application, in all these versions. Where it is missing: None, and the
    application is one like any other. Imports nothing.
    """
    # A process with a consumer has imported the module.
    channels = sys.modules.get("channels.consumer")
    consumer = getattr(application, "consumer_class", None)
    if channels is None or consumer is None or not issubclass(consumer, channels.SyncConsumer):
        return None
    return consumer


def are_there() -> bool:
    """Whether this process has loaded consumers. Imports nothing."""
    return "channels.consumer" in sys.modules


def exchange(
    *,
    sender: object,
    dispatch_all: Callable[..., Any],
    close_old_connections: Callable[..., Any],
    close_old_connections_here: Callable[..., None],
    dispatch_sync: Callable[..., Any],
) -> None:
    """
    Has all consumers of this process use these parts in place of Channels' own.

    The functions get Channels' own one as their first argument. Each is a name of
    :mod:`channels.consumer`, in these versions; a part that is missing is not exchanged.

    Args:
        sender: ``SyncConsumer.base_send``, a descriptor: gets and gives ``async_to_sync(send)``.
        dispatch_all: ``await_many_dispatch(receivers, dispatch)``.
        close_old_connections: ``aclose_old_connections()``, since 4.3.
        close_old_connections_here: ``close_old_connections()`` of :mod:`channels.db`, which
            consumers and ``database_sync_to_async`` call on threads.
        dispatch_sync: ``SyncConsumer.dispatch(consumer, message)``, a
            :class:`asgiref.sync.SyncToAsync`.
    """
    channels = sys.modules["channels.consumer"]
    consumer: Any = channels.SyncConsumer
    setattr(consumer, SEND, sender)
    for name, ours in (
        ("await_many_dispatch", dispatch_all),
        ("aclose_old_connections", close_old_connections),
    ):
        if (own := getattr(channels, name, None)) is not None:
            setattr(channels, name, functools.partial(ours, own))
    db: Any = sys.modules.get("channels.db")
    if (own := getattr(db, "close_old_connections", None)) is not None:
        db.close_old_connections = functools.partial(close_old_connections_here, own)
    if isinstance(own := vars(consumer).get("dispatch"), SyncToAsync):
        consumer.dispatch = _exchanged(own, dispatch_sync)


def channels_dispatch_of(dispatch: object) -> Any:
    """
    Returns Channels' own one behind a consumer's ``dispatch``; None when it was not exchanged.
    """
    return getattr(getattr(dispatch, "__func__", None), _CHANNELS_OWN, None)


def _exchanged(own: Any, ours: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own.func)
    async def dispatch(consumer: Any, message: Any) -> None:
        await ours(own, consumer, message)

    dispatch.__dict__[_CHANNELS_OWN] = own
    return dispatch


def by_type(router: object) -> Mapping[str, Any] | None:
    """
    Returns the applications of a ``ProtocolTypeRouter``, by the type of the scope.

    ``application_mapping``, in all these versions. Where it is missing: None, and the router is an
    application like any other.
    """
    found: Mapping[str, Any] | None = getattr(router, "application_mapping", None)
    return found
