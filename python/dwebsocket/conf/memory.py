"""The memory that the process may use: the machine's, or its container's."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dwebsocket.compat.system import number_in, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
# Assumed for the machine's memory where the system does not tell it.
_UNKNOWN = 2 * 2**30


@functools.cache
def limit() -> int:
    """
    Returns the bytes that the process may use: the least of the machine's and its cgroups' limits.

    The files of cgroups of version 2 (``memory.max``) and 1 (``memory.limit_in_bytes``) are read,
    for the process's group and all above it. Read once: a changed limit counts after a restart of
    the process.
    """
    return min([_physical(), *_limits_of_cgroups()])


def _physical() -> int:
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN
    return found if found > 0 else _UNKNOWN


def _limits_of_cgroups() -> Iterator[int]:
    for line in text_of(_PROC).splitlines():
        # Its number, its controllers (none in version 2) and its path.
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            root, file = _MOUNT, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = _MOUNT / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Within a container the path may be the one outside: then the mount itself has the limit.
        folder = root / path.lstrip("/")
        while True:
            if limit_here := number_in(folder / file):
                yield limit_here
            if folder == root or root not in folder.parents:
                break
            folder = folder.parent
