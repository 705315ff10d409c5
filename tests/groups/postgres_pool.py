"""
A process that publishes to the group `room`, and then does so by a pool of processes.

Arguments: as JSON what :mod:`postgres_node` takes, and how the pool starts its processes.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from typing import Any


def set_up(options: dict[str, Any]) -> None:
    """Set up Django, as a process that is not forked has to do."""
    from django.conf import settings

    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="secret",
        DATABASES=options["databases"],
        WEBSOCKET_GROUPS=options["groups"],
        INSTALLED_APPS=options.get("apps", ["dwebsocket", "dwebsocket.groups.postgres"]),
        USE_TZ=True,
    )
    import django

    django.setup()


def publish(message: str) -> None:
    """Publish a message."""
    from dwebsocket import group

    group("room").send(message)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    set_up(options)
    publish("parent")
    context = multiprocessing.get_context(sys.argv[2])
    with context.Pool(4, set_up, (options,)) as pool:
        pool.map(publish, map(str, range(8)), chunksize=1)
