"""
The cost of TLS that gunicorn ends, beside a plain connection, in one run.

    python bench/tls.py [--seconds S] [--idle N] [--rounds R]

Needs gunicorn, Django, dwebsocket and trustme. The server has one core, the client another. The
client is Python, too, and is the limit of the rates now and then: the server's own processor time
for each message does not depend on it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trustme
from machine import settled_pss_kib

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MASK = b"\0\0\0\0"


@dataclass(frozen=True)
class Subject:
    """One way of carrying the bytes."""

    name: str
    tls: bool
    pump: str = "process"


SUBJECTS = (
    Subject("plain", tls=False),
    Subject("TLS, one thread a process", tls=True),
    Subject("TLS, one thread a connection", tls=True, pump="connection"),
)
# Payload bytes and connections.
ECHOES = ((32, 1), (32, 50), (1 << 20, 1))


class Site:
    """A running gunicorn with one worker."""

    def __init__(self, subject: Subject, port: int, folder: Path) -> None:
        self.tls = None
        command = [
            *("taskset", "-c", "0", sys.executable, "-m", "gunicorn", "--log-level", "error"),
            *("--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "4"),
            *("--chdir", str(HERE / "servers"), "tls_site:application"),
        ]
        if subject.tls:
            self.tls = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            command += ["--certfile", str(folder / "server.pem")]
        self.address = ("127.0.0.1", port)
        environment = {**os.environ, "TLS_BENCH_PUMP": subject.pump}
        self.process = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.open("echo").close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.worker = int(children.read_text().split()[0])

    def open(self, path: str) -> socket.socket:
        """Connect and shake hands."""
        sock = socket.create_connection(self.address, timeout=30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            sock = self.tls.wrap_socket(sock, server_hostname="127.0.0.1")
        host = f"127.0.0.1:{self.address[1]}"
        sock.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head
        return sock

    def processor_s(self) -> float:
        """Return the worker's processor time so far."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


@contextmanager
def serving(subject: Subject, folder: Path) -> Iterator[Site]:
    """Run a site for one measurement."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    site = Site(subject, port, folder)
    try:
        yield site
    finally:
        site.stop()


def length_field(size: int, masked: int) -> bytes:
    """Return the second byte of a frame and the other bytes of its length."""
    if size < 126:
        return bytes([masked | size])
    return bytes([masked | 127]) + size.to_bytes(8, "big")


def echo(site: Site, size: int, connections: int, seconds: float) -> tuple[float, float]:
    """Return messages a second, and microseconds of the worker's processor for each."""
    payload = bytes(size)
    frame = b"\x82" + length_field(size, 0x80) + MASK + payload
    expected = len(b"\x82" + length_field(size, 0) + payload)
    room = memoryview(bytearray(expected))
    peers = [site.open("echo") for _ in range(connections)]

    def once() -> None:
        for peer in peers:
            peer.sendall(frame)
        for peer in peers:
            got = 0
            while got < expected:
                got += peer.recv_into(room[got:])

    for _ in range(20):
        once()
    count, began, used = 0, time.monotonic(), site.processor_s()
    while time.monotonic() - began < seconds:
        once()
        count += connections
    took, used = time.monotonic() - began, site.processor_s() - used
    for peer in peers:
        peer.close()
    return count / took, used / count * 1e6


def idle(site: Site, connections: int) -> float:
    """Return KiB of the worker for each connection that has said something and is silent."""
    warm = [site.open("hold") for _ in range(20)]
    before = settled_pss_kib([site.worker])
    peers = [site.open("hold") for _ in range(connections)]
    for peer in peers:
        peer.sendall(b"\x82" + length_field(32, 0x80) + MASK + bytes(32))
        peer.recv(34)
    used = (settled_pss_kib([site.worker]) - before) / connections
    for peer in warm + peers:
        peer.close()
    return used


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=3.0, help="for each rate")
    arguments.add_argument("--idle", type=int, default=1000, help="connections for the memory")
    arguments.add_argument("--rounds", type=int, default=3, help="each figure is their median")
    options = arguments.parse_args()
    os.sched_setaffinity(0, {1})
    rates: dict[tuple[str, tuple[int, int]], list[tuple[float, float]]] = {}
    memory: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        for _ in range(options.rounds):
            for subject in SUBJECTS:
                with serving(subject, folder) as site:
                    for work in ECHOES:
                        got = echo(site, *work, options.seconds)
                        rates.setdefault((subject.name, work), []).append(got)
                with serving(subject, folder) as site:
                    memory.setdefault(subject.name, []).append(idle(site, options.idle))
    report(rates, memory, options.idle)


def report(
    rates: dict[tuple[str, tuple[int, int]], list[tuple[float, float]]],
    memory: dict[str, list[float]],
    connections: int,
) -> None:
    """Print one table; the ratios are to the plain connection."""
    print(f"Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}")
    print("| what | connection | messages/s | ratio | server µs/message | ratio |")
    print("|---|---|---|---|---|---|")
    for work in ECHOES:
        size = f"{work[0]} B" if work[0] < 1024 else f"{work[0] >> 20} MiB"
        base = None
        for subject in SUBJECTS:
            seen = rates[subject.name, work]
            rate, cost = (statistics.median(column) for column in zip(*seen, strict=True))
            base = base or (rate, cost)
            print(
                f"| echo {size} x{work[1]} | {subject.name} | {rate:,.0f} | {rate / base[0]:.2f} "
                f"| {cost:,.0f} | {cost / base[1]:.1f} |"
            )
    print(f"\n| connection | KiB a connection, {connections:,} idle | more than plain |")
    print("|---|---|---|")
    plain = statistics.median(memory["plain"])
    for subject in SUBJECTS:
        used = statistics.median(memory[subject.name])
        print(f"| {subject.name} | {used:.1f} | {used - plain:.1f} |")


if __name__ == "__main__":
    main()
