"""
The thread that carries bytes between encrypted connections and the engine.

The state of TLS is in an object of Python's ``ssl``, which reads and writes one descriptor of its
own. So the engine gets one end of a socket pair, and a :class:`Pipe` moves the bytes from there
through that object to the client, and back. One thread per process serves all pipes, and only this
thread uses their TLS objects; it never waits for a single client.

A pipe holds bytes only while their receiver does not take them, at most one chunk in each
direction, and reads nothing more from the sender meanwhile: so back-pressure reaches the sender.
The end of one side reaches the other after all bytes before it.

The thread and its sockets are the system's, also where gevent or eventlet have replaced both: a hub
that is busy, or ends, does not stop it.
"""

from __future__ import annotations

import logging
import select
import ssl
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from dwebsocket.compat import unpatched
from dwebsocket.compat.socket import system as _socket
from dwebsocket.compat.system import at_fork, monotonic

if TYPE_CHECKING:
    import threading

_log = logging.getLogger("dwebsocket")

_CHUNK_BYTES = 64 * 1024
# The chunks that one pipe may move before the others have their turn.
_ROUNDS = 4
# Time for a client to take the last bytes after the engine has closed its end.
_LINGER_S = 5.0
# epoll's constants have the same values, but gevent and eventlet remove them from `select`.
# Their names are those of `poll`, and Windows has none of them.
_IN, _OUT, _GONE, _BROKEN = (
    getattr(select, name, 0) for name in ("POLLIN", "POLLOUT", "POLLHUP", "POLLERR")
)


class Tls(Protocol):
    """The methods that a pipe uses of the state object inside Python's ``ssl.SSLSocket``."""

    def read(self, length: int, buffer: memoryview) -> int:
        """Decrypts into ``buffer``; 0 is the end of the stream."""

    def write(self, data: memoryview | bytes) -> int:
        """Encrypts and sends; bytes that could not be sent have to be passed again."""

    def shutdown(self) -> object:
        """Sends close_notify: nothing more will be sent."""


class Pipe:
    """
    One client's two sockets, and the bytes between them.

    Args:
        tls: The state of TLS; it reads and writes the descriptor of ``far``.
        far: The client's socket.
        near: One end of a socket pair whose other end the engine has.

    Belongs to the pump's thread once it was added.
    """

    def __init__(self, tls: Tls, far: _socket.socket, near: _socket.socket) -> None:
        self._tls = tls
        self._far = far
        self._near = near
        self.far_descriptor = _socket.socket.fileno(far)
        self.near_descriptor = near.fileno()
        self._inbound: memoryview | bytes = b""
        self._outbound: memoryview | bytes = b""
        # Whether the client, and the engine, may still send something.
        self._client_sends = True
        self._engine_sends = True
        self._engine_listens = True
        self._close_notify_sent = False
        self._lost = False
        # The events that TLS waits for: a write may need to read first, and a read to write.
        self._read_needs = _IN
        self._write_needs = _OUT

    @property
    def is_over(self) -> bool:
        """Whether nothing more can go either way."""
        told_all = not (self._client_sends and self._engine_listens)
        return self._lost or (self._close_notify_sent and told_all)

    @property
    def far_interest(self) -> int:
        """The events to wait for on the client's socket."""
        interest = 0
        if self._client_sends and self._engine_listens and not self._inbound:
            interest |= self._read_needs
        if self._outbound or not (self._engine_sends or self._close_notify_sent):
            # While the engine does not take the bytes that were read, nothing more is read: so do
            # not wait for a readable socket then.
            interest |= 0 if self._inbound and self._write_needs == _IN else self._write_needs
        return interest

    @property
    def near_interest(self) -> int:
        """The events to wait for on the socket to the engine."""
        interest = _OUT if self._inbound else 0
        if self._engine_sends and not self._outbound:
            interest |= _IN
        return interest

    def break_off(self) -> None:
        """Marks the client as lost: the engine will see a connection that broke off."""
        self._lost = True

    def forget_engine(self) -> None:
        """Notes that the engine has closed its end: only its last bytes are left to send."""
        self._engine_listens = False
        self._inbound = b""

    def turn(self, scratch: memoryview) -> bool:
        """
        Moves what can be moved now.

        Returns:
            Whether to call it again soon: there may be more, although no descriptor gets ready.
        """
        more = self._send(scratch)
        more |= self._receive(scratch)
        if self._outbound and self._write_needs == _IN:
            # Writing waited for bytes from the client: reading may have received them.
            more |= self._send(scratch)
        everything_sent = not (self._engine_sends or self._outbound)
        # `Tls.shutdown` also reads, so the client's bytes have to be read before it.
        if everything_sent and not (self._inbound or more or self._close_notify_sent or self._lost):
            self._send_close_notify()
        return more and not self.is_over

    def close(self) -> None:
        """Ends both sides."""
        # Shut down before closing: a forked child may hold a copy of the descriptor.
        with suppress(OSError):
            _socket.socket.shutdown(self._far, _socket.SHUT_RDWR)
        self.abandon()

    def abandon(self) -> None:
        """Closes this process's descriptors; the connection stays open in other processes."""
        self._near.close()
        # The class of the socket may have a `close` of its own.
        _socket.socket.close(self._far)

    # --- from the engine to the client -------------------------------------------------------

    def _send(self, scratch: memoryview) -> bool:
        for _ in range(_ROUNDS):
            if not self._outbound and not self._fetch(scratch):
                return False
            if not self._encrypt():
                # All pipes share the scratch: bytes that are left over are copied out of it.
                self._outbound = bytes(self._outbound)
                return False
        return True

    def _fetch(self, scratch: memoryview) -> bool:
        if not self._engine_sends:
            return False
        try:
            count = self._near.recv_into(scratch)
        except BlockingIOError:
            return False
        except OSError:
            # The engine closed its end while bytes of the client were on their way to it.
            count = 0
        self._outbound = scratch[:count]
        self._engine_sends = count > 0
        return self._engine_sends

    def _encrypt(self) -> bool:
        while self._outbound:
            try:
                self._outbound = self._outbound[self._tls.write(self._outbound) :]
            except ssl.SSLWantWriteError:
                self._write_needs = _OUT
                return False
            except ssl.SSLWantReadError:
                self._write_needs = _IN
                return False
            except OSError:
                self.break_off()
                self._outbound = b""
                return False
        return True

    def _send_close_notify(self) -> None:
        try:
            self._tls.shutdown()
        except ssl.SSLWantWriteError:
            self._write_needs = _OUT
            return
        except OSError:
            # Most often SSLWantReadError: it would now wait for the client's close_notify.
            pass
        with suppress(OSError):
            _socket.socket.shutdown(self._far, _socket.SHUT_WR)
        self._close_notify_sent = True
        self._read_needs = _IN

    # --- from the client to the engine -------------------------------------------------------

    def _receive(self, scratch: memoryview) -> bool:
        for _ in range(_ROUNDS):
            if not (self._deliver() and self._client_sends and self._engine_listens):
                return False
            count = self._decrypt(scratch)
            if count is None:
                return False
            if count == 0:
                self._client_sends = False
                with suppress(OSError):
                    self._near.shutdown(_socket.SHUT_WR)
                return False
            if not self._close_notify_sent:
                self._inbound = scratch[:count]
        if self._inbound:
            self._deliver()
        return True

    def _decrypt(self, scratch: memoryview) -> int | None:
        try:
            if self._close_notify_sent:
                # These bytes are dropped. Unread, they would cause a reset when the socket closes,
                # which could overtake the last bytes that were sent.
                return _socket.socket.recv_into(self._far, scratch)
            return self._tls.read(len(scratch), scratch)
        except (ssl.SSLWantReadError, BlockingIOError):
            self._read_needs = _IN
        except ssl.SSLWantWriteError:
            self._read_needs = _OUT
        except ssl.SSLEOFError:
            return 0
        except OSError:
            self.break_off()
        return None

    def _deliver(self) -> bool:
        """Sends the decrypted bytes to the engine; False while some of them are left."""
        while self._inbound:
            try:
                self._inbound = self._inbound[self._near.send(self._inbound) :]
            except BlockingIOError:
                self._inbound = bytes(self._inbound)
                return False
            except OSError:
                self.forget_engine()
        return True


class Pump:
    """One thread that serves pipes. Any thread may add some."""

    def __init__(self) -> None:
        self._poller = unpatched.poller()
        # No `os.pipe`: eventlet makes even `os.read` and `os.write` yield to a hub.
        self._wake_receiver, self._wake_sender = _socket.socketpair()
        for end in (self._wake_receiver, self._wake_sender):
            end.settimeout(0)
        self._poller.register(self._wake_receiver.fileno(), _IN)
        self._arrivals: deque[Pipe] = deque()
        self._pipes: dict[int, Pipe] = {}
        self._interests: dict[int, int] = {}
        # Pipes whose engine end is closed, by their deadlines for the last bytes; in order.
        self._lingering: deque[tuple[float, Pipe]] = deque()
        self._awaiting_quiet: deque[threading.Lock] = deque()
        self._scratch = memoryview(bytearray(_CHUNK_BYTES))

    def start(self) -> None:
        """Begins to serve."""
        unpatched.start_thread("dwebsocket-tls", unpatched.lasting("dwebsocket-tls", self._run))

    def add(self, pipe: Pipe) -> None:
        """Serves ``pipe`` until both of its sides have ended, and closes it then."""
        self._arrivals.append(pipe)
        self._wake()

    def settle(self, timeout: float) -> None:
        """Sleeps until no pipe is left, ``timeout`` seconds at most."""
        quiet = unpatched.lock()
        quiet.acquire()
        self._awaiting_quiet.append(quiet)
        self._wake()
        quiet.acquire(timeout=max(0.0, timeout))

    def abandon(self) -> None:
        """In a forked child: closes its copies of the descriptors, and sends nothing."""
        self._poller.close()
        self._wake_receiver.close()
        self._wake_sender.close()
        for pipe in {*self._pipes.values(), *self._arrivals}:
            pipe.abandon()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            self._wake_sender.send(b"!")

    def _run(self) -> None:
        again: set[Pipe] = set()
        while True:
            # Take all events before serving: a closed descriptor's number may be reused at once.
            ready = again | self._wait(0.0 if again else self._timeout())
            while self._arrivals:
                ready.add(pipe := self._arrivals.popleft())
                self._pipes[pipe.near_descriptor] = self._pipes[pipe.far_descriptor] = pipe
            again = {pipe for pipe in ready if self._serve(pipe)}
            # Otherwise local names would keep the last connection until the next one comes.
            pipe = None  # type: ignore[assignment]
            ready.clear()
            self._give_up_on_the_slow(again)
            self._tell_of_quiet()

    def _wait(self, timeout: float | None) -> set[Pipe]:
        ready = set()
        for descriptor, events in self._poller.poll(timeout):
            if descriptor == self._wake_receiver.fileno():
                with suppress(BlockingIOError):
                    self._wake_receiver.recv(4096)
                continue
            pipe = self._pipes[descriptor]
            ready.add(pipe)
            if events & (_GONE | _BROKEN):
                # epoll would report it for ever: stop watching it.
                self._watch(descriptor, None)
                if descriptor == pipe.near_descriptor:
                    pipe.forget_engine()
                    self._lingering.append((monotonic() + _LINGER_S, pipe))
                elif events & _BROKEN:
                    pipe.break_off()
        return ready

    def _timeout(self) -> float | None:
        if not self._lingering:
            return None
        return max(0.0, self._lingering[0][0] - monotonic())

    def _serve(self, pipe: Pipe) -> bool:
        try:
            more = not pipe.is_over and pipe.turn(self._scratch)
            if not pipe.is_over:
                self._watch(pipe.far_descriptor, pipe.far_interest)
                self._watch(pipe.near_descriptor, pipe.near_interest)
                return more
        except Exception:
            # Any error ends this pipe only.
            _log.exception("An encrypted WebSocket is lost")
            pipe.break_off()
        self._drop(pipe)
        return False

    def _watch(self, descriptor: int, interest: int | None) -> None:
        """Waits for ``interest`` from now on; None: for nothing, never again."""
        known = self._interests.get(descriptor)
        if known == interest or known == _NEVER:
            return
        if interest is None:
            self._poller.unregister(descriptor)
            self._interests[descriptor] = _NEVER
            return
        if known is None:
            self._poller.register(descriptor, interest)
        else:
            self._poller.modify(descriptor, interest)
        self._interests[descriptor] = interest

    def _drop(self, pipe: Pipe) -> None:
        for descriptor in (pipe.near_descriptor, pipe.far_descriptor):
            if self._interests.pop(descriptor, _NEVER) != _NEVER:
                with suppress(OSError):
                    self._poller.unregister(descriptor)
            self._pipes.pop(descriptor, None)
        pipe.close()

    def _give_up_on_the_slow(self, again: set[Pipe]) -> None:
        now = monotonic()
        while self._lingering and (self._lingering[0][0] <= now or self._lingering[0][1].is_over):
            _, pipe = self._lingering.popleft()
            if not pipe.is_over:
                pipe.break_off()
                self._drop(pipe)
                # The numbers of its descriptors may be another client's by its next turn.
                again.discard(pipe)

    def _tell_of_quiet(self) -> None:
        while self._awaiting_quiet and not (self._pipes or self._arrivals):
            self._awaiting_quiet.popleft().release()


# Marks a descriptor that was watched and must not be watched again; no interest has this value.
_NEVER = -1


# The pump of this process, started with the first connection that needs it.
_lock = unpatched.lock()
_pump: Pump | None = None


def current() -> Pump:
    """
    Returns this process's pump.

    Raises:
        OSError: The process has no descriptors left.
        RuntimeError: The system gives no thread.
    """
    global _pump
    with _lock:
        if _pump is None:
            pump = Pump()
            try:
                pump.start()
            except BaseException:
                pump.abandon()
                raise
            _pump = pump
        return _pump


def settle(timeout: float) -> None:
    """Sleeps until every encrypted connection has ended, ``timeout`` seconds at most."""
    if _pump is not None:
        _pump.settle(timeout)


def _leave_parents_pump() -> None:
    global _lock, _pump
    pump, _lock, _pump = _pump, unpatched.lock(), None
    if pump is not None:
        pump.abandon()


at_fork(_leave_parents_pump)
