"""
Where the processes of a project meet: a folder with a Unix socket of each that can be an heir.

Its name depends on ``SECRET_KEY``, the settings' module, ``ROOT_URLCONF`` and the prefix of groups:
so only processes of the same project find each other. As that of local groups only its user can
enter it. The name of a socket has the moment at which its process was ready, the process, its
server, and its container: processes of several have the same numbers. The server is the process
that has started this one and others like it, or itself.
"""

from __future__ import annotations

import functools
import hmac
import os
import re
import stat
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.encoding import force_bytes

from dwebsocket.compat import unpatched
from dwebsocket.compat.socket import system
from dwebsocket.compat.system import flock, is_running, since_boot, user_id
from dwebsocket.conf.group_settings import DEFAULT
from dwebsocket.groups import backends
from dwebsocket.groups.backends import local

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

# Raised with the frames of `wire` and the names: other versions have folders of their own.
_VERSION = 7
_KEY_LENGTH = 20 if sys.platform == "linux" else 8
_BACKLOG = 128
# Digits of a moment, at the beginning of the names.
_STAMP = 20
#: The difference of processes whose folders have another key in their names; completes "they have".
OTHER_KEY = "another SECRET_KEY, PREFIX of groups, settings module or ROOT_URLCONF"
#: The path of a folder, with its user, version and key.
NAME = re.compile(r"/dwebsocket-(\d+)-h(\d+)-([0-9a-f]+)$")
# Files with other names are ignored.
_NAME_OF_ONE = re.compile(r"[0-9]{20}-[0-9]+-[0-9]+-[0-9]+\Z")
# The mark of a process that leaves.
_MARK = ".leaves"
# Processes that begin within that time are those of one reload.
_TOGETHER_NS = 10 * 10**9


def _now_ns() -> int:
    """Returns the present moment, for names. A clock that is set makes no process younger."""
    return int(since_boot() * 1e9)


@functools.cache
def _container() -> int:
    """Returns the number of the namespace in which this process has its own; 0 without such."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _mark_of(process: int) -> str:
    """Returns the name of the mark of a process of this container."""
    return f"{process}-{_container()}{_MARK}"


# The moment at which this process began to be one that others can find.
_born_at = _now_ns()


def folder() -> Path:
    """Returns the folder of this project's processes, which need not exist."""
    own = backends.backend(DEFAULT).settings
    module, urls = getattr(settings, "SETTINGS_MODULE", ""), settings.ROOT_URLCONF
    about = f"dwebsocket handover {own.prefix}\0{module}\0{urls}".encode()
    key = hmac.digest(force_bytes(settings.SECRET_KEY), about, "sha256")
    return local.folder_of(own, key).with_name(
        f"dwebsocket-{user_id()}-h{_VERSION}-{key.hex()[:_KEY_LENGTH]}"
    )


class Folder:
    """The open folder. Its path may come to mean another one; this one stays."""

    def __init__(self) -> None:
        """
        Opens it, made if it is missing.

        Raises:
            OSError: It cannot be, or another user may enter it.
        """
        try:
            self.path = folder()
        except ImproperlyConfigured as error:
            # System checks report it. Pages are served, and processes end, all the same.
            raise OSError(str(error)) from None
        with suppress(FileExistsError):
            self.path.mkdir(0o700)
        self._is_marked = False
        self._opened = _open(self.path)

    def close(self) -> None:
        """Closes it. The mark of this process is removed."""
        if self._is_marked:
            self.remove(_mark_of(os.getpid()))
        unpatched.close_descriptor(self._opened)

    def _address(self, name: str) -> str:
        if sys.platform == "linux":
            # The address of a socket has 107 bytes at most, whatever the path has.
            return f"/proc/self/fd/{self._opened}/{name}"
        return str(self.path / name)

    def listen(self, server: int) -> tuple[system.socket, str]:
        """
        Lets other processes connect to this one.

        Args:
            server: The number of this process's server.

        Returns:
            The socket that listens, and its name in the folder.

        Raises:
            OSError: The system refuses.
        """
        global _born_at
        _born_at = _now_ns()
        name = f"{_born_at:0{_STAMP}}-{os.getpid()}-{server}-{_container()}"
        # Other processes ignore this name. A socket refuses connections until it listens, as that
        # of a killed process does, and they remove the names of killed processes.
        unready = f"{name}.new"
        for process in self.marked():
            if process == os.getpid() or not is_running(process):
                # It was killed.
                self.remove(_mark_of(process))
        listener = _unix_socket()
        try:
            listener.bind(self._address(unready))
            listener.listen(_BACKLOG)
            os.rename(unready, name, src_dir_fd=self._opened, dst_dir_fd=self._opened)
        except BaseException:
            listener.close()
            self.remove(unready)
            raise
        return listener, name

    def remove(self, name: str) -> None:
        """Removes the name of a socket, if the system lets it: else it costs others a look each."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self._opened)

    def others(self, *, but: Container[str] = (), server: int | None = None) -> list[str]:
        """
        Returns the names of other processes, that of the youngest one first.

        Args:
            but: The names of those that are left out.
            server: One whose processes are left out, too.
        """
        found = []
        for name in sorted(filter(_NAME_OF_ONE.match, os.listdir(self._opened)), reverse=True):
            _, process, its_server = parts_of(name)
            if name not in but and process != os.getpid() and its_server != server:
                found.append(name)
        return found

    def elsewhere(self) -> list[str]:
        """Returns the names of processes in the folders of other projects and versions beside."""
        found: list[str] = []
        for path in self.path.parent.glob(f"dwebsocket-{user_id()}-h*"):
            # It may be another user's, or be removed meanwhile.
            with suppress(OSError):
                opened = _open(path)
                try:
                    if not os.path.sameopenfile(opened, self._opened):
                        found += filter(_NAME_OF_ONE.match, os.listdir(opened))
                finally:
                    unpatched.close_descriptor(opened)
        return found

    def mark(self) -> None:
        """
        Marks this process as one that leaves, until it closes the folder.

        Raises:
            OSError: The system refuses.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        name = _mark_of(os.getpid())
        unpatched.close_descriptor(os.open(name, flags, 0o600, dir_fd=self._opened))
        self._is_marked = True

    def marked(self) -> set[int]:
        """Returns the processes of this container that leave. Some may have been killed."""
        end = f"-{_container()}{_MARK}"
        names = (name.removesuffix(end) for name in os.listdir(self._opened) if end in name)
        return {int(name) for name in names if name.isdecimal()}

    def is_first(self) -> bool:
        """Whether this process is the first one that asks. It is, until it closes the folder."""
        try:
            return flock(self._opened)
        except OSError:
            # Not all file systems have locks. Then none waits for another one.
            return True

    def connect(self, names: list[str]) -> Iterator[tuple[str, system.socket]]:
        """Yields connections to processes, with their names. None while no descriptor is left."""
        for name in names:
            try:
                connection = _unix_socket()
            except OSError:
                return
            try:
                # A process that is stopped accepts nothing: with a full queue this would wait.
                connection.settimeout(0)
                connection.connect(self._address(name))
                connection.settimeout(None)
            except ConnectionRefusedError:
                # Its process was killed.
                connection.close()
                self.remove(name)
            except OSError:
                connection.close()
            else:
                if is_own(connection):
                    yield name, connection
                else:
                    connection.close()


def _open(path: Path) -> int:
    """
    Opens a folder, and returns its descriptor.

    Raises:
        OSError: It is none, or another user may enter it.
    """
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(opened)
    if found.st_uid != user_id() or stat.S_IMODE(found.st_mode) & 0o077:
        unpatched.close_descriptor(opened)
        raise PermissionError(f"{path} can be entered by other users: set RUNTIME_DIR")
    return opened


def newest(names: list[str], *, with_elders: bool) -> list[str]:
    """
    Returns the names of processes that are to get connections of this one, each its part of them.

    They began with the youngest one. Each process gets them in an order of its own.

    Args:
        names: Those of others, that of the youngest one first.
        with_elders: Whether processes that are older than this one will do if there are no others.
    """
    younger = [name for name in names if int(name[:_STAMP]) > _born_at]
    if not younger:
        return names if with_elders else []
    since = int(younger[0][:_STAMP]) - _TOGETHER_NS
    found = [name for name in younger if int(name[:_STAMP]) >= since]
    shift = os.getpid() % len(found)
    return found[shift:] + found[:shift]


def parts_of(name: str) -> tuple[float, int, int]:
    """
    Returns when a process began to listen (`since_boot`), its number, that of its server.

    Those of another container are negative: none of this one's are.
    """
    stamp, pid, server, container = map(int, name.split("-"))
    sign = 1 if container == _container() else -1
    return stamp / 1e9, sign * pid, sign * server


def _unix_socket() -> system.socket:
    """Returns a socket of the system, for threads of the system, also in a patched process."""
    made = system.socket(system.AF_UNIX, system.SOCK_STREAM)
    # A project may have set a limit for all new ones.
    made.settimeout(None)
    return made


def is_own(connection: system.socket) -> bool:
    """Whether the process at the other end acts as the same user, as far as the system tells."""
    if not hasattr(system, "SO_PEERCRED"):
        return True
    found = connection.getsockopt(system.SOL_SOCKET, system.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", found)
    return bool(user == user_id())
