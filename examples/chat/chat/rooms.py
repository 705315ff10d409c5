"""
The rooms of this process, and the WebSockets in each of them.

One lock guards the table. It is held to read or to change the table, never to send: a client with a
slow line must not keep others from coming and going. So two views may send at once, and their
events may arrive in either order; ``people`` events carry a revision that says which is newer.

WebSockets are not removed here. ``send()`` to a client that has gone returns False and changes
nothing; the client's own view sees the end and calls ``leave()``.
"""

import itertools
import json
import threading

from dwebsocket import SendTimeout


class Rooms:
    """The table of rooms. All methods may be called from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._rooms = {}  # slug -> {websocket: name, or "" before it is told}
        self._revisions = itertools.count(1)

    def enter(self, slug, websocket):
        """Put ``websocket`` into the room, without a name as yet."""
        with self._lock:
            self._rooms.setdefault(slug, {})[websocket] = ""

    def rename(self, slug, websocket, name):
        """Give ``websocket``, which is in the room, a name; an empty one makes it a listener."""
        with self._lock:
            self._rooms[slug][websocket] = name

    def leave(self, slug, websocket):
        """Take ``websocket`` out. An empty room is removed from the table."""
        with self._lock:
            members = self._rooms.get(slug, {})
            members.pop(websocket, None)
            if not members:
                self._rooms.pop(slug, None)

    def people(self, slug):
        """Return the event that lists the names in the room, each once, in order."""
        with self._lock:
            names = set(self._rooms.get(slug, {}).values()) - {""}
            revision = next(self._revisions)
        people = sorted(names, key=str.casefold)
        return {"type": "people", "people": people, "revision": revision}

    def counts(self):
        """Return how many different names each room holds, as ``{slug: number}``."""
        with self._lock:
            return {slug: len(set(names.values()) - {""}) for slug, names in self._rooms.items()}

    def send(self, slug, event, *, besides=None):
        """Send ``event`` as JSON to all WebSockets in the room, except ``besides``."""
        with self._lock:
            members = list(self._rooms.get(slug, ()))
        text = json.dumps(event)
        for websocket in members:
            if websocket is besides:
                continue
            try:
                websocket.send(text)
            except SendTimeout:
                # Only the caller's own connection waits for room in its buffer. When its browser
                # does not read, close it and go on: the others must not miss the event.
                websocket.close(1013, "too slow")


live = Rooms()
