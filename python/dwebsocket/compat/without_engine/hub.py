"""The hub that wakes event loops and threads: the list of tokens that became ready."""

from __future__ import annotations

import socket
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBER_BITS = 40


class Hub:
    """The tokens that became ready, for one event loop, selector or crew. Any thread may use it."""

    def __init__(self, *, for_threads: bool = False) -> None:
        """Begins without tokens; ``for_threads`` makes no difference here."""
        # Reentrant: the garbage collector may announce a token at any time.
        self._changed = threading.Condition(threading.RLock())
        self._tokens: deque[int] = deque()
        # Of each lane, when it last had a turn by `next`.
        self._turns: dict[int, int] = {}
        self._is_closed = False
        # Threads that wait in `next`.
        self._asleep = 0
        self._on_ready: Callable[[], object] | None = None
        self._pair: tuple[socket.socket, socket.socket] | None = None

    def on_ready(self, call: Callable[[], object]) -> None:
        """
        Has ``call`` called, on any thread, when the list gets its first token.

        In place of a descriptor: the event loop that Python uses on Windows watches none.
        """
        self._on_ready = call

    def announce(self, token: int) -> None:
        """Puts ``token`` on the list."""
        with self._changed:
            self._tokens.append(token)
            self._changed.notify()
            is_first = len(self._tokens) == 1
            if is_first and self._pair is not None:
                self._pair[1].send(b"\0")
        if is_first and self._on_ready is not None:
            self._on_ready()

    def drain(self) -> list[int]:
        """Takes all tokens, in order."""
        with self._changed:
            tokens = list(self._tokens)
            self._tokens.clear()
            if tokens and self._pair is not None:
                self._pair[0].recv(1)
        return tokens

    wake = drain

    def served(self) -> None:
        """Does nothing: no connection waits for this."""

    def fileno(self) -> int:
        """Returns a descriptor that is readable while there are tokens, for a selector."""
        with self._changed:
            if self._pair is None:
                self._pair = socket.socketpair()
                # Not by `__del__`, which may come after that of the sockets.
                weakref.finalize(self, _close, *self._pair)
                if self._tokens:
                    self._pair[1].send(b"\0")
            return self._pair[0].fileno()

    def next(
        self, round: int | None, timeout: float | None = None, /
    ) -> tuple[int, int, bool] | None:
        """
        Sleeps until there is a token for this thread; None after :meth:`close`.

        The bits of a token above the lower 40 name its lane; lanes have turns.

        Returns the token, a number without meaning, and whether no other thread is left for the
        next.

        Raises:
            TimeoutError: There was none for ``timeout`` seconds.
        """
        with self._changed:
            self._asleep += 1
            try:
                self._changed.wait_for(lambda: self._tokens or self._is_closed, timeout)
            finally:
                self._asleep -= 1
            if self._is_closed:
                return None
            if not self._tokens:
                raise TimeoutError
            return self._next_token(), 0, self._asleep == 0

    def _next_token(self) -> int:
        """Takes a token of the lane that has had none for longest. Under the lock."""
        token = min(self._tokens, key=lambda token: self._turns.get(token >> _NUMBER_BITS, 0))
        self._tokens.remove(token)
        self._turns[token >> _NUMBER_BITS] = max(self._turns.values(), default=0) + 1
        return token

    def close(self) -> None:
        """Ends the threads that wait in :meth:`next`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def _close(*ends: socket.socket) -> None:
    for end in ends:
        end.close()
