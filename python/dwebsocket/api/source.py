"""
The sources of ``websocket.pump(…)``: the items of an iterator, or the bytes of a stream.

A stream is a file, a pipe, a terminal's descriptor, a socket, or the output of a process. A wait
for it also ends with the connection. Otherwise a silent stream would keep a view running whose
client has gone.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import selectors
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from dwebsocket.compat.socket import below_reader, has_tls

if TYPE_CHECKING:
    from dwebsocket.api.arguments import Sendable

    class _HasDescriptor(Protocol):
        """A socket, or a file."""

        def fileno(self) -> int: ...

    Process = subprocess.Popen[str] | subprocess.Popen[bytes]
    #: What ``pump`` takes.
    Pumped = Process | _HasDescriptor | int | Iterable[Sendable]

# As much as a pipe holds.
_CHUNK_BYTES = 64 * 1024
# How long a process may take to exit after the end of its output.
_REAP_S = 1.0


class Source:
    """
    One source of messages. Its items are read by one thread; :meth:`interrupt` is for any thread.

    Args:
        source: A ``subprocess.Popen``, a file, a socket, a descriptor, or any iterable.

    Raises:
        TypeError: It is none of these.
        ValueError: A process whose output goes elsewhere.
    """

    def __init__(self, source: Any) -> None:
        is_process = hasattr(source, "stdout") and hasattr(source, "kill")
        self._process: Any = source if is_process else None
        self._stream = source.stdout if is_process else source
        if is_process and self._stream is None:
            raise ValueError("pump() has no output to send: start the process with stdout=PIPE")
        self._is_stream = _has_descriptor(self._stream)
        is_message = isinstance(source, (str, bytes, bytearray, memoryview))
        if is_message or not (self._is_stream or isinstance(self._stream, Iterable)):
            name = type(source).__name__
            raise TypeError(f"pump() takes a process, file, socket or iterable, not {name}")
        self.is_interrupted = False
        self._is_finished = False
        # The iterator of an iterable, which is perhaps another object.
        self._items: Any = None
        # Readable once it is interrupted.
        self._read_end, self._write_end = socket.socketpair()

    @property
    def is_stream(self) -> bool:
        """Whether its items are the bytes of a stream as they come, cut anywhere."""
        return self._is_stream and not isinstance(self._stream, io.TextIOBase)

    def items(self) -> Iterator[Any]:
        """Returns each item until the source ends or is interrupted. A stream's are bytes."""
        if self.is_stream:
            return self._chunks()
        # Text is read by lines: a selector does not see what has been decoded already.
        self._items = iter(self._stream)
        return self._items  # type: ignore[no-any-return]

    def interrupt(self, *, kill: bool) -> None:
        """
        Ends the items of a stream. Never sleeps.

        Args:
            kill: Kill the process, too, which ends those of a text stream.
        """
        if self._is_finished:
            return
        self.is_interrupted = True
        with suppress(OSError):
            self._write_end.send(b"\0")
        if kill and self._process is not None:
            with suppress(OSError):
                self._process.kill()

    def finish(self, *, kill: bool) -> None:
        """
        Releases what is left. To be called once, by the thread that has read the items.

        Args:
            kill: Kill the process, or close another source. A bare descriptor stays open: its
                number is its owner's.
        """
        self._is_finished = True
        self._read_end.close()
        self._write_end.close()
        if self._process is not None:
            self._finish_process(kill=kill)
        elif kill:
            for each in (self._items, self._stream):
                if hasattr(each, "close"):
                    each.close()

    def _finish_process(self, *, kill: bool) -> None:
        if kill:
            with suppress(OSError):
                self._process.kill()
        elif self.is_interrupted:
            # Without `kill` the process goes on as it was.
            return
        self._stream.close()
        # Read its status, or it stays a zombie. With a timeout: a process may go on after the end
        # of its output.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_REAP_S)

    def _chunks(self) -> Iterator[bytes]:
        if pending := self._buffered():
            yield pending
        with selectors.DefaultSelector() as selector:
            selector.register(self._read_end, selectors.EVENT_READ)
            # No selector can wait for a regular file.
            waits = not stat.S_ISREG(os.fstat(_descriptor(self._stream)).st_mode)
            if waits:
                selector.register(self._stream, selectors.EVENT_READ)
            while True:
                ready = selector.select(None if waits and not self._has_decrypted() else 0)
                if any(key.fileobj is self._read_end for key, _ in ready):
                    return
                if waits and not ready and not self._has_decrypted():
                    continue
                if (chunk := self._read()) == b"":
                    return
                if chunk is not None:
                    yield chunk

    def _read(self) -> bytes | None:
        """Returns what has come, nothing at the end; None where it was no message, as TLS's own."""
        try:
            if hasattr(self._stream, "recv"):
                return bytes(self._stream.recv(_CHUNK_BYTES))
            return os.read(_descriptor(self._stream), _CHUNK_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            # The socket's own time limit; that of the system has a number.
            if isinstance(error, TimeoutError) and error.errno is None:
                return None
            # A terminal whose process has gone fails with EIO.
            if error.errno in (errno.EIO, errno.ECONNRESET):
                return b""
            raise

    def _buffered(self) -> bytes:
        """Returns the bytes that the source's own buffered reader has read ahead."""
        stream = self._stream
        if not isinstance(stream, (io.BufferedReader, io.BufferedRandom)):
            return b""
        descriptor = stream.fileno()
        was_blocking = os.get_blocking(descriptor)
        os.set_blocking(descriptor, False)
        try:
            return stream.read1(len(stream.peek()))
        finally:
            os.set_blocking(descriptor, was_blocking)

    def _has_decrypted(self) -> bool:
        """Whether a TLS connection has decrypted bytes, which its descriptor does not show."""
        pending = getattr(self._stream, "pending", None)
        return pending is not None and pending() > 0


def _has_descriptor(stream: Any) -> bool:
    if isinstance(stream, io.IOBase) and not isinstance(stream, io.TextIOBase):
        raw = getattr(stream, "raw", stream)
        if not isinstance(raw, io.RawIOBase) or has_tls(below_reader(stream)):
            # A compressed file, a response of HTTP: it gives other bytes than its descriptor.
            return False
    try:
        return _descriptor(stream) >= 0
    except (AttributeError, OSError, TypeError, ValueError):
        return False


def _descriptor(stream: Any) -> int:
    return stream if type(stream) is int else int(stream.fileno())


def whole_characters(chunks: Iterator[Any]) -> Iterator[Any]:
    """Returns ``chunks``, cut between characters where they are bytes of UTF-8."""
    rest = b""
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            yield chunk
            continue
        chunk = rest + chunk
        keep = _incomplete(chunk)
        rest = chunk[len(chunk) - keep :]
        if whole := chunk[: len(chunk) - keep]:
            yield whole
    if rest:
        yield rest


def _incomplete(data: bytes) -> int:
    """Returns the number of bytes at the end that begin a character of UTF-8."""
    # Invalid bytes, such as the rest of a character before, count as no beginning.
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    decoder.decode(data[-3:])
    return len(decoder.getstate()[0])
