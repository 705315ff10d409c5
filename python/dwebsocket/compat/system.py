"""Parts that only Unix has, such as forks, users and limits, and their stand-ins on Windows."""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import select
    from collections.abc import Callable

fcntl: Any = None
resource: Any = None
with suppress(ImportError):
    import fcntl
    import resource

#: The number that stands for no limit.
UNLIMITED: int = -1 if resource is None else resource.RLIM_INFINITY

#: Whether no connection can be taken over from a server here: on Windows.
NO_TAKEOVER = sys.platform == "win32"
# Libraries that freeze the time of tests replace `time.monotonic` wherever a module refers to it.
if sys.platform == "win32":
    _monotonic = partial(time.monotonic)
else:
    _monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
# Where /proc/PID/stat has the moment at which the process began: field 22, counted from field 3 on.
_BEGAN_AT = 19
# In the command line of a process of the standard library's.
_TRACKER = "from multiprocessing.resource_tracker import main"
#: The seconds of the system's clock, as `time.monotonic`, also where a test has frozen the time:
#: what waits until a moment of that clock would wait for ever.
monotonic: Callable[[], float] = _monotonic
#: The seconds of a clock that is never set, and that all processes share: on Linux the clock of the
#: moments at which they began.
since_boot: Callable[[], float] = _monotonic
if sys.platform == "linux":
    since_boot = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
#: The sentence for projects on such a system.
ONLY_UNDER_ASGI = (
    "Serve the project by an ASGI server such as uvicorn, in one process: dwebsocket takes "
    "connections over from servers on Linux and macOS, and without that runserver serves pages "
    "only. For all else use WSL 2 or a container."
)
#: Why a WSGI server has no WebSockets there.
NOT_UNDER_WSGI = (
    "No WebSocket under this server: dwebsocket takes connections over from servers on Linux and "
    "macOS. On Windows serve the project by an ASGI server such as uvicorn, or use WSL 2 or a "
    "container."
)


def at_fork(after_in_child: Callable[[], object]) -> None:
    """Has ``after_in_child`` called in each forked child, where processes can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after_in_child)


def renew_at_fork(names: dict[str, Any], **makers: Callable[[], object]) -> None:
    """
    Returns names of a module new values in each forked child, which drop those of the parent.

    Args:
        names: The module's ``globals()``.
        **makers: Makes the value, for each name.
    """
    at_fork(lambda: names.update({name: make() for name, make in makers.items()}))


def user_id() -> int:
    """Returns the number of the user as whom this process acts; 0 where users have none."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def text_of(path: str | Path) -> str:
    """
    Returns the text of a file; ``""`` where there is none that this user may read.

    Bytes that are no text are replaced: the kernel cuts the name of a process within a character.
    """
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def number_in(path: str | Path) -> int | None:
    """Returns the number that a file holds; None where there is none, or another word (``max``)."""
    text = text_of(path).strip()
    return int(text) if text.isdecimal() else None


def children_of(process: int, *, younger: float = math.inf) -> list[int]:
    """
    Returns the processes that the main thread of a process has started; none if that is not known.

    That of ``multiprocessing``, which tracks resources beside those that it has spawned, is none.

    Args:
        process: Its number.
        younger: Only those that have lived for less than so many seconds.
    """
    found = text_of(f"/proc/{process}/task/{process}/children").split()
    return [
        int(each)
        for each in found
        if (younger == math.inf or age_of(each) < younger)
        and _TRACKER not in text_of(f"/proc/{each}/cmdline")
    ]


def age_of(process: int | str) -> float:
    """Returns for how many seconds a process has lived; infinity if that is not known."""
    if not (stat := text_of(f"/proc/{process}/stat")):
        return math.inf
    # Its second field, a name in parentheses, may have spaces.
    began_at = int(stat.rpartition(")")[2].split()[_BEGAN_AT]) / os.sysconf("SC_CLK_TCK")
    return since_boot() - began_at


def is_running(process: int) -> bool:
    """Whether there is a process with this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Another user's.
        pass
    return True


def flock(descriptor: int) -> bool:
    """
    Locks the file or folder of a descriptor for this process, until it closes the descriptor.

    Returns:
        False where another process has locked it. Does not wait.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def limits_of(name: str) -> tuple[int, int]:
    """
    Returns the soft and the hard limit of this process, each :data:`UNLIMITED` where there is none.

    Args:
        name: ``"NOFILE"`` for its descriptors, ``"NPROC"`` for its user's processes and threads.
    """
    if resource is None:
        return UNLIMITED, UNLIMITED
    limits: tuple[int, int] = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
    return limits


class Poll:
    """
    ``select.poll``, which macOS has, with the methods of ``select.epoll`` that are used
    (:mod:`dwebsocket.servers.tls_pump`).
    """

    def __init__(self, poll: Callable[[], select.poll]) -> None:
        self._poll = poll()
        self.register = self._poll.register
        self.unregister = self._poll.unregister
        self.modify = self._poll.modify

    def poll(self, timeout: float | None, /) -> list[tuple[int, int]]:
        """Sleeps until there are events. ``timeout`` is in seconds."""
        return self._poll.poll(None if timeout is None else timeout * 1000)

    def close(self) -> None:
        """Does nothing: it has no descriptor."""
