"""Facts about the machine: processes, memory, limits, names and versions. Linux only (procfs)."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import subprocess
import time
from pathlib import Path

PROC = Path("/proc")
# Two readings of a server's memory that differ by less are the same.
SETTLED_SHARE = 0.005
SETTLE_S = 0.3
SETTLE_TRIES = 20


class BenchError(Exception):
    """The benchmark cannot go on; the text gives the reason and the remedy."""


def session_pids(leader: int) -> list[int]:
    """Return the processes of the session that ``leader`` started, zombies left out."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # After the name in brackets: state, parent, group, session (proc(5)).
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return sorted(found)


def pss_kib(pids: list[int]) -> int:
    """Return the proportional share of memory of all ``pids`` together, in KiB."""
    total = 0
    for pid in pids:
        rollup = (PROC / str(pid) / "smaps_rollup").read_text()
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        if found is None:
            raise BenchError(f"/proc/{pid}/smaps_rollup has no line Pss")
        total += int(found[1])
    return total


def settled_pss_kib(pids: list[int]) -> int:
    """Return the same once it has stopped moving (or after several tries, as it is)."""
    last = pss_kib(pids)
    for _ in range(SETTLE_TRIES):
        time.sleep(SETTLE_S)
        now = pss_kib(pids)
        if abs(now - last) <= SETTLED_SHARE * now:
            return now
        last = now
    return last


def cpu_s(pids: list[int]) -> float:
    """Return the processor time that all ``pids`` together have taken, to the nanosecond."""
    # The number of a process's own clock, as clock_getcpuclockid(3) makes it.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def raise_descriptor_limit(needed: int) -> None:
    """Allow this process and its children ``needed`` open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchError(
            f"{needed} open files are needed, the hard limit is {hard}: raise it "
            f"(`ulimit -n {needed}` as root, or limits.conf) or ask for fewer --idle-connections"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        # As many as possible: how many a server needs beside its connections is not known here.
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_cores(cores: tuple[int, int]) -> None:
    """Make sure that server and load can each have a core."""
    allowed = os.sched_getaffinity(0)
    if cores[0] == cores[1] or not set(cores) <= allowed:
        raise BenchError(
            f"server and load need a core each; asked for {cores[0]} and {cores[1]}, "
            f"this process may use {sorted(allowed)}"
        )


def need_program(name: str, why: str) -> None:
    """Make sure that ``name`` can be run."""
    if shutil.which(name) is None:
        raise BenchError(f"`{name}` is not installed; {why}")


def processor() -> str:
    """Return the processor's name."""
    text = (PROC / "cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def describe() -> dict[str, str]:
    """Return the facts of this machine that stand beside published figures; no name of a host."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        # Pacing of large messages depends on it, on loopback too.
        "congestion control": (PROC / "sys/net/ipv4/tcp_congestion_control").read_text().strip(),
    }


def commit(root: Path, paths: tuple[str, ...]) -> str:
    """Return the checkout's commit, marked when files under ``paths`` differ from it."""
    try:
        head = _output(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"])
        changed = _output(["git", "-C", str(root), "status", "--porcelain", "--", *paths])
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git checkout)"
    return f"{head} with uncommitted changes" if changed else head


def versions(python: Path, distributions: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of ``distributions`` and of Python itself in that interpreter."""
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {platform.python_implementation(): platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: found[name] = None\n"
        "print(json.dumps(found))"
    )
    try:
        found = json.loads(_output([str(python), "-c", code, *distributions]))
    except (OSError, subprocess.CalledProcessError) as error:
        raise BenchError(f"{python} does not run: {error}") from error
    missing = [name for name, version in found.items() if version is None]
    if missing:
        raise BenchError(f"{python} lacks {', '.join(missing)}: install with its pip")
    return found


def crates(lock: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of the crates ``names`` in a lock file."""
    text = lock.read_text()
    pattern = r'^name = "{}"\nversion = "(.+)"$'
    found = {name: re.search(pattern.format(name), text, re.MULTILINE) for name in names}
    return {name: match[1] for name, match in found.items() if match}


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
