"""
Groups of all processes of this machine that run this project as this user. Needs no server.

The processes meet by Unix sockets in a folder that only their user can enter: the file system's
rights authenticate messages. See ``src/engine/backends/local``.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dwebsocket import _core, unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import user_id
from dwebsocket.groups import backend, process
from dwebsocket.waiting.long_calls import call_elsewhere, submit

if TYPE_CHECKING:
    from dwebsocket.group_settings import BackendSettings
    from dwebsocket.groups.backend import Exclude, Message
    from dwebsocket.groups.history import Page, Position

# Raised with the format of frames between processes: other versions have folders of their own.
_VERSION = 2
# Characters of the key in the folder's name. On macOS the address of a socket has 103 bytes at
# most, and the folder for temporary files takes half of them.
_SHORT_KEY = 8
_KEY_LENGTH = 20 if sys.platform == "linux" else _SHORT_KEY


def folder_of(settings: BackendSettings, key: bytes) -> Path:
    """Gives the folder of the sockets, which need not exist."""
    name = f"dwebsocket-{user_id()}-{_VERSION}-{key.hex()[:_KEY_LENGTH]}"
    parent = settings.runtime_dir or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(parent) / name


def _is_open(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


class Backend(process.Backend):
    """Publishes to the other processes, too. Nothing here waits for another process."""

    medium = "folder"

    def __init__(self, alias: str, settings: BackendSettings) -> None:
        """As :class:`dwebsocket.groups.backend.Backend`."""
        super().__init__(alias, settings)
        self._lock = unpatched.lock()
        self._node: _core.LocalNode | None = None

    @property
    def address(self) -> str:
        """The folder of the sockets."""
        return str(self.folder)

    @property
    def folder(self) -> Path:
        """The folder of the sockets."""
        return folder_of(self.settings, self.project_key("folder"))

    @property
    def open_parent(self) -> Path | None:
        """The folder above in which every user may take its name, once it is gone; None without."""
        above = self.folder.resolve().parents
        return next((each for each in above if _is_open(each)), None)

    @property
    def node(self) -> _core.LocalNode:
        """
        This process as a node, which starts on first use.

        Raises:
            GroupUnavailable: The folder cannot be used.
        """
        if self._node is None:
            # Held for a moment only: the start waits at most half a second for other processes.
            with self._lock:
                if self._node is None:
                    self._node = self._start()
        return self._node

    async def _start_elsewhere(self) -> None:
        """Makes this process a node while the event loop goes on."""
        if self._node is None:
            await call_elsewhere(lambda: self.node)

    def _start(self) -> _core.LocalNode:
        try:
            node = _core.LocalNode(self.folder, user_id(), self.groups, self.presence)
        except OSError as error:
            raise self.unavailable(error.strerror or str(error)) from error
        backend.at_exit(self.stop)
        self._start_reports()
        return node

    def processes(self) -> list[int]:
        """
        Gives the numbers of the other processes that share these groups now.

        Raises:
            GroupUnavailable: The folder cannot be used.
        """
        return sorted(self.node.processes())

    def stop(self) -> None:
        """Sends what still waits for other processes, and leaves them. At the process's end."""
        if self._node is not None:
            self._node.stop(self.settings.timeout)

    def _publish(self, name: str, message: Message, exclude: Exclude) -> bool:
        if self.settings.kept(name) is not None:
            return super()._publish(name, message, exclude)
        return self.node.publish(name, message, exclude)

    def _record(
        self, name: str, message: Message, exclude: Exclude, limits: tuple[int, float]
    ) -> bool:
        return self.node.record(self.history, name, message, exclude, limits)

    def _new_history(self, most: int) -> _core.History:
        return self.node.history(most, self.settings.timeout)

    def _close(self, name: str, code: int, reason: str) -> bool:
        return self.node.close(name, code, reason)

    def subscribe(self, name: str) -> None:
        """
        Makes this process a node: then it gets the messages of all groups.

        Raises:
            GroupUnavailable: The folder cannot be used.
        """
        self.node  # noqa: B018

    async def asubscribe(self, name: str) -> None:
        """
        As :meth:`subscribe`.

        Raises:
            GroupUnavailable: As :meth:`subscribe`.
        """
        await self._start_elsewhere()

    def subscribe_soon(self, name: str) -> None:
        """As :meth:`dwebsocket.groups.backend.Backend.subscribe_soon`."""
        if self._node is None and running_loop() is not None:
            submit(lambda: super(Backend, self).subscribe_soon(name))
        else:
            super().subscribe_soon(name)

    async def asend(self, name: str, message: Message, exclude: Exclude) -> None:
        """As :meth:`dwebsocket.groups.process.Backend.asend`."""
        await self._start_elsewhere()
        await super().asend(name, message, exclude)

    async def aclose(self, name: str, code: int, reason: str) -> None:
        """As :meth:`dwebsocket.groups.process.Backend.aclose`."""
        await self._start_elsewhere()
        await super().aclose(name, code, reason)

    async def acount(self, name: str) -> int:
        """As :meth:`count`."""
        await self._start_elsewhere()
        return self.count(name)

    async def amembers(self, name: str) -> list[_core.Member]:
        """As :meth:`members`."""
        await self._start_elsewhere()
        return self.members(name)

    async def aread_history(
        self, name: str, after: Position | None, limits: tuple[int, float]
    ) -> Page:
        """As :meth:`dwebsocket.groups.process.Backend.aread_history`."""
        await self._start_elsewhere()
        return await super().aread_history(name, after, limits)

    def members(self, name: str) -> list[_core.Member]:
        """
        As :meth:`dwebsocket.groups.backend.Backend.members`.

        Raises:
            GroupUnavailable: The folder cannot be used.
        """
        self.node  # noqa: B018
        return super().members(name)

    def count(self, name: str) -> int:
        """As :meth:`dwebsocket.groups.backend.Backend.count`, of others half a second old."""
        return self.node.count(name)
