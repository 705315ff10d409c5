"""prompt_toolkit, where it is installed: lines that can be edited, with a history."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Prompt:
    """
    Reads lines from the terminal.

    Args:
        history: The file that remembers them, where this user has such a folder and may write.

    Raises:
        ImportError: The package is missing.
    """

    def __init__(self, history: Path) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory

        kept = None
        # RuntimeError: the user of a container may have no home.
        with contextlib.suppress(OSError, RuntimeError):
            path = history.expanduser()
            # Lines may hold secrets.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            kept = FileHistory(str(path))
        self._session: PromptSession[str] = PromptSession(history=kept)
        self._is_stopped = False

    def read(self) -> str:
        """
        Returns the next line.

        Raises:
            EOFError: There is none, or :meth:`stop` was called.
            KeyboardInterrupt: The user has interrupted.
        """
        # Once the loop runs, `stop` itself ends it.
        return self._session.prompt("> ", pre_run=self._end_if_stopped)

    def stop(self) -> None:
        """Ends :meth:`read`, now and from now on. For another thread."""
        self._is_stopped = True
        if (loop := self._session.app.loop) is not None:
            # A loop that has just ended has no line to wait for.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end_if_stopped)

    def _end_if_stopped(self) -> None:
        app = self._session.app
        if self._is_stopped and app.future is not None and not app.future.done():
            app.exit(exception=EOFError())


def beside_prompt() -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which printing leaves the line that is being typed as it is."""
    try:
        from prompt_toolkit.patch_stdout import patch_stdout
    except ImportError:
        return contextlib.nullcontext()
    return patch_stdout(raw=True)
