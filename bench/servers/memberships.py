"""The cost of memberships in one process: prints bytes and µs each as JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import re
import time
from pathlib import Path

import django_site

django_site.configure("django_site")

from dwebsocket import _core  # noqa: E402
from dwebsocket.groups import backends  # noqa: E402

MEMBERS = 1_000
EACH = 100
ALONE = 100_000


def pss() -> int:
    """Return the memory of this process in bytes, free memory given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    found = re.search(r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)
    return int(found[1]) * 1024


def join(groups: _core.Groups, names: list[str], members: list[_core.Mailbox]) -> float:
    """Make all of them members of each group; returns µs each."""
    begin = time.perf_counter()
    for name in names:
        for member in members:
            groups.join(name, member, b"k" * 16)
    return (time.perf_counter() - begin) / (len(names) * len(members)) * 1e6


def main() -> None:
    """Measure."""
    hub = _core.Hub()
    groups = backends.backend("default").groups
    members = [_core.Mailbox(65536, hub, number) for number in range(MEMBERS)]
    shared = [f"room-{number}" for number in range(EACH)]
    # The first one is that which opens a member's own list.
    join(groups, ["first"], members)
    before = pss()
    many_us = join(groups, shared, members)
    membership = (pss() - before) / (MEMBERS * EACH)
    for name in shared:
        for member in members:
            groups.leave(name, member)
    left = pss()
    alone = [_core.Mailbox(65536, hub, number) for number in range(ALONE)]
    before = pss()
    begin = time.perf_counter()
    for number, member in enumerate(alone):
        groups.join(f"user-{number}", member, b"k" * 16)
    alone_us = (time.perf_counter() - begin) / ALONE * 1e6
    single = (pss() - before) / ALONE
    for number, member in enumerate(alone):
        groups.leave(f"user-{number}", member)
    after = pss() - before
    print(
        json.dumps(
            {
                "membership_bytes": membership,
                "join_us": many_us,
                "group_of_one_bytes": single,
                "join_of_a_group_of_one_us": alone_us,
                # Tables keep their room for the next ones.
                "emptied_group_bytes": after / ALONE,
                "after_leaving_kib": left / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
