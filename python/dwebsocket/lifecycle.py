"""What the engine has to know about the process: that it forks, and that it ends."""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from django.utils import autoreload

from dwebsocket import _core
from dwebsocket.runners import loop, thread

if TYPE_CHECKING:
    from pathlib import Path

_GOING_AWAY, _SERVICE_RESTART = 1001, 1012

# How long clients and views together have to say goodbye.
_GRACE_S = 1.0
# A developer waits for each reload, and the views' code is about to change anyway.
_RELOAD_GRACE_S = 0.5


class _Watch:
    """Hooks into the end of the process once the first connection is there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watching = False
        self._reloading = False

    def begin(self) -> None:
        with self._lock:
            if self._watching:
                return
            self._watching = True
        # A forked child inherits both; without connections of its own they do nothing there.
        atexit.register(self._at_exit)
        autoreload.file_changed.connect(self._on_file_changed)

    def _on_file_changed(self, *, file_path: Path, **_: Any) -> None:
        # Changes of other files are taken in without a restart.
        self._reloading = self._reloading or file_path.suffix == ".py"

    def _at_exit(self) -> None:
        grace = _RELOAD_GRACE_S if self._reloading else _GRACE_S
        deadline = time.monotonic() + grace
        if self._reloading:
            _core.shut_down(_SERVICE_RESTART, "restarting", grace)
        else:
            _core.shut_down(_GOING_AWAY, "going away", grace)
        thread.join(deadline - time.monotonic())
        loop.join(deadline - time.monotonic())


_watch = _Watch()


def begin() -> None:
    """Sees to it that connections are closed properly when the process ends. May be repeated."""
    _watch.begin()


os.register_at_fork(after_in_child=_core.after_fork_in_child)
