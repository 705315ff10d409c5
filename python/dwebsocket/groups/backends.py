"""The backends of this process: one for each alias of ``WEBSOCKET_GROUPS``."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from dwebsocket import conf, unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.system import at_fork
from dwebsocket.exceptions import UsageError
from dwebsocket.groups.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.group_settings import BackendSettings

    Make = Callable[[str, BackendSettings], Backend]


class Backends:
    """Backends of this process, each made on first use."""

    def __init__(self, make: Make) -> None:
        """``make`` makes them."""
        self._lock = unpatched.lock()
        self._made: dict[tuple[str, BackendSettings], Backend] = {}
        self.make = make

    def get(self, alias: str) -> Backend:
        """As :func:`backend`."""
        settings = conf.get("GROUPS").get(alias)
        if settings is None:
            known = ", ".join(sorted(conf.get("GROUPS")))
            raise ImproperlyConfigured(
                f"WEBSOCKET_GROUPS has no backend {alias!r}; it has {known}."
            )
        key = (alias, settings)
        backend = self._made.get(key)
        if backend is None:
            # Not under the lock: making one may import a library.
            made = self.make(alias, settings)
            with self._lock:
                backend = self._made.setdefault(key, made)
        return backend

    def clear(self) -> None:
        """Drops all of them. Each ends when nothing uses it any more."""
        with self._lock:
            self._made.clear()

    def made(self, alias: str) -> Backend | None:
        """As :func:`made`."""
        settings = conf.get("GROUPS").get(alias)
        return None if settings is None else self._made.get((alias, settings))


def class_of(path: str) -> type[Backend]:
    """
    Gives the class of a backend.

    Args:
        path: The dotted path of a module with a class ``Backend``, or that of a class.

    Raises:
        ImportError: It cannot be imported.
        TypeError: It is no backend.
    """
    try:
        found: Any = import_module(path).Backend
    except (ImportError, AttributeError) as error:
        if isinstance(error, ImportError) and error.name not in (None, path):
            raise
        found = import_string(path)
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise TypeError(f"{path} is no subclass of dwebsocket.groups.Backend")
    return found


def make(alias: str, settings: BackendSettings) -> Backend:
    """
    Makes the backend that the settings of an alias name.

    Raises:
        ImproperlyConfigured: It cannot be imported, or is no backend.
    """
    try:
        found = class_of(settings.backend)
        if settings.history and not found.keeps_history:
            raise TypeError("it keeps no history of groups: remove HISTORY, or use the local one")
        if settings.presence and not found.keeps_presence:
            raise TypeError("it knows no users: remove PRESENCE, or use one that does")
        return found(alias, settings)
    except (ImportError, TypeError) as error:
        raise ImproperlyConfigured(
            f"WEBSOCKET_GROUPS[{alias!r}]['BACKEND'] = {settings.backend!r}: {error}"
        ) from error


_backends = Backends(make)


def backend(alias: str) -> Backend:
    """
    Gives the backend of an alias, made on first use.

    Raises:
        ImproperlyConfigured: There is no such alias, or its settings are invalid.
    """
    return _backends.get(alias)


def made(alias: str) -> Backend | None:
    """Gives the backend of an alias if it was made; makes none."""
    return _backends.made(alias)


def backend_for_sync(alias: str, twin: str) -> Backend:
    """
    Gives the backend of an alias for a sync call, whose async twin is ``twin``.

    Raises:
        ImproperlyConfigured: As :func:`backend`.
        UsageError: The call would block the event loop that runs in this thread.
    """
    found = backend(alias)
    if found.waits and running_loop() is not None:
        raise UsageError(
            f"this would block the event loop and all its views: use `await {twin}(…)`"
        )
    return found


@contextmanager
def swapped(others: Backends) -> Iterator[None]:
    """Lets all threads use ``others`` meanwhile."""
    global _backends
    before, _backends = _backends, others
    try:
        yield
    finally:
        _backends = before


def replaced(make: Make) -> AbstractContextManager[None]:
    """Lets ``make`` make all backends that are used meanwhile, by any thread. For tests."""
    return swapped(Backends(make))


def _forget_parents_backends() -> None:
    global _backends
    _backends = Backends(_backends.make)


at_fork(_forget_parents_backends)
