"""
The limits of this machine and its kernel: threads, ports, queues, tracked connections.

Each limit is compared with the needs of the expected WebSockets. A limit that this
system does not show (most need ``/proc``) counts as sufficient.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dwebsocket.compat.system import UNLIMITED, limits_of, number_in, text_of
from dwebsocket.operations.doctor import Finding, fine, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

# Threads that run beside those of views.
_OTHER_THREADS = 1000
# Memory areas of a view's thread (measured: 2.7): its stack, the page that guards it, its frames.
_AREAS_OF_A_THREAD = 3
_OTHER_AREAS = 2000
# After a restart one in so many clients is assumed to connect at the same moment.
_SHARE_AT_ONCE = 8
# The longest listen queue that is ever recommended.
_LONGEST_QUEUE = 4096


def examine(connections: int, of_a_process: int, stack_bytes: int) -> Iterator[Finding]:
    """
    Compares the kernel's limits with what the expected WebSockets need.

    Args:
        connections: WebSockets, over all processes.
        of_a_process: The most of these WebSockets that one process may have.
        stack_bytes: The stack of a view's thread.
    """
    findings = [
        *threads(connections, of_a_process, stack_bytes),
        *_queues(connections),
        *_ports(connections),
        *_tracking(connections),
    ]
    yield from findings
    if not (PROC / "sys").exists():
        yield fine(
            "machine",
            "This system does not show its kernel's limits as Linux does. Look at them where the "
            "site will run.",
        )
    elif not findings:
        yield fine("machine", f"The kernel's limits suffice for {connections} WebSockets here.")


def threads(connections: int, of_a_process: int, stack_bytes: int) -> Iterator[Finding]:
    """Whether each WebSocket could have a sync view, which runs on a thread of its own."""
    total = connections + _OTHER_THREADS
    areas = of_a_process * _AREAS_OF_A_THREAD + _OTHER_AREAS
    tasks = number_in(_cgroup() / "pids.max")
    processes = limits_of("NPROC")[0]
    limits = [
        ("kernel.threads-max", _sysctl("kernel.threads-max"), total),
        ("kernel.pid_max", _sysctl("kernel.pid_max"), total),
        ("vm.max_map_count", _sysctl("vm.max_map_count"), areas),
        ("ulimit -u", None if processes == UNLIMITED else processes, total),
        ("pids.max", tasks, total),
    ]
    for name, limit, need in limits:
        if limit is not None and limit < need:
            yield warning(
                "threads",
                f"{name} is {limit}: too little for {connections} WebSockets with sync views, "
                "which have a thread each. Beyond it views are refused. Async views need none.",
                f"{_how(name, need)}, or make the views async.",
            )
    yield from _commitment(connections, stack_bytes)


def _commitment(connections: int, stack_bytes: int) -> Iterator[Finding]:
    if _sysctl("vm.overcommit_memory") != 2:
        return
    limit = _memory("CommitLimit")
    need = connections * stack_bytes
    if limit is not None and need > limit:
        yield warning(
            "stacks",
            f"vm.overcommit_memory is 2, so all {stack_bytes} bytes of a thread's stack count "
            f"though it uses few: {connections} sync views need {need >> 20} MiB of the "
            f"{limit >> 20} MiB that may be promised.",
            "Set vm.overcommit_memory to 0 or 1 (sysctl), WEBSOCKET_THREAD_STACK_SIZE to less, or "
            "make the views async.",
        )


def _queues(connections: int) -> Iterator[Finding]:
    """Whether the listen queues hold the clients that connect at the same moment."""
    need = min(_LONGEST_QUEUE, connections // _SHARE_AT_ONCE)
    limits = {"net.core.somaxconn": "backlog", "net.ipv4.tcp_max_syn_backlog": "syn_backlog"}
    for name, kind in limits.items():
        limit = _sysctl(name)
        if limit is not None and limit < need:
            yield warning(
                kind,
                f"{name} is {limit}. When {connections} clients come back after a restart, "
                "those who find the queue full try again after 1, 3 and 7 seconds.",
                f"{_how(name, need)}, and the server's own backlog to as much (gunicorn, uvicorn: "
                "--backlog).",
            )


def _ports(connections: int) -> Iterator[Finding]:
    """Whether a proxy on this machine has a port for each connection to the server behind it."""
    if not (ports := text_of(PROC / "sys/net/ipv4/ip_local_port_range").split()):
        return
    first, last = map(int, ports)
    if last - first + 1 < connections:
        yield warning(
            "ports",
            f"net.ipv4.ip_local_port_range ({first} {last}) has {last - first + 1} ports: a proxy "
            "cannot have more connections to one address and port of the server.",
            "Set net.ipv4.ip_local_port_range to '1024 65535' (sysctl), and beyond 64,000 let the "
            "server listen on several addresses or ports. A proxy on the same machine needs no "
            "ports if the server listens on a Unix socket.",
        )


def _tracking(connections: int) -> Iterator[Finding]:
    """Whether a firewall that remembers connections can remember all."""
    limit = _sysctl("net.netfilter.nf_conntrack_max")
    # The client's, the proxy's, and one for entries of closed connections that have yet to expire.
    need = 3 * connections
    if limit is not None and limit < need:
        yield warning(
            "conntrack",
            f"net.netfilter.nf_conntrack_max is {limit}: when the firewall's table is full, new "
            "connections are dropped without a word.",
            f"{_how('net.netfilter.nf_conntrack_max', need)}, or do not track the site's port "
            "(NOTRACK).",
        )


def _how(name: str, value: int) -> str:
    if name == "ulimit -u":
        return f"Start the server with ulimit -u {value} (systemd: LimitNPROC=)"
    if name == "pids.max":
        return f"Set TasksMax={value} in the systemd unit (Docker: --pids-limit)"
    return f"Set {name} to {value} or more (sysctl -w {name}={value}, and a file in /etc/sysctl.d)"


def _sysctl(name: str) -> int | None:
    return number_in(PROC / "sys" / name.replace(".", "/"))


def _memory(name: str) -> int | None:
    lines = text_of(PROC / "meminfo").splitlines()
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
    return found[0] if found else None


def _cgroup() -> Path:
    """Returns the folder of this process's control group (version 2)."""
    lines = text_of(PROC / "self/cgroup").splitlines()
    own = [line.partition("::")[2].strip("/") for line in lines if line.startswith("0::")]
    return CGROUPS / (own[0] if own else "")
