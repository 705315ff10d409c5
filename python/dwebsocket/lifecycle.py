"""What the engine has to know about the process: that it forks, and that it ends."""

from __future__ import annotations

import atexit
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.utils import autoreload

from dwebsocket import _core, native, runners
from dwebsocket.servers import asgi, pump

if TYPE_CHECKING:
    from dwebsocket.servers.contract import AtExit

_ENDING = (1001, "going away")
_RESTARTING = (1012, "restarting")

# How long clients and views together have to say goodbye.
_GRACE_S = 1.0
# A developer waits for each reload, and the views' code is about to change anyway.
_RELOAD_GRACE_S = 0.5
_LAST_WORDS_S = 0.2


class _Lifecycle:
    """Hooks into the end of the process once the first connection is there."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._watching = False
        self._terminating = False
        self._reloading = False

    def begin(self, *, dies_of_sigterm: bool, at_exit: AtExit | None) -> None:
        with self._lock:
            if self._watching:
                return
            self._watching = True
            # Some server above the usual one, or the project, may see to the signal after all.
            self._terminating = dies_of_sigterm and not _is_handled(signal.SIGTERM)
        if self._terminating:
            _core.on_terminate(self._farewell)
        # A forked child inherits these; without connections of its own they do nothing there.
        if at_exit is None:
            _register_at_exit(self._farewell)
        else:
            at_exit(self._farewell)
            # The server may exit in the middle of a request, when no Python can run.
            _core.on_exit(*_ENDING, _GRACE_S)
        autoreload.file_changed.connect(self._on_file_changed)

    def after_fork_in_child(self) -> None:
        _core.after_fork_in_child()
        if self._terminating:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._reset()

    def _on_file_changed(self, *, file_path: Path, **_: Any) -> None:
        # Changes of other files are taken in without a restart.
        self._reloading = self._reloading or file_path.suffix == ".py"

    def _farewell(self) -> None:
        grace = _RELOAD_GRACE_S if self._reloading else _GRACE_S
        deadline = time.monotonic() + grace
        farewell = _RESTARTING if self._reloading else _ENDING
        _core.close_all(*farewell)
        asgi.close_all(*farewell)
        # Views first, in their own way: those on green threads need their hub, which runs here.
        runners.join(deadline - time.monotonic())
        _core.shut_down(*farewell, max(0.0, deadline - time.monotonic()))
        # What the engine said last may still be on its way through TLS.
        pump.settle(max(_LAST_WORDS_S, deadline - time.monotonic()))


def _is_handled(number: signal.Signals) -> bool:
    """Whether anybody sees to a signal, also behind Python's back as gevent's hub does."""
    if signal.getsignal(number) is not signal.SIG_DFL:
        return True
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def _register_at_exit(farewell: Any) -> None:
    # Before thread pools stop taking work, which views may need for their last words. `atexit`
    # runs after that, and is all there is where Python has moved its private hook.
    register = getattr(threading, "_register_atexit", atexit.register)
    if native.patched_by() == "eventlet":
        # Its end of `threading` knows nothing of the hooks of the original.
        register = atexit.register
    register(farewell)


_lifecycle = _Lifecycle()


def begin(*, dies_of_sigterm: bool, at_exit: AtExit | None = None) -> None:
    """
    Sees to it that connections are closed properly when the process ends. May be repeated.

    Args:
        dies_of_sigterm: As :attr:`dwebsocket.servers.contract.Client.dies_of_sigterm`.
        at_exit: As :attr:`dwebsocket.servers.contract.Client.at_exit`.
    """
    _lifecycle.begin(dies_of_sigterm=dies_of_sigterm, at_exit=at_exit)


os.register_at_fork(after_in_child=_lifecycle.after_fork_in_child)
