"""A view with rooms."""

import os

from django.urls import path

from dwebsocket.rooms import Room, rooms


class Sync(Room):
    """Says to all what it gets, and acknowledges; or says which process it is in."""

    name = "sync-<slug:name>"
    presence = True
    events = ("typing",)

    def receive(self, event, data):
        if event == "pid":
            return os.getpid()
        self.group.send_json(data)
        return event


class Async(Room):
    """The same."""

    name = "async-<slug:name>"
    presence = True
    events = ("typing",)

    async def receive(self, event, data):
        await self.group.asend_json(data)
        return event


urlpatterns = [
    path("sync/", rooms(Sync, fallback=True)),
    path("async/", rooms(Async, fallback=True)),
]
