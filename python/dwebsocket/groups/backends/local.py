"""
Groups of all processes of this machine that run this project as this user. Needs no server.

The processes meet by Unix sockets in a folder that only their user can enter: the file system's
rights authenticate messages. See ``src/engine/backends/local``.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dwebsocket import _core
from dwebsocket.api.waiting.long_calls import call_elsewhere, submit
from dwebsocket.api.waiting.steps import Call
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import user_id
from dwebsocket.groups.backends import contract, process
from dwebsocket.telemetry import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dwebsocket.api.waiting.steps import Steps
    from dwebsocket.conf.group_settings import BackendSettings
    from dwebsocket.groups.backends.contract import Exclude, Message
    from dwebsocket.groups.backends.process import Attempt, Patience

T = TypeVar("T")

# Raised with the format of frames between processes: other versions have folders of their own.
_VERSION = 4
# Characters of the key in the folder's name. On macOS the address of a socket has 103 bytes at
# most, and the folder for temporary files takes half of them.
_SHORT_KEY = 8
_KEY_LENGTH = 20 if sys.platform == "linux" else _SHORT_KEY
#: The variable of the environment that moves the folder of a copy of the site, as of its tests:
#: such a process is apart on purpose.
VARIABLE = "WEBSOCKET_RUNTIME_DIR"
# Not what XDG_RUNTIME_DIR or TMPDIR name, which a shell has and a service has not.
_TEMPORARY = "/tmp"  # noqa: S108 - a folder in it is used only if it is this user's alone
_NAME = re.compile(r"/dwebsocket-(\d+)-(\d+)-([0-9a-f]+)$")
# Seconds between two looks at the other processes of the machine.
_LOOK_S = 60.0
_log = logging.getLogger("dwebsocket")


class Use(NamedTuple):
    """
    A process that has a folder open where processes meet.

    Attributes:
        pid: The process.
        link: Leads to its folder, also where that is in another namespace.
        user: The folder's user.
        version: The format of frames.
        key: The beginning of the key of site and prefix.
    """

    pid: int
    link: str
    user: str
    version: str
    key: str

    def is_of(self, folder: Path) -> bool:
        """Whether it is a folder of this process; not if the other one has ended."""
        try:
            return folder.samefile(self.link)
        except OSError:
            return False


def uses(path: re.Pattern[str] = _NAME) -> Iterator[Use]:
    """
    Returns the folders that other processes have open, as far as this user sees them.

    Args:
        path: Finds a folder's user, version and key in its path; without it, that of groups.
    """
    own = os.getpid()
    for pid in _numbers("/proc"):
        if pid == own:
            continue
        for descriptor in _numbers(f"/proc/{pid}/fd"):
            link = f"/proc/{pid}/fd/{descriptor}"
            try:
                found = path.search(os.readlink(link))
            except OSError:
                continue
            if found is not None:
                yield Use(pid, link, *found.groups())


def _numbers(folder: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        # There is no /proc, it is another user's process, or it has ended.
        return []


def folder_of(settings: BackendSettings, key: bytes) -> Path:
    """Returns the folder of the sockets, which need not exist."""
    name = f"dwebsocket-{user_id()}-{_VERSION}-{key.hex()[:_KEY_LENGTH]}"
    parent = settings.runtime_dir or os.environ.get(VARIABLE) or _temporary()
    return Path(parent) / name


def with_hint(why: str) -> str:
    """Returns an error about sockets in a folder; on Linux they are reached through ``/proc``."""
    has_paths = sys.platform != "linux" or os.path.exists("/proc/self/fd")
    return why if has_paths else f"{why}: is /proc mounted?"


def _temporary() -> str:
    return _TEMPORARY if os.access(_TEMPORARY, os.W_OK) else tempfile.gettempdir()


def _is_open(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


class Backend(process.Backend):
    """
    Publishes to the other processes, too.

    Nothing here waits for another process, but for one that holds the history of a group.
    """

    medium = "folder"

    def __init__(self, alias: str, settings: BackendSettings) -> None:
        super().__init__(alias, settings)
        self._lock = unpatched.lock()
        self._node: _core.LocalNode | None = None
        self._look_at = 0.0
        self._are_apart = False

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
            raise self.unavailable(with_hint(error.strerror or str(error))) from error
        contract.at_exit(self.stop)
        self._start_reports()
        return node

    def processes(self) -> list[int]:
        """
        Returns the numbers of the other processes that share these groups now.

        Raises:
            GroupUnavailable: The folder cannot be used.
        """
        return sorted(self.node.processes())

    @property
    def is_of_copy(self) -> bool:
        """Whether this process belongs to a copy of the site, which is apart on purpose."""
        return not self.settings.runtime_dir and bool(os.environ.get(VARIABLE))

    def _note_if_apart(self) -> None:
        """Counts a message that no other process gets, although others of the site run here."""
        if self.node.peers():
            return
        now = clock.now()
        if now >= self._look_at and not self.is_of_copy:
            self._look_at = now + _LOOK_S
            # It reads what all processes of the user have open.
            if running_loop() is None:
                self._find_apart()
            else:
                submit(self._find_apart)
        if self._are_apart:
            # Two threads may count as one: it is no exact number.
            self.apart += 1

    def _find_apart(self) -> None:
        """Looks for processes with the same key in another folder."""
        name = self.folder.name
        apart = {
            use.pid
            for use in uses()
            if name.endswith(f"-{use.user}-{use.version}-{use.key}") and not use.is_of(self.folder)
        }
        if apart and not self._are_apart:
            _log.warning(
                "Groups of %r: processes of this site (%s) do not hear this one, whose folder is "
                "%s: `manage.py websocket_doctor` says why",
                *(self.alias, ", ".join(map(str, sorted(apart))), self.folder),
                extra={"event": "groups.apart"},
            )
        self._are_apart = bool(apart)

    def stop(self) -> None:
        """Sends what still waits for other processes, and leaves them. At the process's end."""
        if self._node is not None:
            self._node.stop(self.settings.timeout)

    def _publish(
        self, name: str, message: Message, exclude: Exclude, patience: Patience
    ) -> _core.Wait | None:
        if self.settings.kept(name) is not None:
            return super()._publish(name, message, exclude, patience)
        self._note_if_apart()
        return self._reported(self.node.publish, name, message, exclude)

    def _record(
        self,
        name: str,
        message: Message,
        exclude: Exclude,
        limits: tuple[int, float],
        patience: float | None,
    ) -> _core.Wait | None:
        self._note_if_apart()
        return self.node.record(self.history, name, message, exclude, limits, patience)

    def _new_history(self, most: int) -> _core.History:
        return self.node.history(most, self.settings.timeout)

    def _close(self, name: str, code: int, reason: str) -> _core.Wait | None:
        return self._reported(self.node.close, name, code, reason)

    def publish(self, name: str, envelope: bytes) -> None:
        """Delivers an envelope that is no message, in all processes."""
        self._insist(lambda _: self._reported(self.node.pass_on, name, envelope))

    async def apublish(self, name: str, envelope: bytes) -> None:
        await self._ainsist(lambda _: self._reported(self.node.pass_on, name, envelope))

    @property
    def event_publisher(self) -> _core.Groups | _core.LocalNode | None:
        return self.node

    def subscribe(self, name: str) -> None:
        """Makes this process a node: then it gets the messages of all groups."""
        self.node  # noqa: B018

    async def asubscribe(self, name: str) -> None:
        """Makes this process a node as :meth:`subscribe`, on another thread."""
        await self._start_elsewhere()

    def subscribe_soon(self, name: str) -> None:
        """Subscribes on another thread in an event loop: becoming a node may take a while."""
        if self._node is None and running_loop() is not None:
            submit(lambda: super(Backend, self).subscribe_soon(name))
        else:
            super().subscribe_soon(name)

    async def _ainsist(self, attempt: Attempt[T]) -> T:
        await self._start_elsewhere()
        return await super()._ainsist(attempt)

    async def acount(self, name: str) -> int:
        await self._start_elsewhere()
        return self.count(name)

    def gathering(self, name: str) -> Steps[list[_core.Member]]:
        """The users are those of all processes that use the folder."""
        yield Call(lambda: self.node, self._start_elsewhere)
        return self.presence.members(name)

    def count(self, name: str) -> int:
        """Returns the number of members; those of other processes as half a second ago."""
        return self.node.count(name)
