"""Lines that are typed: by prompt_toolkit where it is installed and a terminal is there."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dwebsocket.compat.prompt_toolkit import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator

_HISTORY = Path("~/.dwebsocket_history")


class TypedLines:
    """
    The lines that are typed, until the end of the input.

    With prompt_toolkit lines can be edited, and earlier ones called back; what is printed meanwhile
    stands above the line that is being typed.

    Args:
        plain: Read the standard input as it is.

    Attributes:
        by_hand: Whether they come from a terminal.
        has_prompt: Whether prompt_toolkit reads them.
    """

    def __init__(self, *, plain: bool) -> None:
        self.by_hand = sys.stdin.isatty()
        self._prompt: Prompt | None = None
        if self.by_hand and not plain:
            with contextlib.suppress(ImportError):
                self._prompt = Prompt(_HISTORY)
        self.has_prompt = self._prompt is not None

    def stop(self) -> None:
        """Ends them, for another thread. Without prompt_toolkit the next line does so."""
        if self._prompt is not None:
            self._prompt.stop()

    def __iter__(self) -> Iterator[str]:
        """
        Yields each of them.

        Raises:
            UnicodeError: The input has bytes that are no text.
        """
        for line in self._lines():
            # Some locales have such bytes read as halves of characters.
            line.encode()
            yield line

    def _lines(self) -> Iterator[str]:
        if self._prompt is None:
            for line in sys.stdin:
                yield line.rstrip("\n")
            return
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            while True:
                yield self._prompt.read()
