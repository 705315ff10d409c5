"""
The world of a connection: what a project has entered around its code, and whose users it has.

Sites that serve several tenants need both. ``WEBSOCKET_CONTEXT`` gives a context manager for a
request; it is entered around all code of the project that runs for the request's connection, each
time on the thread that runs it. ``WEBSOCKET_REALM`` names the world in which the primary key of a
user means this user. Where they are not set, nothing here costs anything.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from dwebsocket import conf
from dwebsocket.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Generator, Iterator
    from typing import Protocol

    from django.http import HttpRequest

    class Resident(Protocol):
        """Something that belongs to a connection."""

        @property
        def world(self) -> World | None:
            """The connection's; None for one without."""

        @property
        def realm(self) -> str:
            """The realm of the connection's user."""

    R = TypeVar("R", bound=Resident)

T = TypeVar("T")

# It is part of the names of groups, which some servers limit.
_LONGEST_REALM = 100


class World:
    """The context that ``WEBSOCKET_CONTEXT`` makes for one request. Any thread may use it."""

    __slots__ = ("_hook", "_request")

    def __init__(self, hook: Callable[[HttpRequest], Any], request: HttpRequest) -> None:
        self._hook = hook
        self._request = request

    def entered(self) -> AbstractContextManager[Any]:
        """
        Returns a new context manager, not entered yet.

        Raises:
            ImproperlyConfigured: The project's function gives something else.
        """
        manager = self._hook(self._request)
        if not (hasattr(type(manager), "__enter__") and hasattr(type(manager), "__exit__")):
            if inspect.iscoroutine(manager):
                manager.close()
            raise ImproperlyConfigured(
                f"WEBSOCKET_CONTEXT: {_name(self._hook)} must give a context manager, "
                f"not {type(manager).__name__}."
            )
        entered: AbstractContextManager[Any] = manager
        return entered

    def around(self, function: Callable[..., T]) -> Callable[..., T]:
        """
        Returns a function that calls ``function`` within, on a thread that works for a coroutine.

        It is to be called in the context that the coroutine has given the thread. A context manager
        that is an async one, too, is still entered there: its context variables stay as they are.
        """

        def call(*args: Any, **kwargs: Any) -> T:
            manager = self.entered()
            with _beside(manager) if _is_async(manager) else manager:
                return function(*args, **kwargs)

        return call

    async def arun(self, make: Callable[[], Awaitable[T]]) -> T:
        """
        Awaits what ``make`` returns, within.

        A context manager that is an async one, too, is entered once. Others are entered for each
        step of the coroutine, from one pause to the next: what they set may belong to the thread,
        on which other tasks run meanwhile.
        """
        manager: Any = self.entered()
        if _is_async(manager):
            async with manager:
                return await make()

        async def run() -> T:
            return await make()

        found: T = await _Steps(self, run().__await__())
        return found


def _is_async(manager: object) -> bool:
    return hasattr(type(manager), "__aenter__")


@contextmanager
def _beside(manager: AbstractContextManager[Any]) -> Iterator[None]:
    """Enters a context manager for this thread, without the context variables that it sets."""
    own = copy_context()
    with ExitStack() as stack:
        own.run(manager.__enter__)
        stack.push(lambda *exception: own.run(manager.__exit__, *exception))
        yield


class _Steps:
    """Awaits a coroutine, each step of which runs within a world."""

    def __init__(self, world: World, steps: Generator[Any, Any, Any]) -> None:
        self._world = world
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._steps
        result: Any = None
        error: BaseException | None = None
        try:
            while True:
                awaited: Any = self
                with self._world.entered():
                    try:
                        awaited = steps.send(result) if error is None else steps.throw(error)
                    except StopIteration as stop:
                        return stop.value
                if awaited is self:
                    # The context manager has taken the exception: the coroutine has ended.
                    return None
                result = error = None
                try:
                    result = yield awaited
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    error = thrown
        finally:
            # After its end this does nothing.
            self._close()

    def _close(self) -> None:
        with ExitStack() as stack:
            with suppress(Exception):
                stack.enter_context(self._world.entered())
            self._steps.close()


def of(request: HttpRequest, now: conf.Snapshot) -> World | None:
    """
    Returns the world of a request; None where ``WEBSOCKET_CONTEXT`` is not set.

    Raises:
        ImproperlyConfigured: The setting is invalid, or its function gives no context manager.
        Exception: The function raises it.
    """
    hook = conf.get("CONTEXT", now)
    if hook is None:
        return None
    world = World(hook, request)
    # An error that is known now is the answer to the handshake.
    world.entered()
    return world


def entered(world: World | None) -> AbstractContextManager[Any]:
    """Returns a context manager that enters a world, or does nothing without one."""
    return nullcontext() if world is None else world.entered()


def entered_if_possible(world: World | None) -> AbstractContextManager[Any]:
    """Enters as :func:`entered`, without what fails to be entered: for reports of errors."""
    stack = ExitStack()
    if world is not None:
        with suppress(Exception):
            stack.enter_context(world.entered())
    return stack


def together(residents: Collection[R]) -> Iterator[tuple[World | None, list[R]]]:
    """
    Returns residents in parts that can be asked about at once, each with the world to be entered.

    Residents of one realm have one world. Without realms each has its own.
    """
    parts: dict[object, list[R]] = {}
    for each in residents:
        world = each.world
        key = None if world is None else (each.realm or id(world))
        parts.setdefault(key, []).append(each)
    for part in parts.values():
        yield part[0].world, part


# -- realms ----------------------------------------------------------------------------------------


def realm_of(request: HttpRequest, now: conf.Snapshot | None = None) -> str:
    """
    Returns the realm of a request's user; empty where ``WEBSOCKET_REALM`` is not set.

    Raises:
        ImproperlyConfigured: The setting is invalid, or its function names no realm.
        Exception: The function raises it.
    """
    hook = conf.get("REALM", now)
    if hook is None:
        return ""
    named = hook(request)
    if named is None:
        raise ImproperlyConfigured(
            f"WEBSOCKET_REALM: {_name(hook)} names no realm for a request: it gives None."
        )
    return _checked(named, f"WEBSOCKET_REALM: {_name(hook)}", ImproperlyConfigured)


def present_realm() -> str | None:
    """
    Returns the realm of the code that runs; None where it cannot be told, empty without the
    setting.

    Raises:
        ImproperlyConfigured: As :func:`realm_of`.
        Exception: The project's function raises it.
    """
    if conf.is_none("REALM"):
        return ""
    hook = conf.get("REALM")
    named = hook(None)
    if named is None:
        return None
    return _checked(named, f"WEBSOCKET_REALM: {_name(hook)}", ImproperlyConfigured)


def chosen_realm(realm: str | None, what: str) -> str:
    """
    Returns the realm that a caller names, or the one of the code that runs.

    Args:
        realm: The caller's argument; None for the present one.
        what: The call, for messages.

    Raises:
        TypeError, ValueError: No realm can have this name.
        UsageError: ``WEBSOCKET_REALM`` is not set, or the present one is not known.
        ImproperlyConfigured: As :func:`realm_of`.
    """
    if realm is None:
        if (found := present_realm()) is None:
            raise UsageError(
                f"{what} needs the realm of the user, which WEBSOCKET_REALM does not know "
                "here, without a request: name it, as realm=…"
            )
        return found
    if conf.is_none("REALM"):
        raise UsageError(f"{what} has a realm, but WEBSOCKET_REALM is not set")
    return _checked(realm, "realm", ValueError)


def _checked(realm: object, what: str, error: type[Exception]) -> str:
    if not isinstance(realm, str):
        kind = TypeError if error is ValueError else error
        raise kind(f"{what} must be a str, not {type(realm).__name__}")
    if not 1 <= len(realm) <= _LONGEST_REALM:
        raise error(f"{what} must have 1 to {_LONGEST_REALM} characters, not {len(realm)}")
    return realm


def user_key(user: object, realm: str) -> str:
    """
    Returns the name of a user among those of all realms, from the primary key.

    Without realms it is the key itself. A realm in it has no colon, so no two users share a name.
    """
    return f"{quote(realm, safe='')}:{user}" if realm else str(user)


def _name(hook: object) -> str:
    return f"{getattr(hook, '__module__', '')}.{getattr(hook, '__qualname__', repr(hook))}"
