"""Talking to a WebSocket by lines: what is typed is sent, what comes is shown."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dwebsocket.compat.system import monotonic
from dwebsocket.exceptions import ConnectionClosed, PingTimeout, SendTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dwebsocket.client import ClientConnection
    from dwebsocket.management.terminal.recording import Entry, Recorder

    Show = Callable[[str, str | bytes], None]
    Message = str | bytes

HELP = """\
A line is sent as text. Lines that begin with / are commands:
/ping             send a ping, and show how long its answer takes
/binary 00 ff     send these bytes
/close 4000 bye   close, with a code and a reason if given
/help             this
//text            send /text"""


class Conversation:
    """
    One connection and the one who types.

    Args:
        websocket: The connection.
        show: Shows a line. Its first argument is ``"<"`` for what comes, ``">"`` for what is
            replayed, ``"!"`` for all else. Called on two threads.
        recorder: Notes all messages.
        when_over: Called when the connection has ended, on another thread.
    """

    def __init__(
        self,
        websocket: ClientConnection,
        show: Show,
        recorder: Recorder | None = None,
        when_over: Callable[[], None] | None = None,
    ) -> None:
        self._websocket = websocket
        self._show = show
        self._recorder = recorder
        self._when_over = when_over
        self._active_at = monotonic()
        self._reader = threading.Thread(target=self._receive, daemon=True)
        self._reader.start()

    def talk(self, lines: Iterable[str]) -> None:
        """Sends lines, until they or the connection end."""
        for line in lines:
            if self._websocket.closed or not self._take(line):
                break

    def replay(self, entries: Iterable[Entry]) -> None:
        """Sends again what a client has sent, with the same pauses."""
        begun_at = monotonic()
        for entry in entries:
            if entry.by == "client":
                left = begun_at + entry.at - monotonic()
                if self._websocket.wait_closed(max(0.0, left)):
                    break
                self._show(">", entry.message)
                self._send(entry.message)

    def finish(self, linger: float) -> None:
        """Closes after ``linger`` seconds without a message, and waits until all is shown."""
        while (left := self._active_at + linger - monotonic()) > 0:
            if self._websocket.wait_closed(left):
                break
        self._websocket.close()
        self._reader.join()

    def _take(self, line: str) -> bool:
        """Does what a line says. False when it was the last one."""
        command, _, rest = line.partition(" ")
        if not line:
            return True
        if line.startswith("//"):
            self._send(line[1:])
        elif command == "/ping":
            self._ping()
        elif command == "/binary":
            self._binary(rest)
        elif command == "/close":
            return not self._close(rest)
        elif line.startswith("/"):
            self._show("!", HELP if command == "/help" else f"{command}: unknown; try /help")
        else:
            self._send(line)
        return True

    def _send(self, message: Message) -> None:
        try:
            self._websocket.send(message)
        except (ConnectionClosed, SendTimeout) as error:
            self._show("!", str(error))
            return
        self._active_at = monotonic()
        if self._recorder is not None:
            self._recorder.note("client", message)

    def _ping(self) -> None:
        try:
            self._show("!", f"pong after {self._websocket.ping() * 1000:.1f} ms")
        except (ConnectionClosed, PingTimeout) as error:
            self._show("!", str(error))

    def _binary(self, digits: str) -> None:
        try:
            message = bytes.fromhex(digits)
        except ValueError as error:
            self._show("!", f"/binary: {error}")
        else:
            self._send(message)

    def _close(self, rest: str) -> bool:
        code, _, reason = rest.partition(" ")
        try:
            self._websocket.close(int(code or 1000), reason)
        except ValueError as error:
            self._show("!", f"/close: {error}")
            return False
        return True

    def _receive(self) -> None:
        for message in self._websocket:
            self._active_at = monotonic()
            if self._recorder is not None:
                self._recorder.note("server", message)
            self._show("<", message)
        code, reason = self._websocket.close_code, self._websocket.close_reason
        self._show("!", f"closed with {code}{f': {reason}' if reason else ''}")
        if self._when_over is not None:
            self._when_over()
