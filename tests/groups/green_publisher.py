"""
A process of green threads that publishes while its server does not answer.

Arguments: `gevent` or `eventlet`, `patched` or `plain`, the LOCATION, and the TIMEOUT. It prints
how often another green thread ran meanwhile, and what the publisher got.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Publish in a green thread, while another one counts."""
    library, how, location, timeout = sys.argv[1:]
    sleep, spawn = green_threads(library, is_patched=how == "patched")
    from django.conf import settings

    groups = {
        "BACKEND": "dwebsocket.groups.redis",
        "LOCATION": location,
        "TIMEOUT": float(timeout),
    }
    settings.configure(SECRET_KEY="secret", WEBSOCKET_GROUPS={"default": groups})
    import django

    django.setup()
    from dwebsocket import group
    from dwebsocket.exceptions import GroupUnavailable
    from dwebsocket.groups import backends

    turns, results = [0], []

    def publish(send: Callable[[], object]) -> None:
        began = time.monotonic()
        try:
            send()
        except GroupUnavailable as error:
            results.append(str(error))
        else:
            results.append("sent")
        results.append(time.monotonic() - began)

    def count() -> None:
        while len(results) < 4:
            turns[0] += 1
            sleep(0.01)

    sends: list[Callable[[], object]] = [
        lambda: group("room").send("x"),
        # As presence does.
        lambda: backends.backend("default").publish_all([("room", b"x")]),
    ]
    threads: list[Any] = [*(spawn(lambda send=send: publish(send)) for send in sends), spawn(count)]
    while len(results) < 4:
        sleep(0.01)
    print(turns[0], *results, sep="\n")
    del threads


def green_threads(
    library: str, *, is_patched: bool
) -> tuple[Callable[[float], Any], Callable[[Callable[[], None]], Any]]:
    """Give the functions that sleep and start a green thread."""
    if library == "gevent":
        import gevent
        from gevent import monkey

        if is_patched:
            monkey.patch_all()
        sleep, spawn = gevent.sleep, gevent.spawn
    else:
        import eventlet

        if is_patched:
            eventlet.monkey_patch()
        sleep, spawn = eventlet.sleep, eventlet.spawn
    if is_patched:
        return time.sleep, lambda target: threading.Thread(target=target).start()
    return sleep, spawn


if __name__ == "__main__":
    main()
