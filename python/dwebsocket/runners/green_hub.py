"""In place of the engine's hub where threads are green: the list of tokens that became ready."""

from __future__ import annotations

import threading
from collections import deque

_NUMBER_BITS = 40


class GreenHub:
    """The tokens that became ready. Any thread may use it."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may announce a token at any time.
        self._changed = threading.Condition(threading.RLock())
        self._tokens: deque[int] = deque()
        # Of each lane, when it last had a turn by `next`.
        self._turns: dict[int, int] = {}
        self._is_closed = False
        # Threads that wait in `next`.
        self._asleep = 0

    def announce(self, token: int) -> None:
        """Puts ``token`` on the list."""
        with self._changed:
            self._tokens.append(token)
            self._changed.notify()

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
