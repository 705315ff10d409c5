"""Undocumented parts of gevent, versions 22.10 to 26.9: its hubs, and its server's bodies."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from dwebsocket.compat.missing import MissingPart

if TYPE_CHECKING:
    from collections.abc import Callable


def hub_getter() -> Callable[[], Any]:
    """
    Returns the function that returns this thread's hub, or None; it never makes a hub.

    ``gevent._hub_local.get_hub_if_exists``, in all these versions; a function in C, because it is
    called for each message. Imports gevent.

    Raises:
        MissingPart: It is missing. ``gevent.get_hub`` would make a hub for each thread that asks.
    """
    try:
        from gevent._hub_local import get_hub_if_exists
    except ImportError:
        raise MissingPart("gevent", "gevent._hub_local.get_hub_if_exists") from None
    getter: Callable[[], Any] = get_hub_if_exists
    return getter


# The hub on which connections are served: that of the server's thread.
_home: Any = None


def note_home(hub: Any) -> None:
    """Notes ``hub`` as the one on which connections are served."""
    global _home
    _home = hub


def find_home() -> bool:
    """
    Whether it is known on which hub connections are served; notes the main thread's if this is it.

    ``Hub.main_hub`` is documented since gevent 1.3.
    """
    if _home is None and threading.get_ident() == threading.main_thread().ident:
        import gevent

        if (hub := gevent.get_hub()).main_hub:
            note_home(hub)
    return _home is not None


def is_at_home() -> bool:
    """Whether this runs on the thread of the hub that serves connections."""
    hub = hub_getter()()
    return hub is not None and hub is _hub_of_code()


def spawn_at_home(target: Callable[[], object]) -> bool:
    """
    Runs ``target`` on a greenlet of the hub that serves connections. Any thread may call it.

    False, and nothing runs, where no connection was served yet and this thread is not the main one
    or has no hub. ``loop.run_callback_threadsafe`` is documented since gevent 21.
    """
    if (hub := _hub_of_code()) is None:
        return False
    import gevent

    process = os.getpid()

    def run() -> None:
        # A forked child has copies of greenlets, but its parent's threads are not there.
        if os.getpid() == process:
            target()

    if hub_getter()() is hub:
        gevent.spawn(run)
    else:
        hub.loop.run_callback_threadsafe(gevent.spawn, run)
    return True


def _hub_of_code() -> Any:
    """Returns the hub that serves connections; before the first one that of the main thread."""
    if _home is not None:
        return _home
    hub = hub_getter()()
    # Documented since gevent 1.3.
    return hub if hub is not None and hub.main_hub else None


def sleep(seconds: float) -> None:
    """Has this greenlet sleep."""
    import gevent

    gevent.sleep(seconds)


def wait_for_reading(descriptor: int, timeout: float | None) -> None:
    """Has this greenlet wait until a descriptor is readable; with 0 it only lets others run."""
    import gevent
    from gevent.select import select

    if timeout == 0:
        gevent.sleep(0)
    else:
        select([descriptor], [], [], timeout)


def exit_of_greenlets() -> BaseException:
    """Returns the exception that ends a greenlet in silence."""
    import gevent

    exit_: BaseException = gevent.GreenletExit()
    return exit_


def is_in_greenlet() -> bool:
    """Whether a greenlet of gevent runs this: ``getcurrent`` and ``Greenlet``; imports nothing."""
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(gevent.getcurrent(), gevent.Greenlet)


def green_select() -> Callable[[int, float], object] | None:
    """
    Returns a function by which a greenlet waits for a readable descriptor, some seconds at most.

    None where this thread has no hub, or is in its hub itself, so that nothing can be waited for in
    a greenlet's way. Imports nothing that is not there.
    """
    if (hub := _hub_here()) is None:
        return None
    import gevent
    from gevent.select import select

    if gevent.getcurrent() is hub:
        return None
    return lambda descriptor, time: select([descriptor], [], [], time)


def reader_of(body: object) -> Any:
    """
    Returns the buffered reader below a request's body in ``gevent.pywsgi``.

    ``Input.rfile``, in all these versions. With ``Connection: Upgrade`` the body is that reader
    itself, which is what is given where the attribute is missing.
    """
    return getattr(body, "rfile", body)


def destroy_hub() -> None:
    """
    Destroys this thread's hub, if there is one; to be called as the thread ends.

    A thread of the system that sleeps on a patched primitive gets a hub, which no collector closes.
    ``Hub.destroy`` is documented; :func:`hub_getter` finds the hub. Where that is missing, or
    without gevent: does nothing.
    """
    if (hub := _hub_here()) is not None:
        hub.destroy(destroy_loop=True)


def _hub_here() -> Any:
    """Returns this thread's hub; None without one, and where it cannot be found."""
    try:
        return hub_getter()() if "gevent.hub" in sys.modules else None
    except MissingPart:
        return None
