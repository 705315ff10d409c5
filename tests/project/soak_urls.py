"""The consumers of `soak_consumers` as views, and a page that counts what the process holds."""

from __future__ import annotations

import asyncio
import gc

from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer
from django.http import JsonResponse
from django.urls import path

from dwebsocket import _core, asgi_websocket
from dwebsocket.users import registry
from project import soak_consumers, urls

# More than messages may wait in a channel: by then the layer has forgotten unused channels.
LATER_S = 200


def held(request):
    """Count what this process holds for consumers."""
    layer = get_channel_layer()
    if "later" in request.GET:
        _core.step_clock(LATER_S)
        # It forgets them when it is used.
        async_to_sync(layer.group_send)("nobody", {"type": "any"})
    gc.collect()
    objects = gc.get_objects()
    permit = _core.Permit.claim(1)
    if permit is not None:
        permit.release()
    store = layer._node().store
    return JsonResponse(
        {
            "connections": _core.open_connections(),
            "permits": int(permit is None),
            "visitors": len(registry._register.visitors),
            "tasks": sum(isinstance(it, asyncio.Task) and not it.done() for it in objects),
            "consumers": sum(isinstance(it, AsyncConsumer) for it in objects),
            "channels": len(store._channels),
            "groups": len(store._groups),
            "memberships": len(layer._node()._groups.names()),
        }
    )


urlpatterns = [
    path("sync/", asgi_websocket(soak_consumers.Soaked.as_asgi())),
    path("async/", asgi_websocket(soak_consumers.AsyncSoaked.as_asgi())),
    path("held/", held),
    *urls.urlpatterns,
]
