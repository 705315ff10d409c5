"""The backends of this process: one for each alias of ``WEBSOCKET_GROUPS``."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from dwebsocket import conf
from dwebsocket.compat import unpatched
from dwebsocket.compat.asyncio import running_loop
from dwebsocket.compat.django import is_in_test_environment
from dwebsocket.compat.system import NO_TAKEOVER, renew_at_fork
from dwebsocket.exceptions import UsageError
from dwebsocket.groups.backends.contract import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dwebsocket.conf.group_settings import BackendSettings

    Make = Callable[[str, BackendSettings], Backend]


# Settings name the backends of this package without this folder.
_OWN_PATH = re.compile(r"^dwebsocket\.groups\.(?=(local|postgres|process|redis)(\.|$))")
# Backends of one alias that are kept, more than settings lie over one another in any test.
_MOST = 8


class Backends:
    """Backends of this process, each made on first use."""

    def __init__(self, make: Make, *, make_for_tests: Make | None = None) -> None:
        """``make`` makes them; ``make_for_tests`` in a process that runs tests, if it is given."""
        self._lock = unpatched.lock()
        # Of each alias those used last, by settings: tests override these and go back.
        self._made: dict[tuple[str, BackendSettings], Backend] = {}
        self._latest: dict[str, Backend] = {}
        self._make = make
        self._make_for_tests = make_for_tests
        self._for_tests = None if make_for_tests is None else Backends(make_for_tests)

    def get(self, alias: str, now: conf.Snapshot | None = None) -> Backend:
        """Returns the backend of an alias: the work of :func:`backend`."""
        if self._for_tests is not None and is_in_test_environment():
            return self._for_tests.get(alias, now)
        settings = conf.get("GROUPS", now).get(alias)
        if settings is None:
            known = ", ".join(sorted(conf.get("GROUPS")))
            raise ImproperlyConfigured(
                f"WEBSOCKET_GROUPS has no backend {alias!r}; it has {known}."
            )
        latest = self._latest.get(alias)
        if latest is not None and latest.settings is settings:
            # Without the hash of all settings: each call on a group comes here.
            return latest
        backend = self._made.get((alias, settings))
        if backend is None or backend is not self._latest.get(alias):
            # Not under the lock: making one may import a library.
            made = self._make(alias, settings) if backend is None else backend
            backend = self._keep(alias, settings, made)
        return backend

    def _keep(self, alias: str, settings: BackendSettings, made: Backend) -> Backend:
        """Keeps a backend of an alias, unless there is one; drops the one not used for longest."""
        key = (alias, settings)
        with self._lock:
            backend = self._latest[alias] = self._made.get(key, made)
            others = [each for each in self._made if each[0] == alias and each != key]
            dropped = others[: len(others) + 1 - _MOST]
            kept = {each: self._made[each] for each in self._made if each not in (*dropped, key)}
            # Exchanged as a whole: others read it without the lock.
            self._made = {**kept, key: backend}
        return backend

    def clear(self) -> None:
        """Drops all of them. Each ends when nothing uses it any more."""
        with self._lock:
            self._made = {}
            self._latest.clear()

    def anew(self) -> Backends:
        """Returns others, which are made in the same way."""
        return Backends(self._make, make_for_tests=self._make_for_tests)

    def made(self, alias: str, now: conf.Snapshot | None = None) -> Backend | None:
        """Returns the backends that were made: the work of :func:`made`."""
        if self._for_tests is not None and is_in_test_environment():
            return self._for_tests.made(alias, now)
        settings = conf.get("GROUPS", now).get(alias)
        return None if settings is None else self._made.get((alias, settings))


def class_of(path: str) -> type[Backend]:
    """
    Returns the class of a backend.

    Args:
        path: The dotted path of a module with a class ``Backend``, or that of a class.

    Raises:
        ImportError: It cannot be imported.
        TypeError: It is no backend.
    """
    if NO_TAKEOVER and path == "dwebsocket.groups.local":
        # One process serves a site there.
        path = "dwebsocket.groups.process"
    path = _OWN_PATH.sub(r"\g<0>backends.", path)
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


def _make_for_tests(alias: str, settings: BackendSettings) -> Backend:
    """Makes one of this process: tests must not reach a site that runs on this machine."""
    return class_of("dwebsocket.groups.process")(alias, settings)


_backends = Backends(make, make_for_tests=_make_for_tests)


def backend(alias: str, now: conf.Snapshot | None = None) -> Backend:
    """
    Returns the backend of an alias, made on first use.

    Args:
        alias: The alias.
        now: The result of :func:`dwebsocket.conf.present`, if the caller has it.

    Raises:
        ImproperlyConfigured: There is no such alias, or its settings are invalid.
    """
    return _backends.get(alias, now)


def made(alias: str, now: conf.Snapshot | None = None) -> Backend | None:
    """Returns the backend of an alias if it was made, as :func:`backend`; makes none."""
    return _backends.made(alias, now)


def backend_for_sync(alias: str, twin: str) -> Backend:
    """
    Returns the backend of an alias for a sync call, whose async twin is ``twin``.

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


renew_at_fork(globals(), _backends=lambda: _backends.anew())
